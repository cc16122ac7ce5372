//! What goes to stdout and stderr, and what becomes of it when nobody reads.
//!
//! Bytes are written as they come, unbuffered and whole, also to a descriptor that somebody made non-blocking.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use mysup_ipc::teardown::TeardownReport;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd,
};

use super::{describe, error::CliError};

/// Writes a text to stdout.
///
/// # Errors
/// [`CliError::ReaderGone`] if nobody reads it any more.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    write(io::stdout().as_fd(), text.as_bytes())
}

/// Writes a line to stdout.
///
/// # Errors
/// As for [`print()`].
pub(crate) fn print_line(line: &str) -> Result<(), CliError> {
    print(&format!("{line}\n"))
}

/// Writes one line for people to stderr.
pub(crate) fn complain(message: &str) {
    let line = format!("mysup: {}\n", message.replace('\n', " "));
    // Nobody is left to be told if stderr is closed.
    let _ = write(io::stderr().as_fd(), line.as_bytes());
}

/// One line for each step of a teardown that could not be done.
pub(crate) fn warn_of_leftovers(report: &TeardownReport) {
    for step in report.failures() {
        complain(&format!("warning: the container's teardown is not finished: {}", describe::failure(step)));
    }
}

/// The error and its causes as one line for people on stderr.
pub(crate) fn complain_of(error: &dyn std::error::Error) {
    complain(&chain(error));
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

/// Writes all bytes, however long that takes.
///
/// # Errors
/// [`CliError::ReaderGone`] if nobody reads them any more.
pub(crate) fn write(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), CliError> {
    while !bytes.is_empty() {
        match unistd::write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut waiting = [PollFd::new(fd, PollFlags::POLLOUT)];
                // Whatever ends the wait, the next write says what is wrong.
                let _ = poll(&mut waiting, PollTimeout::NONE);
            }
            Err(Errno::EPIPE) => return Err(CliError::ReaderGone),
            Err(error) => return Err(CliError::Call { action: "write the output", source: error.into() }),
        }
    }
    Ok(())
}
