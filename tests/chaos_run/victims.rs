//! The processes of one instance of mysup, and their death. A process is held by a pidfd and looked at again before it is
//! hit, so that no stranger is.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::harness::{Sandbox, processes};

/// A process of ours.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: i32,
    pidfd: OwnedFd,
}

impl Process {
    /// Holds a process if it still is what `is_it` says.
    pub(crate) fn hold(pid: i32, is_it: impl Fn(i32) -> bool) -> Option<Process> {
        let pidfd = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        (is_it(pid) && processes::is_alive(pid)).then_some(Process { pid, pidfd })
    }

    /// Sends it a signal; whether it was there.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        rustix::process::pidfd_send_signal(&self.pidfd, signal).is_ok()
    }

    /// Whether it lives.
    pub(crate) fn is_alive(&self) -> bool {
        processes::is_alive(self.pid)
    }
}

fn program_is(pid: i32, name: &str) -> bool {
    let exe = processes::link(pid, "exe").unwrap_or_default();
    Path::new(exe.trim_end_matches(" (deleted)")).file_name().is_some_and(|file| file == name)
}

fn has_open(pid: i32, below: &str) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target.to_string_lossy().starts_with(below))
}

/// The supervisors of an instance: one, or a second one that is about to find the lock taken.
pub(crate) fn supervisors(sandbox: &Sandbox) -> Vec<Process> {
    let root = sandbox.root().to_string_lossy().into_owned();
    let is_it = |pid: i32| {
        let arguments = processes::arguments(pid);
        program_is(pid, "mysup") && arguments.ends_with("start --foreground") && arguments.contains(&root)
    };
    let all = processes::all().into_iter();
    all.filter(|pid| is_it(*pid)).filter_map(|pid| Process::hold(pid, is_it)).collect()
}

/// All shims of an instance, whatever they do: their standard error is the supervisor's log.
pub(crate) fn shims(sandbox: &Sandbox) -> Vec<Process> {
    let mark = sandbox.mark();
    let is_it = |pid: i32| program_is(pid, "mysup-shim") && has_open(pid, &mark);
    let all = processes::all().into_iter();
    all.filter(|pid| is_it(*pid)).filter_map(|pid| Process::hold(pid, is_it)).collect()
}

/// The shim that holds the lock of a container.
pub(crate) fn shim(directory: &Path) -> Option<Process> {
    let lock = directory.join("lock");
    // /proc/locks tells the inode, which another file system may have, too.
    let is_it = |pid: i32| program_is(pid, "mysup-shim") && has_open(pid, &lock.to_string_lossy());
    Process::hold(processes::lock_holder(&lock)?, is_it)
}

/// The first process of a container, held or running: PID 1 of a namespace below a cgroup of its name.
pub(crate) fn init(id: &str) -> Option<Process> {
    let is_it = |pid: i32| {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let first = |line: &str| {
            line.starts_with("NSpid:") && line.split_whitespace().count() > 2 && line.ends_with("\t1")
        };
        read("cgroup").contains(id) && read("status").lines().any(first)
    };
    let all = processes::all().into_iter();
    all.filter(|pid| is_it(*pid)).find_map(|pid| Process::hold(pid, is_it))
}

/// The directory of a container by its name, as its record says.
pub(crate) fn directory(sandbox: &Sandbox, name: &str) -> Option<PathBuf> {
    let wanted = format!("\"name\": \"{name}\"");
    let entries = fs::read_dir(sandbox.root().join(mysup_ipc::layout::CONTAINERS)).ok()?;
    entries.flatten().map(|entry| entry.path()).find(|path| {
        let record = fs::read(path.join(mysup_ipc::layout::CONFIG)).unwrap_or_default();
        String::from_utf8_lossy(&record).contains(&wanted)
    })
}
