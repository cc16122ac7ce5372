//! What is left of a container: everything that bears its id or lies below the engine's directory, and was not there before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{mount::UnmountFlags, process::Signal};

use super::{containerd::name_of, engine::Engine};
use crate::harness::{holds_within, processes, tree};

/// An engine may still be at work after its last command.
const SETTLED: Duration = Duration::from_secs(3);
/// Where the volumes of the cells are, below the engine's directory.
pub(crate) const VOLUMES: &str = "v";
/// The script has mounted an empty one.
const RUN: &str = "/run";
/// Below the root of a hierarchy; an engine's containers are two levels below it.
const CGROUP_DEPTH: usize = 4;

/// A look at processes, kernel and disk.
#[derive(Debug, Default)]
pub(crate) struct Look {
    mounts: BTreeMap<String, usize>,
    processes: BTreeSet<i32>,
    cgroups: BTreeSet<PathBuf>,
    paths: BTreeSet<PathBuf>,
}

/// What is new since an earlier look.
#[derive(Debug, Default, Clone)]
pub(crate) struct Left {
    /// Mounts, in whatever namespace a process has.
    pub(crate) mounts: Vec<String>,
    /// Living processes other than the daemon's.
    pub(crate) processes: Vec<String>,
    /// Cgroups, each hierarchy counted.
    pub(crate) cgroups: Vec<PathBuf>,
    /// Directories, files and sockets; what is below a new directory is not counted again.
    pub(crate) paths: Vec<PathBuf>,
}

impl Left {
    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.mounts.is_empty()
            && self.processes.is_empty()
            && self.cgroups.is_empty()
            && self.paths.is_empty()
    }

    /// One line for each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.mounts.iter().map(|line| format!("mount {line}")).collect();
        lines.extend(self.processes.iter().map(|line| format!("process {line}")));
        lines.extend(self.cgroups.iter().map(|path| format!("cgroup {}", path.display())));
        lines.extend(self.paths.iter().map(|path| format!("path {}", path.display())));
        lines
    }
}

impl Look {
    /// Looks now. `id` of the container if it is known.
    pub(crate) fn now(engine: &dyn Engine, place: &Path, id: Option<&str>) -> Look {
        let mut marks = vec![format!("{}/", place.display())];
        marks.extend(id.map(str::to_owned));
        let mut cgroups = BTreeSet::new();
        for root in processes::cgroup_roots() {
            collect_cgroups(&root, 0, &[name_of(place), id.unwrap_or("no id yet").to_owned()], &mut cgroups);
        }
        let own: BTreeSet<i32> = engine.daemon().iter().map(|process| process.pid).collect();
        let mut paths: BTreeSet<PathBuf> = tree::paths(place, &[engine.swept_later(), &[VOLUMES]].concat())
            .into_iter()
            .map(|path| place.join(path))
            .collect();
        // Engines have sockets and runtimes' state there, whatever their directory is; it is this run's own.
        paths.extend(tree::paths(Path::new(RUN), &[]).into_iter().map(|path| Path::new(RUN).join(path)));
        Look {
            mounts: mounts(&marks),
            processes: processes::bearing(&marks).into_iter().filter(|pid| !own.contains(pid)).collect(),
            cgroups,
            paths,
        }
    }

    /// What is here and was not there before.
    pub(crate) fn beyond(&self, before: &Look) -> Left {
        let mut mounts = Vec::new();
        for (line, count) in &self.mounts {
            let known = before.mounts.get(line).copied().unwrap_or(0);
            mounts.extend((known..*count).map(|_| line.clone()));
        }
        let processes = self.processes.difference(&before.processes);
        let new: BTreeSet<&PathBuf> = self.paths.difference(&before.paths).collect();
        let topmost =
            new.iter().filter(|path| path.parent().is_none_or(|parent| !new.contains(&parent.to_owned())));
        Left {
            mounts,
            processes: processes.map(|pid| processes::describe(*pid)).collect(),
            cgroups: self.cgroups.difference(&before.cgroups).cloned().collect(),
            paths: topmost.map(|path| (*path).clone()).collect(),
        }
    }
}

/// Mounts in every namespace, as "namespace: root target options - type source options", without the numbers that differ
/// from copy to copy.
fn mounts(marks: &[String]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for (namespace, pid) in processes::namespaces("mnt") {
        for line in processes::mount_lines(pid) {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                let fields: Vec<&str> = line.split(' ').skip(3).collect();
                *found.entry(format!("{namespace}: {}", fields.join(" "))).or_insert(0) += 1;
            }
        }
    }
    found
}

fn collect_cgroups(at: &Path, depth: usize, marks: &[String], found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let text = path.to_string_lossy().into_owned();
        if marks.iter().any(|mark| text.contains(mark.as_str())) {
            found.insert(path.clone());
        }
        if depth < CGROUP_DEPTH {
            collect_cgroups(&path, depth + 1, marks, found);
        }
    }
}

/// Waits until nothing is left, but not for ever; what is left then.
pub(crate) fn settled(engine: &dyn Engine, place: &Path, id: &str, before: &Look) -> Left {
    let mut left = Left::default();
    holds_within(SETTLED, || {
        left = Look::now(engine, place, Some(id)).beyond(before);
        left.is_empty()
    });
    left
}

/// Takes away by force what is left, so that it does not meet the next cell. Paths stay: they are known to the next look.
pub(crate) fn sweep(engine: &dyn Engine, place: &Path, id: &str, before: &Look) {
    holds_within(SETTLED, || {
        let now = Look::now(engine, place, Some(id));
        let mut new: Vec<i32> = now.processes.difference(&before.processes).copied().collect();
        for path in now.cgroups.difference(&before.cgroups) {
            let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            new.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        // All of this pid namespace was started by this run.
        for pid in &new {
            processes::signal(*pid, Signal::KILL);
        }
        new.is_empty()
    });
    let now = Look::now(engine, place, Some(id));
    let of_container = |path: &&&PathBuf| path.to_string_lossy().contains(id);
    let cgroups: Vec<&PathBuf> = now.cgroups.difference(&before.cgroups).collect();
    for path in cgroups.iter().rev().filter(of_container) {
        // A cgroup that stays is known to the next look, and removed by the script that started this.
        let _ = fs::remove_dir(path);
    }
    for line in now.beyond(before).mounts.iter().rev() {
        if let Some(target) = line.split(' ').nth(2) {
            // In another namespace it went with that namespace's last process.
            let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
        }
    }
}
