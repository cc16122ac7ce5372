//! What was done and checked, in numbers.

use std::{collections::BTreeMap, fmt};

/// Counted over all rounds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures {
    pub(crate) rounds: u64,
    pub(crate) containers: u64,
    /// By victim.
    pub(crate) kills: BTreeMap<&'static str, u64>,
    pub(crate) freezes: u64,
    pub(crate) holders: u64,
    pub(crate) decoys: u64,
    /// Containers whose end was asked for and checked.
    pub(crate) exits: u64,
    /// Answers to that question, each checked.
    pub(crate) answers: u64,
    /// Of them: not known, where that is the truth.
    pub(crate) unknown: u64,
    /// Acknowledged records that were there.
    pub(crate) records: u64,
    /// Lines of logs that were there.
    pub(crate) lines: u64,
    /// Bytes of volumes, decoys and files outside that were compared.
    pub(crate) bytes: u64,
    pub(crate) failures: u64,
}

impl Figures {
    /// Adds those of another round.
    pub(crate) fn add(&mut self, other: &Figures) {
        self.rounds += other.rounds;
        self.containers += other.containers;
        for (name, count) in &other.kills {
            *self.kills.entry(name).or_insert(0) += count;
        }
        self.freezes += other.freezes;
        self.holders += other.holders;
        self.decoys += other.decoys;
        self.exits += other.exits;
        self.answers += other.answers;
        self.unknown += other.unknown;
        self.records += other.records;
        self.lines += other.lines;
        self.bytes += other.bytes;
        self.failures += other.failures;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rounds {}, containers {}, kills {}",
            self.rounds,
            self.containers,
            self.kills.values().sum::<u64>()
        )?;
        let kills: Vec<String> = self.kills.iter().map(|(name, count)| format!("{name} {count}")).collect();
        write!(
            f,
            " ({}), stopped processes {}, decoys mounted {}",
            kills.join(", "),
            self.freezes,
            self.decoys
        )?;
        write!(f, ", holders {}, exits {}, answers {}", self.holders, self.exits, self.answers)?;
        write!(f, " (unknown {}), records {}, log lines {}", self.unknown, self.records, self.lines)?;
        write!(f, ", bytes hashed {}, failures {}", self.bytes, self.failures)
    }
}
