//! What can go wrong in a shim. A system error carries the whole call, as strace(1) would print it.

use std::{fmt, io};

use mysup_ipc::error::{ErrorCode, WireError};
use rustix::io::Errno;

/// A system call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}")]
pub(crate) struct SysError {
    call: String,
    #[source]
    source: io::Error,
}

impl SysError {
    /// An error of `call`.
    pub(crate) fn new(call: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { call: call.into(), source: source.into() }
    }

    /// The kernel's number of it, if it came from the kernel.
    pub(crate) fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.source)
    }

    /// For another process of this program.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let number = self.source.raw_os_error().unwrap_or(libc::EIO);
        [&number.to_le_bytes()[..], self.call.as_bytes()].concat()
    }

    /// What another process of this program told.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let Some((number, call)) = bytes.split_first_chunk() else {
            return Self::new("make a call aside", io::Error::other("the process that was to do it died"));
        };
        let source = io::Error::from_raw_os_error(i32::from_le_bytes(*number));
        Self { call: String::from_utf8_lossy(call).into_owned(), source }
    }
}

/// The kernel's word for an error number, without the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) i32);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(nix::errno::Errno::from_raw(self.0).desc())
    }
}

/// Adds the call to an error of the system.
pub(crate) trait Call<T> {
    /// `call` is only made when there is an error.
    fn call<S: fmt::Display>(self, call: impl FnOnce() -> S) -> Result<T, SysError>;
}

impl<T, E: Into<io::Error>> Call<T> for Result<T, E> {
    fn call<S: fmt::Display>(self, call: impl FnOnce() -> S) -> Result<T, SysError> {
        self.map_err(|error| SysError::new(call().to_string(), error))
    }
}

/// Why a container could not be made or started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The system refused a step.
    #[error("{step}")]
    System {
        /// What was being done.
        step: &'static str,
        /// The call.
        #[source]
        source: SysError,
    },
    /// `--mount type=bind` with a source that is not there.
    #[error("invalid mount: bind source path does not exist: {0}; -v would make it")]
    MissingSource(String),
    /// A volume that is, contains or lies in a directory of mysup's own.
    #[error(
        "invalid volume {volume}: it is, contains or lies in mysup's own directory {own}; choose another source"
    )]
    OwnData {
        /// As typed.
        volume: String,
        /// Which directory of ours.
        own: String,
    },
    /// A volume could not be mounted.
    #[error("cannot mount a volume at {destination}")]
    Volume {
        /// Where.
        destination: String,
        /// The call.
        #[source]
        source: SysError,
    },
    /// A new volume could not be filled with the image's content.
    #[error("cannot fill volume {volume} with what the image has at {destination} (nocopy leaves it empty)")]
    VolumeFilling {
        /// Which.
        volume: String,
        /// Where.
        destination: String,
        /// The call.
        #[source]
        source: SysError,
    },
    /// A file is to be mounted on a directory or the other way round.
    #[error("cannot mount {source_path} at {destination}: one is a directory and the other is not")]
    VolumeKind {
        /// Where.
        destination: String,
        /// What.
        source_path: String,
    },
    /// The user does not exist in the container's passwd file.
    #[error("unable to find user {0}: no matching entries in the container's /etc/passwd")]
    UnknownUser(String),
    /// The group does not exist in the container's group file.
    #[error("unable to find group {0}: no matching entries in the container's /etc/group")]
    UnknownGroup(String),
    /// A limit that no mounted hierarchy can set.
    #[error("cannot limit {what}: no cgroup hierarchy with the {controller} controller is mounted")]
    NoController {
        /// The option.
        what: &'static str,
        /// The controller.
        controller: &'static str,
    },
    /// The union driver is not in this kernel.
    #[error("this kernel has no {0}; load its module, or choose another --storage-driver")]
    NoUnion(&'static str),
    /// The image has something else than a directory where one is needed.
    #[error("the image has no usable directory {0}: it is a link or a file")]
    NotADirectory(String),
    /// exec found nothing.
    #[error("exec: \"{0}\": executable file not found in $PATH")]
    CommandNotFound(String),
    /// exec with a path found nothing.
    #[error("exec: \"{0}\": no such file or directory")]
    CommandMissing(String),
    /// exec found something it may not run.
    #[error("exec: \"{program}\": {reason}")]
    CommandNotExecutable {
        /// As typed.
        program: String,
        /// The kernel's word.
        reason: Reason,
    },
    /// The child failed at a step of its own set-up.
    #[error("cannot set up the container: {step}: {reason}")]
    Child {
        /// Which.
        step: &'static str,
        /// The kernel's word.
        reason: Reason,
    },
    /// The text cannot be passed to the kernel.
    #[error("{0} holds a NUL byte")]
    Nul(&'static str),
}

impl StartError {
    /// For the wire: code and one line with the whole chain.
    pub(crate) fn to_wire(&self) -> WireError {
        let code = match self {
            StartError::CommandNotFound(_) | StartError::CommandMissing(_) => ErrorCode::CommandNotFound,
            StartError::CommandNotExecutable { .. } => ErrorCode::CommandNotExecutable,
            StartError::MissingSource(_)
            | StartError::OwnData { .. }
            | StartError::VolumeKind { .. }
            | StartError::UnknownUser(_)
            | StartError::UnknownGroup(_)
            | StartError::NotADirectory(_)
            | StartError::Nul(_) => ErrorCode::Invalid,
            StartError::System { .. }
            | StartError::Volume { .. }
            | StartError::VolumeFilling { .. }
            | StartError::NoController { .. }
            | StartError::NoUnion(_)
            | StartError::Child { .. } => ErrorCode::System,
        };
        WireError::new(code, chain(self))
    }
}

/// Says what was being done when a call failed.
pub(crate) trait Step<T> {
    /// Names the step.
    fn step(self, step: &'static str) -> Result<T, StartError>;
}

impl<T> Step<T> for Result<T, SysError> {
    fn step(self, step: &'static str) -> Result<T, StartError> {
        self.map_err(|source| StartError::System { step, source })
    }
}

/// An error and its sources on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        let number = source.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        text.push_str(&number.map_or_else(|| source.to_string(), |number| Reason(number).to_string()));
        next = source.source();
    }
    text
}
