//! The command line of `tests/sweep/run`.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::errno::Errno;

use super::scenario::{SWEEPS, Scenario, Victim};

/// What the command says of itself.
pub(super) const HELP: &str = "\
usage: tests/sweep/run [--full] [--errors] [--scenario NAME]... [--victim shim|supervisor|sweep] [--seed S]
                       [--error E]... [--each K] [--at N[-M]] [--shard I/N] [--minutes M] [--workers W] [--sample K]
  --full       every boundary; without it a sample of each scenario
  --errors     system calls fail, in place of SIGKILL; --error chooses which (EIO, ENOSPC, ...)
  --each       only K of the errors at each boundary, chosen by the seed
  --scenario   run-d, run, exit, stop, rm, rm-f, restart, import, commit
  --at         only these boundaries: what a failure prints to be seen again
  --shard      the I-th of N equal parts; --minutes: begin no cell after that";

/// The errors that are tried, each a promise of some kernel.
pub(super) const ERRORS: &[Errno] = &[
    Errno::EIO,
    Errno::ENOSPC,
    Errno::ENOMEM,
    Errno::EMFILE,
    Errno::EBUSY,
    Errno::EINTR,
    Errno::EAGAIN,
    Errno::EPERM,
    Errno::EROFS,
    Errno::ENOSYS,
];

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Who dies doing what.
    pub(super) sweeps: Vec<(Scenario, Victim)>,
    /// The errors to give; empty for SIGKILL.
    pub(super) errors: Vec<Errno>,
    /// How many of them at each boundary.
    pub(super) each: usize,
    /// Every boundary.
    pub(super) full: bool,
    /// Only these.
    pub(super) at: Option<RangeInclusive<usize>>,
    /// Which part of how many, from 1.
    pub(super) shard: (usize, usize),
    /// No cell begins later.
    pub(super) limit: Option<Duration>,
    /// How many run side by side.
    pub(super) workers: usize,
    /// Cells of each scenario when not full.
    pub(super) sample: usize,
    /// Decides the sample, the order and the exit codes.
    pub(super) seed: u64,
}

impl Options {
    /// A sample of SIGKILLs, of no scenario yet.
    pub(super) fn of(seed: u64) -> Options {
        Options {
            sweeps: Vec::new(),
            errors: Vec::new(),
            each: ERRORS.len(),
            full: false,
            at: None,
            shard: (1, 1),
            limit: None,
            workers: 4,
            sample: 12,
            seed,
        }
    }

    /// Reads the arguments.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub(super) fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
        let mut options = Options::of(seed);
        let (mut scenarios, mut victim) = (Vec::new(), None);
        let mut arguments = arguments;
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
            match flag.as_str() {
                "--full" => options.full = true,
                "--errors" => options.errors = ERRORS.to_vec(),
                "--error" => options.errors.push(error(&value()?)?),
                "--each" => options.each = number(&value()?)?,
                "--scenario" => scenarios.push(scenario(&value()?)?),
                "--victim" => victim = Some(self::victim(&value()?)?),
                "--seed" => options.seed = number(&value()?)?,
                "--at" => options.at = Some(range(&value()?)?),
                "--shard" => options.shard = shard(&value()?)?,
                "--minutes" => options.limit = Some(Duration::from_secs(60 * number::<u64>(&value()?)?)),
                "--workers" => options.workers = number::<usize>(&value()?)?.max(1),
                "--sample" => options.sample = number(&value()?)?,
                _ => return Err(format!("unknown argument {flag}\n{HELP}")),
            }
        }
        let wanted = SWEEPS.iter().filter(|(scenario, who)| {
            (scenarios.is_empty() || scenarios.contains(scenario))
                && victim.is_none_or(|victim| victim == *who)
        });
        options.sweeps = wanted.copied().collect();
        if options.sweeps.is_empty() {
            return Err("this victim has no part in this scenario".to_owned());
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

fn error(text: &str) -> Result<Errno, String> {
    let found = ERRORS.iter().find(|error| format!("{error:?}") == text);
    found.copied().ok_or_else(|| format!("not one of the errors of the sweep: {text}"))
}

fn scenario(text: &str) -> Result<Scenario, String> {
    let mut all = SWEEPS.iter().map(|(scenario, _)| *scenario);
    all.find(|scenario| scenario.word() == text).ok_or_else(|| format!("no scenario {text}\n{HELP}"))
}

fn victim(text: &str) -> Result<Victim, String> {
    [Victim::Shim, Victim::Supervisor, Victim::Sweep]
        .into_iter()
        .find(|victim| victim.word() == text)
        .ok_or_else(|| format!("no victim {text}: shim, supervisor or sweep"))
}

fn range(text: &str) -> Result<RangeInclusive<usize>, String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    Ok(number(low)?..=number(high)?)
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let (part, parts) = text.split_once('/').ok_or_else(|| format!("not I/N: {text}"))?;
    let (part, parts) = (number(part)?, number(parts)?);
    if part == 0 || part > parts { Err(format!("no part {text}")) } else { Ok((part, parts)) }
}
