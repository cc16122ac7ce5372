//! The volumes that are there: found, shown, removed, and tidied up after a kill.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use mysup_ipc::{
    error::{ErrorCode, WireError},
    id::{ContainerId, VolumeName},
    layout,
    plan::VolumeMount,
    point,
};
use rustix::fs::FlockOperation;

use super::{
    leaving::{Exits, Leaving},
    mounts,
    record::Record,
};
use crate::{
    config::Config,
    error::{Error, file_error},
    registry::trash,
    shim_link::sweep::Sweeper,
};

/// Before the name of a volume that is being made: no volume is called so.
pub(crate) const NEW: &str = ".new-";

/// The volumes of a state root. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Store(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    /// Absolute, without links: it is compared with the table of mounts.
    directory: PathBuf,
    trash: PathBuf,
    sweeper: Sweeper,
    pub(super) exits: Exits,
    /// Held while a volume is made.
    changes: Mutex<()>,
    /// A volume that was to go with its container is still there.
    owed: AtomicBool,
}

/// A volume that is there.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    /// Its name: that of its directory.
    pub(crate) name: VolumeName,
    /// Its directory.
    pub(crate) directory: PathBuf,
    /// What is known of it, or what is wrong with that.
    pub(crate) record: Result<Record, String>,
}

impl Store {
    /// The volumes below `config.root`, whose directory exists. What was broken off is thrown into the trash. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn open(config: &Config, sweeper: Sweeper) -> Result<Self, Error> {
        let directory = config.volumes();
        let directory = directory.canonicalize().map_err(Error::file("look at", &directory))?;
        let store = Self(Arc::new(Shared {
            directory,
            trash: config.trash(),
            sweeper,
            exits: Exits::default(),
            changes: Mutex::new(()),
            owed: AtomicBool::new(false),
        }));
        store.tidy().map_err(Error::file("read directory", &store.0.directory))?;
        Ok(store)
    }

    /// Where all of them are.
    pub(super) fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Where a volume is, or would be.
    pub(crate) fn path(&self, name: &VolumeName) -> PathBuf {
        self.0.directory.join(name.as_str())
    }

    /// All of them, by name. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn list(&self) -> Result<Vec<Volume>, WireError> {
        self.list_if(|_| true)
    }

    /// Those that are to be gone with their container. Blocks.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub(crate) fn ephemeral(&self) -> Result<Vec<Volume>, WireError> {
        // At every start: the records of those with a name of somebody's need not be read.
        let mut volumes = self.list_if(VolumeName::is_made_up)?;
        volumes.retain(|volume| volume.record.as_ref().is_ok_and(|record| record.ephemeral));
        Ok(volumes)
    }

    fn list_if(&self, wanted: impl Fn(&VolumeName) -> bool) -> Result<Vec<Volume>, WireError> {
        let failed = |error| file_error("read directory", &self.0.directory, error);
        let mut names: Vec<VolumeName> =
            self.names().map_err(failed)?.into_iter().filter_map(|name| name.parse().ok()).collect();
        names.retain(wanted);
        names.sort();
        Ok(names.into_iter().filter_map(|name| self.look(name)).collect())
    }

    /// One of them. Blocks.
    ///
    /// # Errors
    /// If there is none of that name.
    pub(crate) fn find(&self, typed: &str) -> Result<Volume, WireError> {
        let found = typed.parse().ok().and_then(|name| self.look(name));
        found.ok_or_else(|| WireError::new(ErrorCode::NotFound, format!("No such volume: {typed}")))
    }

    fn look(&self, name: VolumeName) -> Option<Volume> {
        let directory = self.path(&name);
        is_directory(&directory).then(|| Volume { record: Record::read(&directory, &name), name, directory })
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.0.directory)?.collect::<io::Result<Vec<_>>>()?;
        Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    /// The volumes that were made for a container. Blocks.
    pub(crate) fn made_for(&self, id: &ContainerId) -> Vec<VolumeName> {
        let is_its =
            |volume: &Volume| volume.record.as_ref().is_ok_and(|record| record.made_for.as_ref() == Some(id));
        self.list().unwrap_or_default().into_iter().filter(is_its).map(|volume| volume.name).collect()
    }

    /// Marks a volume that nobody has as leaving; `None` if somebody else is removing it. Never waits.
    pub(crate) fn leave(&self, name: &VolumeName) -> Option<Leaving> {
        self.0.exits.begin(name)
    }

    /// Waits until nobody removes a volume of this name any more. Blocks, as long as a rename and a sync take.
    pub(crate) fn wait_until_gone(&self, name: &VolumeName) {
        self.0.exits.wait_for(name);
    }

    /// Renames a volume into the trash; false if it is not there. Blocks.
    ///
    /// # Errors
    /// If something is mounted in it, or the file system fails. It is there as before then.
    pub(crate) fn remove(&self, leaving: &Leaving) -> Result<bool, WireError> {
        let path = self.path(leaving.name());
        let mounted =
            mounts::inside(&path).map_err(|error| file_error("read", "/proc/self/mountinfo", error))?;
        if let Some(point) = mounted {
            let (name, point) = (leaving.name(), point.display());
            let message = format!(
                "cannot remove volume {name}: something is mounted at {point}; unmount it (umount {point}), nothing \
                 below it is touched"
            );
            return Err(WireError::new(ErrorCode::Conflict, message));
        }
        // Opened before anything is moved: if that fails, the volume is there as before.
        let parent =
            File::open(&self.0.directory).map_err(|error| file_error("open", &self.0.directory, error))?;
        point::before(point::Step::DropVolume);
        let moved = self.0.sweeper.with_room(|| trash::move_into(&path, &self.0.trash));
        let moved = moved.map_err(|error| file_error("move into the trash:", &path, error))?;
        point::after(point::Step::DropVolume);
        let Some(trashed) = moved else { return Ok(false) };
        if let Err(error) = parent.sync_all() {
            // Not promised, so not done: it is there for another try.
            let _ = fs::rename(trashed, &path);
            return Err(file_error("sync", &self.0.directory, error));
        }
        self.0.sweeper.wake();
        Ok(true)
    }

    /// A volume that was to go with its container stays: somebody else has it. Blocks.
    ///
    /// # Errors
    /// If its record cannot be read or written; it is as before then.
    pub(crate) fn keep(&self, name: &VolumeName) -> Result<(), WireError> {
        let volume = self.find(name.as_str())?;
        let record = volume.record.map_err(|reason| WireError::new(ErrorCode::System, reason))?;
        Record { ephemeral: false, ..record }
            .write(&volume.directory)
            .map_err(|error| file_error("write the record in", &volume.directory, error))
    }

    /// Throws away what was broken off: volumes that were never told of, and copies that no shim works on. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be read; what resists is logged and left to the next time.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        let _one = self.change();
        for name in self.names()? {
            let path = self.0.directory.join(&name);
            let rubbish = if name.starts_with(NEW) {
                trash::discard(&path, &self.0.trash)
            } else if name.parse::<VolumeName>().is_ok() {
                discard_copy(&path, &self.0.trash)
            } else {
                continue;
            };
            self.discarded(&name, rubbish);
        }
        Ok(())
    }

    /// Throws away the half copies in these volumes, that a shim left when it died. Blocks; what resists is logged and left
    /// to the next use, or the next start.
    pub(crate) fn discard_copies(&self, names: &[VolumeName]) {
        for name in names {
            self.discarded(name.as_str(), discard_copy(&self.path(name), &self.0.trash));
        }
    }

    fn discarded(&self, name: &str, rubbish: io::Result<bool>) {
        match rubbish {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(volume = name, "what was broken off in its making is removed");
                self.0.sweeper.wake();
            }
            Err(error) => {
                tracing::warn!(volume = name, %error, "cannot discard what was broken off, continuing");
            }
        }
    }

    /// A volume that was to go is still there: it is tried again.
    pub(crate) fn owe(&self) {
        self.0.owed.store(true, Ordering::Relaxed);
    }

    /// Whether something was owed since the last call.
    pub(crate) fn take_owed(&self) -> bool {
        self.0.owed.swap(false, Ordering::Relaxed)
    }

    pub(super) fn trash(&self) -> &Path {
        &self.0.trash
    }

    /// Whoever panicked while he had it left what `tidy` removes.
    pub(super) fn change(&self) -> MutexGuard<'_, ()> {
        self.0.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Volume {
    /// What containers see of it.
    pub(crate) fn mountpoint(&self) -> PathBuf {
        self.directory.join(layout::VOLUME_DATA)
    }
}

/// Itself, not what a link leads to.
fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

/// The half copy in a volume's directory, unless a shim works on it: that one has the lock.
fn discard_copy(volume: &Path, trash: &Path) -> io::Result<bool> {
    let copy = volume.join(layout::VOLUME_COPY);
    if !is_directory(volume) || copy.symlink_metadata().is_err() {
        return Ok(false);
    }
    let directory = File::open(volume)?;
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
        Ok(()) => trash::discard(&copy, trash),
    }
}

/// The volumes among a container's mounts.
pub(crate) fn of_mounts(mounts: &[mysup_ipc::plan::MountPlan]) -> impl Iterator<Item = &VolumeMount> {
    mounts.iter().filter_map(|mount| mount.volume())
}
