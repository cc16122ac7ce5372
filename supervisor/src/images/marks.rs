//! Marks of removed files: `.wh.NAME` in an archive (OCI image specification, "Whiteouts"), a character device 0:0 to
//! overlayfs; `.wh..wh..opq` in an archive, the attribute `trusted.overlay.opaque` of the directory to overlayfs.
//!
//! A mark hides what the layers below have, never what its own layer has, whatever their order in the archive.

use std::os::fd::AsFd;

use rustix::{
    fs::{FileType, Mode, Stat, XattrFlags},
    io::Errno,
};

use super::{
    entries::{Entry, Name},
    error::ImageError,
    implied, metadata,
    tree::{Place, Tree, failed, open_directory},
};

const OPAQUE: &str = "trusted.overlay.opaque";

/// Marks a directory as one below which nothing of lower layers is seen.
///
/// # Errors
/// If the attribute cannot be set.
pub(super) fn make_opaque(directory: impl AsFd, name: &Name) -> Result<(), ImageError> {
    rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())
        .map_err(|errno| failed("mark as opaque", name, errno))
}

/// Whether a directory is marked so.
pub(super) fn is_opaque(directory: impl AsFd) -> bool {
    let mut value = [0; 2];
    matches!(rustix::fs::fgetxattr(directory, OPAQUE, &mut value), Ok(1)) && value.starts_with(b"y")
}

/// Whether a file of a layer is the mark of a removed one.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Makes the mark that an entry is about.
///
/// # Errors
/// If it cannot be made.
pub(super) fn make(tree: &mut Tree<'_>, entry: &Entry) -> Result<(), ImageError> {
    match entry.name.last().strip_prefix(b".wh.") {
        Some(b".wh..opq") => make_opaque(tree.place(&entry.name)?.directory, &entry.name),
        // What aufs keeps for itself, in layers that docker made with it long ago.
        Some(own) if own.starts_with(b".wh.") => Ok(()),
        Some(hidden) => hide(tree, entry, hidden),
        None => Ok(()),
    }
}

fn hide(tree: &mut Tree<'_>, entry: &Entry, hidden: &[u8]) -> Result<(), ImageError> {
    let fault = |errno| failed("make the mark", &entry.name, errno);
    let place = Place { directory: tree.place(&entry.name)?.directory, name: hidden };
    match place.look() {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            let directory = open_directory(place).map_err(fault)?;
            implied::unmark(&directory).map_err(fault)?;
            make_opaque(directory, &entry.name)
        }
        // Its own layer has another file there, or the mark: the lower one is hidden by it.
        Ok(_) => Ok(()),
        Err(Errno::NOENT) => {
            let kind = FileType::CharacterDevice;
            rustix::fs::mknodat(place.directory, place.name, kind, Mode::empty(), 0).map_err(fault)?;
            metadata::set_times(place, entry)
        }
        Err(errno) => Err(fault(errno)),
    }
}
