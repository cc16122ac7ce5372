//! The supervisor's side of a shim: start one, talk to it, notice its death, and have its work finished by another.
//!
//! ```text
//!  registry ── Command ─▶ task.rs ── ToShim ─▶ shim      one task for each container that has something to undo
//!           ◀── Event ──          ◀─ FromShim ─
//! ```
//! Nothing here decides what a container is to do; nothing here removes anything.

mod adopt;
pub(crate) mod alive;
pub(crate) mod cgroups;
pub(crate) mod children;
mod deadlines;
pub(crate) mod entry;
pub(crate) mod framed;
pub(crate) mod journal;
pub(crate) mod lost;
pub(crate) mod pause;
mod silence;
pub(crate) mod spawn;
mod start;
pub(crate) mod sweep;
pub(crate) mod task;

use mysup_ipc::{
    error::WireError,
    exit::ExitReport,
    id::ContainerId,
    shim::ShimReport,
    teardown::{TeardownReport, TeardownStep},
};
use tokio::sync::mpsc;

/// Commands that may wait for a shim; one that takes none any more is said to be stuck.
const COMMANDS: usize = 16;

/// What the registry wants of a shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Stop the program.
    Stop {
        /// Signal number.
        signal: u8,
        /// Milliseconds until it is killed; `None` waits for ever.
        grace_ms: Option<u64>,
    },
    /// Send a signal to the program.
    Signal(u8),
    /// Try the steps of the teardown that are left.
    Retry,
}

/// What a link says to the registry.
#[derive(Debug)]
pub(crate) enum Event {
    /// No shim could be started; nothing was made.
    NotLaunched(WireError),
    /// The init exists.
    Held {
        /// On the host.
        pid: u32,
    },
    /// The program runs.
    Started {
        /// Nanoseconds since 1970.
        at: u64,
    },
    /// It could not be started.
    Failed(WireError),
    /// It ended, and the report is as durable as it will be.
    Exited(ExitReport),
    /// The shim died; another one takes down what it made.
    Lost,
    /// A step of the teardown ended.
    Step(TeardownStep),
    /// Nothing is left; the link is done.
    TornDown(TeardownReport),
    /// Something is left.
    Leftover(TeardownReport),
    /// The shim lives and does not answer; what it was asked.
    Silent(String),
    /// A shim that was started by another supervisor, or was silent, said where it is.
    Stands(ShimReport),
    /// No teardown can be had now; the link is done.
    GaveUp(String),
}

/// Where a link's events go, and from which link they are: those of an older one are ignored.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    sender: mpsc::Sender<LinkMessage>,
    id: ContainerId,
    epoch: u64,
}

/// An event with its origin.
#[derive(Debug)]
pub(crate) struct LinkMessage {
    /// Of which container.
    pub(crate) id: ContainerId,
    /// Of which of its links.
    pub(crate) epoch: u64,
    /// What.
    pub(crate) event: Event,
}

impl Events {
    /// The way from one link to the registry.
    pub(crate) fn new(sender: mpsc::Sender<LinkMessage>, id: ContainerId, epoch: u64) -> Self {
        Self { sender, id, epoch }
    }

    /// Says it. Waits while the registry is behind; its end means that the supervisor ends.
    async fn say(&self, event: Event) {
        let message = LinkMessage { id: self.id.clone(), epoch: self.epoch, event };
        // A registry that is gone has no use for it, and the container goes on without us.
        let _ = self.sender.send(message).await;
    }
}

/// The registry's end of a link.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its number.
    pub(crate) epoch: u64,
    commands: mpsc::Sender<Command>,
}

impl Link {
    /// A link and the queue its task reads.
    pub(crate) fn new(epoch: u64) -> (Self, mpsc::Receiver<Command>) {
        let (commands, queue) = mpsc::channel(COMMANDS);
        (Self { epoch, commands }, queue)
    }

    /// Whether its task has ended: its last word is on its way to the registry, or there already.
    pub(crate) fn is_done(&self) -> bool {
        self.commands.is_closed()
    }

    /// Passes a command on; false if the queue is full or the link has ended.
    pub(crate) fn command(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok()
    }
}
