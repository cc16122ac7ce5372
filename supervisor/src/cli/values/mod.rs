//! The values of flags: one file for each kind, from text to a checked value. Nothing here touches the system but
//! `environment.rs`, which reads the file it is given.

pub(crate) mod capability;
pub(crate) mod environment;
pub(crate) mod mount;
pub(crate) mod number;
pub(crate) mod path;
pub(crate) mod signal;
pub(crate) mod size;
pub(crate) mod time;
pub(crate) mod ulimit;
pub(crate) mod word;

/// Why a value is refused: what was given, and what is allowed; one line for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Invalid(pub(crate) String);

impl Invalid {
    /// With its line.
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self(line.into())
    }
}
