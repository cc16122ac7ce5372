//! Where an instance keeps its things. Read once by the command line, passed down.

use std::path::{Path, PathBuf};

use mysup_ipc::{id::ContainerId, layout};

use crate::images::Limits;

/// One instance of mysup: two with different roots know nothing of each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// State that must survive a reboot; absolute.
    pub(crate) root: PathBuf,
    /// State of this boot; absolute.
    pub(crate) run_root: PathBuf,
    /// What an image may have that comes in.
    pub(crate) image_limits: Limits,
}

impl Config {
    /// The directory with one directory for each container's record.
    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join(layout::CONTAINERS)
    }

    /// The directory with one directory for each container that has something to undo.
    pub(crate) fn run_containers(&self) -> PathBuf {
        self.run_root.join(layout::CONTAINERS)
    }

    /// The directory with one directory for each volume.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join(layout::VOLUMES)
    }

    /// Where things of the state root go to be deleted.
    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join(layout::TRASH)
    }

    /// Where things of the run root go to be deleted: it may be another file system.
    pub(crate) fn run_trash(&self) -> PathBuf {
        self.run_root.join(layout::TRASH)
    }

    /// The supervisor's locks. The one of the run root is known to others; the one of the state root keeps a second
    /// instance with another run root away from the same state.
    pub(crate) fn locks(&self) -> [PathBuf; 2] {
        [self.run_root.join("lock"), self.root.join("lock")]
    }

    /// The boot the run root belongs to.
    pub(crate) fn boot_id(&self) -> PathBuf {
        self.run_root.join("boot-id")
    }

    /// The supervisor's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_root.join(layout::SUPERVISOR_SOCKET)
    }

    /// The directories of one container.
    pub(crate) fn places(&self, id: &ContainerId) -> Places {
        Places {
            state: self.containers().join(id.as_str()),
            run: self.run_containers().join(id.as_str()),
            trash: self.trash(),
        }
    }
}

/// The directories of one container.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Record, log and write layer.
    pub(crate) state: PathBuf,
    /// Socket, journal, mountpoint. Is there as long as there is something to undo.
    pub(crate) run: PathBuf,
    /// The trash of the state root.
    pub(crate) trash: PathBuf,
}

impl Places {
    /// The id of the container, which is the name of both directories.
    pub(crate) fn id(&self) -> String {
        self.state.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The note of a removal by force that has begun.
    pub(crate) fn doomed(&self) -> PathBuf {
        self.state.join(layout::DOOMED)
    }

    /// The file whose lock the living shim holds.
    pub(crate) fn lock(&self) -> PathBuf {
        self.state.join(layout::LOCK)
    }
}

/// A path as it goes over the wire. Roots come from the command line, which takes only UTF-8, and all else is ours.
pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
