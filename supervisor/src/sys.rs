//! What std and tokio do not offer: locks, pidfds, the process' own attributes. The only file of the supervisor's
//! daemon that names nix or rustix, and the only one with unsafe code.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::stat::Mode,
};
use rustix::{
    process::{Resource, Rlimit, Signal, WaitOptions},
    rand::GetRandomFlags,
};
use tokio::io::{Interest, unix::AsyncFd};

/// The supervisor's lock: held from before recovery until the process ends. The file is never unlinked, or two
/// processes could hold a lock on two files of the same name.
#[derive(Debug)]
pub(crate) struct RunLock {
    _file: Flock<File>,
}

/// Why the lock was not given.
#[derive(Debug)]
pub(crate) enum LockRefusal {
    /// Another supervisor has it; what it wrote into the file.
    Held(String),
    /// The file system.
    Io(io::Error),
}

/// Takes the lock and writes the own pid into the file, for people.
pub(crate) fn lock(path: &Path) -> Result<RunLock, LockRefusal> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(LockRefusal::Io)?;
    let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => file,
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            // The pid is for the message only; an unreadable one leaves it out.
            let _ = (&mut file).take(32).read_to_string(&mut holder);
            return Err(LockRefusal::Held(holder.trim().to_owned()));
        }
        Err((_, errno)) => return Err(LockRefusal::Io(errno.into())),
    };
    file.set_len(0).map_err(LockRefusal::Io)?;
    writeln!(file, "{}", std::process::id()).map_err(LockRefusal::Io)?;
    Ok(RunLock { _file: file })
}

/// Whether a living process holds the exclusive flock on this file. The lock is tried and released at once.
pub(crate) fn is_locked(path: &Path) -> io::Result<bool> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits();
    let flags = i32::from_ne_bytes(no_follow.to_ne_bytes());
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        // Dropping it unlocks explicitly, also for a copy that a child between fork and exec may have.
        Ok(_file) => Ok(false),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// What the daemon sets for itself once, before its runtime starts. The old limit of open files is returned.
pub(crate) fn prepare_process() -> io::Result<OpenFilesLimit> {
    // Directory and volume modes are given explicitly; the mask of whoever started us must not change them.
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    // Below Linux 6.15 an orphaned init's status can only be had by being its parent.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let old = rustix::process::getrlimit(Resource::Nofile);
    // Each container costs two descriptors, each connection one.
    let raised = Rlimit { current: old.maximum, maximum: old.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files, continuing");
    }
    Ok(OpenFilesLimit { soft: old.current.unwrap_or(u64::MAX), hard: old.maximum.unwrap_or(u64::MAX) })
}

/// RLIMIT_NOFILE as the supervisor found it: containers get this one, not the supervisor's raised one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenFilesLimit {
    /// Soft limit.
    pub(crate) soft: u64,
    /// Hard limit.
    pub(crate) hard: u64,
}

impl OpenFilesLimit {
    /// The number of the resource, for `setrlimit(2)` in the container.
    pub(crate) const RESOURCE: u32 = 7;
}

/// Closes every descriptor above the standard ones that whoever started us left open: a daemon that kept the end of
/// somebody's pipe would keep its reader waiting for ever. To be called before anything of ours is open.
pub(crate) fn close_inherited() -> io::Result<()> {
    let mut numbers: Vec<RawFd> = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        numbers.extend(entry?.file_name().to_string_lossy().parse::<RawFd>());
    }
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // The listing's own descriptor is among them and closed by now: EBADF.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// Leaves the session of whoever started us, so that its terminal's signals do not reach us.
pub(crate) fn leave_session() {
    // Fails only for a process group leader, which has a terminal of its own or none.
    let _ = rustix::process::setsid();
}

/// Points standard output to /dev/null: the pipe to the starter must end.
pub(crate) fn silence_stdout() -> io::Result<()> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(null).map_err(io::Error::from)
}

/// A path to a socket in a directory that fits `sockaddr_un` (108 bytes, unix(7)) however long the directory's is. It
/// is good as long as the descriptor beside it is open.
pub(crate) fn short_socket_path(directory: &Path, name: &str) -> io::Result<(PathBuf, Option<File>)> {
    const LONGEST: usize = 107;
    let path = directory.join(name);
    if path.as_os_str().len() <= LONGEST {
        return Ok((path, None));
    }
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let flags = i32::from_ne_bytes(flags.bits().to_ne_bytes());
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(directory)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd())), Some(opened)))
}

/// Whether anybody listens at a socket. Never waits: with a full queue somebody does.
pub(crate) fn is_listened_at(path: &Path) -> io::Result<bool> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(rustix::io::Errno::AGAIN) => Ok(true),
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// A descriptor that stands for a file, and keeps it, without opening it.
pub(crate) fn open_path(path: &Path) -> io::Result<File> {
    let flags = i32::from_ne_bytes(rustix::fs::OFlags::PATH.bits().to_ne_bytes());
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Our effective user.
pub(crate) fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Checks that a directory of ours is owned by us and closed to everybody else.
pub(crate) fn is_private(directory: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::symlink_metadata(directory)?;
    Ok(found.is_dir() && found.uid() == effective_uid() && found.permissions().mode() & 0o077 == 0)
}

/// 32 bytes nobody can foresee.
pub(crate) fn random_bytes() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    let count = rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())?;
    // getrandom(2): up to 256 bytes are never cut short once the pool is ready.
    if count == bytes.len() { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // Enough until the year 2554.
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The kernel's release, `6.1.0-31-amd64`.
pub(crate) fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The number of a signal name without `SIG`, for those below the real-time ones.
pub(crate) fn signal_number(name: &str) -> Option<u8> {
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
    u8::try_from(signal as i32).ok()
}

/// Kills the process of a pidfd, which cannot be another one than it was made for.
pub(crate) fn kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::process::pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends any signal, the real-time ones included, to the process of a pidfd.
#[expect(unsafe_code, reason = "rustix knows no real-time signals")]
pub(crate) fn signal(pidfd: BorrowedFd<'_>, number: u8) -> io::Result<()> {
    use nix::libc;
    let (pidfd, number) = (pidfd.as_raw_fd(), libc::c_int::from(number));
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(2) with a null siginfo touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, number, none, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps the standard library from handling SIGSEGV and SIGBUS, by being called before it looks whether these have their
/// default. With its handler each new thread, tokio's too, maps a stack for signals, and where there is no memory for that
/// the process aborts (`make_handler` in std's `stack_overflow.rs`). So an overflow ends it without words.
#[cfg(not(test))]
#[used]
#[expect(unsafe_code, reason = "nothing else runs before the standard library's part of main")]
// SAFETY: the C library calls what is in this section before main, with arguments that a C function may ignore.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn ignore_faults() {
        set_faults(nix::sys::signal::SigHandler::SigIgn);
    }
    ignore_faults
};

/// The other half, at the beginning of main: what we start inherits what is ignored.
pub(crate) fn end_on_faults() {
    set_faults(nix::sys::signal::SigHandler::SigDfl);
}

#[expect(unsafe_code, reason = "sigaction(2)")]
fn set_faults(handler: nix::sys::signal::SigHandler) {
    use nix::sys::signal::{SaFlags, SigAction, SigSet, Signal, sigaction};
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: nobody relies on a handler: the old one is the default, or that of who started us. Cannot fail.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

/// Hears of the end of a pidfd's process: pidfd_open(2): it is readable then, and stays so.
#[expect(unsafe_code, reason = "tokio asks its callers to vouch for the descriptor")]
pub(crate) fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the AsyncFd owns the OwnedFd, which is open and gives the same number as long as it lives.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(io::Error::from)
}

/// The end of one child, if any has ended: its pid and the status word of wait(2). Inits whose shim died are children
/// too, because we are their subreaper.
pub(crate) fn reap_one() -> Option<(u32, i32)> {
    // ECHILD (no children at all) and "none has ended" are the same to the caller.
    let (pid, status) = rustix::process::wait(WaitOptions::NOHANG).ok()??;
    let pid = u32::try_from(pid.as_raw_nonzero().get()).ok()?;
    Some((pid, i32::from_ne_bytes(status.as_raw().to_ne_bytes())))
}

/// `struct pidfd_info` of its first version, include/uapi/linux/pidfd.h (KERNEL(6.13); exit_code since 6.15).
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    /// pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid
    ids: [u32; 11],
    exit_code: i32,
}

/// PIDFD_INFO_EXIT: asks for, and confirms, the exit code.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

mod request {
    nix::ioctl_readwrite!(pidfd_get_info, 0xff, 11, super::PidfdInfo);
}

/// A pidfd of the process `pid`, if that was started then, in clock ticks since the machine was (proc_pid_stat(5), field 22):
/// no other process of this boot has had both numbers.
pub(crate) fn pidfd_started_at(pid: u32, start: u64) -> Option<OwnedFd> {
    let number = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)?;
    let pidfd = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()).ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    (mysup_ipc::init_status::start_in(&stat) == Some(start)).then_some(pidfd)
}

/// A pidfd of the process `pid`, if that is in the cgroup of the container `id`, or in one that it has made below (it is
/// looked at after the pidfd was made, so a number that was reused does not matter).
pub(crate) fn pidfd_in_cgroup(pid: u32, id: &str) -> Option<OwnedFd> {
    let number = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)?;
    let pidfd = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()).ok()?;
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let own = format!("/{}/{id}", mysup_ipc::layout::CGROUP_PARENT);
    let below = format!("{own}/");
    cgroups.lines().any(|line| line.ends_with(&own) || line.contains(&below)).then_some(pidfd)
}

/// The status word of wait(2) of a process that has ended and was reaped, by anyone; `None` where the kernel does
/// not know it (below Linux 6.15, or not reaped yet).
#[expect(unsafe_code, reason = "nix has no wrapper of this ioctl")]
pub(crate) fn exit_of(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request's number carries size_of::<PidfdInfo>() (64, the kernel's first version), so the kernel writes
    // at most that many bytes into `info`, which lives until after the call; any bytes are valid in its integers.
    let answer = unsafe { request::pidfd_get_info(pidfd.as_raw_fd(), &raw mut info) };
    // ENOTTY, EINVAL: an older kernel; ESRCH: not reaped yet.
    answer.ok()?;
    (info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pidfd_info_has_the_size_of_its_first_version() {
        assert_eq!(size_of::<PidfdInfo>(), 64);
    }

    #[test]
    fn signal_names_are_known() {
        assert_eq!(signal_number("TERM"), Some(15));
        assert_eq!(signal_number("KILL"), Some(9));
        assert_eq!(signal_number("NONSENSE"), None);
    }

    #[test]
    fn a_lock_is_seen_while_it_is_held_and_not_after() {
        let path = std::env::temp_dir().join(format!("mysup-lock-{}", std::process::id()));
        assert!(!is_locked(&path).unwrap(), "no file, no lock");
        let held = lock(&path).unwrap();
        assert!(is_locked(&path).unwrap());
        match lock(&path) {
            Err(LockRefusal::Held(pid)) => assert_eq!(pid, std::process::id().to_string()),
            other => panic!("{other:?}"),
        }
        drop(held);
        assert!(!is_locked(&path).unwrap());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_socket_is_listened_at_as_long_as_somebody_does() {
        let path = std::env::temp_dir().join(format!("mysup-listened-{}", std::process::id()));
        assert!(!is_listened_at(&path).unwrap(), "no socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(is_listened_at(&path).unwrap());
        drop(listener);
        assert!(!is_listened_at(&path).unwrap());
        std::fs::remove_file(path).unwrap();
    }
}
