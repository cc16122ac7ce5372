//! The uncompressed archive as the unpacking thread sees it: blocks of 512 bytes, and runs of bytes between them.

use std::sync::mpsc::{Receiver, SyncSender};

use super::{
    error::{ArchiveFault, ImageError, quoted},
    pipeline::Chunk,
};

/// Bytes of tar's blocks.
pub(super) const BLOCK: usize = 512;

/// A forward-only view of the archive.
pub(super) struct Tape {
    full: Receiver<Chunk>,
    used: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    /// In `buffer`.
    next: usize,
    /// In the archive.
    position: u64,
    /// The entry that is being read, for messages about a cut.
    entry: Vec<u8>,
}

impl Tape {
    pub(super) fn new(full: Receiver<Chunk>, used: SyncSender<Vec<u8>>) -> Self {
        Self { full, used, buffer: Vec::new(), next: 0, position: 0, entry: Vec::new() }
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
            let bytes = self.some(rest.len())?;
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
        mut take: impl FnMut(&[u8]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let mut rest = count;
        while rest > 0 {
            let bytes = self.some(usize::try_from(rest).unwrap_or(usize::MAX))?;
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
        self.copy((block - count % block) % block, |_| Ok(()))
    }

    /// Reads to the end, so that all of it is hashed.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub(super) fn drain(&mut self) -> Result<(), ImageError> {
        while !self.some(usize::MAX)?.is_empty() {}
        Ok(())
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
    fn some(&mut self, most: usize) -> Result<&[u8], ImageError> {
        if self.next == self.buffer.len() {
            self.turn()?;
        }
        let end = self.next.saturating_add(most).min(self.buffer.len());
        let bytes = self.buffer.get(self.next..end).unwrap_or_default();
        self.next = end;
        self.position += bytes.len() as u64;
        Ok(bytes)
    }

    /// Gives the used buffer back and takes the next full one; at the end there is none.
    fn turn(&mut self) -> Result<(), ImageError> {
        let used = std::mem::take(&mut self.buffer);
        self.next = 0;
        if used.capacity() > 0 {
            // The reader has ended: then nobody needs it.
            let _ = self.used.send(used);
        }
        match self.full.recv() {
            Ok(chunk) => self.buffer = chunk?,
            Err(_ended) => {}
        }
        Ok(())
    }
}
