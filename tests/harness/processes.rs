//! Processes, namespaces and cgroups as /proc and /sys show them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal};

/// All pids of the host.
pub(crate) fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// What /proc/PID/stat says.
#[derive(Debug, Clone)]
pub(crate) struct Stat {
    /// Its name, cut to 15 bytes by the kernel.
    pub(crate) program: String,
    /// R, S, D, T, Z, ...
    pub(crate) state: char,
    /// Its parent.
    pub(crate) parent: i32,
}

/// The state of a process, or nothing if there is none.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(')')?;
    let mut fields = tail.split_whitespace();
    Some(Stat {
        program: head.split_once('(')?.1.to_owned(),
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
    })
}

/// The process that holds the flock of a file, as /proc/locks says.
pub(crate) fn lock_holder(path: &Path) -> Option<i32> {
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).ok()?);
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let here = fields.get(5)?.rsplit(':').next()?.parse() == Ok(inode);
        if here && fields.get(1) == Some(&"FLOCK") { fields.get(4)?.parse().ok() } else { None }
    })
}

/// Whether a process runs; a zombie does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z' && stat.state != 'X')
}

/// Its arguments, joined by spaces.
pub(crate) fn arguments(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

/// Where one of its links points: `exe`, `cwd`, `root`, `ns/mnt`, ...
pub(crate) fn link(pid: i32, name: &str) -> Option<String> {
    Some(fs::read_link(format!("/proc/{pid}/{name}")).ok()?.to_string_lossy().into_owned())
}

/// Its living and dead children.
pub(crate) fn children(parent: i32) -> Vec<(i32, Stat)> {
    all()
        .into_iter()
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .filter(|(_, stat)| stat.parent == parent)
        .collect()
}

/// Everything that tells to whom a process belongs.
fn traces(pid: i32) -> String {
    let mut text = arguments(pid);
    for name in ["exe", "cwd", "root"] {
        text.push('\n');
        text.push_str(&link(pid, name).unwrap_or_default());
    }
    for name in ["cgroup", "environ"] {
        text.push('\n');
        text.push_str(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()));
    }
    text
}

/// All living processes that bear one of the marks (a path, a container id) in arguments, links, environment or cgroup.
pub(crate) fn bearing(marks: &[String]) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    all()
        .into_iter()
        .filter(|&pid| pid != own && is_alive(pid))
        .filter(|&pid| {
            let traces = traces(pid);
            marks.iter().any(|mark| traces.contains(mark.as_str()))
        })
        .collect()
}

/// One line for people.
pub(crate) fn describe(pid: i32) -> String {
    stat(pid).map_or_else(
        || format!("{pid} (gone)"),
        |stat| {
            let arguments = arguments(pid);
            format!("{pid} ({}) state {} parent {}: {arguments}", stat.program, stat.state, stat.parent)
        },
    )
}

/// Sends a signal; whether there was somebody to send it to.
pub(crate) fn signal(pid: i32, signal: Signal) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
}

/// One process of each distinct namespace of a kind (`mnt`, `net`), by inode.
pub(crate) fn namespaces(kind: &str) -> BTreeMap<String, i32> {
    let mut found = BTreeMap::new();
    for pid in all() {
        if let Some(name) = link(pid, &format!("ns/{kind}")) {
            found.entry(name).or_insert(pid);
        }
    }
    found
}

/// The mount table a process sees; empty when it is gone.
pub(crate) fn mount_lines(pid: i32) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

/// Descriptors of a process, counted by what they are: `socket`, `pipe`, `anon_inode:[eventpoll]`, a path.
/// 0, 1 and 2 are left out: they depend on who started it.
pub(crate) fn descriptors(pid: i32) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return found };
    for entry in entries.flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|text| text.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if number > 2 {
            let target = target.to_string_lossy().into_owned();
            let kind = match target.split_once(":[") {
                Some((kind @ ("socket" | "pipe"), _)) => kind.to_owned(),
                Some(_) | None => target,
            };
            *found.entry(kind).or_insert(0) += 1;
        }
    }
    found
}

/// Where each cgroup hierarchy is mounted in our namespace.
pub(crate) fn cgroup_roots() -> Vec<PathBuf> {
    mount_lines(i32::try_from(std::process::id()).unwrap_or(0))
        .iter()
        .filter_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            let kind = tail.split(' ').next()?;
            matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(head.split(' ').nth(4).unwrap_or("/")))
        })
        .collect()
}

/// All cgroup directories of mysup, in every hierarchy: what is below a directory named `mysup`.
pub(crate) fn cgroup_directories() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for root in cgroup_roots() {
        collect_cgroups(&root, 0, false, &mut found);
    }
    found
}

fn collect_cgroups(at: &Path, depth: usize, ours: bool, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(at) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if ours {
            found.insert(path.clone());
        }
        let named = entry.file_name().to_str().is_some_and(|name| name == mysup_ipc::layout::CGROUP_PARENT);
        if depth < 6 {
            collect_cgroups(&path, depth + 1, ours || named, found);
        }
    }
}

/// The cgroup of a process in the hierarchy that has `controller`, as a directory; the unified tree with `""`.
pub(crate) fn cgroup_of(pid: i32, controller: &str) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let below = |names: &str| {
        text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let found = parts.next()?;
            let path = parts.next()?;
            (found == names || (!names.is_empty() && found.split(',').any(|name| name == names)))
                .then(|| path.trim_start_matches('/').to_owned())
        })
    };
    for root in cgroup_roots() {
        let unified = root.join("cgroup.controllers").exists();
        let named = root.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if !unified && named.split(',').any(|name| name == controller) {
            return below(controller).map(|path| root.join(path));
        }
    }
    let unified = cgroup_roots().into_iter().find(|root| root.join("cgroup.controllers").exists())?;
    below("").map(|path| unified.join(path))
}
