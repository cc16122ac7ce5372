//! Errors that cross a process boundary: a stable code for programs, one line for people.

use serde::{Deserialize, Serialize};

crate::growing::growing!(WireError);

/// What kind of failure it was. Stable on the wire: variants are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorCode {
    /// No container, image or other object of that name.
    NotFound,
    /// More than one object fits the prefix.
    Ambiguous,
    /// The name is taken, or the state of the object forbids the request.
    Conflict,
    /// The request itself makes no sense.
    Invalid,
    /// The program of the container does not exist in it (exit code 127).
    CommandNotFound,
    /// The program exists and cannot be executed (exit code 126).
    CommandNotExecutable,
    /// The system refused or failed; the message names the call.
    System,
    /// No answer within the deadline; the object may be stuck.
    Timeout,
    /// Teardown could not be finished; the message names the holder.
    Leftover,
    /// The other side speaks another protocol.
    Protocol,
    /// A kind of failure of a newer version. Never sent; new variants go before it.
    #[serde(other)]
    Unknown,
}

/// An error as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(remote = "Self")]
pub struct WireError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: one line, lower case, no full stop, with the reason and what to do where that helps.
    pub message: String,
}

impl WireError {
    /// An error with its line.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
