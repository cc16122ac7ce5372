//! Processes: clone3(2), namespaces, the descriptors a process is born with.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// What became of a clone.
pub(crate) enum Cloned {
    /// In the parent: the child and its pidfd.
    Parent {
        /// Its pid as seen here.
        pid: u32,
        /// Refers to this very process, whatever happens to the number.
        pidfd: OwnedFd,
    },
    /// In the child.
    Child,
}

/// Forks into new namespaces (`flags` are `CLONE_NEW*`), and into the version 2 cgroup `cgroup` when given.
///
/// The child has a copy of all memory. This process has one thread, so no lock can be held by another one at that
/// moment; the child must still not allocate (see `init/child.rs`).
pub(crate) fn clone_into(flags: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: an all-zero clone_args is valid: no flags, no stack (the child goes on on its copy of ours).
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::try_from(flags | libc::CLONE_PIDFD).unwrap_or(0);
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or(0);
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or(0);
    }
    // SAFETY: clone3(2) reads `args` and writes the pidfd before it returns in the parent; without CLONE_VM the child
    // works on a copy of this stack.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel has just made this descriptor for us (CLONE_PIDFD).
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid: u32::try_from(pid).unwrap_or(0), pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Linux 5.7, linux/sched.h; libc has it only as a 64-bit constant on some targets.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Leaves the mount namespace for a copy of it. Only sound for one thread, which a shim has.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: unshare(2) touches no memory of ours.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Enters a mount namespace; root and working directory become its root.
pub(crate) fn enter_mounts(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: setns(2) touches no memory of ours.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Forks without any new namespace; for the small reaper that runs as PID 1 with `--init`.
pub(crate) fn fork() -> io::Result<Option<u32>> {
    // SAFETY: this process has one thread; the child only resets signals and executes the program.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        pid if pid > 0 => Ok(Some(u32::try_from(pid).unwrap_or(0))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A descriptor that the process before us in this program's place left open for us; from here on it closes at exec. Only
/// to be asked for once, and before anything else is opened.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with numbers only.
    if number <= 2 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is open, as fcntl(2) just said, and nobody else in this process knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// In a copy of this process: closes all descriptors above 2 but these, and is deaf to signals that can be ignored, whose
/// handlers would write to descriptors that are closed.
pub(crate) fn keep_only(kept: &[BorrowedFd<'_>]) {
    let mut numbers: Vec<libc::c_uint> =
        kept.iter().filter_map(|fd| libc::c_uint::try_from(fd.as_raw_fd()).ok()).collect();
    numbers.sort_unstable();
    // SAFETY: both calls touch a signal set that lives on this stack.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
    let mut from = 3;
    for number in numbers.into_iter().chain([libc::c_uint::MAX]) {
        if from < number {
            // SAFETY: this process ends without using any descriptor that is closed here.
            unsafe { libc::close_range(from, number - 1, 0) };
        }
        from = from.max(number.saturating_add(1));
    }
}

/// Ends a copy of this process at once: nothing of ours is undone in it.
pub(crate) fn leave() -> ! {
    // SAFETY: _exit(2) runs nothing of ours.
    unsafe { libc::_exit(0) }
}

/// `struct pidfd_info` of its first version, include/uapi/linux/pidfd.h.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    /// pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid
    ids: [u32; 11],
    exit_code: i32,
}

/// Asks for, and confirms, the exit code.
const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xff, 11, struct pidfd_info)` with the 64 bytes of the first version.
const PIDFD_GET_INFO: libc::c_ulong = 3 << 30 | 64 << 16 | 0xff << 8 | 11;

/// The status word of wait(2) of a process that was reaped, by anyone. `None` if it was not reaped yet, or below
/// Linux 6.15, which does not tell.
pub(crate) fn exit_of(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request carries the size of `info`, so the kernel writes at most that; any bytes are valid in it.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Sends any signal, the real-time ones included, to exactly this process.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: u8) -> io::Result<()> {
    // SAFETY: pidfd_send_signal(2) with a null siginfo touches no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::c_int::from(signal),
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_request_carries_the_size_of_its_structure() {
        assert_eq!(size_of::<super::PidfdInfo>(), 64);
    }
}
