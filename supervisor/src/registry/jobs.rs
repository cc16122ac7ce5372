//! What the registry has to do on disk: on threads that may block, never in its own task, and told to it afterwards.
//!
//! Never here: the removal of a tree. A container's directory is renamed into the trash; the shim's sweep does the rest.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
};

use mysup_ipc::{error::WireError, exit::ExitReport, id::ContainerId, layout, point, record::Durability};

use super::{Registry, Reply, container::Container, record::Record, recover::Found, trash::move_into};
use crate::{
    config::{Config, Places},
    error::{file_error, system_failure},
    shim_link::{
        lost::{record_exit, recorded_exit},
        sweep::Sweeper,
    },
    volumes::Leaving,
};

/// A job that has ended, and for whom.
pub(crate) enum JobDone {
    /// A container's directory and record were made.
    Created(ContainerId, Result<(), WireError>, Reply<ContainerId>),
    /// A container's directory is in the trash.
    Buried(ContainerId, Result<(), WireError>),
    /// A container's record has its new name.
    Renamed(ContainerId, Arc<Record>, Result<(), WireError>, Reply<()>),
    /// The report of a failed start is on disk: the shim's, if it has written one.
    FailureRecorded(ContainerId, Result<ExitReport, WireError>),
    /// The directories of containers, for one who wants all to be well.
    Listed(Result<Vec<ContainerId>, WireError>, Reply<()>),
    /// What was found of containers that are not known.
    TakenIn(Result<Vec<Found>, WireError>, Reply<()>),
}

impl Registry {
    pub(super) fn job_create(&self, id: ContainerId, record: Arc<Record>, reply: Reply<ContainerId>) {
        let config = Arc::clone(&self.means.config);
        self.job(move || make(&config, &record), move |result| JobDone::Created(id, result, reply));
    }

    /// With the volumes that go with it, which go first: a container without its volumes can be removed once more, volumes
    /// without their container would be nobody's.
    pub(super) fn job_bury(&self, id: &ContainerId, leaving: Vec<Leaving>) {
        let (places, id) = (self.means.config.places(id), id.clone());
        let (sweeper, volumes) = (self.means.sweeper.clone(), self.means.volumes.clone());
        let own = self.volumes_of(&id);
        let is_ephemeral = self.containers.get(&id).is_some_and(Container::is_ephemeral);
        self.job(
            move || {
                volumes.discard_copies(&own);
                for volume in &leaving {
                    match volumes.remove(volume) {
                        Err(error) if is_ephemeral => {
                            // Its shim may have removed it already; nobody is there to try again.
                            tracing::warn!(error = %error.message, "a volume stays for now, continuing");
                            volumes.owe();
                        }
                        result => drop(result?),
                    }
                }
                bury(&places, &sweeper)
            },
            move |result| JobDone::Buried(id, result),
        );
    }

    pub(super) fn job_rename(&self, id: &ContainerId, record: Arc<Record>, reply: Reply<()>) {
        let (directory, id) = (self.means.config.places(id).state, id.clone());
        let written = Arc::clone(&record);
        self.job(
            move || {
                point::before(point::Step::Rename);
                let renamed = written.write(&directory);
                point::after(point::Step::Rename);
                renamed.map_err(|error| file_error("write the record in", directory, error))
            },
            move |result| JobDone::Renamed(id, record, result, reply),
        );
    }

    pub(super) fn job_record_failure(&self, id: &ContainerId, report: ExitReport) {
        let (places, id) = (self.means.config.places(id), id.clone());
        let (volumes, own) = (self.means.volumes.clone(), self.volumes_of(&id));
        self.job(
            move || {
                volumes.discard_copies(&own);
                // Empty where no shim ever was; otherwise the shim has removed it.
                let _ = fs::remove_dir(&places.run);
                record_exit(&places, &report)
                    .map_err(|error| file_error("write the exit record in", &places.state, error))?;
                Ok(recorded_exit(&places).unwrap_or(report))
            },
            move |result| JobDone::FailureRecorded(id, result),
        );
    }

    /// Runs what may block, and tells the registry of it.
    pub(super) fn job<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, WireError> + Send + 'static,
        done: impl FnOnce(Result<T, WireError>) -> JobDone + Send + 'static,
    ) {
        let queue = self.jobs.0.clone();
        // Detached: it is not cancelled by whoever asked for it.
        drop(tokio::spawn(async move {
            let result = match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(panic) => Err(system_failure("a job on disk was broken off", &panic)),
            };
            // A registry that is gone needs no answer.
            let _ = queue.send(done(result)).await;
        }));
    }
}

/// Makes a container's directories and its record, or nothing. The run directory comes first: a container that was
/// to be started at once and has none would otherwise look, after a crash, as if it had ended unseen.
fn make(config: &Config, record: &Record) -> Result<(), WireError> {
    let places = config.places(&record.id);
    point::before(point::Step::Create);
    let made = (|| {
        if record.launched {
            make_directory(&places.run).map_err(|error| file_error("make directory", &places.run, error))?;
        }
        make_directory(&places.state).map_err(|error| file_error("make directory", &places.state, error))?;
        record
            .write(&places.state)
            .map_err(|error| file_error("write the record in", &places.state, error))?;
        if record.durability() == Durability::Durable {
            let parent = config.containers();
            sync_directory(&parent).map_err(|error| file_error("sync", parent, error))?;
        }
        Ok(())
    })();
    if made.is_err() {
        unmake(&places);
    }
    point::after(point::Step::Create);
    made
}

/// Takes back what `make` may have made: known names only, and directories only when they are empty.
fn unmake(places: &Places) {
    // Each may not be there; what resists is found as damaged at the next start.
    for name in [layout::CONFIG, layout::EPHEMERAL_CONFIG] {
        let _ = fs::remove_file(places.state.join(name));
        let _ = fs::remove_file(places.state.join(format!("{name}.tmp")));
    }
    let _ = fs::remove_dir(&places.state);
    let _ = fs::remove_dir(&places.run);
}

/// Makes a directory that only root may enter.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Before a shim is started: the run directory says that there may be something to undo, and the records of the run
/// before are gone, so that the first exit record is this run's.
pub(super) fn prepare_start(places: &Places, record: &Record) -> Result<(), WireError> {
    point::before(point::Step::PrepareStart);
    let prepared = try_prepare_start(places, record);
    point::after(point::Step::PrepareStart);
    prepared
}

fn try_prepare_start(places: &Places, record: &Record) -> Result<(), WireError> {
    match make_directory(&places.run) {
        Ok(()) => {}
        // A container that is made and started at once has it already.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(file_error("make directory", &places.run, error)),
    }
    let mut removed = false;
    for name in [layout::EXIT, layout::TEARDOWN, layout::DOOMED] {
        let path = places.state.join(name);
        match fs::remove_file(&path) {
            Ok(()) => removed = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error("remove", path, error)),
        }
    }
    if !record.launched {
        // Its durable write syncs the directory, and with it the removals.
        let launched = Record { launched: true, ..record.clone() };
        return launched
            .write(&places.state)
            .map_err(|error| file_error("write the record in", &places.state, error));
    }
    if removed && record.durability() == Durability::Durable {
        sync_directory(&places.state).map_err(|error| file_error("sync", &places.state, error))?;
    }
    Ok(())
}

/// Renames a container's directory into the trash, if it is still there. Nothing may be left to undo.
pub(super) fn bury(places: &Places, sweeper: &Sweeper) -> Result<(), WireError> {
    point::before(point::Step::Bury);
    let buried = try_bury(places, sweeper);
    point::after(point::Step::Bury);
    buried
}

fn try_bury(places: &Places, sweeper: &Sweeper) -> Result<(), WireError> {
    // Empty, or not there: a start that never came to its shim. Otherwise somebody else's file is in it.
    match fs::remove_dir(&places.run) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file_error("remove directory", &places.run, error)),
    }
    let parent = places.state.parent().unwrap_or(&places.state);
    // Opened before anything is moved: if that fails, the container is there as before.
    let containers = File::open(parent).map_err(|error| file_error("open", parent, error))?;
    let moved = sweeper
        .with_room(|| move_into(&places.state, &places.trash))
        .map_err(|error| file_error("move into the trash:", &places.state, error))?;
    if let Some(trashed) = moved
        && let Err(error) = containers.sync_all()
    {
        // Not promised, so not done: it is there for another try. If it cannot go back, the next start finds it gone.
        let _ = fs::rename(trashed, &places.state);
        return Err(file_error("sync", parent, error));
    }
    Ok(())
}
