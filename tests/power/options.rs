//! The command line of `tests/power/run`.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::story::{CHAPTERS, Chapter};

/// What the command says of itself.
const HELP: &str = "\
usage: tests/power/run [--full] [--kind disk|recovery|shutdown]... [--chapter NAME]... [--seed S]
                       [--sample K] [--minutes M] [--workers W] [--at N]
  --full      every state; without it a sample of each kind
  --kind      disk: states of a disk whose writes were logged, lost parts included; recovery: the same of a start after
              a cut; shutdown: ext4 is shut down before a system call of supervisor or shim
  --chapter   import, create, run-d, run, wait, stop, run-rm, keep, again, rm, commit, volumes, load, pull
  --at        only this boundary (shutdown only): what a failure prints to be seen again
  --minutes   begin nothing after that";

/// How the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// At every instant of a story, by the log of the disk.
    Disk,
    /// At an instant of a start after a cut.
    Recovery,
    /// Before a system call, by the shutdown of the file system.
    Shutdown,
}

const KINDS: [Kind; 3] = [Kind::Disk, Kind::Recovery, Kind::Shutdown];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Disk => "disk",
            Kind::Recovery => "recovery",
            Kind::Shutdown => "shutdown",
        })
    }
}

/// What the shutdown of a file system writes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cutting {
    /// Data and journal: a disk that had been told to sync.
    Everything,
    /// The journal: names and sizes are newer than the data.
    JournalFlushed,
    /// Nothing: what was not synced is gone.
    NothingFlushed,
}

/// All of them.
pub(super) const CUTTINGS: [Cutting; 3] =
    [Cutting::NothingFlushed, Cutting::JournalFlushed, Cutting::Everything];

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Which kinds.
    pub(super) kinds: Vec<Kind>,
    /// Which chapters are cut by a shutdown.
    pub(super) chapters: Vec<Chapter>,
    /// Everything.
    pub(super) full: bool,
    /// Only this boundary.
    pub(super) at: Option<usize>,
    /// States of each kind when not full.
    pub(super) sample: usize,
    /// Nothing is begun later.
    pub(super) limit: Option<Duration>,
    /// How many machines side by side.
    pub(super) workers: usize,
    /// Decides what is lost, the sample and the order.
    pub(super) seed: u64,
}

impl Options {
    /// A sample of every kind.
    pub(super) fn of(seed: u64) -> Options {
        Options {
            kinds: KINDS.to_vec(),
            chapters: CHAPTERS.to_vec(),
            full: false,
            at: None,
            sample: 100,
            limit: None,
            workers: 2,
            seed,
        }
    }

    /// Reads the arguments.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub(super) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
        let mut options = Options::of(seed);
        let (mut kinds, mut chapters) = (Vec::new(), Vec::new());
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
            match flag.as_str() {
                "--full" => options.full = true,
                "--kind" => kinds.push(named(&KINDS, &value()?)?),
                "--chapter" => chapters.push(named(&CHAPTERS, &value()?)?),
                "--seed" => options.seed = number(&value()?)?,
                "--sample" => options.sample = number(&value()?)?,
                "--at" => options.at = Some(number(&value()?)?),
                "--minutes" => options.limit = Some(Duration::from_secs(60 * number::<u64>(&value()?)?)),
                "--workers" => options.workers = number::<usize>(&value()?)?.max(1),
                _ => return Err(format!("unknown argument {flag}\n{HELP}")),
            }
        }
        if !kinds.is_empty() {
            options.kinds = kinds;
        }
        if !chapters.is_empty() {
            options.chapters = chapters;
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

fn named<T: Copy + fmt::Display>(all: &[T], word: &str) -> Result<T, String> {
    all.iter().find(|one| one.to_string() == word).copied().ok_or_else(|| format!("no {word}\n{HELP}"))
}
