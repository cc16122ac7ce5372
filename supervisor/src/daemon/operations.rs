//! What takes more than one message to the registry: each a straight line that may wait, in a task of its own.
//!
//! A client that hangs up does not stop them: what was begun is finished.

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use mysup_ipc::{
    container::ContainerConfig,
    error::{ErrorCode, WireError},
    id::ContainerId,
    record::Durability,
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    images::{Held, Images},
    info,
};
use crate::{
    config::Config,
    error::system_failure,
    registry::{
        Anonymous, Draft, Handle, Look, StartOrder, capabilities, doomed,
        plan::{self, Attach, Machine},
        record::Record,
        state::{Live, State},
    },
    sys,
    volumes::{self, naming},
};

/// SIGKILL.
const KILL: u8 = 9;
/// Another try of a teardown that was not finished, for one who wants the container gone or started.
const RETRY: Duration = Duration::from_secs(10);
/// A teardown under way, or a record being written: after this the user is told what it is.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// A shim that does not answer yet, right after the start of the supervisor or at its own end.
const SILENCE: Duration = Duration::from_secs(2);
/// Between two looks at what will change in a moment.
const LOOK: Duration = Duration::from_millis(5);

/// All that operations need. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Operations {
    /// The containers.
    pub(super) registry: Handle,
    /// The images.
    pub(super) images: Images,
    /// The volumes.
    pub(super) volumes: volumes::Store,
    /// Where everything is.
    pub(super) config: Arc<Config>,
    /// What this machine gives every container.
    pub(super) machine: Machine,
}

/// A container that can be made, and keeps its image until it is.
pub(super) struct Prepared {
    draft: Draft,
    held: Held,
}

/// The client that comes along with a start.
#[derive(Debug)]
pub(super) struct Client {
    /// Its socket.
    pub(super) socket: OwnedFd,
    /// What it wants.
    pub(super) attach: Attach,
}

/// Whether a container is started as soon as it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Launch {
    /// `run`
    AtOnce,
    /// `create`
    Later,
}

impl Operations {
    /// Looks up the image (and unpacks it, if it is an archive: dropping this future cancels that) and checks all that
    /// can be checked without making anything.
    pub(super) async fn prepare(
        &self,
        mut config: ContainerConfig,
        archive: Option<OwnedFd>,
        launch: Launch,
    ) -> Result<Prepared, WireError> {
        let wish = capabilities::Wish {
            privileged: config.privileged,
            add: &config.cap_add,
            drop: &config.cap_drop,
        };
        capabilities::keep(wish, self.machine.capabilities)?;
        info::check_driver(config.storage_driver)?;
        let held = self.images.hold(&config.image, archive).await?;
        let id = fresh_id()?;
        naming::complete(&mut config, &held.config.volumes, random)?;
        let program = plan::merge(&id, &config, &held.config, &self.config)?;
        for (key, value) in &held.config.labels {
            if !config.labels.iter().any(|(own, _)| own == key) {
                config.labels.push((key.clone(), value.clone()));
            }
        }
        let random = random()?;
        let draft = Draft {
            id,
            config,
            image: held.image.clone(),
            program,
            launch: launch == Launch::AtOnce,
            random,
        };
        Ok(Prepared { draft, held })
    }

    /// Makes a container.
    pub(super) async fn create(self, prepared: Prepared) -> Result<ContainerId, WireError> {
        // `held` lives until the registry knows the container.
        self.create_with_volumes(prepared.draft).await
    }

    /// A container that cannot get its volumes is none. Its record comes first: the volumes are then somebody's.
    async fn create_with_volumes(&self, draft: Draft) -> Result<ContainerId, WireError> {
        let wanted = naming::wanted(&draft.id, &draft.config.mounts);
        let id = self.registry.create(draft).await?;
        if let Err(error) = self.make_volumes(wanted).await {
            // The error that is told is the one that came first.
            let _ = self.registry.remove(&id, Anonymous::Go(Vec::new())).await;
            return Err(error);
        }
        Ok(id)
    }

    /// Makes those volumes that are not there.
    async fn make_volumes(&self, wanted: Vec<volumes::Draft>) -> Result<(), WireError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let store = self.volumes.clone();
        let job = move || wanted.iter().try_for_each(|draft| store.make(draft));
        tokio::task::spawn_blocking(job)
            .await
            .map_err(|panic| system_failure("cannot make volumes", &panic))?
    }

    /// Makes and starts a container. One that cannot be started stays, with its error, unless it has `--rm`.
    pub(super) async fn run(
        self,
        prepared: Prepared,
        client: Option<Client>,
    ) -> Result<ContainerId, WireError> {
        let Prepared { draft, held } = prepared;
        let ephemeral = draft.config.remove;
        let id = self.create_with_volumes(draft).await?;
        // From here on the registry names the container as a user of its image; a start may take long.
        let layers = held.into_layers();
        let outcome = match self.registry.look(&id).await {
            Ok(Look { record: Ok(record), .. }) => self.launch(&record, layers, client).await,
            Ok(Look { record: Err(reason), .. }) => Err(WireError::new(ErrorCode::System, reason)),
            Err(error) => Err(error),
        };
        if outcome.is_err() && ephemeral {
            // Usually gone already; this is for a start that never reached a shim.
            let _ = self.registry.remove(&id, Anonymous::Go(Vec::new())).await;
        }
        outcome.map(|()| id)
    }

    async fn launch(
        &self,
        record: &Record,
        layers: Vec<PathBuf>,
        client: Option<Client>,
    ) -> Result<(), WireError> {
        let attach = client.as_ref().map_or(Attach::Nobody, |client| client.attach);
        let plan = plan::build(record, layers, attach, &self.config, self.machine)?;
        let attach = client.map(|client| client.socket);
        self.registry.start(&record.id, StartOrder { plan, attach }).await
    }

    /// Starts a container that was made or has ended; one that runs is started already.
    pub(super) async fn start(self, id: ContainerId, client: Option<Client>) -> Result<(), WireError> {
        let deadline = Instant::now() + PATIENCE;
        self.reachable(&id).await?;
        loop {
            let look = self.registry.look(&id).await?;
            match self.settled(&id, &look, deadline).await? {
                Settled::Yes => {}
                Settled::LookAgain => continue,
            }
            let record = look.record.map_err(|reason| damaged(&id, &reason))?;
            if let State::Live(Live::Running { .. } | Live::Stopping { .. }) = look.state {
                return Ok(());
            }
            info::check_driver(record.config.storage_driver)?;
            let held = match &record.image {
                Some(image) => self.images.hold_known(image).await?,
                None => self.images.hold(&record.config.image, None).await?,
            };
            self.make_volumes(naming::wanted(&id, &record.config.mounts)).await?;
            return self.launch(&record, held.into_layers(), client).await;
        }
    }

    /// Gives a shim that does not answer a moment to do so.
    pub(super) async fn reachable(&self, id: &ContainerId) -> Result<(), WireError> {
        let deadline = Instant::now() + SILENCE;
        while matches!(self.registry.look(id).await?.state, State::Unreachable(_))
            && Instant::now() < deadline
        {
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits for what is under way, tries again what is left.
    pub(super) async fn settled(
        &self,
        id: &ContainerId,
        look: &Look,
        deadline: Instant,
    ) -> Result<Settled, WireError> {
        let in_time = Instant::now() < deadline;
        match look.state {
            State::Live(Live::TearingDown { .. }) | State::Removing { .. } if in_time => {
                // Whether it was torn down well is seen at the next look; if it takes too long, the registry says so.
                let _ = timeout(PATIENCE, self.registry.settle(id)).await;
                Ok(Settled::LookAgain)
            }
            State::Live(Live::Leftover { .. }) => match timeout(RETRY, self.registry.retry(id)).await {
                Ok(outcome) => outcome.map(|()| Settled::LookAgain),
                Err(_elapsed) => {
                    let message = format!("the teardown of container {id} did not end within {RETRY:?}");
                    Err(WireError::new(ErrorCode::Leftover, message))
                }
            },
            State::New
            | State::Created
            | State::Exited
            | State::Removing { .. }
            | State::Unreachable(_)
            | State::Live(
                Live::Starting
                | Live::Held { .. }
                | Live::Running { .. }
                | Live::Stopping { .. }
                | Live::TearingDown { .. },
            ) => {
                if look.busy && in_time {
                    sleep(LOOK).await;
                    return Ok(Settled::LookAgain);
                }
                Ok(Settled::Yes)
            }
        }
    }

    /// Stops a container and waits until it is torn down.
    pub(super) async fn stop(
        self,
        id: ContainerId,
        signal: Option<u8>,
        seconds: Option<i64>,
    ) -> Result<(), WireError> {
        self.reachable(&id).await?;
        // Its deadline is the link's: the grace, and some time for the shim.
        self.registry.stop(&id, signal, seconds.map(plan::grace)).await
    }

    /// Sends a signal to a container's init.
    pub(super) async fn kill(self, id: ContainerId, signal: u8) -> Result<(), WireError> {
        self.reachable(&id).await?;
        self.registry.kill(&id, signal).await
    }

    /// Stops and starts.
    pub(super) async fn restart(self, id: ContainerId, seconds: Option<i64>) -> Result<(), WireError> {
        let look = self.registry.look(&id).await?;
        let record = look.record.map_err(|reason| damaged(&id, &reason))?;
        if record.config.remove {
            let message =
                format!("cannot restart container \"{}\": it goes with its end (--rm)", record.name);
            return Err(WireError::new(ErrorCode::Conflict, message));
        }
        self.clone().stop(id.clone(), None, seconds).await?;
        self.start(id, None).await
    }

    /// Removes a container; a running one only with force. With force it is removed later if something stands in the way.
    pub(super) async fn remove(
        self,
        id: ContainerId,
        how: Removal,
        volumes: Volumes,
    ) -> Result<(), WireError> {
        let outcome = self.try_to_remove(&id, how, volumes).await;
        let error = match (outcome, how) {
            (Err(error), Removal::Force) => error,
            (outcome, _) => return outcome,
        };
        if matches!(error.code, ErrorCode::Timeout | ErrorCode::Leftover) {
            match self.registry.doom(&id, volumes.anonymous()).await {
                Ok(()) => {
                    self.note_doom(&id, volumes).await;
                    let message = format!("{}; it is removed when that is over", error.message);
                    return Err(WireError::new(error.code, message));
                }
                Err(gone) if gone.code == ErrorCode::NotFound => return Ok(()),
                Err(_at_rest) => {}
            }
        }
        let places = self.config.places(&id);
        // Fails only when the runtime ends, and we with it.
        let _ = tokio::task::spawn_blocking(move || doomed::withdraw(&places)).await;
        Err(error)
    }

    /// From here on the removal is gone on with, whoever dies. Without room for that it goes on as long as we live.
    async fn note_doom(&self, id: &ContainerId, volumes: Volumes) {
        let Ok(look) = self.registry.look(id).await else { return };
        let durability = look.record.map_or(Durability::Durable, |record| record.durability());
        let places = self.config.places(id);
        let note = move || doomed::note(&places, &volumes.anonymous(), durability);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(note).await {
            tracing::warn!(container = %id, %error, "a removal cannot be noted, continuing");
        }
    }

    async fn try_to_remove(&self, id: &ContainerId, how: Removal, volumes: Volumes) -> Result<(), WireError> {
        let deadline = Instant::now() + PATIENCE;
        // One that is gone meanwhile is found so below.
        let _ = self.reachable(id).await;
        loop {
            let look = match self.registry.look(id).await {
                Ok(look) => look,
                // It had `--rm`, or somebody else was faster.
                Err(error) if error.code == ErrorCode::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            if let (Err(reason), Removal::Plain) = (&look.record, how) {
                return Err(damaged(id, reason));
            }
            match self.settled(id, &look, deadline).await? {
                Settled::Yes => {}
                Settled::LookAgain => continue,
            }
            let running = matches!(
                look.state,
                State::Live(
                    Live::Starting | Live::Held { .. } | Live::Running { .. } | Live::Stopping { .. }
                )
            );
            if running && how == Removal::Force && Instant::now() < deadline {
                self.note_doom(id, volumes).await;
                // What is left then is seen at the next look.
                if let Err(error) = self.registry.stop(id, Some(KILL), Some(Some(0))).await
                    && error.code == ErrorCode::Timeout
                {
                    return Err(error);
                }
                continue;
            }
            let anonymous = match (&look.record, volumes) {
                (Err(_), Volumes::Anonymous) => self.volumes_made_for(id).await?,
                (_, volumes) => volumes.anonymous(),
            };
            let outcome = self.registry.remove(id, anonymous).await;
            let refused = outcome.as_ref().is_err_and(|error| error.code == ErrorCode::Conflict);
            if refused && how == Removal::Force && Instant::now() < deadline && self.is_live(id).await {
                // Somebody has started it since it was looked at.
                continue;
            }
            return outcome;
        }
    }

    async fn is_live(&self, id: &ContainerId) -> bool {
        self.registry.look(id).await.is_ok_and(|look| matches!(look.state, State::Live(_)))
    }

    /// The record of a container that could tell is damaged; those of its volumes may be whole.
    async fn volumes_made_for(&self, id: &ContainerId) -> Result<Anonymous, WireError> {
        let (store, id) = (self.volumes.clone(), id.clone());
        let found = tokio::task::spawn_blocking(move || store.made_for(&id)).await;
        found.map(Anonymous::Go).map_err(|panic| system_failure("cannot look at volumes", &panic))
    }

    /// Stops all containers at once, each with its own grace; one that is to be waited for without end is.
    pub(super) async fn stop_all(self) -> Result<(), WireError> {
        let mut stops = tokio::task::JoinSet::new();
        for container in self.registry.list().await? {
            stops.spawn(self.clone().stop(container.id, None, None));
        }
        while let Some(stopped) = stops.join_next().await {
            if let Ok(Err(error)) = stopped {
                tracing::warn!(error = %error.message, "a container was not stopped, continuing");
            }
        }
        Ok(())
    }
}

/// How a container is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// If it does not run.
    Plain,
    /// It is killed first.
    Force,
}

/// What is removed with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Volumes {
    /// No volume.
    None,
    /// Its anonymous volumes.
    Anonymous,
}

impl Removal {
    /// As the flag says.
    pub(super) fn of(force: bool) -> Self {
        if force { Removal::Force } else { Removal::Plain }
    }
}

impl Volumes {
    /// As the flag says.
    pub(super) fn of(anonymous: bool) -> Self {
        if anonymous { Volumes::Anonymous } else { Volumes::None }
    }

    fn anonymous(self) -> Anonymous {
        match self {
            Volumes::None => Anonymous::Stay,
            Volumes::Anonymous => Anonymous::Go(Vec::new()),
        }
    }
}

/// Whether a request can go on.
pub(super) enum Settled {
    /// Now.
    Yes,
    /// It may be another state by now.
    LookAgain,
}

pub(super) fn damaged(id: &ContainerId, reason: &str) -> WireError {
    let message =
        format!("the record of container {id} is damaged ({reason}): it can only be removed, with force");
    WireError::new(ErrorCode::Conflict, message)
}

fn fresh_id() -> Result<ContainerId, WireError> {
    loop {
        if let Some(id) = ContainerId::from_random(random()?) {
            return Ok(id);
        }
    }
}

fn random() -> Result<[u8; 32], WireError> {
    sys::random_bytes().map_err(|error| system_failure("getrandom", &error))
}
