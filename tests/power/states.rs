//! The states in which a power cut may leave a disk, from its log: what was flushed is there; of the rest any part is.

use std::sync::Arc;

use super::device::{Entry, Log};
use crate::harness::random::Random;

/// The smallest thing a disk writes whole: ext4 relies on it for its superblock, which is never in its journal.
const SECTOR: usize = 4096;

/// What is lost of that which was not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lost {
    /// Nothing: the disk had written all that came to it.
    Nothing,
    /// Everything: the disk had kept it all in its cache.
    Everything,
    /// Each sector with this chance in eight, by a number.
    Some(u32, u64),
}

/// One state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// So many entries of the log came to the disk.
    pub(super) at: usize,
    /// And these were lost.
    pub(super) lost: Lost,
}

impl Log {
    /// The states of a log: at every entry nothing, everything, and some random parts of what was not flushed. States
    /// with the same content at the same entry are one.
    pub(super) fn cuts(&self, parts: u64) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let mut unflushed = 0_usize;
        for at in 0..=self.entries.len() {
            match at.checked_sub(1).map(|last| &self.entries[last]) {
                None | Some(Entry::Flush) => unflushed = 0,
                Some(Entry::Write(_, data)) => unflushed += data.len().div_ceil(SECTOR),
            }
            cuts.push(Cut { at, lost: Lost::Nothing });
            if unflushed > 0 {
                cuts.push(Cut { at, lost: Lost::Everything });
            }
            if unflushed > 1 {
                for part in 0..parts {
                    let chance = [4, 1, 7][usize::try_from(part % 3).unwrap_or(0)];
                    cuts.push(Cut { at, lost: Lost::Some(chance, part) });
                }
            }
        }
        cuts
    }

    /// What is on the disk after a cut.
    pub(super) fn state(&self, cut: Cut, seed: u64) -> Arc<Vec<u8>> {
        let mut disk = self.base.to_vec();
        let came = &self.entries[..cut.at];
        let flushed = came.iter().rposition(|entry| matches!(entry, Entry::Flush)).unwrap_or(0);
        let mut random = Random::new(seed, &format!("{cut:?}"));
        for (index, entry) in came.iter().enumerate() {
            let Entry::Write(begin, data) = entry else { continue };
            for (number, sector) in data.chunks(SECTOR).enumerate() {
                let stays = index < flushed
                    || match cut.lost {
                        Lost::Nothing => true,
                        Lost::Everything => false,
                        Lost::Some(chance, _) => (random.next() >> 33) % 8 >= u64::from(chance),
                    };
                if stays {
                    let at = begin + number * SECTOR;
                    disk[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        Arc::new(disk)
    }
}
