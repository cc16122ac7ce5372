//! Messages between a shim and those who talk to it: the supervisor, and attached clients.
//!
//! A shim refuses what is early, doubled or not for the role of the connection, and closes it.

use serde::{Deserialize, Serialize};

use crate::{
    error::WireError,
    exit::ExitReport,
    plan::{AttachPlan, ContainerPlan, TerminalSize},
    teardown::{TeardownReport, TeardownStep},
};

crate::growing::growing!(AdoptOrder, TeardownOrder, ShimReport);

/// To a shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToShim {
    /// First on the control connection (fd 0), and only there, once.
    Plan(Box<ContainerPlan>),
    /// First on fd 0 of `mysup-shim teardown`: undo what a dead shim left.
    Teardown(TeardownOrder),
    /// First on a connection to shim.sock. With an attached client's comes the master of the terminal, if it has one.
    Hello(Role),
    /// Ask the program to stop, then kill it (supervisor only). A later `Stop` with an earlier end wins.
    Stop {
        /// Signal number.
        signal: u8,
        /// Milliseconds until it is killed; `None` waits for ever, 0 kills at once.
        grace_ms: Option<u64>,
    },
    /// Send this signal to the program.
    Signal(u8),
    /// Input for the program (attached with `stdin` only).
    Stdin(Vec<u8>),
    /// No more input.
    StdinEnd,
    /// The client's terminal has this size now.
    Resize(TerminalSize),
    /// Try the steps that are left now (supervisor only).
    RetryTeardown,
    /// First on fd 0 of `mysup-shim adopt`: go on for a dead shim whose init lives. The init's pidfd rides along, and
    /// behind it what the supervisor has kept.
    Adopt(AdoptOrder),
    /// The init of an adopted container was reaped by the supervisor; the status word of wait(2). Needed below
    /// Linux 6.15, where a pidfd does not tell.
    InitReaped {
        /// As wait(2) gives it.
        status: i32,
    },
    /// What a newer peer said and this version does not know. Never sent; new variants go before it.
    #[serde(skip)]
    Unknown,
}

/// Who connects to shim.sock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A new supervisor: gets `Report`, then all that happens.
    Supervisor,
    /// A client that wants output, and may give input.
    Attach(AttachPlan),
    /// A reader of the log files that wants to know when they grew.
    LogFollower,
    /// One for whom the container stands still as long as it is connected: gets `Paused` when it does, `Failed` if it cannot.
    /// The end of the connection, from either side, is the end of the pause.
    Pause,
}

/// Which container a new shim goes on with. Its plan and its journal are in the run directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct AdoptOrder {
    /// The container's directory below the state root.
    pub state_dir: String,
    /// Its directory below the run root.
    pub run_dir: String,
}

/// What is to be undone for a dead shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TeardownOrder {
    /// The container's directory below the state root.
    pub state_dir: String,
    /// Its directory below the run root.
    pub run_dir: String,
    /// The trash of the same state root.
    pub trash_dir: String,
    /// Exit report to be written when the shim left none: what the supervisor saw through its pidfd, or unknown.
    pub exit: Option<ExitReport>,
}

/// From a shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromShim {
    /// The init exists and waits; its pidfd rides with this message (to the supervisor only), and behind it what must
    /// outlive the shim of the program's input and output: a terminal's master, or both FIFOs and a standard input
    /// that no client owns.
    Created {
        /// As seen from the shim's pid namespace.
        init_pid: u32,
    },
    /// The program runs. To attached clients the master of its terminal comes along: they hold it, so that it is not hung up
    /// when shim and supervisor die together.
    Started {
        /// Nanoseconds since 1970.
        at: u64,
    },
    /// It could not be started; teardown follows.
    Failed(WireError),
    /// Bytes of the program (to attached clients).
    Output {
        /// Which of the two.
        stream: Stream,
        /// At most 64 KiB.
        bytes: Vec<u8>,
    },
    /// The log files have more bytes (to log followers); not repeated while unread.
    LogGrew,
    /// It ended. Sent after the record is durable.
    Exited(ExitReport),
    /// A teardown step ended, well or not.
    Step(TeardownStep),
    /// Nothing is left. The last message.
    TornDown(TeardownReport),
    /// Something is left, and why. The shim stays, tries again, and says `Step`, `TornDown` or `Leftover` again.
    Leftover(TeardownReport),
    /// Answer to a supervisor's `Hello`, and the first word of a shim that adopted; the same descriptors as with
    /// `Created` ride with it while the init lives.
    Report(ShimReport),
    /// The container stands still (to those who asked for it).
    Paused,
    /// What a newer peer said and this version does not know. Never sent; new variants go before it.
    #[serde(skip)]
    Unknown,
}

/// Where a shim is in the life of its container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ShimReport {
    /// The init, while it lives.
    pub init_pid: Option<u32>,
    /// When the program was started, nanoseconds since 1970.
    pub started_at: Option<u64>,
    /// How it ended.
    pub exit: Option<ExitReport>,
    /// A stop was asked for and is under way.
    pub stopping: bool,
    /// Steps of teardown that failed and are tried again.
    pub leftover: Option<TeardownReport>,
}

/// Where bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}
