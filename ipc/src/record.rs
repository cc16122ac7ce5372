//! Small records on disk: written whole or not at all.
//!
//! temporary file, fsync, rename, fsync of the directory (rename(2) alone may leave an empty file after a power cut).

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::BorrowedFd,
    path::Path,
};

use nix::{
    fcntl::{self, OFlag},
    sys::stat::Mode,
    unistd,
};

use crate::{
    codec::{CodecError, Message},
    frame::{Decoder, HEADER, MAX_PAYLOAD},
};

/// Whether a record must survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// File and directory are fsynced before the write returns.
    Durable,
    /// The rename is atomic for other processes; a power cut may lose it.
    Volatile,
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system.
    #[error("read {path}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its bytes are not one whole record.
    #[error("record {path} is damaged")]
    Damaged {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// It ends in the middle.
    #[error("record {path} is cut short")]
    Short {
        /// Which file.
        path: String,
    },
}

/// Replaces the file `name` in `directory` with `bytes`, mode 0600.
///
/// # Errors
/// Any error of the file system; the old file is then still there, and at most `name.tmp` was left beside it.
pub fn replace(
    directory: BorrowedFd<'_>,
    name: &str,
    bytes: &[u8],
    durability: Durability,
) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let mut file = File::from(fcntl::openat(directory, temporary.as_str(), flags, mode)?);
    file.write_all(bytes)?;
    if durability == Durability::Durable {
        file.sync_all()?;
    }
    fcntl::renameat(directory, temporary.as_str(), directory, name)?;
    if durability == Durability::Durable {
        unistd::fsync(directory)?;
    }
    Ok(())
}

/// Writes a message as the record `name` in `directory`.
///
/// # Errors
/// As [`replace`]; a message over the frame bound is `InvalidData`.
pub fn write<M: Message>(
    directory: BorrowedFd<'_>,
    name: &str,
    message: &M,
    durability: Durability,
) -> io::Result<()> {
    let bytes = message.to_frame().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    replace(directory, name, &bytes, durability)
}

/// Reads a record; `None` if there is no such file.
///
/// # Errors
/// If it cannot be read, or is not one whole frame of this type.
pub fn read<M: Message>(path: &Path) -> Result<Option<M>, ReadError> {
    let label = || path.display().to_string();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ReadError::Io { path: label(), source }),
    };
    let bound = u64::try_from(HEADER + MAX_PAYLOAD).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(bound).read_to_end(&mut bytes).map_err(|source| ReadError::Io { path: label(), source })?;
    let mut decoder = Decoder::new();
    decoder.push(&bytes);
    let damaged = |source: CodecError| ReadError::Damaged { path: label(), source };
    match decoder.next_frame().map_err(|error| damaged(error.into()))? {
        Some(frame) => Ok(Some(M::from_frame(&frame).map_err(damaged)?)),
        None => Err(ReadError::Short { path: label() }),
    }
}
