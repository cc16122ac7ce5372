//! PID 1 of a container with `--init`: starts the program, passes signals on to it, reaps orphans, and leaves with the
//! program's code (128 + n for signal n), as tini does.

use std::{os::unix::process::CommandExt, process::Command};

use mysup_ipc::exit::ExitStatus;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

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
    loop {
        let Ok(signal) = signals.wait() else { continue };
        if signal == Signal::SIGCHLD {
            while let Some((pid, status)) = reap::any_child() {
                if pid == child {
                    return code(status);
                }
            }
        } else if let Some(pid) = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw) {
            // The child is not reaped yet, so the number is its own.
            let number = signal as libc::c_int;
            if let Some(signal) = rustix::process::Signal::from_named_raw(number) {
                // It may have ended already; SIGCHLD tells.
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    status.shell_code()
}
