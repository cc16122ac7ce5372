//! The processes of this machine, and what each has of ours. Only looked at, never acted on: a pid in a finding is for
//! the person who reads it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use mysup_ipc::{id::ContainerId, layout, teardown::Holder};

use super::territory::{LockPlace, Territory};

/// The program of a shim.
const SHIM: &str = "mysup-shim";

/// One process.
#[derive(Debug, Clone)]
pub(super) struct Process {
    /// On the host.
    pub(super) pid: u32,
    /// Its name (comm).
    pub(super) program: String,
    /// Stopped by a signal: it does nothing until it is continued.
    pub(super) is_stopped: bool,
    /// PID 1 of a namespace of its own.
    pub(super) is_first: bool,
    /// Its program is `mysup-shim`.
    pub(super) is_shim: bool,
    /// Name of its mount namespace; empty where it cannot be seen.
    pub(super) namespace: String,
    /// The containers in whose cgroup it is, as far as names tell: of any instance.
    pub(super) cgroups: BTreeSet<ContainerId>,
    /// The locks of this instance's containers that it holds.
    pub(super) locks: Vec<(ContainerId, LockPlace)>,
    /// It holds the lock of this instance's supervisor.
    pub(super) is_supervisor: bool,
    /// Layers of this instance that it has open, by name.
    pub(super) layers: BTreeSet<String>,
    /// The directory it sweeps.
    pub(super) sweeps: Option<PathBuf>,
}

impl Process {
    /// For a finding.
    pub(super) fn holder(&self) -> Holder {
        Holder { pid: self.pid, program: self.program.clone() }
    }
}

/// All living processes but this one. One that ends meanwhile is left out.
pub(super) fn all(territory: &Territory) -> Vec<Process> {
    let own = std::process::id();
    pids().into_iter().filter(|pid| *pid != own).filter_map(|pid| read(pid, territory)).collect()
}

/// All pids.
pub(super) fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The name of a process.
pub(super) fn program(pid: u32) -> String {
    let text = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

fn read(pid: u32, territory: &Territory) -> Option<Process> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let state = state(&directory)?;
    if matches!(state, 'Z' | 'X') {
        return None;
    }
    let arguments = fs::read(directory.join("cmdline")).unwrap_or_default();
    let arguments: Vec<String> =
        arguments.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let is_shim = is_shim(&directory, arguments.first().map_or("", String::as_str));
    let sweeps = match &arguments[..] {
        [_, verb, trash, ..] if is_shim && verb == "sweep" => Some(PathBuf::from(trash)),
        _ => None,
    };
    let mut process = Process {
        pid,
        program: program(pid),
        is_stopped: state == 'T',
        is_first: is_first(&directory),
        is_shim,
        namespace: link(&directory.join("ns/mnt")),
        cgroups: cgroups(&directory),
        locks: Vec::new(),
        is_supervisor: false,
        layers: BTreeSet::new(),
        sweeps,
    };
    read_descriptors(&mut process, &directory, territory);
    Some(process)
}

/// proc_pid_stat(5): the state comes after the name, which may hold anything.
fn state(process: &Path) -> Option<char> {
    let text = fs::read(process.join("stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.rsplit_once(')')?.1.trim_start().chars().next()
}

/// By its first argument or by the file it runs. `mysup-init`, PID 1 of a container, is the same file and no shim.
fn is_shim(process: &Path, called: &str) -> bool {
    let is = |path: &str| Path::new(path).file_name().is_some_and(|name| name == SHIM);
    let exe = link(&process.join("exe"));
    is(called) || (!called.ends_with("mysup-init") && is(exe.strip_suffix(" (deleted)").unwrap_or(&exe)))
}

/// proc_pid_status(5): `NSpid` has one number for each nested namespace.
fn is_first(process: &Path) -> bool {
    let text = fs::read_to_string(process.join("status")).unwrap_or_default();
    let numbers = text.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    numbers.len() > 1 && numbers.last() == Some(&"1")
}

fn link(path: &Path) -> String {
    fs::read_link(path).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default()
}

fn cgroups(process: &Path) -> BTreeSet<ContainerId> {
    let text = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    text.lines().filter_map(|line| container_of_cgroup(line.splitn(3, ':').nth(2)?)).collect()
}

/// `/mysup/<id>` and what the container has made below it.
fn container_of_cgroup(path: &str) -> Option<ContainerId> {
    let parts: Vec<&str> = path.split('/').collect();
    parts.windows(2).find_map(|pair| match pair {
        [layout::CGROUP_PARENT, id] => id.parse().ok(),
        _ => None,
    })
}

fn read_descriptors(process: &mut Process, directory: &Path, territory: &Territory) {
    let Ok(entries) = fs::read_dir(directory.join("fd")) else { return };
    for entry in entries.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if !territory.holds(&target) {
            continue;
        }
        let locks = || holds_flock(&directory.join("fdinfo").join(entry.file_name()));
        if let Some(lock) = territory.lock(&target.to_string_lossy()) {
            if locks() {
                process.locks.push(lock);
            }
        } else if territory.below_run_root(&target) == Some(Path::new("lock")) {
            process.is_supervisor |= locks();
        } else if let Some(rest) = territory.below_root(&target)
            && let Ok(layer) = rest.strip_prefix("layers")
            && let Some(name) = layer.iter().next()
        {
            process.layers.insert(name.to_string_lossy().into_owned());
        }
    }
}

/// proc_pid_fdinfo(5): the locks of an open file. To look does not touch the lock: to try it, as flock(2) would, could
/// make a shim that starts at this moment fail.
fn holds_flock(fdinfo: &Path) -> bool {
    let text = fs::read_to_string(fdinfo).unwrap_or_default();
    let mut locks = text.lines().filter(|line| line.starts_with("lock:"));
    locks.any(|line| line.contains(" FLOCK ") && line.contains(" WRITE "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_below_mysup_tells_its_container() {
        let id = "ab".repeat(32);
        let of = |path: &str| container_of_cgroup(path).map(String::from);
        assert_eq!(of(&format!("/mysup/{id}")), Some(id.clone()));
        assert_eq!(of(&format!("/mysup/{id}/made/inside")), Some(id.clone()));
        assert_eq!(of(&format!("/other/{id}")), None);
        assert_eq!(of("/mysup"), None);
        assert_eq!(of("/"), None);
    }

    #[test]
    fn this_process_is_not_listed_and_its_parent_is() {
        let territory = Territory::of(&crate::config::Config {
            root: "/no/where".into(),
            run_root: "/no/where".into(),
            ..Default::default()
        });
        let all = all(&territory);
        assert!(all.iter().all(|process| process.pid != std::process::id()));
        assert!(all.iter().all(|process| !process.is_supervisor && process.locks.is_empty()));
        assert!(!all.is_empty());
    }
}
