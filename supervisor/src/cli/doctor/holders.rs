//! Who keeps a mount busy, as the shim finds it: by the mount that a process' links lead to, never by a path.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use mysup_ipc::teardown::Holder;
use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::processes;

/// For each of these mounts the processes that have a root, working directory, program, open file or mapping on it.
pub(super) fn of_mounts(mounts: &BTreeSet<u64>) -> BTreeMap<u64, Vec<Holder>> {
    let mut found: BTreeMap<u64, Vec<Holder>> = BTreeMap::new();
    if mounts.is_empty() {
        return found;
    }
    let own = std::process::id();
    for pid in processes::pids().into_iter().filter(|pid| *pid != own) {
        let held = held_by(pid);
        for mount in held.intersection(mounts) {
            found.entry(*mount).or_default().push(Holder { pid, program: processes::program(pid) });
        }
    }
    found
}

fn held_by(pid: u32) -> BTreeSet<u64> {
    let single = ["cwd", "root", "exe"].iter().map(|name| format!("/proc/{pid}/{name}"));
    let listed = ["fd", "map_files"].iter().flat_map(|name| {
        let directory = format!("/proc/{pid}/{name}");
        fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().to_string_lossy().into_owned())
    });
    single.chain(listed).filter_map(|path| mount_of(&path)).collect()
}

/// Without a question to the file system: a FUSE server that does not answer must not hold us up.
fn mount_of(path: &str) -> Option<u64> {
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let status = rustix::fs::statx(CWD, path, flags, StatxFlags::MNT_ID).ok()?;
    Some(status.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_the_mount_of_its_root() {
        let root = mount_of("/").expect("the root is on a mount");
        assert!(held_by(std::process::id()).contains(&root));
    }
}
