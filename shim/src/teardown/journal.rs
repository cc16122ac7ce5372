//! The undo journal: every effect that can outlive the shim stands here before it is made.
//!
//! One frame an entry, appended. It lives below the run root, which is memory: after a power cut there is nothing of what
//! it speaks of, and its boot id says so where the run root is on a disk. A torn last entry was not acted on yet.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::BorrowedFd,
};

use mysup_ipc::{
    codec::Message,
    frame::Decoder,
    layout,
    point::{self, Step},
    teardown::JournalEntry,
};
use rustix::fs::{Mode, OFlags};

use crate::error::{Call, SysError};

/// The journal of a running shim.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    entries: Vec<JournalEntry>,
}

impl Journal {
    /// Starts the journal in a container's run directory.
    pub(crate) fn create(run_directory: BorrowedFd<'_>) -> Result<Self, SysError> {
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        let file = rustix::fs::openat(run_directory, layout::JOURNAL, flags, Mode::RUSR | Mode::WUSR)
            .call(|| "openat(\"journal\", O_CREAT|O_EXCL)")?;
        Ok(Self { file: File::from(file), entries: Vec::new() })
    }

    /// Adds an entry; only then may its effect be made.
    pub(crate) fn append(&mut self, entry: &JournalEntry) -> Result<(), SysError> {
        let bytes = entry.to_frame().map_err(std::io::Error::other).call(|| "encode a journal entry")?;
        point::before(Step::of_entry(entry));
        // One write: another reader sees the whole entry or none.
        self.file.write_all(&bytes).call(|| "write(\"journal\")")?;
        self.entries.push(entry.clone());
        point::noted(Step::of_entry(entry));
        Ok(())
    }

    /// All entries so far.
    pub(crate) fn entries(&self) -> &[JournalEntry] {
        &self.entries
    }
}

/// The entries that a dead shim left; none if it has no journal. Reading stops at what is torn or damaged.
pub(crate) fn read(run_directory: BorrowedFd<'_>) -> Result<Vec<JournalEntry>, SysError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(run_directory, layout::JOURNAL, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        result => result.call(|| "openat(\"journal\")")?,
    };
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes).call(|| "read(\"journal\")")?;
    Ok(decode(&bytes))
}

fn decode(bytes: &[u8]) -> Vec<JournalEntry> {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    let mut entries = Vec::new();
    while let Ok(Some(frame)) = decoder.next_frame() {
        match JournalEntry::from_frame(&frame) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                tracing::warn!(?error, "an entry of the journal is damaged, what follows is not used");
                break;
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_cut_anywhere_gives_its_whole_entries() {
        let entries = [
            JournalEntry::Cgroup { path: "/sys/fs/cgroup/mysup/x".into() },
            JournalEntry::WriteLayer,
            JournalEntry::Mountpoint,
        ];
        let frames: Vec<Vec<u8>> = entries.iter().map(|entry| entry.to_frame().expect("short")).collect();
        let bytes = frames.concat();
        for cut in 0..=bytes.len() {
            let mut end = 0;
            let whole = frames.iter().take_while(|frame| {
                end += frame.len();
                end <= cut
            });
            assert_eq!(decode(&bytes[..cut]).len(), whole.count());
        }
    }
}
