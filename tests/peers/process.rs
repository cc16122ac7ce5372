//! Processes that may be killed: held by a pidfd and looked at after that, so that no stranger is hit.

use std::{fs, os::fd::OwnedFd, path::Path};

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::harness::processes;

/// A process that is held.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: i32,
    pidfd: OwnedFd,
}

impl Process {
    fn hold(pid: i32, is_it: impl Fn(i32) -> bool) -> Option<Process> {
        let pidfd = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        (is_it(pid) && processes::is_alive(pid)).then_some(Process { pid, pidfd })
    }

    /// Kills it; whether it was there.
    pub(crate) fn kill(&self) -> bool {
        rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL).is_ok()
    }

    /// Whether it lives.
    pub(crate) fn is_alive(&self) -> bool {
        processes::is_alive(self.pid)
    }
}

/// All processes whose program has this file name and whose arguments have the mark.
pub(crate) fn with(program: &str, mark: &str) -> Vec<Process> {
    let is_it = |pid: i32| {
        let exe = processes::link(pid, "exe").unwrap_or_default();
        let file = Path::new(exe.trim_end_matches(" (deleted)")).file_name();
        file.is_some_and(|file| file == program) && processes::arguments(pid).contains(mark)
    };
    let all = processes::all().into_iter();
    all.filter(|pid| is_it(*pid)).filter_map(|pid| Process::hold(pid, is_it)).collect()
}

/// Who holds the lock of a file, if that is such a program.
pub(crate) fn holder(lock: &Path, program: &str) -> Option<Process> {
    let is_it = |pid: i32| processes::link(pid, "exe").is_some_and(|exe| exe.ends_with(program));
    Process::hold(processes::lock_holder(lock)?, is_it)
}

/// The first process of a container: PID 1 of a namespace, in a cgroup with its id.
pub(crate) fn first(id: &str) -> Option<Process> {
    let is_it = |pid: i32| {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let one = |line: &str| {
            line.starts_with("NSpid:") && line.split_whitespace().count() > 2 && line.ends_with("\t1")
        };
        read("cgroup").contains(id) && read("status").lines().any(one)
    };
    let all = processes::all().into_iter();
    all.filter(|pid| is_it(*pid)).find_map(|pid| Process::hold(pid, is_it))
}

/// Kills them all, then waits until they are dead.
pub(crate) fn kill(victims: &[Process]) {
    for victim in victims {
        victim.kill();
    }
    crate::harness::wait_until("the killed are dead", || !victims.iter().any(Process::is_alive));
}
