//! Files of a container as entries of a tar: a directory is written when it is wanted itself, or when something in it is.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
};

use rustix::{
    fs::{FileType, major, minor},
    io::Errno,
};

use super::{
    failed,
    node::{Attributes, Node},
};
use crate::images::{
    cancel::Cancel,
    error::{CommitFault, ImageError, quoted},
    limits::Limits,
    tar_writer::{Head, HeadKind, TarWriter},
};

/// Bytes read at once.
const BUFFER: usize = 128 << 10;

/// What was left out of an archive.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::images) struct LeftOut {
    /// Sockets, which are nothing without their program.
    pub(in crate::images) sockets: u64,
    /// Files whose POSIX ACLs are not in it.
    pub(in crate::images) acls: u64,
}

/// The tar, and what must be remembered for it.
pub(super) struct Archive<'a, W> {
    tar: TarWriter<W>,
    limits: &'a Limits,
    cancel: &'a Cancel,
    /// Directories above the present place that are not written yet.
    pending: Vec<Pending>,
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    pub(super) entries: u64,
    pub(super) left_out: LeftOut,
}

struct Pending {
    path: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, u32),
    attributes: Attributes,
}

impl<'a, W: Write> Archive<'a, W> {
    pub(super) fn new(out: W, limits: &'a Limits, cancel: &'a Cancel) -> Self {
        Self {
            tar: TarWriter::new(out),
            limits,
            cancel,
            pending: Vec::new(),
            names: HashMap::new(),
            buffer: vec![0; BUFFER],
            entries: 0,
            left_out: LeftOut::default(),
        }
    }

    /// A directory, written now if it is wanted, or with the first thing in it.
    ///
    /// # Errors
    /// If it cannot be looked at or written.
    pub(super) fn enter(&mut self, path: &[u8], node: &Node, wanted: bool) -> Result<(), ImageError> {
        let attributes = self.attributes(path, node)?;
        self.pending.push(Pending {
            path: path.to_vec(),
            mode: node.stat.st_mode & 0o7777,
            owner: (node.stat.st_uid, node.stat.st_gid),
            modified: node.modified(),
            attributes,
        });
        if wanted { self.write_pending() } else { Ok(()) }
    }

    /// After all that is in the directory.
    pub(super) fn leave(&mut self, path: &[u8]) {
        if self.pending.last().is_some_and(|last| last.path == path) {
            self.pending.pop();
        }
    }

    /// Anything but a directory.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(super) fn file(&mut self, path: &[u8], node: &Node) -> Result<(), ImageError> {
        if node.kind() == FileType::Socket {
            self.left_out.sockets += 1;
            return Ok(());
        }
        self.write_pending()?;
        if node.stat.st_nlink > 1 {
            if let Some(first) = self.names.get(&node.identity()).cloned() {
                return self.head(path, node, HeadKind::Hardlink(&first), &[]);
            }
            self.names.insert(node.identity(), path.to_vec());
        }
        let look = |errno: Errno| failed("look at", path, errno);
        let device = (major(node.stat.st_rdev), minor(node.stat.st_rdev));
        match node.kind() {
            FileType::RegularFile => self.regular(path, node),
            FileType::Symlink => {
                let target = node.target().map_err(look)?;
                self.head(path, node, HeadKind::Symlink(&target), &[])
            }
            FileType::Fifo => self.head(path, node, HeadKind::Fifo, &[]),
            FileType::CharacterDevice => self.head(path, node, HeadKind::Character(device.0, device.1), &[]),
            FileType::BlockDevice => self.head(path, node, HeadKind::Block(device.0, device.1), &[]),
            // A directory that took the place of a file, and what no kernel has.
            FileType::Directory | FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    /// A mark of a removed file or of an opaque directory: an empty file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn mark(&mut self, path: &[u8], modified: (i64, u32)) -> Result<(), ImageError> {
        self.write_pending()?;
        self.entries += 1;
        let head = Head {
            name: path,
            kind: HeadKind::File(0),
            mode: 0o600,
            uid: 0,
            gid: 0,
            modified,
            attributes: &[],
        };
        self.tar.head(&head).map_err(|error| wrote(path, error))
    }

    /// The end mark; gives the writer back.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn finish(self) -> Result<W, ImageError> {
        self.tar.finish().map_err(|error| wrote(b"", error))
    }

    fn regular(&mut self, path: &[u8], node: &Node) -> Result<(), ImageError> {
        let attributes = self.attributes(path, node)?;
        let size = u64::try_from(node.stat.st_size).unwrap_or_default();
        if size == 0 {
            return self.head(path, node, HeadKind::File(0), &attributes.taken);
        }
        let file = node.read().map_err(|errno| failed("open", path, errno))?;
        let holes =
            node.holes(&file, self.limits).map_err(|errno| failed("look for holes in", path, errno))?;
        match holes {
            None => {
                self.head(path, node, HeadKind::File(size), &attributes.taken)?;
                self.data(path, &file, 0, size)?;
            }
            Some(map) => {
                self.head(path, node, HeadKind::Sparse(&map), &attributes.taken)?;
                for segment in &map.segments {
                    self.data(path, &file, segment.offset, segment.length)?;
                }
            }
        }
        self.tar.pad().map_err(|error| wrote(path, error))
    }

    /// Exactly so many bytes: of a file that became shorter while it was read, zeros are the rest, as tar(1) does it.
    fn data(&mut self, path: &[u8], file: &File, offset: u64, length: u64) -> Result<(), ImageError> {
        let mut at = offset;
        let end = offset + length;
        while at < end {
            if self.cancel.is_cancelled() {
                return Err(ImageError::Cancelled);
            }
            let most = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
            let Some(buffer) = self.buffer.get_mut(..most) else { break };
            let count = match file.read_at(buffer, at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => {
                    buffer.fill(0);
                    most
                }
                result => result.map_err(|error| failed("read", path, error))?,
            };
            self.tar.data(buffer.get(..count).unwrap_or_default()).map_err(|error| wrote(path, error))?;
            at += count as u64;
        }
        Ok(())
    }

    fn attributes(&mut self, path: &[u8], node: &Node) -> Result<Attributes, ImageError> {
        let attributes =
            node.attributes().map_err(|errno| failed("read the extended attributes of", path, errno))?;
        if attributes.redirected {
            return Err(ImageError::Commit(CommitFault::Redirected { path: quoted(path) }));
        }
        self.left_out.acls += u64::from(attributes.acl);
        Ok(attributes)
    }

    fn write_pending(&mut self) -> Result<(), ImageError> {
        for directory in std::mem::take(&mut self.pending) {
            self.entries += 1;
            let head = Head {
                name: match directory.path.as_slice() {
                    b"" => b".",
                    path => path,
                },
                kind: HeadKind::Directory,
                mode: directory.mode,
                uid: directory.owner.0,
                gid: directory.owner.1,
                modified: directory.modified,
                attributes: &directory.attributes.taken,
            };
            self.tar.head(&head).map_err(|error| wrote(&directory.path, error))?;
        }
        Ok(())
    }

    fn head(
        &mut self,
        path: &[u8],
        node: &Node,
        kind: HeadKind<'_>,
        attributes: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), ImageError> {
        self.entries += 1;
        let head = Head {
            name: path,
            kind,
            mode: node.stat.st_mode & 0o7777,
            uid: node.stat.st_uid,
            gid: node.stat.st_gid,
            modified: node.modified(),
            attributes,
        };
        self.tar.head(&head).map_err(|error| wrote(path, error))
    }
}

fn wrote(path: &[u8], error: io::Error) -> ImageError {
    failed("write to the archive", path, error)
}
