//! A call that may never return, such as one on a file system whose server is silent, in a process of its own: only that
//! process hangs then (where the kernel waits, not even SIGKILL ends it), and the shim goes on.
//!
//! The process is a copy of the shim with no descriptor but those that its work needs. What it found comes as bytes, with at
//! most one descriptor.

use std::{
    cell::RefCell,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use mysup_ipc::fds;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    error::{Call, SysError},
    reap,
    sys::process::{self, Cloned},
};

/// How long a file system's server may take to say what stands at a path.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many calls may hang at the same time; each keeps a process.
const MOST: usize = 16;
/// No answer is longer.
const LONGEST: usize = 1 << 16;

/// Opens `path` by `work`, done aside with the descriptors in `keep`.
///
/// # Errors
/// Those of `work`, and `ETIMEDOUT` if a server does not answer in time.
pub(crate) fn open(
    path: &str,
    keep: &[BorrowedFd<'_>],
    work: impl FnOnce() -> Result<OwnedFd, SysError>,
) -> Result<OwnedFd, SysError> {
    let aside = Aside::start(keep, || match work() {
        // A descriptor rides with a byte.
        Ok(fd) => (vec![0], Some(fd)),
        Err(error) => (error.to_bytes(), None),
    })?;
    match aside.wait(PATIENCE)? {
        Some(Answer { descriptor: Some(fd), .. }) => Ok(fd),
        Some(Answer { bytes, .. }) => Err(SysError::from_bytes(&bytes)),
        None => {
            aside.abandon();
            let silence = io::Error::new(io::ErrorKind::TimedOut, "its file system does not answer");
            Err(silence).call(|| format!("open(\"{path}\")"))
        }
    }
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct Aside {
    pid: u32,
    pidfd: OwnedFd,
    answer: UnixStream,
}

/// What came of a call.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// What it said; nothing if its process died.
    pub(crate) bytes: Vec<u8>,
    /// What it opened.
    pub(crate) descriptor: Option<OwnedFd>,
}

impl Aside {
    /// Starts `work` in a copy of this process, which has of our descriptors only those in `keep`.
    pub(crate) fn start(
        keep: &[BorrowedFd<'_>],
        work: impl FnOnce() -> (Vec<u8>, Option<OwnedFd>),
    ) -> Result<Self, SysError> {
        if abandoned() >= MOST {
            let message = format!("{MOST} calls before this one have not returned");
            return Err(SysError::new("start a call aside", io::Error::other(message)));
        }
        let (answer, theirs) = UnixStream::pair().call(|| "socketpair()")?;
        answer.set_nonblocking(true).call(|| "fcntl(O_NONBLOCK)")?;
        match process::clone_into(0, None).call(|| "clone3()")? {
            Cloned::Parent { pid, pidfd } => Ok(Self { pid, pidfd, answer }),
            Cloned::Child => {
                // The lock above all: it says that the shim lives.
                let mut kept = keep.to_vec();
                kept.push(theirs.as_fd());
                process::keep_only(&kept);
                let (bytes, descriptor) = work();
                let descriptors: Vec<BorrowedFd<'_>> = descriptor.iter().map(AsFd::as_fd).collect();
                // Whoever asked may be dead, and then needs no answer.
                let _ = fds::send(theirs.as_fd(), &bytes[..bytes.len().min(LONGEST)], &descriptors);
                process::leave()
            }
        }
    }

    /// The process that may hang.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// What came of it, if that is known within `patience`.
    pub(crate) fn wait(&self, patience: Duration) -> Result<Option<Answer>, SysError> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.answer.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => return Ok(None),
                Ok(_) => return self.take().map(Some),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error).call(|| "poll()"),
            }
        }
    }

    fn take(&self) -> Result<Answer, SysError> {
        let mut bytes = vec![0; LONGEST];
        let mut descriptors = Vec::new();
        let count = fds::receive(self.answer.as_fd(), &mut bytes, &mut descriptors).call(|| "recvmsg()")?;
        bytes.truncate(count);
        // It leaves at once; if it is still on its way out, the supervisor reaps it after us.
        reap::status_of(self.pidfd.as_fd())?;
        Ok(Answer { bytes, descriptor: descriptors.pop() })
    }

    /// Does not wait for it any more. It ends when the kernel lets it, and is reaped before the next one is started.
    pub(crate) fn abandon(self) {
        // Fails only if it has ended.
        let _ = process::send_signal(self.pidfd.as_fd(), u8::try_from(libc::SIGKILL).unwrap_or(9));
        ABANDONED.with_borrow_mut(|all| all.push(self.pidfd));
    }
}

thread_local! {
    /// Calls that nobody waits for any more.
    static ABANDONED: RefCell<Vec<OwnedFd>> = const { RefCell::new(Vec::new()) };
}

/// Reaps what has ended of the abandoned, and counts the rest.
fn abandoned() -> usize {
    ABANDONED.with_borrow_mut(|all| {
        all.retain(|pidfd| matches!(reap::status_of(pidfd.as_fd()), Ok(None)));
        all.len()
    })
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn abandoned_calls_are_reaped_before_the_next() {
        for _ in 0..2 * MOST {
            let for_ever = || loop {
                std::thread::park();
            };
            Aside::start(&[], for_ever).expect("there is room for it").abandon();
            let deadline = Instant::now() + Duration::from_secs(30);
            while abandoned() > 0 {
                assert!(Instant::now() < deadline, "a killed process does not end");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn error_of_the_other_process_is_told() {
        let made = open("/x", &[], || Err(SysError::new("open(\"/x\")", Errno::NOENT)));
        let error = made.expect_err("it fails there");
        assert_eq!(error.errno(), Some(Errno::NOENT));
        assert_eq!(error.to_string(), "open(\"/x\")");
    }
}
