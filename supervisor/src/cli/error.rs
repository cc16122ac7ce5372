//! Why a command failed: one line for stderr, and docker's exit code for it.

use std::{io, path::PathBuf};

use mysup_ipc::{
    blocking::ConnectionError,
    codec::CodecError,
    error::{ErrorCode, WireError},
};

use super::values::Invalid;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// An argument that is no text.
    #[error("argument \"{0}\" is not valid UTF-8")]
    NotUtf8(String),
    /// A verb that does not exist.
    #[error("unknown command: mysup {0} (see 'mysup --help')")]
    UnknownCommand(String),
    /// A flag that does not exist.
    #[error("unknown flag: {flag} (see '{verb} --help')")]
    UnknownFlag {
        /// As typed.
        flag: String,
        /// `mysup run`.
        verb: String,
    },
    /// A word too many.
    #[error("unexpected argument \"{argument}\" (see '{verb} --help')")]
    ExtraArgument {
        /// As typed.
        argument: String,
        /// `mysup rename`.
        verb: String,
    },
    /// A word too few.
    #[error("'{verb}' requires {argument} (see '{verb} --help')")]
    MissingArgument {
        /// Name of what is missing.
        argument: String,
        /// `mysup rm`.
        verb: String,
    },
    /// A flag without its value.
    #[error("flag needs an argument: {flag} (see '{verb} --help')")]
    FlagValueMissing {
        /// Which.
        flag: String,
        /// `mysup run`.
        verb: String,
    },
    /// The value of a flag has the wrong shape.
    #[error("invalid argument \"{given}\" for \"{flag}\": {reason}")]
    FlagSyntax {
        /// Which.
        flag: String,
        /// As typed.
        given: String,
        /// What is allowed.
        reason: String,
    },
    /// The value of a flag makes no sense.
    #[error("{flag}: {reason}")]
    Flag {
        /// Which.
        flag: &'static str,
        /// What is wrong and what is allowed.
        reason: Invalid,
    },
    /// Values that do not go together.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A template cannot be parsed or applied.
    #[error("invalid --format")]
    Format(#[from] super::template::TemplateError),
    /// `-t` and `-i` without a terminal.
    #[error("the input device is not a TTY")]
    NotATerminal,
    /// Not the superuser.
    #[error("mysup must run as root: making containers needs mount and namespace rights (try sudo)")]
    NotRoot,
    /// The supervisor said no.
    #[error(transparent)]
    Refused(#[from] WireError),
    /// The supervisor could not be started.
    #[error("cannot start the supervisor: {reason}")]
    Launch {
        /// What it said, or what became of it.
        reason: String,
    },
    /// `start` while one runs.
    #[error("a supervisor is already running (pid {pid})")]
    AlreadyRunning {
        /// Its pid.
        pid: u32,
    },
    /// A call failed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was attempted, a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A call without a path failed.
    #[error("cannot {action}")]
    Call {
        /// What was attempted.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The connection failed.
    #[error("talking to {peer}")]
    Connection {
        /// The supervisor or the shim.
        peer: &'static str,
        /// What happened.
        source: ConnectionError,
    },
    /// A message could not be made.
    #[error("making a message for the shim")]
    Codec(#[from] CodecError),
    /// It hung up before it answered.
    #[error("the supervisor ended before it answered; what became of the request is not known")]
    NoAnswer,
    /// It hung up without having read the request.
    #[error("the supervisor ended before it read the request, nothing was done: try again")]
    Unread,
    /// An answer to another question.
    #[error(
        "the supervisor gave an answer to another question; client and supervisor may be of different versions"
    )]
    WrongAnswer,
    /// Whoever read our output is gone: nobody is left to be told.
    #[error("nobody reads the output")]
    ReaderGone,
    /// A registry, or the program that speaks with it, said no.
    #[error("{reason}")]
    Registry {
        /// What it said.
        reason: String,
    },
    /// An image is neither here nor there.
    #[error("No such image: {name}, and it cannot be pulled")]
    NotPulled {
        /// As typed.
        name: String,
        /// Why not.
        source: Box<CliError>,
    },
    /// The container's end was seen by nobody.
    #[error("the exit status of container {0} is not known")]
    StatusUnknown(String),
}

/// Whose exit codes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// 125 for whatever is not the container's own end.
    Run,
    /// 125 for wrong flags, 1 for the rest.
    Create,
    /// 1 for all but what is no flag at all.
    Other,
}

impl CliError {
    /// docker's exit code for it.
    pub(crate) fn exit_code(&self, rule: Rule) -> u8 {
        match self {
            CliError::UnknownFlag { .. }
            | CliError::FlagValueMissing { .. }
            | CliError::FlagSyntax { .. }
            | CliError::NotUtf8(_) => 125,
            CliError::UnknownCommand(_)
            | CliError::ExtraArgument { .. }
            | CliError::MissingArgument { .. }
            | CliError::NotATerminal => 1,
            CliError::StatusUnknown(_) => 255,
            CliError::ReaderGone => 0,
            CliError::Refused(WireError { code: ErrorCode::CommandNotFound, .. }) => 127,
            CliError::Refused(WireError { code: ErrorCode::CommandNotExecutable, .. }) => 126,
            CliError::Flag { .. } | CliError::Invalid(_) => match rule {
                Rule::Run | Rule::Create => 125,
                Rule::Other => 1,
            },
            CliError::Format(_)
            | CliError::NotRoot
            | CliError::Refused(_)
            | CliError::Launch { .. }
            | CliError::AlreadyRunning { .. }
            | CliError::File { .. }
            | CliError::Call { .. }
            | CliError::Connection { .. }
            | CliError::Codec(_)
            | CliError::NoAnswer
            | CliError::Unread
            | CliError::Registry { .. }
            | CliError::NotPulled { .. }
            | CliError::WrongAnswer => match rule {
                Rule::Run => 125,
                Rule::Create | Rule::Other => 1,
            },
        }
    }
}
