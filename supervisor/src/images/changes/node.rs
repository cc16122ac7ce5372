//! One file of a layer, looked at and read without ever being followed, waited for, or taken for another one: it is held by
//! a descriptor that opens nothing (O_PATH), and read through that.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat},
    io::Errno,
};

use crate::images::{
    limits::{Cap, Limits},
    sparse::{Segment, SparseMap},
};

/// Names of attributes of one file, in bytes: XATTR_LIST_MAX.
const NAMES: usize = 64 << 10;
/// One attribute's value, in bytes: XATTR_SIZE_MAX.
const VALUE: usize = 64 << 10;
/// Bytes that stat(2) counts as one block.
const STAT_BLOCK: u64 = 512;

/// One component of a name, in the very directory.
const HERE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// A file of a layer.
#[derive(Debug)]
pub(in crate::images) struct Node {
    descriptor: OwnedFd,
    pub(in crate::images) stat: Stat,
}

/// Extended attributes of a file, as far as an image has them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::images) struct Attributes {
    /// Names and values, sorted.
    pub(in crate::images) taken: Vec<(Vec<u8>, Vec<u8>)>,
    /// It has a POSIX ACL, which is left out.
    pub(in crate::images) acl: bool,
    /// Its content is elsewhere: overlayfs' redirect_dir or metacopy.
    pub(in crate::images) redirected: bool,
}

impl Node {
    /// The file of this name; `None` if there is none.
    pub(in crate::images) fn find(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Self>, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = loop {
            match rustix::fs::openat2(directory, name, flags, Mode::empty(), HERE) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOENT) => return Ok(None),
                result => break result?,
            }
        };
        let stat = rustix::fs::fstat(&descriptor)?;
        Ok(Some(Self { descriptor, stat }))
    }

    /// Of a directory that is open.
    pub(in crate::images) fn of(directory: BorrowedFd<'_>) -> Result<Self, Errno> {
        let descriptor = directory.try_clone_to_owned().map_err(|_fault| Errno::MFILE)?;
        let stat = rustix::fs::fstat(&descriptor)?;
        Ok(Self { descriptor, stat })
    }

    pub(in crate::images) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Device and inode: what two names of one file have in common.
    pub(in crate::images) fn identity(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }

    /// Seconds and nanoseconds.
    pub(in crate::images) fn modified(&self) -> (i64, u32) {
        (self.stat.st_mtime, u32::try_from(self.stat.st_mtime_nsec).unwrap_or_default())
    }

    /// The directory, open for reading.
    pub(in crate::images) fn enter(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.descriptor, ".", flags, Mode::empty())
    }

    /// The content of a regular file. The link in /proc leads to the very file that is held.
    pub(in crate::images) fn read(&self) -> Result<File, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::open(self.link_to_it(), flags, Mode::empty())?))
    }

    /// The text of a symbolic link.
    pub(in crate::images) fn target(&self) -> Result<Vec<u8>, Errno> {
        // readlinkat(2): with an empty path, the link that the descriptor is.
        Ok(rustix::fs::readlinkat(&self.descriptor, "", Vec::new())?.into_bytes())
    }

    /// Its extended attributes. Only files and directories have any that an image keeps.
    pub(in crate::images) fn attributes(&self) -> Result<Attributes, Errno> {
        let mut found = Attributes::default();
        if !matches!(self.kind(), FileType::RegularFile | FileType::Directory) {
            return Ok(found);
        }
        let path = self.link_to_it();
        let mut names = Vec::with_capacity(512);
        let names = loop {
            names.resize(names.capacity(), 0);
            match rustix::fs::listxattr(path.as_str(), &mut names[..]) {
                Err(Errno::OPNOTSUPP) => return Ok(found),
                Err(Errno::RANGE) if names.len() < NAMES => names.reserve(NAMES),
                result => break names.get(..result?).unwrap_or_default(),
            }
        };
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            match name {
                b"system.posix_acl_access" | b"system.posix_acl_default" => found.acl = true,
                b"trusted.overlay.redirect" | b"trusted.overlay.metacopy" => found.redirected = true,
                // As metadata.rs takes them from an archive.
                _ if name == b"security.capability"
                    || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")) =>
                {
                    let mut value = vec![0; VALUE];
                    match rustix::fs::getxattr(path.as_str(), name, &mut value[..]) {
                        // Removed meanwhile.
                        Err(Errno::NODATA) => continue,
                        result => value.truncate(result?),
                    }
                    found.taken.push((name.to_vec(), value));
                }
                _ => {}
            }
        }
        found.taken.sort_unstable();
        Ok(found)
    }

    /// Where the data of a file with holes is; `None` if it has none.
    pub(in crate::images) fn holes(&self, file: &File, limits: &Limits) -> Result<Option<SparseMap>, Errno> {
        let size = u64::try_from(self.stat.st_size).unwrap_or_default();
        let stored = u64::try_from(self.stat.st_blocks).unwrap_or_default().saturating_mul(STAT_BLOCK);
        if stored >= size {
            return Ok(None);
        }
        let most = usize::try_from(limits.of(Cap::Segments)).unwrap_or(usize::MAX).saturating_sub(1);
        let mut segments: Vec<Segment> = Vec::new();
        let mut end = 0;
        while end < size && segments.len() < most {
            let begin = match rustix::fs::seek(file, SeekFrom::Data(end)) {
                // Only a hole follows.
                Err(Errno::NXIO) => size,
                // A file system that does not tell.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
                result => result?.min(size),
            };
            if begin == size {
                break;
            }
            end = match rustix::fs::seek(file, SeekFrom::Hole(begin)) {
                Err(Errno::NXIO) => size,
                result => result?.clamp(begin, size),
            };
            segments.push(Segment { offset: begin, length: end - begin });
        }
        if segments.len() >= most && end < size {
            // Too many to note: the rest is written as it reads.
            segments.push(Segment { offset: end, length: size - end });
            end = size;
        }
        if segments.iter().map(|segment| segment.length).sum::<u64>() == size {
            return Ok(None);
        }
        if segments.last().map_or(0, |last| last.offset + last.length) != size || end != size {
            // GNU tar's own mark of a hole at the end.
            segments.push(Segment { offset: size, length: 0 });
        }
        Ok(Some(SparseMap { segments, size }))
    }

    fn link_to_it(&self) -> String {
        format!("/proc/self/fd/{}", self.descriptor.as_raw_fd())
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
