//! How far something long has come: what `load`, `save`, `pull` and others show while they work.
//!
//! A client that wants to be told sends one end of a socket pair as the last descriptor of its request; who does not know
//! of that lets it go. Messages are small and never waited for: what the client does not take in time is lost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

crate::growing::growing!(Progress);

/// At least so long apart are two messages about the same part, but for the last one.
pub const PAUSE: Duration = Duration::from_millis(100);

/// How far one part has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Progress {
    /// What it is about: the first 12 digits of a layer's digest, or a word.
    pub part: String,
    /// What is done with it.
    pub step: ProgressStep,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all; 0 if nobody knows.
    pub total: u64,
}

/// What is done with a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProgressStep {
    /// Read out of an archive, and unpacked into the store.
    Unpacking,
    /// It is in the store.
    Unpacked,
    /// Read out of the store, and written.
    Writing,
    /// It is written.
    Written,
    /// It comes from a registry.
    Downloading,
    /// The connection broke, and it goes on from where it was.
    Resuming,
    /// It is here, and has its digest.
    Downloaded,
    /// It was in the store before.
    Present,
    /// It goes to a registry.
    Uploading,
    /// The registry has it now.
    Uploaded,
    /// The registry had it before.
    KnownThere,
    /// What a newer peer does and this version does not know. Never sent; new variants go before it.
    #[serde(skip)]
    Unknown,
}
