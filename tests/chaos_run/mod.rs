//! Chaos: many containers at once, random deaths of random processes at random moments, and after every round the proof
//! that no exit status was lost or made up, that nothing leaked, and that not one acknowledged byte has changed.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | what a round will do, drawn from the seed before anything runs |
//! | `workload.rs` | the program in each container: acknowledged records |
//! | `round.rs` | does it, and keeps what is known of each container |
//! | `deaths.rs`, `victims.rs` | who is killed, and how a process is found and held |
//! | `planting.rs` | decoys and where they are mounted |
//! | `oracle.rs` | brings everything to rest and looks at every promise |
//!
//! The kernel is not asked how a program ended: the program itself says so in a volume before it ends by itself. So of a
//! program that was killed in its last moment both answers are taken for true.

mod deaths;
mod figures;
mod oracle;
mod plan;
mod planting;
mod round;
mod victims;
mod workload;

use std::{
    fs,
    io::{self, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use self::{figures::Figures, round::Round};
use crate::harness::{Sandbox, random::Random};

/// What is to be run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) seed: u64,
    /// No round begins later.
    pub(crate) time: Duration,
    /// Rounds beside each other.
    pub(crate) workers: usize,
    /// Only this one.
    pub(crate) only: Option<u64>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) figures: Figures,
    pub(crate) failures: Vec<String>,
}

/// Runs rounds until the time is over.
pub(crate) fn run(order: Order) -> Outcome {
    let next = AtomicU64::new(order.only.unwrap_or(0));
    let end = Instant::now() + order.time;
    let outcome = Mutex::new(Outcome::default());
    thread::scope(|scope| {
        for _ in 0..if order.only.is_some() { 1 } else { order.workers } {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (figures, failures) = one(order.seed, number);
                    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                    outcome.figures.add(&figures);
                    outcome.failures.extend(failures);
                    drop(outcome);
                    if order.only.is_some() || Instant::now() >= end {
                        return;
                    }
                }
            });
        }
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn one(seed: u64, number: u64) -> (Figures, Vec<String>) {
    let name = format!("chaos, seed {seed}, round {number}");
    let sandbox = Sandbox::new(&name, Random::new(seed, &name));
    let plan = plan::draw(seed, number);
    let mut round = Round::new(&sandbox, &plan);
    let mut done = round::tried(|| round.act());
    done = done.and(round::tried(|| round.rest()));
    done = done.and(round::tried(|| round.judge()));
    if let Err(error) = done {
        round.fail(format!("[broken off] {error}"));
    }
    round.end_all_lasting();
    let mut figures = round.figures.clone();
    figures.rounds = 1;
    figures.failures = u64::try_from(round.failures.len()).unwrap_or(u64::MAX);
    let failures: Vec<String> = round
        .failures
        .iter()
        .map(|failure| {
            format!(
                "FAILURE seed {seed} round {number}: {failure}\n  again: tests/chaos --seed {seed} --round {number}; files: {}",
                sandbox.directory().display()
            )
        })
        .collect();
    let failed = !failures.is_empty();
    if failed {
        // For whoever looks into the kept directory; the failures themselves are printed too.
        let _ = fs::write(sandbox.place("chaos.log"), round.report());
        failures.iter().for_each(|failure| say(&shortened(failure)));
    }
    drop(round);
    sandbox.sweep(failed);
    (figures, failures)
}

/// What a person reads; all of it is in the kept directory.
fn shortened(failure: &str) -> String {
    const MOST: usize = 2000;
    let Some((text, again)) = failure.rsplit_once("\n  again:") else { return failure.to_owned() };
    let mut end = text.len().min(MOST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}\n  again:{again}", &text[..end], if end < text.len() { " ..." } else { "" })
}

/// One line on standard output.
pub(crate) fn say(line: &str) {
    // A closed standard output must not end the run.
    let _ = writeln!(io::stdout().lock(), "{line}");
}
