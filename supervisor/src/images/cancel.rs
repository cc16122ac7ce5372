//! The end of an import before its end: it must wake a read of a pipe into which nobody writes.

use std::{
    io::{self, PipeReader, PipeWriter, Write},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Tells an import to stop. Clones are the same switch; once thrown it stays so.
#[derive(Debug, Clone)]
pub(crate) struct Cancel(Arc<Switch>);

#[derive(Debug)]
struct Switch {
    thrown: AtomicBool,
    /// Readable, for ever, once the switch is thrown: the byte in it is never read.
    reader: PipeReader,
    writer: PipeWriter,
}

impl Cancel {
    /// A switch that is not thrown.
    ///
    /// # Errors
    /// If there is no descriptor left for its pipe.
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self(Arc::new(Switch { thrown: AtomicBool::new(false), reader, writer })))
    }

    /// Throws the switch. Does not wait for the import to notice.
    pub(crate) fn cancel(&self) {
        if !self.0.thrown.swap(true, Ordering::SeqCst) {
            // Cannot fail: this is the one byte ever written, and both ends are open as long as `self` is.
            let _ = (&self.0.writer).write(&[0]);
        }
    }

    /// Whether it was thrown.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.thrown.load(Ordering::SeqCst)
    }

    /// Becomes readable when the switch is thrown; to be polled beside what is waited for.
    pub(super) fn wake_descriptor(&self) -> BorrowedFd<'_> {
        self.0.reader.as_fd()
    }
}
