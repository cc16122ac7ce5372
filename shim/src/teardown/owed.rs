//! The exit record, until it is on disk. Its room was made before the program was started; what can keep it from being
//! written all the same (a disk that fails or has become read-only) is waited for, and the run directory stays meanwhile.

use std::os::fd::{AsFd, OwnedFd};

use mysup_ipc::{
    exit::ExitReport,
    layout,
    point::{self, Step},
    record::{self, Durability},
};

use crate::error::{Call, SysError};

/// Room for any report of a program that ran: only that of a failed start has a long text.
const ROOM: usize = 4096;

/// A record that is owed to the user, or none.
#[derive(Debug, Default)]
pub(crate) struct OwedRecord(Option<(OwnedFd, ExitReport)>);

impl OwedRecord {
    /// Makes room for it in a container's state directory: an end costs no space.
    pub(crate) fn reserve(state: &OwnedFd) -> Result<(), SysError> {
        record::reserve(state.as_fd(), layout::EXIT, ROOM).call(|| "make room for the exit record")
    }

    /// How a container ended, to be written into its state directory.
    pub(crate) fn new(state: &OwnedFd, report: &ExitReport) -> Result<Self, SysError> {
        let state = state.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)")?;
        Ok(Self(Some((state, report.clone()))))
    }

    /// Writes it, if that was not done yet.
    ///
    /// # Errors
    /// If it cannot be written now; it is owed as before then.
    pub(crate) fn write(&mut self) -> Result<(), SysError> {
        let Some((state, report)) = &self.0 else { return Ok(()) };
        point::before(Step::ExitRecord);
        let written = record::write(state.as_fd(), layout::EXIT, report, Durability::Durable);
        point::after(Step::ExitRecord);
        match written {
            // Somebody has removed the directory: there is no container any more to have a record.
            Err(error) if is_removed(state) => {
                tracing::warn!(%error, "the container's directory was removed, and its exit record with it");
            }
            result => result.call(|| "write the exit record, it is waited for")?,
        }
        self.0 = None;
        Ok(())
    }
}

fn is_removed(directory: &OwnedFd) -> bool {
    rustix::fs::fstat(directory).is_ok_and(|status| status.st_nlink == 0)
}
