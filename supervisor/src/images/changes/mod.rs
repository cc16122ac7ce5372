//! What a container has changed, read from its write layer without a mount: directory by directory, on descriptors, beside
//! the layers of its image.
//!
//! | file | what |
//! |---|---|
//! | `node.rs` | one file, held and read without following or waiting |
//! | `stack.rs` | directories of the image's layers as overlayfs shows them together |
//! | `walk.rs` | what is in the write layer, and what the image has there |
//! | `archive.rs` | files become entries of a tar |
//! | `layer.rs`, `whole.rs`, `listing.rs` | the changes as the tar of a layer; the whole file system as a tar; lines of `diff` |
//!
//! Of the container's own layer (init layer) nothing is read: what it has put into the write layer's way is known by
//! [`OwnPaths`].

mod archive;
mod layer;
mod listing;
mod node;
mod stack;
mod walk;
mod whole;

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

pub(super) use self::{
    archive::LeftOut,
    layer::write_layer,
    listing::write_lines,
    node::Node,
    stack::{Seen, Stack},
    whole::write_whole,
};
use super::error::ImageError;

/// Files that every container has of its own, as docker mounts them: they are never the image's.
const OWN_FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];
/// Directories that every container has.
const OWN_DIRECTORIES: [&str; 3] = ["dev", "proc", "sys"];

/// What a container has in its file system that is neither its image's nor its program's.
#[derive(Debug, Clone)]
pub(crate) struct OwnPaths {
    /// Where volumes are mounted, and directories above: made if the image does not have them.
    stubs: BTreeSet<Vec<u8>>,
}

impl OwnPaths {
    /// With volumes mounted at these absolute paths.
    pub(crate) fn new<'d>(destinations: impl Iterator<Item = &'d str>) -> Self {
        let mut stubs = BTreeSet::new();
        for path in destinations.chain(OWN_FILES).chain(OWN_DIRECTORIES) {
            let mut whole = Vec::new();
            for part in path.split('/').filter(|part| !part.is_empty()) {
                if !whole.is_empty() {
                    whole.push(b'/');
                }
                whole.extend_from_slice(part.as_bytes());
                stubs.insert(whole.clone());
            }
        }
        Self { stubs }
    }

    /// Whether changes of this path are not the program's.
    fn has_file(&self, path: &[u8]) -> bool {
        OWN_FILES.iter().any(|own| own.as_bytes() == path)
    }

    /// Whether an empty directory there that the image does not have is not the program's.
    fn has_stub(&self, path: &[u8]) -> bool {
        self.stubs.contains(path)
    }
}

/// The write layer of a container, held open.
#[derive(Debug)]
pub(crate) struct WriteLayer {
    path: PathBuf,
    /// None of a container that was never started.
    directory: Option<OwnedFd>,
    own: OwnPaths,
}

impl WriteLayer {
    /// Opens it, if it is there.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open(path: &Path, own: OwnPaths) -> Result<Self, ImageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(directory) => Some(directory),
            Err(Errno::NOENT) => None,
            Err(errno) => {
                return Err(ImageError::system("open", path.display().to_string(), errno));
            }
        };
        Ok(Self { path: path.to_owned(), directory, own })
    }

    /// Whether it is still where it was: it is renamed into the trash before anything of it is removed.
    pub(crate) fn is_in_its_place(&self) -> bool {
        let identity = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        let here = rustix::fs::lstat(&self.path).map(identity);
        match &self.directory {
            Some(directory) => rustix::fs::fstat(directory.as_fd()).map(identity) == here,
            None => here == Err(Errno::NOENT),
        }
    }
}

/// An error at a path.
fn failed(action: &'static str, path: &[u8], source: impl Into<io::Error>) -> ImageError {
    ImageError::system(action, super::error::quoted(path), source)
}
