//! What can keep the daemon from running, and how a failure deep down is told to a client.

use std::{io, path::PathBuf};

use mysup_ipc::error::{ErrorCode, WireError};

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another one has the lock.
    #[error("a supervisor is already running (pid {pid})")]
    AlreadyRunning {
        /// Its pid as it wrote it down.
        pid: String,
    },
    /// Mounts and cgroups need root.
    #[error("the supervisor must be run as root")]
    NotRoot,
    /// A file or directory.
    #[error("{call} {path}")]
    File {
        /// What was attempted.
        call: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A directory of ours is open to others.
    #[error("{path} must be a directory of the supervisor's user with mode 0700 (chown, chmod 700)")]
    NotPrivate {
        /// Which.
        path: PathBuf,
    },
    /// The other program of ours.
    #[error("mysup-shim not found; looked for it at {}", looked_at.join(", "))]
    NoShim {
        /// All places.
        looked_at: Vec<String>,
    },
    /// The image store.
    #[error("open the image store: {0}")]
    Images(WireError),
    /// A call without a path.
    #[error("{call}")]
    System {
        /// What was attempted.
        call: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// For `map_err` on a call with a path.
    pub(crate) fn file(call: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { call, path, source }
    }

    /// For `map_err` on a call without a path.
    pub(crate) fn system(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { call, source }
    }

    /// As it is sent to a client.
    pub(crate) fn to_wire(&self) -> WireError {
        WireError::new(ErrorCode::System, chain(self))
    }
}

/// An error and all that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// The error of a thing that failed for a reason of this machine.
pub(crate) fn system_failure(what: &str, error: &dyn std::error::Error) -> WireError {
    WireError::new(ErrorCode::System, format!("{what}: {}", chain(error)))
}

/// The one line of an error of the file system with its call and path.
pub(crate) fn file_error(call: &'static str, path: impl Into<PathBuf>, source: io::Error) -> WireError {
    Error::File { call, path: path.into(), source }.to_wire()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_one_line() {
        let error = Error::file("open", "/x")(io::Error::from_raw_os_error(2));
        assert_eq!(chain(&error), "open /x: No such file or directory (os error 2)");
    }
}
