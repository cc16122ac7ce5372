//! Where bytes go out: a file, or a pipe whose reader may be slow.
//!
//! Never: a wait for a reader that cannot be ended.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use rustix::fs::OFlags;

use super::{audience::Meter, cancel::Cancel, error::ImageError};

/// What a client gave to be written to.
#[derive(Debug)]
pub(super) struct Outlet<'o> {
    file: File,
    cancel: &'o Cancel,
    meter: Meter,
}

impl<'o> Outlet<'o> {
    /// A pipe must be the client's own: it does not block any more, for anybody who has it.
    ///
    /// # Errors
    /// If it is nothing that can be written to from its beginning to its end.
    pub(super) fn new(descriptor: OwnedFd, cancel: &'o Cancel) -> Result<Self, ImageError> {
        let file = File::from(descriptor);
        let fault = |source| ImageError::system("look at", "the place for the archive", source);
        let kind = file.metadata().map_err(fault)?.file_type();
        if kind.is_fifo() {
            rustix::fs::fcntl_setfl(&file, OFlags::WRONLY | OFlags::NONBLOCK)
                .map_err(|errno| fault(errno.into()))?;
        }
        Ok(Self { file, cancel, meter: Meter::default() })
    }

    /// The same, whose filling this tells of.
    pub(super) fn metered(mut self, meter: Meter) -> Self {
        self.meter = meter;
        self
    }

    fn wait(&self) -> io::Result<()> {
        let mut watched = [
            PollFd::new(self.file.as_fd(), PollFlags::POLLOUT),
            PollFd::new(self.cancel.wake_descriptor(), PollFlags::POLLIN),
        ];
        nix::poll::poll(&mut watched, PollTimeout::NONE)?;
        Ok(())
    }
}

impl Write for Outlet<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            if self.cancel.is_cancelled() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            match self.file.write(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                Ok(count) => {
                    self.meter.add(count as u64);
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
