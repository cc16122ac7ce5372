//! The way into the trash: a rename. Whatever it is, nothing is removed here.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use mysup_ipc::point;

use crate::sys;

/// Renames something into a trash on the same file system; false if it is not there.
pub(crate) fn discard(path: &Path, trash: &Path) -> io::Result<bool> {
    move_into(path, trash).map(|moved| moved.is_some())
}

/// The same, and where it is then.
pub(crate) fn move_into(path: &Path, trash: &Path) -> io::Result<Option<PathBuf>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let parent = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let target = trash.join(format!("{parent}-{name}-{}", sys::now()));
    point::before(point::Step::Discard);
    let renamed = fs::rename(path, &target);
    point::after(point::Step::Discard);
    match renamed {
        Ok(()) => Ok(Some(target)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
