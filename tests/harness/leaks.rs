//! The leak oracle: what is left of a sandbox, and of the whole suite.
//!
//! Tests run beside each other, so what is found must be attributed. Everything of a sandbox bears its directory's path or
//! the id of one of its containers: mounts in their source, options or target; processes in arguments, links, environment
//! or cgroup; sockets in their path; cgroups in their name. What bears neither is caught by [`Host`] at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use rustix::{mount::UnmountFlags, process::Signal};

use super::{
    holds_within, processes,
    random::Random,
    sandbox::{self, Sandbox},
    tree,
};

/// What a supervisor and its files look like when all containers are gone: measured on an instance that had one.
struct Idle {
    descriptors: BTreeMap<String, usize>,
    files: BTreeSet<String>,
}

fn idle() -> &'static Idle {
    static IDLE: OnceLock<Idle> = OnceLock::new();
    IDLE.get_or_init(|| {
        let sandbox = Sandbox::new("idle", Random::new(1, "idle"));
        sandbox.run(&["--rm"], &["true"]).expect_code(0);
        sandbox.ok(&["ps", "-a"]);
        let pid = sandbox.supervisor();
        let descriptors = descriptors(&sandbox, pid);
        sandbox.ok(&["shutdown", "--containers"]);
        let files = files(&sandbox);
        sandbox.sweep(false);
        Idle { descriptors, files }
    })
}

fn descriptors(sandbox: &Sandbox, pid: i32) -> BTreeMap<String, usize> {
    let mark = sandbox.mark();
    processes::descriptors(pid)
        .into_iter()
        .map(|(name, count)| match name.trim_end_matches(" (deleted)") {
            // The program of shims, held wherever it was found.
            shim if shim.ends_with("/mysup-shim") => ("mysup-shim".to_owned(), count),
            _ => (name.replace(&mark, "<sandbox>/"), count),
        })
        .collect()
}

/// Files under both roots; images and layers belong to the images, not to containers.
fn files(sandbox: &Sandbox) -> BTreeSet<String> {
    let below = |name: &str, root: &Path| {
        tree::paths(root, &["images", "layers"])
            .into_iter()
            .map(|path| format!("{name}/{path}"))
            .collect::<Vec<_>>()
    };
    let mut found = BTreeSet::from_iter(below("root", &sandbox.root()));
    found.extend(below("run-root", &sandbox.run_root()));
    found
}

/// Fails unless the supervisor, whose containers are all removed, has no children and no more descriptors than an idle one.
#[track_caller]
pub(crate) fn expect_idle_supervisor(sandbox: &Sandbox) {
    let pid = sandbox.supervisor();
    let usual = &idle().descriptors;
    let mut wrong = Vec::new();
    let clean = holds_within(Duration::from_secs(10), || {
        wrong.clear();
        let now = descriptors(sandbox, pid);
        for (kind, count) in &now {
            let before = usual.get(kind).copied().unwrap_or(0);
            if *count > before {
                wrong.push(format!(
                    "descriptors of the supervisor: {count} of {kind}, an idle one has {before}"
                ));
            }
        }
        for (child, stat) in processes::children(pid) {
            wrong.push(format!("child of the supervisor: {child} ({}) state {}", stat.program, stat.state));
        }
        wrong.is_empty()
    });
    assert!(clean, "the supervisor of removed containers is not idle:\n{}", wrong.join("\n"));
}

/// Fails unless each volume on the disk is one that is listed, whole, and not of a container that took it along. Removes them.
#[track_caller]
pub(crate) fn expect_no_volume_but_listed(sandbox: &Sandbox) {
    let volumes = sandbox.root().join(mysup_ipc::layout::VOLUMES);
    let mut wrong = Vec::new();
    let clean = holds_within(Duration::from_secs(10), || {
        let listed = sandbox.ok(&["volume", "ls", "-q"]);
        let listed: BTreeSet<&str> = listed.lines().collect();
        wrong = tree::paths(&volumes, &[]);
        wrong.retain(|path| match path.split_once('/') {
            None => !listed.contains(path.as_str()),
            Some((_, inner)) => inner.starts_with("_data.new") || inner.ends_with(".tmp"),
        });
        for name in listed {
            let record = fs::read_to_string(volumes.join(name).join(mysup_ipc::layout::VOLUME));
            if record.is_ok_and(|record| record.contains("\"ephemeral\": true")) {
                wrong.push(format!("{name} was to go with its container"));
            }
        }
        wrong.is_empty()
    });
    assert!(clean, "left among the volumes:\n{}", wrong.join("\n"));
    let listed = sandbox.ok(&["volume", "ls", "-q"]);
    let listed: Vec<&str> = listed.lines().collect();
    if !listed.is_empty() {
        sandbox.ok(&[&["volume", "rm"], &listed[..]].concat());
    }
}

/// Fails if anything of a sandbox is left after its shutdown.
#[track_caller]
pub(crate) fn expect_nothing_left(sandbox: &Sandbox) {
    let mut left = Vec::new();
    let clean = holds_within(Duration::from_secs(15), || {
        left = find(sandbox);
        left.is_empty()
    });
    assert!(clean, "left behind:\n{}", left.join("\n"));
}

/// Everything that is left of a sandbox.
pub(crate) fn find(sandbox: &Sandbox) -> Vec<String> {
    let ids = sandbox.ids();
    let mut marks = vec![sandbox.mark()];
    marks.extend(ids.iter().cloned());
    let processes = processes::bearing(&marks);
    let mut left: Vec<String> =
        processes.iter().map(|pid| format!("process {}", processes::describe(*pid))).collect();
    left.extend(mounts(&marks, &sandbox.place("")));
    left.extend(cgroups(&ids).iter().map(|path| format!("cgroup {}", path.display())));
    left.extend(sockets(&marks));
    let idle = &idle().files;
    left.extend(
        files(sandbox).into_iter().filter(|path| !idle.contains(path)).map(|path| format!("file {path}")),
    );
    left
}

/// Mounts in all namespaces. What a test itself mounted for a moment, at its own `places`, may be in the copy that a
/// stranger made of the host's table in that moment.
fn mounts(marks: &[String], places: &Path) -> Vec<String> {
    let own = processes::link(i32::try_from(std::process::id()).unwrap_or(0), "ns/mnt");
    let mut found = Vec::new();
    for (namespace, pid) in processes::namespaces("mnt") {
        let is_copy = |line: &str| {
            let target = line.split(' ').nth(4).unwrap_or("");
            own.as_ref() != Some(&namespace) && Path::new(target).starts_with(places)
        };
        for line in processes::mount_lines(pid) {
            if marks.iter().any(|mark| line.contains(mark.as_str())) && !is_copy(&line) {
                found.push(format!("mount in {namespace} (pid {pid}): {line}"));
            }
        }
    }
    found
}

fn cgroups(ids: &[String]) -> Vec<PathBuf> {
    let all = processes::cgroup_directories().into_iter();
    all.filter(|path| ids.iter().any(|id| path.to_string_lossy().contains(id.as_str()))).collect()
}

fn sockets(marks: &[String]) -> Vec<String> {
    let mut found = BTreeSet::new();
    for pid in processes::namespaces("net").into_values() {
        let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
        let ours = table.lines().filter(|line| marks.iter().any(|mark| line.contains(mark.as_str())));
        found.extend(ours.map(|line| format!("socket {line}")));
    }
    found.into_iter().collect()
}

/// Removes all of a sandbox by force: processes, mounts in our namespace, cgroups, files.
pub(crate) fn sweep(directory: &Path, ids: &[String], keep_files: bool) {
    let mut marks = vec![format!("{}/", directory.display())];
    marks.extend_from_slice(ids);
    holds_within(Duration::from_secs(10), || {
        let mut alive = processes::bearing(&marks);
        for path in cgroups(ids) {
            let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            alive.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        alive.iter().for_each(|pid| {
            processes::signal(*pid, Signal::KILL);
        });
        alive.is_empty()
    });
    let mut directories = cgroups(ids);
    directories.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    // A cgroup that stays shows in the comparison of the host at the end of the suite.
    directories.iter().for_each(|path| drop(fs::remove_dir(path)));
    let clean = holds_within(Duration::from_secs(5), || unmount_all(&marks[0]));
    if clean && !keep_files {
        remove(directory);
    }
}

/// Unmounts what is mounted below a path in our namespace; whether nothing is left.
fn unmount_all(mark: &str) -> bool {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let targets: Vec<String> = processes::mount_lines(own)
        .iter()
        .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
        .filter(|target| target.starts_with(mark))
        .collect();
    targets.iter().rev().for_each(|target| {
        // What cannot be unmounted is seen by the caller, who then removes no files.
        let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
    });
    targets.is_empty()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the caller has looked: nothing is mounted below, and all of it is ours"
)]
fn remove(directory: &Path) {
    // What cannot be removed stays in /tmp and harms no other test.
    let _ = fs::remove_dir_all(directory);
}

/// Removes the directory of the whole run.
pub(crate) fn remove_base() {
    let mark = format!("{}/", sandbox::base().display());
    if unmount_all(&mark) && std::env::var_os("MYSUP_TEST_KEEP").is_none() {
        remove(sandbox::base());
    }
}

/// Kills all processes of all sandboxes, when the suite gives up.
pub(crate) fn kill_everything() {
    let mark = format!("{}/", sandbox::base().display());
    processes::bearing(&[mark]).into_iter().for_each(|pid| {
        processes::signal(pid, Signal::KILL);
    });
}

/// What the whole host shows; compared before and after the suite.
pub(crate) struct Host {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    networks: BTreeMap<String, i32>,
}

impl Host {
    /// Looks now.
    pub(crate) fn now() -> Host {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        Host {
            mounts: processes::mount_lines(own).into_iter().collect(),
            cgroups: processes::cgroup_directories(),
            networks: processes::namespaces("net"),
        }
    }

    /// What is there now and was not there before, once things had time to settle.
    pub(crate) fn settled_difference(before: &Host) -> Vec<String> {
        // Others may use the host meanwhile: what counts is what was there at every look.
        let mut left = Host::now().beyond(before);
        holds_within(Duration::from_secs(10), || {
            let now = Host::now().beyond(before);
            left.retain(|line| now.contains(line));
            left.is_empty()
        });
        remove_base();
        left
    }

    fn beyond(&self, before: &Host) -> Vec<String> {
        let mut left: Vec<String> =
            self.mounts.difference(&before.mounts).map(|line| format!("mount {line}")).collect();
        let empty = |path: &&PathBuf| fs::read(path.join("cgroup.procs")).is_ok_and(|text| text.is_empty());
        let cgroups = self.cgroups.difference(&before.cgroups).filter(empty);
        left.extend(cgroups.map(|path| format!("cgroup {}", path.display())));
        let ids = sandbox::all_ids();
        let ours = |pid: i32| {
            let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            ids.iter().any(|id| text.contains(id.as_str()))
        };
        let networks =
            self.networks.iter().filter(|(name, pid)| !before.networks.contains_key(*name) && ours(**pid));
        left.extend(networks.map(|(name, pid)| format!("network namespace {name} of pid {pid}")));
        let base = format!("{}/", sandbox::base().display());
        left.extend(
            processes::bearing(&[base]).iter().map(|pid| format!("process {}", processes::describe(*pid))),
        );
        left
    }
}
