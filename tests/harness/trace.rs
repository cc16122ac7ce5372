//! Death at a chosen system call: strace kills a process just before its n-th call of a kind.
//!
//! The points are not written down by hand, since they would be wrong with the next change of the product. A clean life
//! is traced once; its calls are cut into equal parts and the first call of each part is a point. So the points are
//! spread over the whole life, whatever it consists of. Only the main thread is traced, which makes the count exact.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::{
    Sandbox,
    command::{self, Call, Client},
    wait_until,
};

/// Just before the `nth` call of `call` in a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Point {
    /// Name of the system call.
    pub(crate) call: String,
    /// Counted from 1.
    pub(crate) nth: usize,
}

/// Calls that have no effect outside the process: death at them is death at the next one that has.
const INNER: &[&str] = &[
    "brk",
    "mmap",
    "munmap",
    "mprotect",
    "madvise",
    "mremap",
    "futex",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "clock_gettime",
    "gettimeofday",
    "getpid",
    "gettid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "arch_prctl",
    "rseq",
    "set_tid_address",
    "set_robust_list",
    "prlimit64",
    "sigaltstack",
    "sched_getaffinity",
    "sched_yield",
    "getrandom",
    "restart_syscall",
    "poll",
    "ppoll",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "lseek",
    "fstat",
    "newfstatat",
];

/// The names of all system calls in strace's output, in order.
pub(crate) fn calls(log: &Path) -> Vec<String> {
    let text = fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| line.split_once('(').map(|(name, _)| name.to_owned()))
        .filter(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
        .collect()
}

/// `count` points spread evenly over the calls from `begin` on.
#[track_caller]
pub(crate) fn spread(calls: &[String], begin: usize, count: usize) -> Vec<Point> {
    let outer: Vec<usize> = (begin..calls.len()).filter(|at| !INNER.contains(&calls[*at].as_str())).collect();
    assert!(outer.len() >= count, "a life of only {} calls has no {count} points: {calls:?}", outer.len());
    (0..count)
        .map(|part| {
            let at = outer[part * outer.len() / count];
            let call = calls[at].clone();
            Point { nth: calls[..=at].iter().filter(|name| **name == call).count(), call }
        })
        .collect()
}

impl Point {
    /// strace's arguments that kill at this point.
    pub(crate) fn flags(&self) -> [String; 4] {
        let inject = format!("inject={}:signal=SIGKILL:when={}", self.call, self.nth);
        ["-e".to_owned(), format!("trace={}", self.call), "-e".to_owned(), inject]
    }
}

/// Starts a supervisor in the foreground under strace and waits until it answers.
#[track_caller]
pub(crate) fn supervisor(sandbox: &Sandbox, flags: &[String], log: &Path) -> Client {
    let program = command::program().to_string_lossy().into_owned();
    let log = log.to_string_lossy().into_owned();
    let mut arguments = vec!["-o".to_owned(), log];
    arguments.extend_from_slice(flags);
    arguments.extend([program, "start".to_owned(), "--foreground".to_owned()]);
    let mut call = Call::new(Path::new("strace"), arguments);
    for (name, value) in sandbox.environment() {
        call = call.env(name, value);
    }
    let mut client = call.start();
    sandbox.adopt_client(client.pid());
    wait_until("the traced supervisor answers, or is dead", || {
        !client.is_running() || sandbox.run_root().join(mysup_ipc::layout::SUPERVISOR_SOCKET).exists()
    });
    client
}

/// How many shims of a sandbox are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traced {
    /// Only the first that runs: what takes its place must live.
    First,
    /// All.
    Every,
}

/// Makes a `mysup` whose shim runs under strace with these flags, output in `log`; the shim stays the child of its starter.
/// Only `mysup-shim run` is traced: what finishes the work of a dead shim must live.
#[track_caller]
pub(crate) fn wrap_shim(sandbox: &Sandbox, flags: &[String], log: &Path, traced: Traced) {
    let (directory, real) = (sandbox.place("bin"), command::program().with_file_name("mysup-shim"));
    let once = directory.join("once");
    // Not there when no wrapper was made before.
    let _ = fs::remove_dir(&once);
    let chosen = match traced {
        Traced::First => format!("mkdir '{}' 2>/dev/null", once.display()),
        Traced::Every => "true".to_owned(),
    };
    let quoted: Vec<String> = flags.iter().map(|flag| format!("'{flag}'")).collect();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = run ] && {chosen} && exec strace -D -o '{}' {} '{real}' \"$@\"\nexec '{real}' \"$@\"\n",
        log.display(),
        quoted.join(" "),
        real = real.display(),
    );
    put_before_shim(sandbox, &script);
}

/// Every shim that adopts begins `seconds` late.
pub(crate) fn delay_adoption(sandbox: &Sandbox, seconds: u32) {
    let real = command::program().with_file_name("mysup-shim");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = adopt ] && sleep {seconds}\nexec '{real}' \"$@\"\n",
        real = real.display()
    );
    put_before_shim(sandbox, &script);
}

/// Uses a copy of `mysup` whose shim is this script.
fn put_before_shim(sandbox: &Sandbox, script: &str) {
    let directory = sandbox.place("bin");
    fs::create_dir_all(&directory).expect("the sandbox is ours");
    if !directory.join("mysup").exists() {
        fs::copy(command::program(), directory.join("mysup")).expect("mysup is built");
    }
    let wrapper = directory.join("mysup-shim");
    fs::write(&wrapper, script).expect("the sandbox is ours");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("the sandbox is ours");
    sandbox.use_program(directory.join("mysup"));
}
