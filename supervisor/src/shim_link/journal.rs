//! What the supervisor reads in a dead shim's undo journal: whether, when and as which process the program was let go.

use std::{fs::File, io::Read, path::Path};

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
}

/// The release of the program; `None` if it never was, as far as the journal can be read. A torn last entry was not
/// acted on.
pub(crate) fn released(run_directory: &Path) -> Option<Release> {
    let file = File::open(run_directory.join(layout::JOURNAL)).ok()?;
    let mut bytes = Vec::new();
    file.take(BOUND).read_to_end(&mut bytes).ok()?;
    let mut decoder = Decoder::new();
    decoder.push(&bytes);
    let mut released = None;
    while let Ok(Some(frame)) = decoder.next_frame() {
        match JournalEntry::from_frame(&frame) {
            Ok(JournalEntry::Released { init_pid, at }) => released = Some(Release { init_pid, at }),
            Ok(
                JournalEntry::Begin { .. }
                | JournalEntry::Cgroup { .. }
                | JournalEntry::WriteLayer
                | JournalEntry::Mountpoint
                | JournalEntry::Unknown,
            ) => {}
            Err(_) => break,
        }
    }
    released
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_found_and_a_torn_one_is_not() {
        let directory = std::env::temp_dir().join(format!("mysup-journal-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        assert_eq!(released(&directory), None);
        let mut bytes = JournalEntry::WriteLayer.to_frame().unwrap();
        let path = directory.join(layout::JOURNAL);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(released(&directory), None);
        bytes.extend(JournalEntry::Released { init_pid: 3, at: 9 }.to_frame().unwrap());
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(released(&directory), None);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(released(&directory), Some(Release { init_pid: 3, at: 9 }));
        std::fs::remove_file(path).unwrap();
        std::fs::remove_dir(directory).unwrap();
    }
}
