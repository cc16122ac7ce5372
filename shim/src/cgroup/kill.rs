//! Killing everything in a container's cgroups. A pid is never trusted: it is pinned by a pidfd and its membership is
//! read again before the signal (the number may have been reused in between).

use rustix::process::{Pid, PidfdFlags, Signal};

use super::{Directory, freeze};
use crate::error::{Call, SysError};

/// Kills all that is in these cgroups and below them; returns who is left (a process in an uninterruptible call
/// cannot go). One that cannot be killed does not save the others.
pub(crate) fn kill_all(directories: &[Directory]) -> Result<Vec<u32>, SysError> {
    let killed: Vec<_> = directories.iter().map(kill).collect();
    let mut left = Vec::new();
    for directory in directories {
        left.extend(directory.processes()?);
    }
    left.sort_unstable();
    left.dedup();
    match killed.into_iter().collect() {
        Err(error) if !left.is_empty() => Err(error),
        Ok(()) | Err(_) => Ok(left),
    }
}

fn kill(directory: &Directory) -> Result<(), SysError> {
    if directory.processes()?.is_empty() {
        return Ok(());
    }
    // Linux 5.14: all at once, forks included. Version 1 hierarchies do not have the file.
    if directory.has("cgroup.kill") {
        return directory.write("cgroup.kill", "1");
    }
    let killed: Vec<_> = directory.processes()?.into_iter().map(|pid| kill_member(directory, pid)).collect();
    // What version 1 has frozen dies when it goes on.
    match directory.write(freeze::STATE, freeze::THAWED) {
        Err(error) if error.errno() != Some(rustix::io::Errno::NOENT) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    killed.into_iter().collect()
}

fn kill_member(directory: &Directory, pid: u32) -> Result<(), SysError> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let pidfd = match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        result => result.call(|| format!("pidfd_open({pid})"))?,
    };
    if !directory.processes()?.contains(&pid) {
        return Ok(());
    }
    match rustix::process::pidfd_send_signal(pidfd, Signal::KILL) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        result => result.call(|| format!("pidfd_send_signal({pid}, SIGKILL)")),
    }
}
