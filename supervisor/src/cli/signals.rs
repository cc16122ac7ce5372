//! The signals of an attached client: taken off the process and read as data, so that they can be passed on, and put
//! back at the end.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal},
    signalfd::{SfdFlags, SignalFd},
};

/// What stays with the process: what only concerns itself, and what the processor raises.
const NOT_TAKEN: [Signal; 9] = [
    Signal::SIGCHLD,
    Signal::SIGPIPE,
    Signal::SIGURG,
    Signal::SIGKILL,
    Signal::SIGSTOP,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
];

/// All other signals, as data. The process has its own signal mask back when this is dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Takes the signals.
    ///
    /// # Errors
    /// As sigprocmask(2) and signalfd(2).
    pub(crate) fn take() -> io::Result<Self> {
        let mut taken = SigSet::all();
        for signal in NOT_TAKEN {
            taken.remove(signal);
        }
        let before = taken.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        match SignalFd::with_flags(&taken, flags) {
            Ok(descriptor) => Ok(Self { descriptor, before }),
            Err(error) => {
                before.thread_set_mask()?;
                Err(error.into())
            }
        }
    }

    /// The number of the next signal, if one came.
    pub(crate) fn next(&self) -> Option<u8> {
        let signal = self.descriptor.read_signal().ok().flatten()?;
        u8::try_from(signal.ssi_signo).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Signals that came last are not to kill us while we say how the container ended.
        while self.next().is_some() {}
        // It was our mask before, so it is a valid one.
        let _ = self.before.thread_set_mask();
    }
}
