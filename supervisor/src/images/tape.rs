//! The uncompressed archive as its reader sees it: blocks of 512 bytes, and runs of bytes between them. All bytes but
//! the contents of files go into the recording, if one is made.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::mpsc::{Receiver, SyncSender},
};

use super::{
    error::{ArchiveFault, ImageError, quoted},
    pipeline::Chunk,
    recording::Recorder,
};

/// Bytes of tar's blocks.
pub(super) const BLOCK: usize = 512;

/// Bytes read at once where nearly all is passed over.
const HEADERS: usize = 8 << 10;

/// A forward-only view of the archive.
pub(super) struct Tape {
    feed: Feed,
    buffer: Vec<u8>,
    /// In `buffer`.
    next: usize,
    /// In the archive.
    position: u64,
    /// The entry that is being read, for messages about a cut.
    entry: Vec<u8>,
    recorder: Option<Recorder>,
    /// The last block may be cut: some tools do not fill it.
    may_end_unfilled: bool,
}

/// Where the bytes come from.
enum Feed {
    /// The threads before this one, and the way back for used buffers.
    Pipeline(Receiver<Chunk>, SyncSender<Vec<u8>>),
    /// A range of a file, of which most is passed over.
    File { file: File, next: u64, end: u64 },
}

impl Tape {
    pub(super) fn new(full: Receiver<Chunk>, used: SyncSender<Vec<u8>>) -> Self {
        Self::over(Feed::Pipeline(full, used))
    }

    /// Of a plain archive in a file.
    pub(super) fn of_file(file: File, begin: u64, end: u64) -> Self {
        Self::over(Feed::File { file, next: begin, end })
    }

    fn over(feed: Feed) -> Self {
        Self {
            feed,
            buffer: Vec::new(),
            next: 0,
            position: 0,
            entry: Vec::new(),
            recorder: None,
            may_end_unfilled: false,
        }
    }

    /// Takes an archive whose last block is not filled.
    pub(super) fn allow_unfilled_end(&mut self) {
        self.may_end_unfilled = true;
    }

    /// Records all bytes from here on.
    pub(super) fn record(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// Ends the recording, after the last byte.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn end_record(&mut self) -> Result<(), ImageError> {
        self.recorder.take().map_or(Ok(()), Recorder::finish)
    }

    /// Says to the recording in which file the contents are that come next.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn record_file(&mut self, path: &[u8], inode: u64) -> Result<(), ImageError> {
        self.recorder.as_mut().map_or(Ok(()), |recorder| recorder.file(path, inode))
    }

    /// Offset of the next byte.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Says which entry is being read.
    pub(super) fn enter(&mut self, name: &[u8]) {
        self.entry.clear();
        self.entry.extend_from_slice(name);
    }

    /// The next block; `None` at the end.
    ///
    /// # Errors
    /// If the archive cannot be read, or ends in the middle of a block.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ImageError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest @ [_, ..]) = block.get_mut(filled..) {
            let bytes = self.some(rest.len(), Keep::Bytes)?;
            let Some(target) = rest.get_mut(..bytes.len()) else { break };
            if bytes.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(self.cut()) };
            }
            target.copy_from_slice(bytes);
            filled += bytes.len();
        }
        Ok(Some(block))
    }

    /// Hands the next `count` bytes on, in pieces.
    ///
    /// # Errors
    /// If the archive cannot be read or ends before, or what `take` says.
    pub(super) fn copy(
        &mut self,
        count: u64,
        take: impl FnMut(&[u8]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        self.pass_on(count, Keep::Bytes, take)
    }

    /// The same for contents that are going to be at `offset` of the file named last.
    ///
    /// # Errors
    /// As [`Tape::copy`].
    pub(super) fn copy_contents(
        &mut self,
        offset: u64,
        count: u64,
        take: impl FnMut(&[u8]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        if let Some(recorder) = &mut self.recorder
            && count > 0
        {
            recorder.contents(offset, count)?;
        }
        self.pass_on(count, Keep::Nothing, take)
    }

    /// Passes over `count` bytes that nobody needs.
    ///
    /// # Errors
    /// If the archive cannot be read or ends before.
    pub(super) fn skip(&mut self, count: u64) -> Result<(), ImageError> {
        let buffered = (self.buffer.len() - self.next) as u64;
        match &mut self.feed {
            Feed::File { next, end, .. } if count > buffered => {
                let beyond = count - buffered;
                if *end - *next < beyond {
                    return Err(self.cut());
                }
                *next += beyond;
                self.next = self.buffer.len();
                self.position += count;
                Ok(())
            }
            Feed::File { .. } | Feed::Pipeline(..) => self.copy(count, |_| Ok(())),
        }
    }

    fn pass_on(
        &mut self,
        count: u64,
        keep: Keep,
        mut take: impl FnMut(&[u8]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let mut rest = count;
        while rest > 0 {
            let bytes = self.some(usize::try_from(rest).unwrap_or(usize::MAX), keep)?;
            if bytes.is_empty() {
                return Err(self.cut());
            }
            rest -= bytes.len() as u64;
            take(bytes)?;
        }
        Ok(())
    }

    /// The next `count` bytes in memory; the caller has checked that they are not too many.
    ///
    /// # Errors
    /// If the archive cannot be read or ends before.
    pub(super) fn bytes(&mut self, count: u64) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        self.copy(count, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Passes over what fills the last block of `count` bytes of data.
    ///
    /// # Errors
    /// If the archive cannot be read or ends before.
    pub(super) fn skip_padding(&mut self, count: u64) -> Result<(), ImageError> {
        let block = BLOCK as u64;
        let mut rest = (block - count % block) % block;
        while rest > 0 {
            let bytes = self.some(usize::try_from(rest).unwrap_or(BLOCK), Keep::Bytes)?.len();
            match bytes {
                0 if self.may_end_unfilled => return Ok(()),
                0 => return Err(self.cut()),
                some => rest -= some as u64,
            }
        }
        Ok(())
    }

    /// Hands all that is left on.
    ///
    /// # Errors
    /// As [`Tape::copy`].
    pub(super) fn rest(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        loop {
            match self.some(usize::MAX, Keep::Bytes)? {
                [] => return Ok(()),
                bytes => take(bytes)?,
            }
        }
    }

    /// Reads to the end, so that all of it is hashed.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub(super) fn drain(&mut self) -> Result<(), ImageError> {
        self.rest(|_| Ok(()))
    }

    /// The archive ends where it must not.
    pub(super) fn cut(&self) -> ImageError {
        let place = match self.entry.as_slice() {
            [] => "before its first entry".to_owned(),
            name => format!("in or after the entry {}, without an end mark", quoted(name)),
        };
        ArchiveFault::Cut { place }.into()
    }

    /// At least one and at most `most` bytes; none at the end.
    fn some(&mut self, most: usize, keep: Keep) -> Result<&[u8], ImageError> {
        if self.next == self.buffer.len() {
            self.turn()?;
        }
        let end = self.next.saturating_add(most).min(self.buffer.len());
        let bytes = self.buffer.get(self.next..end).unwrap_or_default();
        self.next = end;
        self.position += bytes.len() as u64;
        if keep == Keep::Bytes
            && let Some(recorder) = &mut self.recorder
        {
            recorder.literal(bytes)?;
        }
        Ok(bytes)
    }

    /// Gives the used buffer back and takes the next full one; at the end there is none.
    fn turn(&mut self) -> Result<(), ImageError> {
        let used = std::mem::take(&mut self.buffer);
        self.next = 0;
        match &mut self.feed {
            Feed::Pipeline(full, sender) => {
                if used.capacity() > 0 {
                    // The reader has ended: then nobody needs it.
                    let _ = sender.send(used);
                }
                match full.recv() {
                    Ok(chunk) => self.buffer = chunk?,
                    Err(_ended) => {}
                }
            }
            Feed::File { file, next, end } => {
                self.buffer = used;
                let room = usize::try_from(*end - *next).unwrap_or(HEADERS).min(HEADERS);
                self.buffer.resize(room, 0);
                let count = loop {
                    match file.read_at(&mut self.buffer, *next) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        result => break result,
                    }
                };
                let count = count.map_err(|source| ImageError::system("read", "the archive", source))?;
                self.buffer.truncate(count);
                *next += count as u64;
            }
        }
        Ok(())
    }
}

/// What the recording gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Bytes,
    Nothing,
}
