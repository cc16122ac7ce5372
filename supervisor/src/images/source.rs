//! The bytes of an archive: from a file or a pipe, plain, gzip or zstd, as the content says and not the name.
//!
//! Never: a wait for bytes that cannot be ended, the file offset of a descriptor that is the client's too.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Chain, Cursor, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt, FileTypeExt, MetadataExt},
    },
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::GzDecoder;
use mysup_ipc::{id::Digest, progress::ProgressStep};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use sha2::{Digest as _, Sha256};

use super::{
    audience::{Audience, Meter},
    cancel::Cancel,
    error::{ArchiveFault, ImageError},
    memory::Window,
};

/// Bytes read ahead of a decompressor. Less than a buffer of the pipeline, so that a plain archive is read right into
/// those.
const READ_AHEAD: usize = 64 << 10;

/// The longest of the marks by which compressions are known.
const MARK: usize = 6;

/// An archive as it was handed over.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    /// Offset at which the archive begins, of a file that can be read twice.
    begin: Option<u64>,
    /// Offset at which it ends, if it is a part of a file.
    end: Option<u64>,
    /// What its bytes, compressed as they are, must be.
    expected: Option<Digest>,
    /// Told of what is read.
    meter: Meter,
}

/// What a file was when it was looked at. Two equal marks, some time apart, are the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileMark {
    device: u64,
    inode: u64,
    begin: u64,
    /// Bytes.
    pub(super) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileMark {
    /// When its inode changed last, in nanoseconds since 1970.
    pub(super) fn changed_at(&self) -> i128 {
        i128::from(self.changed.0) * 1_000_000_000 + i128::from(self.changed.1)
    }
}

impl Archive {
    /// Takes what a client sent.
    ///
    /// # Errors
    /// If it is nothing that can be read from its beginning to its end.
    pub(super) fn new(descriptor: OwnedFd) -> Result<Self, ImageError> {
        let file = File::from(descriptor);
        let look = |source| ImageError::system("look at", "the archive", source);
        let kind = file.metadata().map_err(look)?.file_type();
        if kind.is_dir() {
            return Err(ArchiveFault::NoStream { kind: "directory" }.into());
        }
        if kind.is_block_device() {
            return Err(ArchiveFault::NoStream { kind: "block device" }.into());
        }
        let begin = match kind.is_file() {
            true => Some(rustix::fs::tell(&file).map_err(|errno| look(errno.into()))?),
            false => None,
        };
        Ok(Self { file, begin, end: None, expected: None, meter: Meter::default() })
    }

    /// A part of a regular file.
    pub(super) fn part(file: File, begin: u64, length: u64, expected: Option<Digest>) -> Self {
        let end = Some(begin.saturating_add(length));
        Self { file, begin: Some(begin), end, expected, meter: Meter::default() }
    }

    /// The same, whose reading this tells of.
    pub(super) fn metered(mut self, meter: Meter) -> Self {
        self.meter = meter;
        self
    }

    /// The same, whose reading somebody is told of; `name` is what it is called if it has no digest.
    pub(super) fn told_to(mut self, audience: &Audience, name: &str) -> Self {
        let name = self.expected.as_ref().map_or(name, Digest::short);
        self.meter = audience.part(name, ProgressStep::Unpacking, self.length().unwrap_or(0));
        self
    }

    /// Who is told of it.
    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Bytes of a file or a part of one, as they are.
    pub(super) fn length(&self) -> Option<u64> {
        let begin = self.begin?;
        let end = self.end.or_else(|| self.file.metadata().ok().map(|data| data.len()))?;
        Some(end.saturating_sub(begin))
    }

    /// The file with the offsets of begin and end, if it can be read at any place and is not compressed.
    ///
    /// # Errors
    /// If it is empty or compressed with something unknown, or cannot be read.
    pub(super) fn plain_file(&self) -> Result<Option<(File, u64, u64)>, ImageError> {
        let (Some(begin), Some(length)) = (self.begin, self.length()) else { return Ok(None) };
        let failed = |source| ImageError::system("read", "the archive", source);
        let mut head = [0; MARK];
        let count = self.file.read_at(&mut head, begin).map_err(failed)?;
        match Format::of(head.get(..count).unwrap_or_default())? {
            Format::Plain => Ok(Some((self.file.try_clone().map_err(failed)?, begin, begin + length))),
            Format::Gzip | Format::Zstd => Ok(None),
        }
    }

    /// The mark of a file; pipes have none.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub(super) fn mark(&self) -> Result<Option<FileMark>, ImageError> {
        let Some(begin) = self.begin else { return Ok(None) };
        let data =
            self.file.metadata().map_err(|source| ImageError::system("look at", "the archive", source))?;
        Ok(Some(FileMark {
            device: data.dev(),
            inode: data.ino(),
            begin,
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }))
    }

    /// Whether this is the digest that was announced, if one was.
    ///
    /// # Errors
    /// If it is another one.
    pub(super) fn verify(&self, found: &Digest) -> Result<(), ImageError> {
        self.expected.as_ref().map_or(Ok(()), |expected| same(expected, found.clone()))
    }

    /// The uncompressed bytes, from the beginning (of a file each time anew, of a pipe once). Either switch ends it.
    ///
    /// # Errors
    /// If it is empty or compressed with something else, or cannot be read.
    pub(super) fn open<'a>(
        &'a self,
        cancel: &'a Cancel,
        stop: &'a Cancel,
        window: Window,
    ) -> Result<Uncompressed<'a>, ImageError> {
        self.meter.begin();
        let taken = Arc::new(AtomicU64::new(0));
        let mut raw = Raw {
            archive: self,
            position: self.begin,
            cancel,
            stop,
            taken: Arc::clone(&taken),
            hasher: None,
        };
        let mut head = Vec::with_capacity(MARK);
        let failed = |source| match cancel.is_cancelled() {
            true => ImageError::Cancelled,
            false => ImageError::system("read", "the archive", source),
        };
        (&mut raw).take(MARK as u64).read_to_end(&mut head).map_err(failed)?;
        let format = Format::of(&head)?;
        // A plain archive is hashed by its reader anyway.
        let expected = self.expected.clone().filter(|_| format != Format::Plain);
        raw.hasher = expected.is_some().then(|| Arc::new(Mutex::new(Sha256::new_with_prefix(&head))));
        let hasher = raw.hasher.clone();
        let bytes = Cursor::new(head).chain(BufReader::with_capacity(READ_AHEAD, raw));
        let decoder = match format {
            Format::Plain => Decoder::Plain(bytes),
            Format::Gzip => Decoder::Gzip(Members::Within(Box::new(GzDecoder::new(bytes)))),
            Format::Zstd => Decoder::Zstd(
                zstd::stream::read::Decoder::with_buffer(bytes)
                    .and_then(|mut decoder| decoder.window_log_max(window.log()).map(|()| decoder))
                    .map_err(|source| ArchiveFault::Compression { format: "zstd", source })?,
            ),
        };
        Ok(Uncompressed { format, decoder, taken, hasher, expected })
    }
}

fn same(expected: &Digest, found: Digest) -> Result<(), ImageError> {
    match found == *expected {
        true => Ok(()),
        false => Err(ArchiveFault::Digest { expected: expected.clone(), found }.into()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Plain,
    Gzip,
    Zstd,
}

impl Format {
    /// By the first bytes of an archive.
    fn of(head: &[u8]) -> Result<Self, ArchiveFault> {
        let foreign = |format| Err(ArchiveFault::Foreign { format });
        match head {
            [] => Err(ArchiveFault::Empty),
            [0x1f, 0x8b, ..] => Ok(Format::Gzip),
            // A frame, or a frame to be skipped before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Format::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => foreign("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => foreign("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => foreign("lz4"),
            [b'P', b'K', 3, 4, ..] => foreign("zip"),
            [0x1f, 0x9d, ..] => foreign("compress"),
            _ => Ok(Format::Plain),
        }
    }
}

/// Reads the descriptor and wakes when one of the switches is thrown.
struct Raw<'a> {
    archive: &'a Archive,
    /// Offset of the next byte of a file. Reading at offsets leaves alone the client's own, which is shared.
    position: Option<u64>,
    cancel: &'a Cancel,
    stop: &'a Cancel,
    taken: Arc<AtomicU64>,
    hasher: Option<Arc<Mutex<Sha256>>>,
}

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() || self.stop.is_cancelled() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let count = match &mut self.position {
            Some(position) => {
                let left = self.archive.end.map_or(u64::MAX, |end| end.saturating_sub(*position));
                let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let count =
                    self.archive.file.read_at(buffer.get_mut(..room).unwrap_or_default(), *position)?;
                *position += count as u64;
                count
            }
            None => {
                self.wait()?;
                (&self.archive.file).read(buffer)?
            }
        };
        self.taken.fetch_add(count as u64, Ordering::Relaxed);
        self.archive.meter.add(count as u64);
        if let Some(hasher) = &self.hasher {
            let bytes = buffer.get(..count).unwrap_or_default();
            hasher.lock().unwrap_or_else(PoisonError::into_inner).update(bytes);
        }
        Ok(count)
    }
}

impl Raw<'_> {
    /// Waits for bytes of a pipe, for as long as its writer likes: only the user knows how long that may be, and he
    /// has the switch.
    fn wait(&self) -> io::Result<()> {
        let mut watched = [
            PollFd::new(self.archive.file.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.cancel.wake_descriptor(), PollFlags::POLLIN),
            PollFd::new(self.stop.wake_descriptor(), PollFlags::POLLIN),
        ];
        nix::poll::poll(&mut watched, PollTimeout::NONE)?;
        match watched.iter().skip(1).any(|switch| switch.any().unwrap_or(true)) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

type Bytes<'a> = Chain<Cursor<Vec<u8>>, BufReader<Raw<'a>>>;

/// An archive without its compression.
pub(super) struct Uncompressed<'a> {
    format: Format,
    decoder: Decoder<'a>,
    taken: Arc<AtomicU64>,
    hasher: Option<Arc<Mutex<Sha256>>>,
    expected: Option<Digest>,
}

enum Decoder<'a> {
    Plain(Bytes<'a>),
    Gzip(Members<Bytes<'a>>),
    Zstd(zstd::stream::read::Decoder<'a, Bytes<'a>>),
}

impl Uncompressed<'_> {
    /// Bytes read of the archive so far, if it is compressed.
    pub(super) fn compressed(&self) -> Option<u64> {
        match self.format {
            Format::Plain => None,
            Format::Gzip | Format::Zstd => Some(self.taken.load(Ordering::Relaxed)),
        }
    }

    /// Whether the uncompressed bytes are those that the digest of the archive is about.
    pub(super) fn is_plain(&self) -> bool {
        self.format == Format::Plain
    }

    /// After the last byte: whether the compressed bytes were those that were announced.
    ///
    /// # Errors
    /// If they have another digest.
    pub(super) fn verify(&self) -> Result<(), ImageError> {
        let (Some(expected), Some(hasher)) = (&self.expected, &self.hasher) else { return Ok(()) };
        let hasher = hasher.lock().unwrap_or_else(PoisonError::into_inner).clone();
        same(expected, Digest::from_sha256(hasher.finalize().into()))
    }

    /// Fills the buffer; less comes at the end only.
    ///
    /// # Errors
    /// If the archive cannot be read or decompressed.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        let mut filled = 0;
        while let Some(rest @ [_, ..]) = buffer.get_mut(filled..) {
            match self.decoder.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
        Ok(filled)
    }

    fn failed(&self, source: io::Error) -> ImageError {
        let format = match self.format {
            Format::Gzip => "gzip",
            Format::Zstd => "zstd",
            Format::Plain => return ImageError::system("read", "the archive", source),
        };
        // Errors of the descriptor come through the decoder with their number; what a decoder says has none, but
        // zstd's are of the kind Other.
        match source.raw_os_error() {
            Some(_) => ImageError::system("read", "the archive", source),
            None => ArchiveFault::Compression { format, source }.into(),
        }
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(bytes) => bytes.read(buffer),
            Decoder::Gzip(members) => members.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// A gzip file is one or more members (RFC 1952, 2.2). Zeros after the last are padding, as gzip has it; anything
/// else there is an error, where gzip would print a warning that nobody of ours would see.
enum Members<R> {
    Within(Box<GzDecoder<R>>),
    Done,
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Members::Within(decoder) = self else { return Ok(0) };
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let Members::Within(ended) = std::mem::replace(self, Members::Done) else { return Ok(0) };
            let mut bytes = ended.into_inner();
            if another_member(&mut bytes)? {
                *self = Members::Within(Box::new(GzDecoder::new(bytes)));
            }
        }
    }
}

/// After a member: whether another one follows, or the end.
fn another_member(bytes: &mut impl BufRead) -> io::Result<bool> {
    let mut padded = false;
    loop {
        let ahead = bytes.fill_buf()?;
        let zeros = ahead.iter().take_while(|byte| **byte == 0).count();
        match ahead.get(zeros) {
            None if zeros == 0 => return Ok(false),
            None => {}
            Some(0x1f) if zeros == 0 && !padded => return Ok(true),
            Some(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "garbage after its last member"));
            }
        }
        padded = true;
        bytes.consume(zeros);
    }
}
