//! The only code of ours that runs between clone and exec.
//!
//! It is one straight line. It allocates nothing, takes no lock and logs nothing: everything it uses was made before the
//! clone. Whatever fails is told as eight bytes, step and error number, and the child leaves with `_exit`.
#![expect(unsafe_code, reason = "raw calls in a cloned child, where the standard library must not be used")]

use std::{
    ffi::{CStr, CString, c_char},
    os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
    thread::{CapabilitySet, CapabilitySets},
};

use super::report::{REPORT_SIZE, Step};
use crate::sys::mount::{Attributes, set_attributes};

/// One mount below the container's /sys/fs/cgroup.
pub(super) struct CgroupMount {
    /// `cgroup` or `cgroup2`.
    pub(super) kind: &'static CStr,
    /// Controllers of a version 1 hierarchy.
    pub(super) options: Vec<CString>,
    /// Name of its directory when there is more than one.
    pub(super) name: CString,
}

/// What the child does, all of it borrowed from the parent's memory of before the clone.
pub(super) struct ChildPlan<'a> {
    pub(super) sync: RawFd,
    pub(super) parent_end: RawFd,
    pub(super) lock: RawFd,
    pub(super) start: RawFd,
    pub(super) stdio: [RawFd; 3],
    pub(super) terminal: bool,
    pub(super) hostname: &'a CStr,
    pub(super) loopback: bool,
    pub(super) privileged: bool,
    pub(super) cgroups: &'a [CgroupMount],
    pub(super) rlimits: &'a [(u32, libc::rlimit)],
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: &'a [u32],
    pub(super) capabilities: u64,
    pub(super) no_new_privileges: bool,
    pub(super) cwd: &'a CStr,
    pub(super) candidates: &'a [CString],
    pub(super) argv: &'a [*const c_char],
    pub(super) envp: &'a [*const c_char],
    pub(super) own_init: Option<(RawFd, RawFd)>,
}

/// Runs in the child and does not come back.
pub(super) fn run(plan: &ChildPlan<'_>) -> ! {
    let (step, errno) = match set_up(plan) {
        Err(failure) => failure,
        Ok(()) => (Step::Exec, execute(plan)),
    };
    tell_successors(plan.start, step, errno);
    let mut report = [0; REPORT_SIZE];
    report[..4].copy_from_slice(&(step as u32).to_ne_bytes());
    report[4..].copy_from_slice(&errno.raw_os_error().to_ne_bytes());
    // docker's codes: a supervisor that only has our pidfd reads the same as the shim from the report.
    let code = match (step, errno) {
        (Step::Exec, Errno::NOENT | Errno::NOTDIR) => 127,
        (Step::Exec, _) => 126,
        _ => 128,
    };
    // SAFETY: write(2) reads REPORT_SIZE bytes that live on this stack; _exit(2) runs nothing of ours.
    unsafe {
        libc::write(plan.sync, report.as_ptr().cast(), REPORT_SIZE);
        libc::_exit(code)
    }
}

/// Leaves the reason where it outlives shim and supervisor.
fn tell_successors(start: RawFd, step: Step, errno: Errno) {
    let name = step.name();
    let number = errno.raw_os_error().to_le_bytes();
    // SAFETY: write(2) reads bytes of this stack and of the program's constants.
    unsafe {
        libc::write(start, number.as_ptr().cast(), number.len());
        libc::write(start, name.as_ptr().cast(), name.len());
    }
}

type Done = Result<(), (Step, Errno)>;

trait At {
    fn at(self, step: Step) -> Done;
}

impl At for Result<(), Errno> {
    fn at(self, step: Step) -> Done {
        self.map_err(|errno| (step, errno))
    }
}

fn set_up(plan: &ChildPlan<'_>) -> Done {
    leave_parent(plan);
    wait_for_release(plan).at(Step::Wait)?;
    rustix::process::setsid().map(drop).at(Step::Session)?;
    leave_keyring().at(Step::Keyring)?;
    // After the shim has moved us: what is our cgroup now is the root that the container sees.
    unshare_cgroup().at(Step::Cgroup)?;
    set_hostname(plan.hostname).at(Step::Hostname)?;
    if plan.loopback {
        bring_up_loopback().at(Step::Loopback)?;
    }
    enter_root().at(Step::Pivot)?;
    mount_kernel_filesystems(plan)?;
    if !plan.privileged {
        mask_paths().at(Step::Mask)?;
        protect_paths().at(Step::ReadOnly)?;
    }
    set_rlimits(plan).at(Step::Limits)?;
    take_stdio(plan)?;
    drop_privileges(plan).at(Step::Privileges)?;
    change_directory(plan.cwd).at(Step::Cwd)
}

/// Gives back what the clone copied: the lock that says the shim lives, the parent's end of our socket, and the
/// dispositions of signals (ignored ones survive exec; the standard library ignores SIGPIPE).
fn leave_parent(plan: &ChildPlan<'_>) {
    // SAFETY: numbers copied from the parent, each closed once; sigaction(2) and sigprocmask(2) read from this stack.
    unsafe {
        libc::close(plan.lock);
        libc::close(plan.parent_end);
        // Until exec nobody in the container may look into this copy of the shim (it is made dumpable again by exec).
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        // The kernel's own call: glibc's refuses signals 32 and 33, which whoever started us may ignore. Zero: SIG_DFL.
        let action = [0u64; 4];
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), std::ptr::null::<u64>(), 8usize);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::umask(0o022);
    }
}

fn wait_for_release(plan: &ChildPlan<'_>) -> Result<(), Errno> {
    let mut byte = 0u8;
    loop {
        // SAFETY: read(2) writes at most one byte into `byte`.
        let count = unsafe { libc::read(plan.sync, (&raw mut byte).cast(), 1) };
        match count {
            1 => return Ok(()),
            // The shim is dead: nothing may run that it does not watch.
            0 => return Err(Errno::PIPE),
            _ if last_errno() == Errno::INTR => {}
            _ => return Err(last_errno()),
        }
    }
}

fn last_errno() -> Errno {
    // SAFETY: errno of this thread.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// The result of a libc call that returns -1 on failure.
fn checked(result: libc::c_int) -> Result<(), Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Keys are not namespaced: without a session keyring of its own the container could read those of the supervisor's.
fn leave_keyring() -> Result<(), Errno> {
    // SAFETY: keyctl(2) with a null name makes an anonymous keyring and touches no memory.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<c_char>())
    };
    match if result < 0 { Err(last_errno()) } else { Ok(()) } {
        // A kernel without keys.
        Err(Errno::NOSYS) => Ok(()),
        result => result,
    }
}

fn unshare_cgroup() -> Result<(), Errno> {
    // SAFETY: touches no memory of ours.
    checked(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) })
}

fn set_hostname(name: &CStr) -> Result<(), Errno> {
    // SAFETY: sethostname(2) reads the bytes of `name`.
    checked(unsafe { libc::sethostname(name.as_ptr(), name.count_bytes()) })
}

fn bring_up_loopback() -> Result<(), Errno> {
    // SAFETY: socket(2) and close(2) with numbers only; an all-zero ifreq is valid, and the ioctl reads it.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return match last_errno() {
                // A kernel without IPv4 has no loopback to bring up.
                Errno::AFNOSUPPORT => Ok(()),
                errno => Err(errno),
            };
        }
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
        let outcome = checked(libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request));
        libc::close(socket);
        outcome
    }
}

/// pivot_root(2) into the mountpoint of the shim's namespace, of which this process has a copy.
fn enter_root() -> Result<(), Errno> {
    rustix::process::chdir(c"/mnt")?;
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

fn mount_kernel_filesystems(plan: &ChildPlan<'_>) -> Done {
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let guarded = if plan.privileged { safe } else { safe | MountAttrFlags::MOUNT_ATTR_RDONLY };
    mount_at(c"proc", &[], safe, CWD, c"/proc").at(Step::Proc)?;
    mount_at(c"sysfs", &[], guarded, CWD, c"/sys").at(Step::Sys)?;
    mount_cgroups(plan, safe, guarded).at(Step::CgroupMounts)?;
    match mount_at(c"mqueue", &[], safe, CWD, c"/dev/mqueue") {
        // A kernel without POSIX message queues.
        Err(Errno::NODEV) => Ok(()),
        result => result.at(Step::Mqueue),
    }
}

fn mount_cgroups(plan: &ChildPlan<'_>, safe: MountAttrFlags, guarded: MountAttrFlags) -> Result<(), Errno> {
    match plan.cgroups {
        [] => Ok(()),
        [only] => mount_at(only.kind, &only.options, guarded, CWD, c"/sys/fs/cgroup"),
        many => {
            let directory = new_mount(c"tmpfs", &[], safe)?;
            for mount in many {
                rustix::fs::mkdirat(&directory, mount.name.as_c_str(), Mode::from_raw_mode(0o755))?;
            }
            attach(&directory, CWD, c"/sys/fs/cgroup")?;
            for mount in many {
                mount_at(mount.kind, &mount.options, guarded, directory.as_fd(), &mount.name)?;
            }
            make_read_only(directory.as_fd(), false)
        }
    }
}

fn new_mount(kind: &CStr, options: &[CString], attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in options {
        rustix::mount::fsconfig_set_flag(context.as_fd(), option.as_c_str())?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches without following a link in the last part of `path`.
fn attach(mount: &OwnedFd, at: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    rustix::mount::move_mount(mount, c"", at, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn mount_at(
    kind: &CStr,
    options: &[CString],
    attributes: MountAttrFlags,
    at: BorrowedFd<'_>,
    path: &CStr,
) -> Result<(), Errno> {
    attach(&new_mount(kind, options, attributes)?, at, path)
}

fn make_read_only(mount: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, private: false, recursive };
    set_attributes(mount, attributes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// What tells of the host or steers it; docker's list with the later additions (rule R16).
const MASKED: [&CStr; 13] = [
    c"/proc/acpi",
    c"/proc/asound",
    c"/proc/interrupts",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/latency_stats",
    c"/proc/sched_debug",
    c"/proc/scsi",
    c"/proc/timer_list",
    c"/proc/timer_stats",
    c"/sys/devices/virtual/powercap",
    c"/sys/devices/virtual/thermal",
    c"/sys/firmware",
];

const PROTECTED: [&CStr; 5] = [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"];

/// Opens one of the paths above: in file systems that were just mounted, without links on the way.
fn open_kernel_path(path: &CStr) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn mask_paths() -> Result<(), Errno> {
    let mut empty: Option<OwnedFd> = None;
    for path in MASKED {
        let Some(target) = open_kernel_path(path)? else { continue };
        let status = rustix::fs::fstat(&target)?;
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            // The first is attached, the others are copies of it.
            let mount = match &empty {
                None => new_mount(c"tmpfs", &[], MountAttrFlags::MOUNT_ATTR_RDONLY)?,
                Some(first) => clone_mount(first.as_fd(), c"")?,
            };
            attach_on(&mount, &target)?;
            empty.get_or_insert(mount);
        } else {
            attach_on(&clone_mount(CWD, c"/dev/null")?, &target)?;
        }
    }
    Ok(())
}

fn protect_paths() -> Result<(), Errno> {
    for path in PROTECTED {
        let Some(target) = open_kernel_path(path)? else { continue };
        let copy = clone_mount(target.as_fd(), c"")?;
        make_read_only(copy.as_fd(), true)?;
        attach_on(&copy, &target)?;
    }
    Ok(())
}

fn clone_mount(at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(at, path, flags)
}

fn attach_on(mount: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags)
}

fn set_rlimits(plan: &ChildPlan<'_>) -> Result<(), Errno> {
    for (resource, limit) in plan.rlimits {
        // SAFETY: setrlimit(2) reads `limit`.
        checked(unsafe { libc::setrlimit(*resource, limit) })?;
    }
    Ok(())
}

fn take_stdio(plan: &ChildPlan<'_>) -> Done {
    // SAFETY: numbers of open descriptors that this process copied. They are all above 2: 0, 1 and 2 were taken at the
    // start of the shim, so dup2(2) of one does not close the next.
    unsafe {
        for (target, source) in (0..).zip(plan.stdio) {
            checked(libc::dup2(source, target)).at(Step::Stdio)?;
        }
        if plan.terminal {
            checked(libc::ioctl(0, libc::TIOCSCTTY, 0)).at(Step::Terminal)?;
        }
        // Whatever else is open, in this process or given by whoever started the supervisor, ends with exec.
        let flags = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).unwrap_or(0);
        checked(libc::close_range(3, libc::c_uint::MAX, flags)).at(Step::Stdio)
    }
}

fn drop_privileges(plan: &ChildPlan<'_>) -> Result<(), Errno> {
    // SAFETY: prctl(2) with numbers only; setgroups(2) reads `groups`. The raw calls change this one thread, which is all
    // there is; glibc's wrappers would signal other threads.
    unsafe {
        for capability in 0..64u64 {
            if plan.capabilities & 1 << capability == 0
                && libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0
            {
                match last_errno() {
                    // Beyond the last one this kernel knows.
                    Errno::INVAL => break,
                    errno => return Err(errno),
                }
            }
        }
        checked(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))?;
        let result = libc::syscall(libc::SYS_setgroups, plan.groups.len(), plan.groups.as_ptr());
        if result < 0 {
            return Err(last_errno());
        }
        if libc::syscall(libc::SYS_setresgid, plan.gid, plan.gid, plan.gid) < 0
            || libc::syscall(libc::SYS_setresuid, plan.uid, plan.uid, plan.uid) < 0
        {
            return Err(last_errno());
        }
    }
    // Inheritable stays empty (CVE-2022-24769). A user other than root has lost all of them with its id.
    let kept = if plan.uid == 0 { plan.capabilities } else { 0 };
    let kept = CapabilitySet::from_bits_retain(kept);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    if plan.no_new_privileges {
        rustix::thread::set_no_new_privs(true)?;
    }
    Ok(())
}

fn change_directory(path: &CStr) -> Result<(), Errno> {
    rustix::process::chdir(path)?;
    // A working directory that is not below our root was reached through something that leaked (CVE-2024-21626).
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    // SAFETY: getcwd(2) writes at most the buffer's length.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    if length < 1 || buffer[0] != b'/' { Err(Errno::ACCESS) } else { Ok(()) }
}

/// Tries each candidate as a shell does; returns only with an error.
fn execute(plan: &ChildPlan<'_>) -> Errno {
    // SAFETY: `argv` and `envp` are arrays of pointers to C strings that end with a null pointer, made in `spawn.rs`.
    unsafe {
        if let Some((executable, status)) = plan.own_init {
            libc::fcntl(status, libc::F_SETFD, 0);
            // Our reaper takes signals from a queue; one that comes before it is ready must wait there, not be dropped.
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
            let (argv, envp) = (plan.argv.as_ptr(), plan.envp.as_ptr());
            libc::syscall(libc::SYS_execveat, executable, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH);
            return last_errno();
        }
    }
    let mut failure = Errno::NOENT;
    for candidate in plan.candidates {
        // SAFETY: as above; the candidate is a C string.
        unsafe { libc::execve(candidate.as_ptr(), plan.argv.as_ptr(), plan.envp.as_ptr()) };
        match last_errno() {
            Errno::NOENT | Errno::NOTDIR => {}
            // Not this one, but a later one may do; if none does, this is the reason.
            Errno::ACCESS => failure = Errno::ACCESS,
            errno => return errno,
        }
    }
    failure
}
