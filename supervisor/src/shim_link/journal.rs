//! What the supervisor reads in a dead shim's undo journal: of which boot it is, and whether, when and as which process
//! the program was let go.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use mysup_ipc::{codec::Message, frame::Decoder, layout, teardown::JournalEntry};

/// The most bytes that are looked at; a journal has a dozen short entries.
const BOUND: u64 = 1 << 20;

/// The release of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Release {
    /// Its init on the host. Never to be acted on as it is: the number may be another process' by now.
    pub(crate) init_pid: u32,
    /// Nanoseconds since 1970.
    pub(crate) at: u64,
    /// The start of that process in clock ticks since the machine was started; 0 where it was not noted.
    pub(crate) init_start: u64,
}

/// The release of the program; `None` if it never was, as far as the journal can be read. A torn last entry was not
/// acted on. Blocks.
///
/// # Errors
/// If there is a journal and it cannot be read now: that says nothing about the program.
pub(crate) fn released(run_directory: &Path) -> io::Result<Option<Release>> {
    let release = |entry| match entry {
        JournalEntry::Released { init_pid, at, init_start } => Some(Release { init_pid, at, init_start }),
        JournalEntry::Begin { .. }
        | JournalEntry::Cgroup { .. }
        | JournalEntry::WriteLayer
        | JournalEntry::Mountpoint
        | JournalEntry::Unknown => None,
    };
    Ok(entries(run_directory)?.into_iter().filter_map(release).next_back())
}

/// The boot that a container's journal names. Blocks.
///
/// # Errors
/// As [`released`].
pub(crate) fn boot(run_directory: &Path) -> io::Result<Option<String>> {
    let boot = |entry| match entry {
        JournalEntry::Begin { boot_id, .. } => Some(boot_id),
        JournalEntry::Cgroup { .. }
        | JournalEntry::WriteLayer
        | JournalEntry::Mountpoint
        | JournalEntry::Released { .. }
        | JournalEntry::Unknown => None,
    };
    Ok(entries(run_directory)?.into_iter().find_map(boot))
}

/// What can be read; nothing where there is no journal.
fn entries(run_directory: &Path) -> io::Result<Vec<JournalEntry>> {
    let file = match File::open(run_directory.join(layout::JOURNAL)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(BOUND).read_to_end(&mut bytes)?;
    let mut decoder = Decoder::new();
    decoder.push(&bytes);
    let mut entries = Vec::new();
    while let Ok(Some(frame)) = decoder.next_frame() {
        let Ok(entry) = JournalEntry::from_frame(&frame) else { break };
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_found_and_a_torn_one_is_not() {
        let directory = std::env::temp_dir().join(format!("mysup-journal-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        assert_eq!(released(&directory).unwrap(), None);
        let mut bytes = JournalEntry::WriteLayer.to_frame().unwrap();
        let path = directory.join(layout::JOURNAL);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(released(&directory).unwrap(), None);
        bytes.extend(JournalEntry::Released { init_pid: 3, at: 9, init_start: 4 }.to_frame().unwrap());
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(released(&directory).unwrap(), None);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(released(&directory).unwrap(), Some(Release { init_pid: 3, at: 9, init_start: 4 }));
        std::fs::remove_file(path).unwrap();
        std::fs::remove_dir(directory).unwrap();
    }
}
