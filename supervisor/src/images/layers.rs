//! The directories of unpacked layers, and the trash.
//!
//! ```text
//! layers/<chain id>/tree/       its files, the directory that overlayfs gets
//! layers/<chain id>/recording   what else its tar had in it                       (recording.rs)
//! layers/<chain id>/kept/       contents of files that later entries replaced, rarely there
//! layers/<chain id>/layer.json  digests and sizes                                 (layer_record.rs)
//! ```
//!
//! A layer is made under a temporary name, synced, and renamed to its chain id: what has that name is whole and on the
//! disk. Never: a change of what is in a layer, the removal of a tree (it is renamed into the trash).

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use mysup_ipc::{id::Digest, layout, point};
use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Uid},
    io::Errno,
    rand::GetRandomFlags,
};

use super::{error::ImageError, layer_record::LayerRecord, record::names_in};
use crate::shim_link::sweep::Sweeper;

/// Directory below the state root.
pub(super) const LAYERS: &str = "layers";

/// What a layer is called while it is made: no digest begins like this.
const TEMPORARY: &str = "import-";

/// In a layer's directory.
pub(super) const TREE: &str = "tree";
const RECORDING: &str = "recording";
const KEPT: &str = "kept";
const RECORD: &str = "layer.json";

/// Bytes of a layer's record; more cannot be one.
const LONGEST: u64 = 64 << 10;

/// The open directories.
#[derive(Debug)]
pub(super) struct Layers {
    layers: OwnedFd,
    trash: OwnedFd,
    /// Makes room in the trash.
    sweeper: Sweeper,
}

/// A layer that is being made.
#[derive(Debug)]
pub(super) struct NewLayer {
    name: String,
    directory: OwnedFd,
    tree: OwnedFd,
}

impl NewLayer {
    /// Of two directories of a test.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(directory: OwnedFd, tree: OwnedFd) -> Self {
        Self { name: "of a test".to_owned(), directory, tree }
    }

    /// The root of its files.
    pub(super) fn tree(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    /// The new file for its recording.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn recording(&self) -> Result<OwnedFd, ImageError> {
        self.make(RECORDING).map_err(|errno| ImageError::system("make", "the recording of the layer", errno))
    }

    /// Keeps a file that an entry is about to replace. One that is kept under another name already is not renamed.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub(super) fn keep(&self, directory: BorrowedFd<'_>, name: &[u8], inode: u64) -> Result<(), Errno> {
        match rustix::fs::mkdirat(&self.directory, KEPT, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let kept = open_directory(self.directory.as_fd(), KEPT)?;
        match rustix::fs::renameat_with(directory, name, kept, inode.to_string(), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => rustix::fs::unlinkat(directory, name, AtFlags::empty()),
            result => result,
        }
    }

    /// Writes its record. The last thing before it is synced.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn describe(&self, record: &LayerRecord) -> Result<(), ImageError> {
        let fault = |source: io::Error| ImageError::system("write", "the record of the layer", source);
        let mut file = File::from(self.make(RECORD).map_err(|errno| fault(errno.into()))?);
        let text = serde_json::to_vec(record).map_err(|error| fault(error.into()))?;
        file.write_all(&text).map_err(fault)
    }

    fn make(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, name, flags, Mode::from_raw_mode(0o600))
    }

    /// Puts all of it on the disk.
    ///
    /// syncfs(2), not fsync(2) of each file: a root file system has thousands of small ones, each fsync is a
    /// transaction of its own, and directories, links and attributes would need theirs too. syncfs is one. It pays
    /// for what others have written to the same file system, and it reports write-back errors of anything there
    /// since Linux 5.8, which can only refuse too much.
    ///
    /// What was made before on the same file system is on the disk too: one call serves all layers of an image.
    ///
    /// # Errors
    /// If something could not be written.
    pub(super) fn sync(&self) -> Result<(), ImageError> {
        rustix::fs::syncfs(&self.directory)
            .map_err(|errno| ImageError::system("sync", "the new layer", errno))
    }
}

/// A layer that is there.
#[derive(Debug)]
pub(super) struct StoredLayer(OwnedFd);

impl StoredLayer {
    /// Of a directory of the fuzzer.
    #[cfg(fuzzing)]
    pub(super) fn of(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// The root of its files.
    ///
    /// # Errors
    /// If it is missing.
    pub(super) fn tree(&self) -> io::Result<OwnedFd> {
        Ok(open_directory(self.0.as_fd(), TREE)?)
    }

    /// What was recorded of its tar.
    ///
    /// # Errors
    /// If it is missing.
    pub(super) fn recording(&self) -> io::Result<OwnedFd> {
        self.open(RECORDING)
    }

    /// Contents of replaced files, if there are any.
    ///
    /// # Errors
    /// If the file system fails.
    pub(super) fn kept(&self) -> io::Result<Option<OwnedFd>> {
        match open_directory(self.0.as_fd(), KEPT) {
            Err(Errno::NOENT) => Ok(None),
            result => Ok(Some(result?)),
        }
    }

    /// Its record.
    ///
    /// # Errors
    /// If it is missing or none.
    pub(super) fn record(&self) -> io::Result<LayerRecord> {
        let mut text = Vec::new();
        File::from(self.open(RECORD)?).take(LONGEST).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    fn open(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::empty())?)
    }
}

impl Layers {
    /// Opens the directories, making them if need be.
    ///
    /// # Errors
    /// If they cannot be made or are none.
    pub(super) fn open(root: BorrowedFd<'_>, sweeper: Sweeper) -> io::Result<Self> {
        let (layers, trash) = (open_private(root, LAYERS)?, open_private(root, layout::TRASH)?);
        Ok(Self { layers, trash, sweeper })
    }

    /// An empty directory for a layer: 0755 and root's, which the archive may change.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn begin(&self) -> Result<NewLayer, ImageError> {
        let fault = |errno: Errno| ImageError::system("make a directory for", "the new layer", errno);
        let name = format!("{TEMPORARY}{}", random_hex().map_err(fault)?);
        rustix::fs::mkdirat(&self.layers, &name, Mode::from_raw_mode(0o700)).map_err(fault)?;
        match self.prepare(&name) {
            Ok((directory, tree)) => Ok(NewLayer { name, directory, tree }),
            Err(errno) => {
                // What cannot be removed either is thrown away at the next start.
                let path = format!("{name}/{TREE}");
                let _ = rustix::fs::unlinkat(&self.layers, path, AtFlags::REMOVEDIR);
                let _ = rustix::fs::unlinkat(&self.layers, &name, AtFlags::REMOVEDIR);
                Err(fault(errno))
            }
        }
    }

    fn prepare(&self, name: &str) -> Result<(OwnedFd, OwnedFd), Errno> {
        let directory = open_directory(self.layers.as_fd(), name)?;
        // An administrator's default ACL on the state root would become part of every file of the layer.
        match rustix::fs::fremovexattr(&directory, "system.posix_acl_default") {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
        rustix::fs::mkdirat(&directory, TREE, Mode::from_raw_mode(0o755))?;
        let tree = open_directory(directory.as_fd(), TREE)?;
        rustix::fs::fchown(&tree, Some(Uid::ROOT), Some(Gid::ROOT))?;
        rustix::fs::fchmod(&tree, Mode::from_raw_mode(0o755))?;
        Ok((directory, tree))
    }

    /// Gives a synced layer its chain id for a name. If there is one already, that one stays and this one is thrown
    /// away: they are the same.
    ///
    /// # Errors
    /// If it cannot be renamed, and is thrown away, or the rename cannot be synced.
    pub(super) fn finish(&self, layer: NewLayer, chain: &Digest) -> Result<(), ImageError> {
        let fault = |errno: Errno| ImageError::system("store", chain.as_str(), errno);
        let flags = RenameFlags::NOREPLACE;
        point::before(point::Step::KeepLayer);
        let renamed = rustix::fs::renameat_with(&self.layers, &layer.name, &self.layers, chain.hex(), flags);
        point::after(point::Step::KeepLayer);
        match renamed {
            Err(Errno::EXIST) => {
                self.discard(layer);
                Ok(())
            }
            Err(errno) => {
                self.discard(layer);
                Err(fault(errno))
            }
            Ok(()) => rustix::fs::fsync(&self.layers).map_err(fault),
        }
    }

    /// Throws an unfinished layer away.
    pub(super) fn discard(&self, layer: NewLayer) {
        if let Err(error) = self.throw_away(&layer.name) {
            tracing::warn!(layer = layer.name, %error, "an unfinished layer stays until the next start, continuing");
        }
    }

    /// Throws a layer away that no image needs. One that is not there is thrown away.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub(super) fn remove(&self, chain: &Digest) -> io::Result<()> {
        self.throw_away(chain.hex())
    }

    /// Whether the layer is there.
    pub(super) fn contains(&self, chain: &Digest) -> bool {
        self.stored(chain).and_then(|layer| layer.tree()).is_ok()
    }

    /// The layer.
    ///
    /// # Errors
    /// If it is not there.
    pub(super) fn stored(&self, chain: &Digest) -> io::Result<StoredLayer> {
        Ok(StoredLayer(open_directory(self.layers.as_fd(), chain.hex())?))
    }

    /// A file without a name, for what must be known as a whole before it is written elsewhere.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn scratch(&self) -> io::Result<File> {
        let name = format!("{TEMPORARY}{}", random_hex()?);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.layers, &name, flags, Mode::from_raw_mode(0o600))?;
        rustix::fs::unlinkat(&self.layers, &name, AtFlags::empty())?;
        Ok(file.into())
    }

    /// The names of all that is there.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(super) fn names(&self) -> io::Result<impl Iterator<Item = String> + use<>> {
        Ok(names_in(&self.layers)?.into_iter())
    }

    /// Renames something into the trash, where the sweeper finds it. Not synced: if a power cut brings it back, the
    /// next start throws it away again.
    pub(super) fn throw_away(&self, name: &str) -> io::Result<()> {
        let target = format!("layer-{name}-{}", random_hex()?);
        let flags = RenameFlags::NOREPLACE;
        point::before(point::Step::DropLayer);
        let dropped = self.sweeper.with_room(|| {
            match rustix::fs::renameat_with(&self.layers, name, &self.trash, &target, flags) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        });
        point::after(point::Step::DropLayer);
        dropped
    }
}

/// Opens a directory of the store for root alone.
///
/// # Errors
/// If it cannot be made or is none.
pub(super) fn open_private(root: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o700)) {
        // What will be durable in it is so only if its name is.
        Ok(()) => rustix::fs::fsync(root)?,
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let directory = open_directory(root, name)?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o700))?;
    Ok(directory)
}

/// The store's root, made if need be.
///
/// # Errors
/// If it cannot be made or is none.
pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn open_directory(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn random_hex() -> Result<String, Errno> {
    let mut bytes = [0_u8; 8];
    // So few bytes come whole (getrandom(2)).
    rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}
