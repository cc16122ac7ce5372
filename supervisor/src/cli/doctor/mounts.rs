//! The mounts of every mount namespace that a process is in, proc_pid_mountinfo(5).
//!
//! A namespace that only a descriptor or a bind of its file keeps cannot be read without entering it, and is not seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use mysup_ipc::{id::ContainerId, layout};

use super::{
    processes::Process,
    territory::{Overlay, Territory},
};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Unique while it exists, on the whole machine.
    pub(super) id: u64,
    /// What of its file system is mounted.
    pub(super) root: String,
    /// Where it is, as the process sees it through which it was read.
    pub(super) point: String,
    /// File system type.
    pub(super) kind: String,
    /// Options of the file system, as the kernel shows them: a comma in one is escaped.
    pub(super) options: String,
}

/// A mount namespace in which overlays of ours are.
#[derive(Debug, Clone)]
pub(super) struct Namespace {
    /// `mnt:[4026532281]`.
    pub(super) name: String,
    /// The process through which it was read.
    pub(super) seen_by: u32,
    /// All that is mounted in it.
    pub(super) mounts: Vec<Mount>,
    /// The overlays of ours in it.
    pub(super) overlays: Vec<(ContainerId, Mount)>,
}

/// What all namespaces hold of containers.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// With overlays of ours.
    pub(super) ours: Vec<Namespace>,
    /// Containers that have an overlay below another root.
    pub(super) foreign: BTreeSet<ContainerId>,
}

impl Namespaces {
    /// Reads each namespace once, through any process in it that can be read.
    pub(super) fn read(processes: &[Process], territory: &Territory) -> Self {
        let mut by_name: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for process in processes.iter().filter(|process| !process.namespace.is_empty()) {
            by_name.entry(&process.namespace).or_default().push(process.pid);
        }
        let mut found = Self::default();
        for (name, pids) in by_name {
            let read = pids.iter().map(|pid| (*pid, of_process(*pid)));
            if let Some((pid, mounts)) = read.into_iter().find(|(_, mounts)| !mounts.is_empty()) {
                found.take(name, pid, mounts, territory);
            }
        }
        found
    }

    fn take(&mut self, name: &str, seen_by: u32, mounts: Vec<Mount>, territory: &Territory) {
        let mut overlays = Vec::new();
        for mount in mounts.iter().filter(|mount| mount.kind == "overlay") {
            match territory.overlay(&mount.options) {
                Overlay::Ours(id) => overlays.push((id, mount.clone())),
                Overlay::OfAnotherInstance(id) => {
                    self.foreign.insert(id);
                }
                Overlay::Other => {}
            }
        }
        if !overlays.is_empty() {
            self.ours.push(Namespace { name: name.to_owned(), seen_by, mounts, overlays });
        }
    }
}

/// The mounts that a process sees; none if it is gone.
pub(super) fn of_process(pid: u32) -> Vec<Mount> {
    parse(&fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default())
}

/// The mounts of our own namespace.
pub(super) fn own() -> Vec<Mount> {
    of_process(std::process::id())
}

/// The directories `mysup/<id>` in every hierarchy that is mounted here, by container.
pub(super) fn cgroups(mounts: &[Mount]) -> BTreeMap<ContainerId, Vec<PathBuf>> {
    let mut seen = BTreeSet::new();
    let mut found: BTreeMap<ContainerId, Vec<PathBuf>> = BTreeMap::new();
    for mount in mounts.iter().filter(|mount| matches!(mount.kind.as_str(), "cgroup" | "cgroup2")) {
        let parent = Path::new(&mount.point).join(layout::CGROUP_PARENT);
        // One hierarchy may be mounted in many places.
        let is_new = fs::metadata(&parent).is_ok_and(|status| seen.insert((status.dev(), status.ino())));
        if !is_new {
            continue;
        }
        for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<ContainerId>().ok());
            if let Some(id) = id {
                found.entry(id).or_default().push(entry.path());
            }
        }
    }
    found
}

fn parse(text: &[u8]) -> Vec<Mount> {
    // Paths that are not UTF-8 cannot be ours; a lossy text of them only has to be different from ours.
    String::from_utf8_lossy(text).lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let id = fields.next()?.parse().ok()?;
    let root = unescape(fields.nth(2)?);
    let point = unescape(fields.next()?);
    let mut fields = after.split(' ');
    let kind = fields.next()?.to_owned();
    let options = fields.nth(1).unwrap_or_default().to_owned();
    Some(Mount { id, root, point, kind, options })
}

/// The kernel writes space, tab, newline, backslash, and in options the comma, as `\ooo`.
pub(super) fn unescape(text: &str) -> String {
    let mut pieces = text.split('\\');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let octal = piece.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&piece.as_bytes()[3..]);
            }
            None => {
                bytes.push(b'\\');
                bytes.extend_from_slice(piece.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes() {
        let line = "36 35 98:0 /a\\040b /mnt/x\\134y rw,noatime master:1 shared:2 - overlay none rw,upperdir=/q\\040r";
        let mount = parse_line(line).expect("valid");
        assert_eq!((mount.id, mount.root.as_str(), mount.point.as_str()), (36, "/a b", "/mnt/x\\y"));
        assert_eq!((mount.kind.as_str(), mount.options.as_str()), ("overlay", "rw,upperdir=/q\\040r"));
    }

    #[test]
    fn our_own_mounts_have_a_root() {
        assert!(own().iter().any(|mount| mount.point == "/"));
    }
}
