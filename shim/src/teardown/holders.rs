//! Who keeps a mount busy. Peers leave their users to grep for it by hand.

use std::os::fd::{AsFd, BorrowedFd};

use mysup_ipc::teardown::Holder;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};

use crate::mountinfo;

/// Processes that have a root, working directory, program, open file or mapping on the mount `id`.
pub(crate) fn of_mount(proc: BorrowedFd<'_>, id: u64) -> Vec<Holder> {
    let own = std::process::id();
    pids(proc)
        .into_iter()
        .filter(|pid| *pid != own && holds(proc, *pid, id))
        .map(|pid| Holder { pid, program: program(proc, pid) })
        .collect()
}

/// A process by pid, with its name.
pub(crate) fn describe(proc: BorrowedFd<'_>, pid: u32) -> Holder {
    Holder { pid, program: program(proc, pid) }
}

/// All pids.
pub(crate) fn pids(proc: BorrowedFd<'_>) -> Vec<u32> {
    let Ok(entries) = Dir::read_from(proc) else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok()).collect()
}

fn holds(proc: BorrowedFd<'_>, pid: u32, mount: u64) -> bool {
    let is_on = |link: &str| {
        // Followed: these links lead to the object itself, not to a path.
        mountinfo::id_at(proc, link, AtFlags::empty()).is_ok_and(|id| id == mount)
    };
    ["cwd", "root", "exe"].iter().any(|name| is_on(&format!("{pid}/{name}")))
        || ["fd", "map_files"].iter().any(|directory| {
            let path = format!("{pid}/{directory}");
            names(proc, &path).iter().any(|name| is_on(&format!("{path}/{name}")))
        })
}

fn names(proc: BorrowedFd<'_>, path: &str) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::openat(proc, path, flags, Mode::empty()) else {
        return Vec::new();
    };
    let Ok(entries) = Dir::read_from(directory.as_fd()) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
        .filter(|name| !name.starts_with('.'))
        .collect()
}

fn program(proc: BorrowedFd<'_>, pid: u32) -> String {
    let mut buffer = [0; 64];
    let path = format!("{pid}/comm");
    let length = rustix::fs::openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|fd| rustix::io::read(&fd, &mut buffer))
        .unwrap_or(0);
    String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
}
