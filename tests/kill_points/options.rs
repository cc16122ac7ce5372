//! The command line of `tests/kill_points/run`.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    scenario::Scenario,
    victims::{FollowUp, Victims},
};

const HELP: &str = "\
usage: tests/kill_points/run [--full] [--scenario NAME]... [--point NAME]... [--victims WHO]... [--follow-up HOW]...
                             [--seed S] [--sample K] [--shard I/N] [--workers W]
  --full       every cell; without it a sample of K
  --scenario   life, rm-at-exit, failing, create-start, rm, rename, adopt, take-down, reboot, import, rmi
  --point      as `ipc/src/point.rs` has them: cgroup.before, cgroup.noted, cgroup.after, ...
  --victims    supervisor, shim, init, supervisor+shim, all
  --follow-up  at-once, after-end, never";

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// These scenarios.
    pub(super) scenarios: Vec<Scenario>,
    /// Only these points; empty for all.
    pub(super) points: Vec<String>,
    /// These victims.
    pub(super) victims: Vec<Victims>,
    /// These ways to go on.
    pub(super) follow_ups: Vec<FollowUp>,
    /// Every cell.
    pub(super) full: bool,
    /// So many cells when not full.
    pub(super) sample: usize,
    /// Which part of how many, from 1.
    pub(super) shard: (usize, usize),
    /// How many run side by side.
    pub(super) workers: usize,
    /// Decides the sample, the order and the exit codes.
    pub(super) seed: u64,
}

impl Options {
    /// A sample of everything.
    pub(super) fn of(seed: u64) -> Options {
        Options {
            scenarios: Scenario::EACH.to_vec(),
            points: Vec::new(),
            victims: Victims::EACH.to_vec(),
            follow_ups: FollowUp::EACH.to_vec(),
            full: false,
            sample: 40,
            shard: (1, 1),
            workers: 2,
            seed,
        }
    }

    /// Whether nothing is left out, so that every point must be reached.
    pub(super) fn is_everything(&self) -> bool {
        self.scenarios.len() == Scenario::EACH.len() && self.points.is_empty()
    }

    /// Reads the arguments.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub(super) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
        let mut options = Options::of(seed);
        let (mut scenarios, mut victims, mut follow_ups) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
            match flag.as_str() {
                "--full" => options.full = true,
                "--scenario" => scenarios.push(named(&Scenario::EACH, |one| one.word(), &value()?)?),
                "--point" => options.points.push(value()?),
                "--victims" => victims.push(named(&Victims::EACH, |one| one.word(), &value()?)?),
                "--follow-up" => follow_ups.push(named(&FollowUp::EACH, |one| one.word(), &value()?)?),
                "--seed" => options.seed = number(&value()?)?,
                "--sample" => options.sample = number(&value()?)?,
                "--shard" => options.shard = shard(&value()?)?,
                "--workers" => options.workers = number::<usize>(&value()?)?.max(1),
                _ => return Err(format!("unknown argument {flag}\n{HELP}")),
            }
        }
        if !scenarios.is_empty() {
            options.scenarios = scenarios;
        }
        if !victims.is_empty() {
            options.victims = victims;
        }
        if !follow_ups.is_empty() {
            options.follow_ups = follow_ups;
        }
        Ok(options)
    }
}

fn named<T: Copy>(all: &[T], word: impl Fn(T) -> &'static str, text: &str) -> Result<T, String> {
    all.iter().copied().find(|one| word(*one) == text).ok_or_else(|| format!("unknown: {text}\n{HELP}"))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let (part, parts) = text.split_once('/').ok_or_else(|| format!("not I/N: {text}"))?;
    let (part, parts) = (number(part)?, number(parts)?);
    if part == 0 || part > parts { Err(format!("no part {text}")) } else { Ok((part, parts)) }
}
