//! One volume on disk: `volume.json`, sealed (`sealed.rs`). A damaged record damages no volume: its files are served as
//! before, and nothing removes it but a person who names it.

use std::{fs::File, io, os::fd::AsFd, path::Path};

use mysup_ipc::{
    id::{ContainerId, VolumeName},
    layout,
    record::{Durability, replace},
};
use serde::{Deserialize, Serialize};

use crate::sealed;

const MAGIC: &str = "mysup-volume";

/// What is known of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its name, that of its directory too.
    pub(crate) name: VolumeName,
    /// Nanoseconds since 1970.
    pub(crate) created_at: u64,
    /// `--label`, in order.
    pub(crate) labels: Vec<(String, String)>,
    /// Nobody gave it its name.
    pub(crate) anonymous: bool,
    /// The container that it was made for, if it is anonymous.
    pub(crate) made_for: Option<ContainerId>,
    /// It is to be gone with that container (`--rm`).
    pub(crate) ephemeral: bool,
}

impl Record {
    /// Replaces the record in the volume's directory; on the disk when this returns.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let directory = File::open(directory)?;
        let bytes = sealed::to_bytes(MAGIC, self)?;
        replace(directory.as_fd(), layout::VOLUME, &bytes, Durability::Durable)
    }

    /// Reads the record of a volume's directory.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(crate) fn read(directory: &Path, name: &VolumeName) -> Result<Self, String> {
        let record: Record = sealed::read(MAGIC, &directory.join(layout::VOLUME))?;
        if record.name == *name { Ok(record) } else { Err(format!("it is the record of {}", record.name)) }
    }
}
