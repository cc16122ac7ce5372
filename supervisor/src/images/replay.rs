//! Reads a layer's tar again, out of its recording and its directory: the counterpart of recording.rs.
//!
//! The directory may have been changed by somebody, so nothing is followed and nothing is waited for. Whether the bytes
//! are the right ones only their digest says: whoever reads to the end compares it.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{
    layers::StoredLayer,
    recording::{DATA, END, FILE, LITERAL, LITERAL_MAX},
};

/// Bytes of a path in a recording; a longer one the recorder never wrote.
const PATH_MAX: u64 = 4096;

/// The files of a layer are below its root, and nothing on the way is a link.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// The bytes of a layer's tar.
pub(super) struct Replay {
    operations: BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>,
    tree: OwnedFd,
    kept: Option<OwnedFd>,
    /// Inodes in `kept`.
    kept_inodes: BTreeSet<u64>,
    file: Option<File>,
    now: Now,
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy)]
enum Now {
    Between,
    Literal(u64),
    Data { offset: u64, length: u64 },
    Ended,
}

impl Replay {
    /// From the beginning.
    ///
    /// # Errors
    /// If something of the layer is missing.
    pub(super) fn new(layer: &StoredLayer) -> io::Result<Self> {
        let recording = BufReader::new(File::from(layer.recording()?));
        let kept = layer.kept()?;
        let mut kept_inodes = BTreeSet::new();
        if let Some(kept) = &kept {
            kept_inodes
                .extend(super::record::names_in(kept)?.iter().filter_map(|name| name.parse::<u64>().ok()));
        }
        Ok(Self {
            operations: BufReader::new(zstd::stream::read::Decoder::with_buffer(recording)?),
            tree: layer.tree()?,
            kept,
            kept_inodes,
            file: None,
            now: Now::Between,
        })
    }

    fn next_operation(&mut self) -> io::Result<()> {
        let [operation] = self.bytes::<1>()?;
        self.now = match operation {
            LITERAL => match self.number()? {
                length if length <= LITERAL_MAX as u64 => Now::Literal(length),
                _ => return Err(malformed()),
            },
            FILE => {
                self.open_file()?;
                Now::Between
            }
            DATA => Now::Data { offset: self.number()?, length: self.number()? },
            END => Now::Ended,
            _ => return Err(malformed()),
        };
        Ok(())
    }

    fn open_file(&mut self) -> io::Result<()> {
        let inode = self.number()?;
        let length = self.number()?;
        if length > PATH_MAX {
            return Err(malformed());
        }
        let mut path = Vec::new();
        (&mut self.operations).take(length).read_to_end(&mut path)?;
        let kept = self.kept.as_ref().filter(|_| self.kept_inodes.contains(&inode));
        let opened = match kept {
            Some(kept) => open(kept.as_fd(), inode.to_string().as_bytes()),
            None => open(self.tree.as_fd(), &path),
        };
        self.file = Some(opened.map_err(|error| {
            io::Error::new(error.kind(), format!("open {}: {error}", super::error::quoted(&path)))
        })?);
        Ok(())
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.bytes::<1>()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(malformed())
    }

    fn bytes<const COUNT: usize>(&mut self) -> io::Result<[u8; COUNT]> {
        let mut bytes = [0; COUNT];
        self.operations.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Read for Replay {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let most = buffer.len() as u64;
        loop {
            match self.now {
                Now::Between | Now::Literal(0) | Now::Data { length: 0, .. } => self.next_operation()?,
                Now::Ended => return Ok(0),
                Now::Literal(length) => {
                    let part = (&mut self.operations).take(length.min(most)).read(buffer)?;
                    if part == 0 {
                        return Err(malformed());
                    }
                    self.now = Now::Literal(length - part as u64);
                    return Ok(part);
                }
                Now::Data { offset, length } => {
                    let part = usize::try_from(length.min(most)).unwrap_or(buffer.len());
                    let file = self.file.as_ref().ok_or_else(malformed)?;
                    let part = file.read_at(buffer.get_mut(..part).unwrap_or_default(), offset)?;
                    if part == 0 {
                        return Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "a file of the layer is too short",
                        ));
                    }
                    self.now = Now::Data { offset: offset + part as u64, length: length - part as u64 };
                    return Ok(part);
                }
            }
        }
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("now", &self.now).finish_non_exhaustive()
    }
}

/// A regular file; anything else could have side effects, or wait.
fn open(directory: BorrowedFd<'_>, path: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = loop {
        match rustix::fs::openat2(directory, path, flags, Mode::empty(), BENEATH) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            result => break File::from(result?),
        }
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file")),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the recording of the layer is damaged")
}

/// Reads everything, for the sake of whoever counts or hashes it.
pub(super) fn read_through(
    mut reader: impl Read,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = BufReader::with_capacity(128 << 10, &mut reader);
    loop {
        let bytes = match buffer.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        if bytes.is_empty() {
            return Ok(());
        }
        take(bytes)?;
        let count = bytes.len();
        buffer.consume(count);
    }
}
