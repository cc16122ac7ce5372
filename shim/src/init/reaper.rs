//! PID 1 of a container with `--init`: starts the program, passes signals on to it, reaps orphans, and leaves with the
//! program's code (128 + n for signal n), as tini does.

use std::{os::fd::AsFd, os::unix::process::CommandExt, process::Command};

use nix::sys::{
    signal::{SigSet, SigmaskHow, sigprocmask},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::process::{Pid, PidfdFlags};

use crate::{reap, sys::process};

/// Runs the program `args` and returns the code to leave with. `args` is what follows our own name.
pub(crate) fn run(args: &[String]) -> u8 {
    let all = SigSet::all();
    // Blocked before the fork, so that no signal is lost between; what is fatal to ourselves cannot be blocked anyway.
    if all.thread_block().is_err() {
        return 128;
    }
    match process::fork() {
        Ok(None) => execute(args),
        Ok(Some(child)) => supervise(child, &all),
        Err(error) => {
            tracing::error!(%error, "fork");
            128
        }
    }
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
