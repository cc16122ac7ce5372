//! `commit`, `export`, `diff`: what a container has changed. A running one is paused if that is wanted; one at rest can be
//! neither started nor removed meanwhile.

use std::{collections::VecDeque, os::fd::OwnedFd, sync::Arc};

use mysup_ipc::{
    api::Response,
    commits::CommitRequest,
    container::ImageSource,
    error::{ErrorCode, WireError},
    id::ContainerId,
    layout,
    plan::StorageDriver,
};
use tokio::time::Instant;

use super::operations::{Operations, PATIENCE, Settled, damaged};
use crate::{
    config::Places,
    images::{
        Audience, Cancel, Change, Changed, CommitFault, Defaults, Draft, ImageError, Origin, OwnPaths, Store,
        WriteLayer,
    },
    registry::{
        Hold,
        record::Record,
        state::{Live, State},
    },
    shim_link::{pause::Pause, spawn::is_socket},
};

/// A container whose changes are to be read.
struct Subject {
    record: Arc<Record>,
    places: Places,
    stand: Stand,
}

/// Where it is.
enum Stand {
    /// Its program runs, and is to be paused.
    Paused,
    /// Its program runs, and goes on.
    Moving,
    /// It is at rest, and stays so while this is kept.
    AtRest(#[expect(dead_code, reason = "what counts is its end")] Hold),
}

/// The answer.
///
/// # Errors
/// If there is no such container, its changes are gone or cannot be read, or as the store.
pub(super) async fn answer(
    operations: &Operations,
    request: CommitRequest,
    mut descriptors: VecDeque<OwnedFd>,
) -> Result<Response, WireError> {
    let missing = || WireError::new(ErrorCode::Invalid, "the output's descriptor is missing");
    // Behind the output, if there is one, a client may send a socket on which it wants to be told how far it is.
    let audience = Audience::new(descriptors.pop_back_if(|last| is_socket(last)));
    let descriptor = descriptors.pop_front();
    match request {
        CommitRequest::Commit { container, name, author, message, changes, pause } => {
            let id = operations.registry.resolve(&container).await?;
            let subject = subject(operations, &id, pause, "commit").await?;
            let change = Change::new(&changes, None);
            let draft = Draft { name, author, message, change, defaults: defaults(&subject.record) };
            let commit = move |store: &Store, cancel: &Cancel| {
                let store = store.telling(audience);
                subject.read(cancel, |changed| store.commit(changed, &draft, cancel))
            };
            let image = operations.images.work(commit).await?;
            Ok(Response::Image(image.info()))
        }
        CommitRequest::Export { container, pause } => {
            let out = descriptor.ok_or_else(missing)?;
            let id = operations.registry.resolve(&container).await?;
            let subject = subject(operations, &id, pause, "export").await?;
            let export = move |store: &Store, cancel: &Cancel| {
                let store = store.telling(audience);
                subject.read(cancel, |changed| store.export(changed, out, cancel))
            };
            operations.images.work(export).await.map(|()| Response::Done)
        }
        CommitRequest::Diff { container } => {
            let out = descriptor.ok_or_else(missing)?;
            let id = operations.registry.resolve(&container).await?;
            let subject = subject(operations, &id, false, "diff").await?;
            let diff = move |store: &Store, cancel: &Cancel| {
                subject.read(cancel, |changed| store.diff(changed, out, cancel))
            };
            operations.images.work(diff).await.map(|()| Response::Done)
        }
    }
}

/// Waits for what is under way with it.
async fn subject(
    operations: &Operations,
    id: &ContainerId,
    pause: bool,
    verb: &str,
) -> Result<Subject, WireError> {
    let deadline = Instant::now() + PATIENCE;
    operations.reachable(id).await?;
    loop {
        let look = operations.registry.look(id).await?;
        match operations.settled(id, &look, deadline).await? {
            Settled::Yes => {}
            Settled::LookAgain => continue,
        }
        let record = look.record.map_err(|reason| damaged(id, &reason))?;
        let refused = |reason: &str| {
            let message = format!("cannot {verb} container \"{}\": {reason}", record.name);
            Err(WireError::new(ErrorCode::Conflict, message))
        };
        if record.config.storage_driver == StorageDriver::Aufs {
            return refused("what aufs keeps cannot be read yet, only overlay's");
        }
        let places = operations.config.places(id);
        let stand = match look.state {
            State::Live(Live::Running { .. } | Live::Stopping { .. }) if pause => Stand::Paused,
            State::Live(Live::Running { .. } | Live::Stopping { .. }) => Stand::Moving,
            State::Exited if !record.config.keep => {
                return refused(
                    "it has ended, and what it had changed went with its end (run it with --keep, or commit it while \
                     it runs)",
                );
            }
            State::Created | State::Exited => match operations.registry.hold(id).await {
                Ok(hold) => Stand::AtRest(hold),
                // It has just been started, or removed.
                Err(_moved) if Instant::now() < deadline => continue,
                Err(error) => return Err(error),
            },
            State::New | State::Live(Live::Starting | Live::Held { .. }) => {
                return refused("it is being started: try again");
            }
            State::Live(Live::TearingDown { .. }) | State::Removing { .. } => {
                return refused("it is being taken down");
            }
            State::Live(Live::Leftover { .. }) => return refused("its teardown is not finished"),
            State::Unreachable(_) => return refused("its shim does not answer"),
        };
        return Ok(Subject { record, places, stand });
    }
}

impl Subject {
    /// Opens what it has changed, pausing it first, and says at the end whether that was one thing all the time.
    fn read<T>(
        self,
        cancel: &Cancel,
        read: impl FnOnce(Changed<'_>) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let origin = match (&self.record.image, &self.record.config.image) {
            (Some(image), _) => Origin::Image(image.clone()),
            (None, ImageSource::Directory(directory)) => Origin::Directory(directory.into()),
            (None, ImageSource::Named(_) | ImageSource::Archive(_)) => {
                return Err(CommitFault::Directory.into());
            }
        };
        let pause = match self.stand {
            Stand::Paused => {
                let begun = Pause::begin(&self.places.run, || cancel.is_cancelled());
                match begun {
                    Err(_) if cancel.is_cancelled() => return Err(ImageError::Cancelled),
                    begun => Some(begun.map_err(CommitFault::Pause)?),
                }
            }
            Stand::Moving | Stand::AtRest(_) => None,
        };
        let destinations = self.record.config.mounts.iter().map(|mount| mount.destination.as_str());
        let own = OwnPaths::new(destinations.chain([self.record.program.workdir.as_str()]));
        let layer = WriteLayer::open(&self.places.state.join(layout::WRITE_LAYER), own)?;
        let settled = || {
            let held = pause.is_none_or(|mut pause| pause.holds());
            match (held, layer.is_in_its_place()) {
                (_, false) => Err(CommitFault::Gone),
                (false, true) => Err(CommitFault::WentOn),
                // All was read: from here on it goes on.
                (true, true) => Ok(()),
            }
        };
        read(Changed { origin: &origin, layer: &layer, settled: Box::new(settled) })
    }
}

/// What the container was started with.
fn defaults(record: &Record) -> Defaults {
    let config = &record.config;
    Defaults {
        env: config.env.clone(),
        command: config.command.clone(),
        entrypoint: config.entrypoint.clone(),
        workdir: config.workdir.clone(),
        user: config.user.clone(),
        stop_signal: config.stop_signal,
        labels: config.labels.iter().cloned().collect(),
    }
}
