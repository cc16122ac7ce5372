//! A whole sweep: counts the boundaries in a clean run, makes the cells, runs them on several instances, and reports.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write},
    panic,
    process::ExitCode,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::{
    calls,
    cell::{Cell, Outcome, Stage},
    options::Options,
    scenario::{Scenario, Victim},
    tracer::{Act, Seen},
};
use crate::harness::{Sandbox, leaks, random::Random, sandbox};

/// How often the state is printed.
const PROGRESS: Duration = Duration::from_secs(20);

/// The cells of one scenario and victim.
#[derive(Debug)]
pub(super) struct Plan {
    /// Boundaries that a clean run had.
    pub(super) boundaries: usize,
    /// Those that are made to fail by no error, by reason.
    pub(super) skipped: BTreeMap<&'static str, usize>,
    /// What is to be run.
    pub(super) cells: Vec<Cell>,
}

/// Counts one scenario's boundaries and chooses the cells.
///
/// # Errors
/// If the clean run is not clean.
pub(super) fn plan(
    stage: &Stage<'_>,
    scenario: Scenario,
    victim: Victim,
    options: &Options,
) -> Result<Plan, String> {
    let clean = Cell { scenario, victim, act: Act::Count };
    let Outcome { seen, result, .. } = stage.run(clean, options.seed);
    result.map_err(|error| format!("the clean run of {scenario} with {victim} failed: {error}"))?;
    let mut plan = Plan { boundaries: seen.calls.len(), skipped: BTreeMap::new(), cells: Vec::new() };
    // Runs differ a little: some more, so that the last boundary of a longer one is met, too.
    let last = seen.calls.len() + seen.calls.len() / 50 + 2;
    let chosen = |at: &usize| options.at.as_ref().is_none_or(|range| range.contains(at));
    for at in (1..=last).filter(chosen) {
        if options.errors.is_empty() {
            plan.cells.push(Cell { scenario, victim, act: Act::Kill(at) });
        } else {
            let mut here = Vec::new();
            for error in &options.errors {
                match reason_against(&seen, at, *error, scenario, victim) {
                    Some(reason) => *plan.skipped.entry(reason).or_default() += 1,
                    None => here.push(Cell { scenario, victim, act: Act::Fail(at, *error) }),
                }
            }
            shuffle(&mut here, options.seed, &format!("{scenario} {victim} {at}"));
            here.truncate(options.each);
            plan.cells.extend(here);
        }
    }
    shuffle(&mut plan.cells, options.seed, &format!("{scenario} {victim}"));
    let (part, parts) = options.shard;
    let mut index = 0;
    plan.cells.retain(|_| {
        index += 1;
        index % parts == part % parts
    });
    if !options.full && options.at.is_none() {
        plan.cells.truncate(options.sample);
    }
    Ok(plan)
}

fn reason_against(
    seen: &Seen,
    at: usize,
    error: Errno,
    scenario: Scenario,
    victim: Victim,
) -> Option<&'static str> {
    let from_its_start = match (scenario, victim) {
        (Scenario::Restart, Victim::Supervisor)
        | (Scenario::RunDetached | Scenario::RunForeground, Victim::Shim)
        | (_, Victim::Sweep) => true,
        (_, Victim::Shim | Victim::Supervisor) => false,
    };
    if from_its_start && at <= calls::before_main(&seen.calls) {
        return Some("before main");
    }
    let call = *seen.calls.get(at - 1)?;
    // On what the call works is seen when it comes.
    calls::reason_against(call, None, error)
}

fn shuffle(cells: &mut [Cell], seed: u64, name: &str) {
    let mut random = Random::new(seed, name);
    for last in (1..cells.len()).rev() {
        let choice = random.next() >> 33;
        let other = usize::try_from(choice).unwrap_or(0) % (last + 1);
        cells.swap(last, other);
    }
}

/// The figures of one scenario and victim.
#[derive(Debug, Default)]
struct Figures {
    boundaries: usize,
    skipped: BTreeMap<&'static str, usize>,
    cells: usize,
    run: usize,
    reached: usize,
    failures: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn say(line: &str) {
    // A closed standard output must not end a sweep.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

struct Campaign<'a> {
    options: &'a Options,
    queue: Mutex<VecDeque<Cell>>,
    figures: Mutex<BTreeMap<(Victim, Scenario), Figures>>,
    done: AtomicUsize,
    all: AtomicUsize,
    began: Instant,
}

/// Runs what the options ask for.
pub(super) fn run(options: &Options) -> ExitCode {
    panic::set_hook(Box::new(|_| {}));
    let campaign = Campaign {
        options,
        queue: Mutex::default(),
        figures: Mutex::default(),
        done: AtomicUsize::new(0),
        all: AtomicUsize::new(0),
        began: Instant::now(),
    };
    let kind = if options.errors.is_empty() { "SIGKILL".to_owned() } else { format!("{:?}", options.errors) };
    say(&format!("sweep of {kind}, seed {}, {} workers", options.seed, options.workers));
    let before = leaks::Host::now();
    campaign.count();
    campaign.sweep();
    let left = left_by_us(&before);
    campaign.report(&left)
}

/// What is left on the host and bears our directory or the id of a container of ours; others work here, too.
fn left_by_us(before: &leaks::Host) -> Vec<String> {
    let base = format!("{}/", sandbox::base().display());
    let ids = sandbox::all_ids();
    let ours = |line: &String| {
        line.contains(&base) || ids.iter().any(|id| line.contains(&id[..12])) || line.starts_with("network")
    };
    leaks::Host::settled_difference(before).into_iter().filter(ours).collect()
}

impl Campaign<'_> {
    /// Clean runs, one after another: what is counted must not depend on the load.
    fn count(&self) {
        for (scenario, victim) in &self.options.sweeps {
            let sandbox = Sandbox::new("count", Random::new(self.options.seed, "count"));
            let stage = Stage::new(&sandbox);
            let mut figures = Figures::default();
            match plan(&stage, *scenario, *victim, self.options) {
                Ok(plan) => {
                    figures.boundaries = plan.boundaries;
                    figures.skipped = plan.skipped;
                    figures.cells = plan.cells.len();
                    self.all.fetch_add(plan.cells.len(), Ordering::Relaxed);
                    lock(&self.queue).extend(plan.cells);
                }
                Err(error) => {
                    say(&format!("FAILED {error}"));
                    figures.failures.push(error);
                }
            }
            lock(&self.figures).insert((*victim, *scenario), figures);
            sandbox.sweep(false);
        }
    }

    fn sweep(&self) {
        thread::scope(|scope| {
            scope.spawn(|| self.progress());
            for worker in 0..self.options.workers {
                scope.spawn(move || self.work(worker));
            }
        });
    }

    fn progress(&self) {
        let all = self.all.load(Ordering::Relaxed);
        let mut told = Instant::now();
        while self.done.load(Ordering::Relaxed) < all {
            thread::sleep(Duration::from_millis(100));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let failures: usize =
                    lock(&self.figures).values().map(|figures| figures.failures.len()).sum();
                let done = self.done.load(Ordering::Relaxed);
                say(&format!("{done} of {all} cells, {failures} failures, {:?}", self.began.elapsed()));
            }
        }
    }

    fn is_late(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.began.elapsed() > limit)
    }

    /// Runs cells on one instance; after a failure on a new one.
    fn work(&self, worker: usize) {
        while !lock(&self.queue).is_empty() {
            let name = format!("sweep worker {worker}");
            let sandbox = Sandbox::new(&name, Random::new(self.options.seed, &name));
            let mut broken = false;
            let stage = panic::catch_unwind(|| Stage::new(&sandbox));
            while let Ok(stage) = &stage
                && !broken
            {
                let Some(cell) = lock(&self.queue).pop_front() else { break };
                if !self.is_late() {
                    broken = self.run_cell(stage, cell);
                }
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            let log = sandbox.sweep(broken);
            if broken {
                say(&log);
            }
        }
    }

    fn run_cell(&self, stage: &Stage<'_>, cell: Cell) -> bool {
        let Outcome { acted, result, .. } = stage.run(cell, self.options.seed);
        let mut all = lock(&self.figures);
        let figures = all.entry((cell.victim, cell.scenario)).or_default();
        figures.run += 1;
        figures.reached += usize::from(acted.is_some());
        let Err(error) = result else { return false };
        let at = acted.unwrap_or_else(|| "a boundary that was not reached".to_owned());
        let command = cell.command(self.options.seed);
        let text = format!("FAILED {command}\n  before {at}\n  {}", error.replace('\n', "\n  "));
        say(&text);
        figures.failures.push(format!("{command}   # {at}: {}", error.lines().next().unwrap_or_default()));
        true
    }

    fn report(&self, left: &[String]) -> ExitCode {
        let all = lock(&self.figures);
        say(&format!(
            "\n{:<12} {:<10} {:>10} {:>7} {:>7} {:>8} {:>8} {:>9}",
            "victim", "scenario", "boundaries", "cells", "run", "reached", "skipped", "failures"
        ));
        for ((victim, scenario), figures) in all.iter() {
            say(&format!(
                "{:<12} {:<10} {:>10} {:>7} {:>7} {:>8} {:>8} {:>9}",
                victim.word(),
                scenario.word(),
                figures.boundaries,
                figures.cells,
                figures.run,
                figures.reached,
                figures.skipped.values().sum::<usize>(),
                figures.failures.len()
            ));
        }
        let mut reasons = BTreeMap::<&str, usize>::new();
        for (reason, count) in all.values().flat_map(|figures| &figures.skipped) {
            *reasons.entry(reason).or_default() += count;
        }
        reasons.iter().for_each(|(reason, count)| say(&format!("SKIP {count} cells: {reason}")));
        let failures: Vec<&String> = all.values().flat_map(|figures| &figures.failures).collect();
        failures.iter().for_each(|failure| say(failure));
        left.iter().for_each(|line| say(&format!("left on the host: {line}")));
        let word = if failures.is_empty() && left.is_empty() { "ok" } else { "FAILED" };
        let run: usize = all.values().map(|figures| figures.run).sum();
        say(&format!(
            "sweep result: {word}. {run} cells, {} failures in {:?}",
            failures.len(),
            self.began.elapsed()
        ));
        if word == "ok" { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
