//! The one thing the supervisor reads in a dead shim's undo journal: whether the program was ever let go.

use std::{fs::File, io::Read, path::Path};

use mysup_ipc::{codec::Message, frame::Decoder, layout, teardown::JournalEntry};

/// The most bytes that are looked at; a journal has a dozen short entries.
const BOUND: u64 = 1 << 20;

/// When the program was released, nanoseconds since 1970; `None` if it never was, as far as the journal can be read.
/// A torn last entry was not acted on.
pub(crate) fn released_at(run_directory: &Path) -> Option<u64> {
    let file = File::open(run_directory.join(layout::JOURNAL)).ok()?;
    let mut bytes = Vec::new();
    file.take(BOUND).read_to_end(&mut bytes).ok()?;
    let mut decoder = Decoder::new();
    decoder.push(&bytes);
    let mut released = None;
    while let Ok(Some(frame)) = decoder.next_frame() {
        match JournalEntry::from_frame(&frame) {
            Ok(JournalEntry::Released { at, .. }) => released = Some(at),
            Ok(
                JournalEntry::Begin { .. }
                | JournalEntry::Cgroup { .. }
                | JournalEntry::WriteLayer
                | JournalEntry::Mountpoint,
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
        assert_eq!(released_at(&directory), None);
        let mut bytes = JournalEntry::WriteLayer.to_frame().unwrap();
        let path = directory.join(layout::JOURNAL);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(released_at(&directory), None);
        bytes.extend(JournalEntry::Released { init_pid: 3, at: 9 }.to_frame().unwrap());
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(released_at(&directory), None);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(released_at(&directory), Some(9));
        std::fs::remove_file(path).unwrap();
        std::fs::remove_dir(directory).unwrap();
    }
}
