//! PID 1 of a container with `--init`: starts the program, passes signals on to it, reaps orphans, and leaves with the
//! program's code (128 + n for signal n), as tini does. Before it leaves it writes that code where a later shim or
//! supervisor finds it, for the case that none lives now.

use std::{
    os::fd::{AsFd, OwnedFd},
    os::unix::process::CommandExt,
    process::Command,
};

use mysup_ipc::init_status;
use nix::sys::{
    signal::{SigSet, SigmaskHow, sigprocmask},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags};

use crate::{reap, sys::process};

/// Runs a program and returns the code to leave with. `args` is what follows our own name: the number of the descriptor
/// for the program's end, and the program.
pub(crate) fn run(args: &[String]) -> u8 {
    let [number, args @ ..] = args else { return 128 };
    // For ps(1): we were started by a descriptor. Cannot fail for so short a name.
    let _ = rustix::thread::set_name(c"mysup-init");
    // From here on the program does not get it by inheritance, ...
    let Ok(Ok(status)) = number.parse().map(process::inherited) else { return 128 };
    // ... nor by /proc/1/fd, pidfd_getfd(2) or ptrace(2), even as root (who is given CAP_SYS_PTRACE can end us as he likes).
    if rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err() {
        return 128;
    }
    let all = SigSet::all();
    // Blocked before the fork, so that no signal is lost between; what is fatal to ourselves cannot be blocked anyway.
    if all.thread_block().is_err() {
        return 128;
    }
    match process::fork() {
        Ok(None) => execute(args),
        Ok(Some(child)) => {
            let code = supervise(child, &all);
            leave_behind(&status, code);
            code
        }
        Err(error) => {
            tracing::error!(%error, "fork");
            128
        }
    }
}

fn leave_behind(status: &OwnedFd, code: u8) {
    let bytes = init_status::ended_with(code);
    while rustix::io::pwrite(status, &bytes, 0) == Err(rustix::io::Errno::INTR) {}
}

/// In the child: becomes the program, or says why not, with a shell's codes.
fn execute(args: &[String]) -> u8 {
    // A new group in the foreground, so that the terminal's signals reach the program and not PID 1.
    // Without a terminal there is nothing to take.
    let _ = rustix::process::setpgid(None, None).and_then(|()| rustix::process::getpgid(None)).and_then(
        |group| {
            // SIGTTOU is blocked here, so that a background group may do this.
            rustix::termios::tcsetpgrp(rustix::stdio::stdin(), group)
        },
    );
    if sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).is_err() {
        return 128;
    }
    let Some((program, rest)) = args.split_first() else {
        return 127;
    };
    // The standard library's exec searches PATH and resets SIGPIPE.
    let error = Command::new(program).args(rest).exec();
    tracing::error!("exec: \"{program}\": {error}");
    if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
}

fn supervise(child: u32, signals: &SigSet) -> u8 {
    let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) else { return 128 };
    // The child is not reaped before this function ends, so the number is its own.
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return 128 };
    // Not sigwait(3) by names: real-time signals have none and are passed on too.
    let Ok(queue) = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC) else { return 128 };
    loop {
        let Ok(Some(signal)) = queue.read_signal() else { continue };
        let Ok(number) = u8::try_from(signal.ssi_signo) else { continue };
        if libc::c_int::from(number) == libc::SIGCHLD {
            while let Some((ended, status)) = reap::any_child() {
                if ended == child {
                    return status.shell_code();
                }
            }
        } else {
            // It may have ended already; SIGCHLD tells.
            let _ = process::send_signal(pidfd.as_fd(), number);
        }
    }
}
