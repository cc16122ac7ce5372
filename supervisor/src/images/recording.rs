//! Keeps what is needed to write a layer's tar again, byte for byte: all of it but the contents of files, which are in
//! the layer's directory. Headers, padding and what is after the end mark repeat themselves and compress well.
//!
//! One zstd stream (with its checksum) of operations, numbers as LEB128:
//!
//! ```text
//! L length bytes          these bytes
//! F inode length path     contents come from this file, until the next F; path without links, below the layer's root
//! D offset length         so many bytes of the file from there
//! E                       the end; without it the recording is cut
//! ```
//!
//! A file that a later entry of the archive replaces is not removed but renamed to `kept/<inode>`: while it is there,
//! no other file of the layer gets its number.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
};

use super::error::ImageError;

/// The operations.
pub(super) const LITERAL: u8 = b'L';
pub(super) const FILE: u8 = b'F';
pub(super) const DATA: u8 = b'D';
pub(super) const END: u8 = b'E';

/// Bytes of one literal; more are several.
pub(super) const LITERAL_MAX: usize = 64 << 10;

/// Of zstd: headers compress at 1 nearly as well as at 3, in half the time.
const LEVEL: i32 = 1;

/// Writes one recording.
pub(super) struct Recorder {
    stream: zstd::stream::write::Encoder<'static, File>,
    literal: Vec<u8>,
}

impl Recorder {
    /// Into an empty file.
    ///
    /// # Errors
    /// If there is no memory for the compressor.
    pub(super) fn new(file: OwnedFd) -> Result<Self, ImageError> {
        let stream = zstd::stream::write::Encoder::new(File::from(file), LEVEL).and_then(|mut stream| {
            stream.include_checksum(true)?;
            Ok(stream)
        });
        Ok(Self { stream: stream.map_err(failed)?, literal: Vec::with_capacity(LITERAL_MAX) })
    }

    /// Bytes that are in no file.
    ///
    /// # Errors
    /// If the recording cannot be written.
    pub(super) fn literal(&mut self, mut bytes: &[u8]) -> Result<(), ImageError> {
        while !bytes.is_empty() {
            let room = LITERAL_MAX - self.literal.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.literal.extend_from_slice(now);
            bytes = later;
            if self.literal.len() == LITERAL_MAX {
                self.write_literal()?;
            }
        }
        Ok(())
    }

    /// The file from which contents come.
    ///
    /// # Errors
    /// As [`Recorder::literal`].
    pub(super) fn file(&mut self, path: &[u8], inode: u64) -> Result<(), ImageError> {
        let mut operation = vec![FILE];
        push_number(&mut operation, inode);
        push_number(&mut operation, path.len() as u64);
        operation.extend_from_slice(path);
        self.write_literal()?;
        self.stream.write_all(&operation).map_err(failed)
    }

    /// Contents of that file.
    ///
    /// # Errors
    /// As [`Recorder::literal`].
    pub(super) fn contents(&mut self, offset: u64, length: u64) -> Result<(), ImageError> {
        let mut operation = vec![DATA];
        push_number(&mut operation, offset);
        push_number(&mut operation, length);
        self.write_literal()?;
        self.stream.write_all(&operation).map_err(failed)
    }

    /// To be called after the last byte of the archive.
    ///
    /// # Errors
    /// As [`Recorder::literal`].
    pub(super) fn finish(mut self) -> Result<(), ImageError> {
        self.write_literal()?;
        self.stream.write_all(&[END]).and_then(|()| self.stream.finish()).map(drop).map_err(failed)
    }

    fn write_literal(&mut self) -> Result<(), ImageError> {
        if self.literal.is_empty() {
            return Ok(());
        }
        let mut head = vec![LITERAL];
        push_number(&mut head, self.literal.len() as u64);
        self.stream.write_all(&head).and_then(|()| self.stream.write_all(&self.literal)).map_err(failed)?;
        self.literal.clear();
        Ok(())
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("literal", &self.literal.len()).finish_non_exhaustive()
    }
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn failed(source: io::Error) -> ImageError {
    ImageError::system("write", "the recording of the layer", source)
}
