//! Who keeps a mount busy. Peers leave their users to grep for it by hand.
//!
//! A look at other processes can hang with them (a process that waits for a silent server may keep its memory locked), so it
//! is done aside.

use std::{
    ffi::CString,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

use mysup_ipc::teardown::Holder;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};

use crate::{aside::Aside, mountinfo};

/// How long a look may take; thousands of processes need a part of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Processes that have a root, working directory, program, open file or mapping on one of the mounts `ids`; `None` if that
/// cannot be found out in time.
pub(crate) fn of_mounts(proc: BorrowedFd<'_>, ids: &[u64]) -> Option<Vec<Holder>> {
    let own = std::process::id();
    let work = || {
        let lines =
            look(proc, own, ids).into_iter().map(|Holder { pid, program }| format!("{pid} {program}\n"));
        (lines.collect::<String>().into_bytes(), None)
    };
    let aside = Aside::start(&[proc], work).ok()?;
    match aside.wait(PATIENCE) {
        Ok(Some(answer)) => Some(parse(&String::from_utf8_lossy(&answer.bytes))),
        Ok(None) | Err(_) => {
            tracing::warn!("who holds a mount cannot be found out in time, continuing");
            aside.abandon();
            None
        }
    }
}

fn parse(lines: &str) -> Vec<Holder> {
    let holder = |line: &str| {
        let (pid, program) = line.split_once(' ')?;
        Some(Holder { pid: pid.parse().ok()?, program: program.to_owned() })
    };
    lines.lines().filter_map(holder).collect()
}

/// In a copy of the process `own`.
fn look(proc: BorrowedFd<'_>, own: u32, ids: &[u64]) -> Vec<Holder> {
    let aside = std::process::id();
    let others: Vec<u32> = pids(proc).into_iter().filter(|pid| ![own, aside].contains(pid)).collect();
    let mut found: Vec<u32> = others.iter().copied().filter(|pid| holds(proc, *pid, ids)).collect();
    if found.is_empty() {
        // A call that waits on it holds it too, and no descriptor shows that: an aside of ours that never came back.
        let here = namespace(proc, own);
        found = others.into_iter().filter(|pid| here.is_some() && namespace(proc, *pid) == here).collect();
    }
    found.into_iter().map(|pid| describe(proc, pid)).collect()
}

/// A process' mount namespace.
fn namespace(proc: BorrowedFd<'_>, pid: u32) -> Option<CString> {
    rustix::fs::readlinkat(proc, format!("{pid}/ns/mnt"), Vec::new()).ok()
}

/// A process by pid, with its name.
pub(crate) fn describe(proc: BorrowedFd<'_>, pid: u32) -> Holder {
    Holder { pid, program: program(proc, pid) }
}

/// A process that has ended and is not reaped, and who traces it.
pub(crate) fn of_zombie(proc: BorrowedFd<'_>, pidfd: BorrowedFd<'_>) -> Option<(Holder, Option<Holder>)> {
    let pid = number_after(&text(proc, &format!("self/fdinfo/{}", pidfd.as_raw_fd())), "Pid:")?;
    let tracer = number_after(&text(proc, &format!("{pid}/status")), "TracerPid:").filter(|pid| *pid != 0);
    Some((describe(proc, pid), tracer.map(|pid| describe(proc, pid))))
}

fn number_after(text: &str, label: &str) -> Option<u32> {
    text.lines().find_map(|line| line.strip_prefix(label))?.trim().parse().ok()
}

/// All pids.
pub(crate) fn pids(proc: BorrowedFd<'_>) -> Vec<u32> {
    let Ok(entries) = Dir::read_from(proc) else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok()).collect()
}

fn holds(proc: BorrowedFd<'_>, pid: u32, mounts: &[u64]) -> bool {
    let is_on = |link: &str| {
        // Followed: these links lead to the object itself, not to a path.
        mountinfo::id_at(proc, link, AtFlags::empty()).is_ok_and(|id| mounts.contains(&id))
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
    text(proc, &format!("{pid}/comm")).trim_end().to_owned()
}

/// A short file of proc; empty if there is none.
fn text(proc: BorrowedFd<'_>, path: &str) -> String {
    let mut buffer = [0; 4096];
    let length = rustix::fs::openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|fd| rustix::io::read(&fd, &mut buffer))
        .unwrap_or(0);
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}
