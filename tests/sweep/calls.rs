//! The names of x86_64's system calls, in the order of their numbers, and what they never do.

use nix::errno::Errno;

/// From 0 on.
const LOW: &str = "\
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask \
    rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore \
    madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket \
    connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen getsockname getpeername socketpair \
    setsockopt getsockopt clone fork vfork execve exit wait4 kill uname semget semop semctl shmdt msgget \
    msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename \
    mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown lchown umask gettimeofday \
    getrlimit getrusage sysinfo times ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid \
    getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid \
    getpgid setfsuid setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo \
    rt_sigsuspend sigaltstack utime mknod uselib personality ustat statfs fstatfs sysfs getpriority \
    setpriority sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max \
    sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall vhangup modify_ldt \
    pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday mount umount2 \
    swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module delete_module \
    get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid \
    readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr \
    removexattr lremovexattr fremovexattr tkill time futex sched_setaffinity sched_getaffinity \
    set_thread_area io_setup io_destroy io_getevents io_submit io_cancel get_thread_area lookup_dcookie \
    epoll_create epoll_ctl_old epoll_wait_old remap_file_pages getdents64 set_tid_address restart_syscall \
    semtimedop fadvise64 timer_create timer_settime timer_gettime timer_getoverrun timer_delete \
    clock_settime clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes \
    vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify \
    mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get inotify_init \
    inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat \
    unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list \
    get_robust_list splice tee sync_file_range vmsplice move_pages utimensat epoll_pwait signalfd \
    timerfd_create eventfd fallocate timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2 \
    epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open recvmmsg \
    fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg \
    setns getcpu process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 \
    seccomp getrandom memfd_create kexec_file_load bpf execveat userfaultfd membarrier mlock2 \
    copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq";

/// From 424 on: the numbers that all architectures have in common.
const HIGH: &str = "\
    pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig \
    fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 \
    mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret \
    process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake \
    futex_wait futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal \
    setxattrat getxattrat listxattrat removexattrat open_tree_attr";

const FIRST_HIGH: usize = 424;

/// The name of a system call; one that is younger than this table is its number.
pub(crate) fn name(number: u64) -> String {
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let found = match number.checked_sub(FIRST_HIGH) {
        Some(number) => HIGH.split_whitespace().nth(number),
        None => LOW.split_whitespace().nth(number),
    };
    found.map_or_else(|| number.to_string(), str::to_owned)
}

/// Calls that are never made to fail, with the reason.
const NEVER_FAIL: &[(&str, &[&str])] = &[
    (
        "ends a process or a signal handler, the kernel gives no error",
        &["exit", "exit_group", "rt_sigreturn"],
    ),
    (
        "memory, threads and signals of the C library, which gives up by design or for which there is no such error",
        &[
            "arch_prctl",
            "brk",
            "futex",
            "madvise",
            "mprotect",
            "munmap",
            "restart_syscall",
            "rseq",
            "rt_sigaction",
            "rt_sigprocmask",
            "sched_yield",
            "set_robust_list",
            "set_tid_address",
            "sigaltstack",
        ],
    ),
    (
        "asks for a number that the kernel always has",
        &["getegid", "geteuid", "getgid", "getpid", "getppid", "gettid", "getuid", "umask"],
    ),
];

/// Calls that give only some of the errors, by their manual pages and the kernel's source: an event loop cannot go on
/// after an error that cannot be, and tokio and std say so by a panic. Nor do these give EAGAIN when something is there:
/// who waits for edges would wait for ever.
const ERRORS: &[(&[&str], &[Errno])] = &[
    (&["epoll_wait", "close", "recvfrom"], &[Errno::EINTR]),
    (&["recvmsg", "sendto", "sendmsg"], &[Errno::EINTR, Errno::ENOMEM]),
    // Of memory that is no file's.
    (&["mmap"], &[Errno::EAGAIN, Errno::ENOMEM]),
    (&["poll"], &[Errno::EAGAIN, Errno::EINTR, Errno::ENOMEM]),
    // Asked with GRND_INSECURE, or to wait.
    (&["getrandom"], &[Errno::EINTR, Errno::ENOSYS]),
    (&["accept4"], &[Errno::EINTR, Errno::EMFILE, Errno::ENOMEM, Errno::EPERM]),
];

/// What a new thread of this process may meet: clone(2). All the others are about namespaces, cgroups and descriptors.
pub(super) const OF_A_THREAD: &[Errno] = &[Errno::EAGAIN, Errno::ENOMEM];

/// What the first argument of a call is open on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'a> {
    /// As /proc shows it.
    pub(super) name: &'a str,
    /// Calls on it wait.
    pub(super) waits: bool,
}

/// Why a call never gives this error; without an object, whatever it is called on.
pub(super) fn reason_against(number: u64, on: Option<Object<'_>>, error: Errno) -> Option<&'static str> {
    if let Some(reason) = reason_not_to_fail(number) {
        return Some(reason);
    }
    let name = name(number);
    let only = ERRORS.iter().find(|(names, _)| names.contains(&name.as_str()));
    if only.is_some_and(|(_, errors)| !errors.contains(&error)) {
        return Some("this call never gives this error");
    }
    // The waker of an event loop, and the signals of one: what is written there is counted, or one byte.
    let wakes = on.is_some_and(|on| name == "write" && on.name.contains("[eventfd]"));
    // Nothing interrupts what does not wait (unix_stream_read_generic in the kernel); tokio counts on it.
    let instant = on.is_some_and(|on| name == "recvfrom" && !on.waits);
    (wakes || instant).then_some("this call never gives this error")
}

/// Why a call is never made to fail.
fn reason_not_to_fail(number: u64) -> Option<&'static str> {
    let name = name(number);
    NEVER_FAIL.iter().find(|(_, names)| names.contains(&name.as_str())).map(|(reason, _)| *reason)
}

/// How many calls at the beginning of a program belong to the loader, the C library and the runtime of Rust.
pub(super) fn before_main(calls: &[u64]) -> usize {
    /// Longer than any of these, shorter than the life of a victim.
    const HORIZON: usize = 80;
    let first = &calls[..calls.len().min(HORIZON)];
    // The runtime installs handlers for stack overflows, on a stack of their own; but not in the supervisor, which sets the
    // signals for these itself (`sys::end_on_faults`). The runtime looks at the standard descriptors before.
    let stack = first.iter().rposition(|number| name(*number) == "sigaltstack").map(|at| (at, 6));
    let looks = || first.iter().position(|number| name(*number) == "poll").map(|at| (at, 12));
    stack.or_else(looks).map_or(0, |(at, calls)| {
        let handlers = first[at..].iter().take(calls).rposition(|number| name(*number) == "rt_sigaction");
        at + handlers.map_or(0, |handlers| handlers + 1)
    })
}
