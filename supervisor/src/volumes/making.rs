//! A new volume: made under a name that no volume has, synced, renamed.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::Path,
};

use mysup_ipc::{
    error::{ErrorCode, WireError},
    id::{ContainerId, VolumeName},
    layout, point,
};
use rustix::{fs::RenameFlags, io::Errno};

use super::{
    record::Record,
    store::{NEW, Store},
};
use crate::{error::file_error, registry::trash, sys};

/// As docker's: whoever runs in a container may look into it.
const DATA_MODE: u32 = 0o755;

/// A volume that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// Its name.
    pub(crate) name: VolumeName,
    /// In order.
    pub(crate) labels: Vec<(String, String)>,
    /// Nobody gave it its name.
    pub(crate) anonymous: bool,
    /// The container that gets it without having named it.
    pub(crate) made_for: Option<ContainerId>,
    /// It goes with that container.
    pub(crate) ephemeral: bool,
}

impl Store {
    /// Makes a volume unless it is there; on the disk when this returns. Blocks.
    ///
    /// # Errors
    /// If something else is in its place, or the file system fails; nothing is left then.
    pub(crate) fn make(&self, draft: &Draft) -> Result<(), WireError> {
        self.0.exits.wait_for(&draft.name);
        let path = self.path(&draft.name);
        match path.symlink_metadata() {
            Ok(found) if found.is_dir() => return Ok(()),
            Ok(_) => {
                let message =
                    format!("{} is in the way of a volume: it is no directory; move it away", path.display());
                return Err(WireError::new(ErrorCode::Conflict, message));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error("look at", path, error)),
        }
        let _one = self.change();
        point::before(point::Step::MakeVolume);
        let new = self.directory().join(format!("{NEW}{}", draft.name));
        let made = self.try_to_make(draft, &new, &path);
        if made.is_err() {
            unmake(&new);
        }
        point::after(point::Step::MakeVolume);
        made.map_err(|error| file_error("make the volume", path, error))
    }

    fn try_to_make(&self, draft: &Draft, new: &Path, path: &Path) -> io::Result<()> {
        // Of a supervisor that was killed here, and whose start could not throw it away.
        trash::discard(new, self.trash())?;
        DirBuilder::new().mode(0o700).create(new)?;
        let data = new.join(layout::VOLUME_DATA);
        fs::create_dir(&data)?;
        // Whatever the umask of whoever started us is.
        fs::set_permissions(&data, Permissions::from_mode(DATA_MODE))?;
        File::create_new(new.join(layout::VOLUME_FRESH))?;
        let record = Record {
            name: draft.name.clone(),
            created_at: sys::now(),
            labels: draft.labels.clone(),
            anonymous: draft.anonymous,
            made_for: draft.made_for.clone(),
            ephemeral: draft.ephemeral,
        };
        // The last thing in it: its sync of the directory is for all that is in there.
        record.write(new)?;
        let parent = File::open(self.directory())?;
        let (from, to) = (new.file_name().unwrap_or_default(), path.file_name().unwrap_or_default());
        match rustix::fs::renameat_with(parent.as_fd(), from, parent.as_fd(), to, RenameFlags::NOREPLACE) {
            Ok(()) => parent.sync_all(),
            // Somebody was faster.
            Err(Errno::EXIST) if path.is_dir() => {
                unmake(new);
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Takes back what may have been made: known names only, and directories only when they are empty.
fn unmake(new: &Path) {
    // Each may not be there; what resists is thrown away at the next start.
    for name in [layout::VOLUME, "volume.json.tmp", layout::VOLUME_FRESH] {
        let _ = fs::remove_file(new.join(name));
    }
    let _ = fs::remove_dir(new.join(layout::VOLUME_DATA));
    let _ = fs::remove_dir(new);
}
