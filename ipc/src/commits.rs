//! Requests about what a container has changed: what `Request::Commit` carries, and its answers.

use serde::{Deserialize, Serialize};

/// To the supervisor. A `container` is what the user typed. Of a running container it is what it was at one instant if it is
/// paused meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitRequest {
    /// Make an image of the container's image and what it has changed. The client's hanging up cancels it. →
    /// `Response::Image`
    Commit {
        /// Which.
        container: String,
        /// `name[:tag]` of the new image; taken from the image that has it.
        name: Option<String>,
        /// Who says so.
        author: String,
        /// For the history.
        message: String,
        /// Instructions of a Dockerfile.
        changes: Vec<String>,
        /// A running container stands still meanwhile.
        pause: bool,
    },
    /// Write its whole file system as a tar into a file or a pipe of the client's own, which rides along. The client's
    /// hanging up cancels it. → `Done`
    Export {
        /// Which.
        container: String,
        /// A running container stands still meanwhile.
        pause: bool,
    },
    /// Write what it has changed into a pipe of the client's own, which rides along: docker's lines, sorted by path. →
    /// `Done`
    Diff {
        /// Which.
        container: String,
    },
}
