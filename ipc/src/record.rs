//! Small records on disk: written whole or not at all.
//!
//! temporary file, fsync, rename, fsync of the directory (rename(2) alone may leave an empty file after a power cut).
//! What must be written however full the disk is has its temporary file made before: it is overwritten where it is.

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

/// Makes room for a record of at most `bytes` bytes: what [`replace`] needs is then there, with a disk that is full or has
/// no inode left. The name, too: the directory has space for an entry when the temporary one had.
///
/// # Errors
/// Any error of the file system; nothing is left then.
pub fn reserve(directory: BorrowedFd<'_>, name: &str, bytes: usize) -> io::Result<()> {
    let mut file = open_temporary(directory, name)?;
    // Written, not fallocate(2): a written block can be overwritten, one that was only set aside may have to be split.
    let reserved = file.write_all(&vec![0; bytes]);
    if reserved.is_err() {
        // Best effort: it is in nobody's way.
        let _ = unistd::unlinkat(directory, temporary(name).as_str(), unistd::UnlinkatFlags::NoRemoveDir);
    }
    reserved
}

fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

/// Not truncated: what [`reserve`] has made is there to be overwritten.
fn open_temporary(directory: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    Ok(File::from(fcntl::openat(directory, temporary(name).as_str(), flags, mode)?))
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
    let mut file = open_temporary(directory, name)?;
    file.write_all(bytes)?;
    file.set_len(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    if durability == Durability::Durable {
        file.sync_all()?;
    }
    fcntl::renameat(directory, temporary(name).as_str(), directory, name)?;
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::exit::{ExitReport, ExitStatus};

    #[test]
    fn a_record_in_reserved_room_is_just_as_long_as_it_is() {
        let place = std::env::temp_dir().join(format!("record-room-{}", std::process::id()));
        std::fs::create_dir(&place).expect("mkdir");
        let directory = File::open(&place).expect("open");
        reserve(directory.as_fd(), "exit", 4096).expect("room");
        assert!(!place.join("exit").exists(), "room is no record");
        assert_eq!(std::fs::metadata(place.join("exit.tmp")).expect("stat").len(), 4096);
        let report = ExitReport {
            status: ExitStatus::Code(7),
            oom_killed: false,
            started_at: Some(1),
            finished_at: 2,
            error: String::new(),
        };
        write(directory.as_fd(), "exit", &report, Durability::Durable).expect("written");
        assert_eq!(std::fs::read(place.join("exit")).expect("read"), report.to_frame().expect("short"));
        assert_eq!(read::<ExitReport>(&place.join("exit")).expect("read"), Some(report));
        assert_eq!(std::fs::read_dir(&place).expect("read").count(), 1);
        std::fs::remove_file(place.join("exit")).expect("unlink");
        std::fs::remove_dir(place).expect("rmdir");
    }
}
