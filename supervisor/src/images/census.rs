//! What a layer's directory looks like, in one digest: names, types, owners, modes, times, attributes, link targets,
//! device numbers, sizes, numbers of links. Contents are not in it: they have the digest of the tar.
//!
//! It is taken when the layer was unpacked and kept beside it. A later one that differs means that somebody changed
//! the layer, or that the disk lost something.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mysup_ipc::id::Digest;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};
use sha2::{Digest as _, Sha256};

use super::{error::ImageError, error::quoted, record::names_of};

/// Names of attributes of one file, in bytes: XATTR_LIST_MAX.
const NAMES: usize = 64 << 10;
/// One attribute's value, in bytes: XATTR_SIZE_MAX.
const VALUE: usize = 64 << 10;

/// Takes the census of a directory. Nothing is followed, and nothing but directories is opened.
///
/// # Errors
/// If something cannot be looked at.
pub(super) fn take(root: BorrowedFd<'_>) -> Result<Digest, ImageError> {
    let mut census = Census { hasher: Sha256::new(), names: vec![0; NAMES], value: vec![0; VALUE] };
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let failed = |errno: Errno| ImageError::system("look at", quoted(&path), errno);
        let directory = enter(root, &path).map_err(failed)?;
        if path.is_empty() {
            let stat = rustix::fs::fstat(&directory).map_err(failed)?;
            census.add(directory.as_fd(), b".", b"", &stat).map_err(failed)?;
        }
        let mut names =
            names_of(&directory).map_err(|error| ImageError::system("read", quoted(&path), error))?;
        names.sort_unstable();
        let mut below = Vec::new();
        for name in names {
            let stat =
                rustix::fs::statat(&directory, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let whole = if path.is_empty() { name.clone() } else { [&path, &b"/"[..], &name].concat() };
            census.add(directory.as_fd(), &name, &whole, &stat).map_err(failed)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                below.push(whole);
            }
        }
        waiting.extend(below.into_iter().rev());
    }
    Ok(Digest::from_sha256(census.hasher.finalize().into()))
}

struct Census {
    hasher: Sha256,
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Census {
    fn add(&mut self, directory: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &Stat) -> Result<(), Errno> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        self.text(path);
        self.hasher.update(stat.st_mode.to_le_bytes());
        self.hasher.update(stat.st_uid.to_le_bytes());
        self.hasher.update(stat.st_gid.to_le_bytes());
        self.hasher.update(stat.st_mtime.to_le_bytes());
        self.hasher.update(stat.st_mtime_nsec.to_le_bytes());
        match kind {
            // Their numbers of links and sizes are the file system's own affair.
            FileType::Directory => {}
            FileType::RegularFile => self.hasher.update(stat.st_size.to_le_bytes()),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
                self.text(target.as_bytes());
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                self.hasher.update(stat.st_rdev.to_le_bytes())
            }
            FileType::Fifo | FileType::Socket | FileType::Unknown => {}
        }
        if kind != FileType::Directory {
            self.hasher.update(stat.st_nlink.to_le_bytes());
        }
        self.attributes(directory, name)
    }

    /// There is no listxattrat(2) before Linux 6.13.
    fn attributes(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        let length = match rustix::fs::llistxattr(path.as_slice(), &mut self.names) {
            Err(Errno::OPNOTSUPP) => 0,
            result => result?,
        };
        let names = self.names.get(..length).unwrap_or_default();
        let mut names: Vec<Vec<u8>> =
            names.split(|byte| *byte == 0).filter(|name| counts(name)).map(<[u8]>::to_vec).collect();
        names.sort_unstable();
        self.hasher.update((names.len() as u64).to_le_bytes());
        for name in names {
            let length = rustix::fs::lgetxattr(path.as_slice(), name.as_slice(), &mut self.value)?;
            self.text(&name);
            self.hasher.update((length as u64).to_le_bytes());
            self.hasher.update(self.value.get(..length).unwrap_or_default());
        }
        Ok(())
    }

    /// With its length, so that no two sequences of texts are the same bytes.
    fn text(&mut self, bytes: &[u8]) {
        self.hasher.update((bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }
}

/// Labels that the host gives its files, and may give them anew, are not the layer's.
fn counts(attribute: &[u8]) -> bool {
    !attribute.is_empty() && !matches!(attribute, b"security.selinux" | b"security.ima" | b"security.evm")
}

/// Opens a directory below the root; no link leads there.
pub(super) fn enter(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), inside) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}
