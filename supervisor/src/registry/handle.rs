//! The way to the registry: one message for each thing it can do, one function for each message.

use std::sync::Arc;

use mysup_ipc::{
    container::{ContainerConfig, ContainerInfo},
    error::{ErrorCode, WireError},
    exit::ExitReport,
    id::{ContainerId, ContainerName, Digest, VolumeName},
    plan::ContainerPlan,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Reply,
    container::Hold,
    gone,
    record::{Program, Record},
    state::State,
    volumes::{Anonymous, Staying, VolumeUsers},
};
use crate::volumes::Leaving;

/// A container to be made.
#[derive(Debug)]
pub(crate) struct Draft {
    /// Its id, fresh.
    pub(crate) id: ContainerId,
    /// What was asked for.
    pub(crate) config: ContainerConfig,
    /// Its image, unless it is a directory.
    pub(crate) image: Option<Digest>,
    /// What is to be run.
    pub(crate) program: Program,
    /// It will be started at once: saves the second write of its record.
    pub(crate) launch: bool,
    /// For its name, if it has none.
    pub(crate) random: [u8; 32],
}

/// A start: everything that had to be looked up for it.
#[derive(Debug)]
pub(crate) struct StartOrder {
    /// What the shim is to make.
    pub(crate) plan: ContainerPlan,
    /// The attached client's socket.
    pub(crate) attach: Option<std::os::fd::OwnedFd>,
}

/// What decides how a request about a container goes on.
#[derive(Debug)]
pub(crate) struct Look {
    /// Its record, or what is wrong with it.
    pub(crate) record: Result<Arc<Record>, String>,
    /// Where it is.
    pub(crate) state: State,
    /// A job writes one of its records: ask again in a moment.
    pub(crate) busy: bool,
}

/// A user of an image: the image, the container, and whether it is running.
pub(crate) type ImageUser = (Digest, ContainerId, bool);

/// What can be asked of the registry.
#[derive(Debug)]
pub(crate) enum Message {
    /// Which container does the user mean?
    Resolve(String, Reply<ContainerId>),
    /// Make one; answered when its record is durable.
    Create(Box<Draft>, Reply<ContainerId>),
    /// Where is it?
    Look(ContainerId, Reply<Look>),
    /// Start it; answered when its program runs.
    Start(ContainerId, Box<StartOrder>, Reply<()>),
    /// Stop it, with another signal or grace than its own; answered when it is torn down.
    Stop(ContainerId, Option<u8>, Option<Option<u64>>, Reply<()>),
    /// Answered when no teardown of it is under way.
    Settle(ContainerId, Reply<()>),
    /// Try its teardown again; answered when that has come to an end.
    Retry(ContainerId, Reply<()>),
    /// Send a signal to its init.
    Kill(ContainerId, u8, Reply<()>),
    /// Wait for its end.
    Wait(ContainerId, oneshot::Sender<ExitReport>),
    /// Remove the record of one that has no shim; answered when its name is free.
    Remove(ContainerId, Anonymous, Reply<()>),
    /// Kill and remove it whenever that can be done.
    Doom(ContainerId, Anonymous, Reply<()>),
    /// Keep it at rest, if it is.
    Hold(ContainerId, Reply<Hold>),
    /// Give it another name.
    Rename(ContainerId, ContainerName, Reply<()>),
    /// All of them, newest first.
    List(oneshot::Sender<Vec<ContainerInfo>>),
    /// One of them.
    Inspect(ContainerId, Reply<ContainerInfo>),
    /// Who uses which image.
    ImageUsers(oneshot::Sender<Vec<ImageUser>>),
    /// Who has which volume.
    VolumeUsers(oneshot::Sender<VolumeUsers>),
    /// Mark volumes that nobody has as leaving.
    LeaveVolumes(Vec<VolumeName>, oneshot::Sender<Vec<Result<Leaving, Staying>>>),
    /// Try again what was left, and look for what came meanwhile; answered when all of it is under way.
    Heal(Reply<()>),
    /// How many shims do not answer.
    Unreachable(oneshot::Sender<usize>),
}

/// The sending end of the registry's queue.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    queue: mpsc::Sender<Message>,
}

impl Handle {
    /// A queue of this many messages.
    pub(super) fn new(capacity: usize) -> (Self, mpsc::Receiver<Message>) {
        let (queue, receiver) = mpsc::channel(capacity);
        (Self { queue }, receiver)
    }

    /// Asks, and waits for the answer. Every wait that could be for ever has its deadline in the link or at the
    /// caller, except those the user asked for.
    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, WireError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(message(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                WireError::new(ErrorCode::Timeout, "the supervisor is busy: try again")
            }
            mpsc::error::TrySendError::Closed(_) => ended(),
        })?;
        answer.await.map_err(|_closed| ended())
    }

    /// Which container the user means.
    pub(crate) async fn resolve(&self, typed: &str) -> Result<ContainerId, WireError> {
        self.ask(|reply| Message::Resolve(typed.to_owned(), reply)).await?
    }

    /// Makes a container.
    pub(crate) async fn create(&self, draft: Draft) -> Result<ContainerId, WireError> {
        self.ask(|reply| Message::Create(Box::new(draft), reply)).await?
    }

    /// Where it is.
    pub(crate) async fn look(&self, id: &ContainerId) -> Result<Look, WireError> {
        self.ask(|reply| Message::Look(id.clone(), reply)).await?
    }

    /// Starts it.
    pub(crate) async fn start(&self, id: &ContainerId, order: StartOrder) -> Result<(), WireError> {
        self.ask(|reply| Message::Start(id.clone(), Box::new(order), reply)).await?
    }

    /// Stops it.
    pub(crate) async fn stop(
        &self,
        id: &ContainerId,
        signal: Option<u8>,
        grace: Option<Option<u64>>,
    ) -> Result<(), WireError> {
        self.ask(|reply| Message::Stop(id.clone(), signal, grace, reply)).await?
    }

    /// Waits until no teardown of it is under way.
    pub(crate) async fn settle(&self, id: &ContainerId) -> Result<(), WireError> {
        self.ask(|reply| Message::Settle(id.clone(), reply)).await?
    }

    /// Tries its teardown again.
    pub(crate) async fn retry(&self, id: &ContainerId) -> Result<(), WireError> {
        self.ask(|reply| Message::Retry(id.clone(), reply)).await?
    }

    /// Sends a signal to its init.
    pub(crate) async fn kill(&self, id: &ContainerId, signal: u8) -> Result<(), WireError> {
        self.ask(|reply| Message::Kill(id.clone(), signal, reply)).await?
    }

    /// Waits for its end.
    pub(crate) async fn wait(&self, id: &ContainerId) -> Result<ExitReport, WireError> {
        // The registry drops the reply of a container that goes away without having ended.
        self.ask(|reply| Message::Wait(id.clone(), reply)).await.map_err(|_closed| gone(id))
    }

    /// Removes its record.
    pub(crate) async fn remove(&self, id: &ContainerId, anonymous: Anonymous) -> Result<(), WireError> {
        self.ask(|reply| Message::Remove(id.clone(), anonymous, reply)).await?
    }

    /// Kills and removes it whenever that can be done.
    pub(crate) async fn doom(&self, id: &ContainerId, anonymous: Anonymous) -> Result<(), WireError> {
        self.ask(|reply| Message::Doom(id.clone(), anonymous, reply)).await?
    }

    /// Keeps it at rest; an error if it is not.
    pub(crate) async fn hold(&self, id: &ContainerId) -> Result<Hold, WireError> {
        self.ask(|reply| Message::Hold(id.clone(), reply)).await?
    }

    /// Gives it another name.
    pub(crate) async fn rename(&self, id: &ContainerId, name: ContainerName) -> Result<(), WireError> {
        self.ask(|reply| Message::Rename(id.clone(), name, reply)).await?
    }

    /// All of them, newest first.
    pub(crate) async fn list(&self) -> Result<Vec<ContainerInfo>, WireError> {
        self.ask(Message::List).await
    }

    /// One of them.
    pub(crate) async fn inspect(&self, id: &ContainerId) -> Result<ContainerInfo, WireError> {
        self.ask(|reply| Message::Inspect(id.clone(), reply)).await?
    }

    /// Who uses which image.
    pub(crate) async fn image_users(&self) -> Result<Vec<ImageUser>, WireError> {
        self.ask(Message::ImageUsers).await
    }

    /// Who has which volume.
    pub(crate) async fn volume_users(&self) -> Result<VolumeUsers, WireError> {
        self.ask(Message::VolumeUsers).await
    }

    /// Marks volumes that nobody has as leaving, or says of each why not.
    pub(crate) async fn leave_volumes(
        &self,
        names: Vec<VolumeName>,
    ) -> Result<Vec<Result<Leaving, Staying>>, WireError> {
        self.ask(|reply| Message::LeaveVolumes(names, reply)).await
    }

    /// Does what is done at a start.
    pub(crate) async fn heal(&self) -> Result<(), WireError> {
        self.ask(Message::Heal).await?
    }

    /// How many shims do not answer.
    pub(crate) async fn unreachable(&self) -> Result<usize, WireError> {
        self.ask(Message::Unreachable).await
    }
}

fn ended() -> WireError {
    WireError::new(ErrorCode::System, "the container was removed, or the supervisor is ending")
}
