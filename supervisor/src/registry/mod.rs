//! All containers. One task owns them; everybody else sends it messages and gets an answer.
//!
//! The task never waits for a shim or a disk: links (shim_link) and jobs (jobs.rs) do, each in a task of its own, and
//! say how it went. So `ps` answers whatever hangs.

pub(crate) mod capabilities;
mod container;
pub(crate) mod doomed;
mod events;
mod handle;
mod heal;
mod jobs;
mod names;
pub(crate) mod plan;
pub(crate) mod record;
pub(crate) mod recover;
mod requests;
pub(crate) mod state;
pub(crate) mod trash;
mod volumes;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use mysup_ipc::{
    error::{ErrorCode, WireError},
    id::{ContainerId, ContainerName},
};
use tokio::sync::{Notify, mpsc, oneshot};

pub(crate) use self::container::Hold;
use self::handle::Message;
use self::{container::Container, jobs::JobDone, recover::Found, state::State};
pub(crate) use self::{
    handle::{Draft, Handle, Look, StartOrder},
    volumes::{Anonymous, Staying, VolumeUsers},
};
use crate::{
    config::Config,
    shim_link::{
        Events, Link, LinkMessage, children::Children, entry::Entry, spawn::Spawner, sweep::Sweeper,
        task::Task,
    },
    volumes::Store,
};

/// The way back to who asked.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, WireError>>;

/// Requests that may wait: as many as there are connections, each of which has one under way.
const REQUESTS: usize = 1024;
/// Events of links and jobs that may wait; the links then wait, and their shims' sockets fill.
const EVENTS: usize = 256;

/// What the registry needs of the rest.
#[derive(Debug, Clone)]
pub(crate) struct Means {
    /// Where everything is.
    pub(crate) config: Arc<Config>,
    /// Starts shims.
    pub(crate) spawner: Spawner,
    /// Knows how children ended.
    pub(crate) children: Arc<Children>,
    /// Empties the trash.
    pub(crate) sweeper: Sweeper,
    /// Woken when a container was removed: its image may be free.
    pub(crate) freed: Arc<Notify>,
    /// The volumes that containers may have.
    pub(crate) volumes: Store,
}

/// The owner of all containers.
pub(crate) struct Registry {
    means: Means,
    /// Ordered, so that answers about several do not change by chance.
    containers: BTreeMap<ContainerId, Container>,
    names: HashMap<ContainerName, ContainerId>,
    requests: mpsc::Receiver<Message>,
    links: (mpsc::Sender<LinkMessage>, mpsc::Receiver<LinkMessage>),
    jobs: (mpsc::Sender<JobDone>, mpsc::Receiver<JobDone>),
    next_epoch: u64,
}

impl Registry {
    /// A registry of what was found at start, and the way to it.
    pub(crate) fn new(means: Means, found: Vec<Found>) -> (Self, Handle) {
        let (handle, requests) = Handle::new(REQUESTS);
        let mut registry = Self {
            means,
            containers: BTreeMap::new(),
            names: HashMap::new(),
            requests,
            links: mpsc::channel(EVENTS),
            jobs: mpsc::channel(EVENTS),
            next_epoch: 0,
        };
        for found in found {
            registry.adopt(found);
        }
        // Only now is it known who has which volume.
        registry.go_on_with_removals();
        (registry, handle)
    }

    /// Works until the last handle is gone.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::select! {
                // What has happened comes before what is asked, so that answers are of now. Neither can starve the
                // requests: there are finitely many containers, and each says finitely much.
                biased;
                Some(done) = self.jobs.1.recv() => self.job_done(done),
                Some(message) = self.links.1.recv() => self.link_said(message),
                request = self.requests.recv() => match request {
                    Some(request) => self.answer(request),
                    None => return,
                },
            }
        }
    }

    /// Takes over a container that was found on disk, and starts the link it needs.
    fn adopt(&mut self, found: Found) {
        let mut container = Container::new(found.id.clone(), found.record.map(Arc::new), found.state);
        container.exit = found.exit;
        container.teardown = found.teardown;
        container.silence = "it was asked where it is".into();
        container.doomed = found.doomed.is_some();
        container.volumes_go = matches!(found.doomed, Some(Anonymous::Go(_)));
        if let Some(name) = container.name().cloned()
            && let Some(other) = self.names.insert(name, found.id.clone())
        {
            // Only a copied or edited record can do this.
            tracing::warn!(container = %found.id, %other, "two containers have one name, continuing");
        }
        if let Some(entry) = found.entry {
            container.link = Some(self.link(&found.id, entry));
        }
        self.containers.insert(found.id, container);
    }

    /// What was to be removed by force, and has come to rest since, goes now.
    fn go_on_with_removals(&mut self) {
        let at_rest = |state: &State| matches!(state, State::Created | State::Exited);
        let ready = |container: &&Container| container.doomed && at_rest(&container.state);
        let ids: Vec<_> = self.containers.values().filter(ready).map(|one| one.id.clone()).collect();
        for id in ids {
            tracing::info!(container = %id, "its removal had begun, and goes on");
            self.finish(&id);
        }
    }

    /// Starts a link's task.
    fn link(&mut self, id: &ContainerId, entry: Entry) -> Link {
        self.next_epoch += 1;
        let (link, commands) = Link::new(self.next_epoch);
        let task = Task {
            places: self.means.config.places(id),
            events: Events::new(self.links.0.clone(), id.clone(), self.next_epoch),
            commands,
            spawner: self.means.spawner.clone(),
            children: Arc::clone(&self.means.children),
        };
        // Detached: it ends by itself with its container, and with the runtime.
        drop(tokio::spawn(task.run(entry)));
        link
    }

    /// What the user typed: full id, exact name, unique prefix of an id, in this order.
    fn resolve(&self, typed: &str) -> Result<ContainerId, WireError> {
        let bare = typed.strip_prefix('/').unwrap_or(typed);
        if let Ok(id) = bare.parse::<ContainerId>()
            && self.containers.contains_key(&id)
        {
            return Ok(id);
        }
        if let Ok(name) = bare.parse::<ContainerName>()
            && let Some(id) = self.names.get(&name)
        {
            return Ok(id.clone());
        }
        let not_found = || WireError::new(ErrorCode::NotFound, format!("No such container: {typed}"));
        if bare.is_empty() {
            return Err(not_found());
        }
        let mut fitting = self.containers.keys().filter(|id| id.as_str().starts_with(bare));
        match (fitting.next(), fitting.next()) {
            (None, _) => Err(not_found()),
            (Some(id), None) => Ok(id.clone()),
            (Some(_), Some(_)) => {
                let message = format!("Multiple IDs found with provided prefix: {typed}");
                Err(WireError::new(ErrorCode::Ambiguous, message))
            }
        }
    }

    /// Forgets a container; its name is free.
    fn forget(&mut self, id: &ContainerId) {
        let Some(mut container) = self.containers.remove(id) else { return };
        if let Some(name) = container.name()
            && self.names.get(name) == Some(id)
        {
            self.names.remove(name);
        }
        container.tell_settled(&Ok(()));
        // Whoever still waits for its start or end is told by the end of their channel that it is gone.
        tracing::info!(container = %id, "removed");
    }
}

/// The error of a container that is gone while somebody waits for it.
pub(crate) fn gone(id: &ContainerId) -> WireError {
    WireError::new(ErrorCode::NotFound, format!("No such container: {id}"))
}

/// Whether an image of this container may not be removed even with force.
fn is_in_use(state: &State) -> bool {
    match state {
        State::Live(_) | State::Unreachable(_) | State::New => true,
        State::Created | State::Exited | State::Removing { .. } => false,
    }
}
