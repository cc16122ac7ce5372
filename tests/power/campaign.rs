//! A whole campaign: makes the beginning, records, chooses the states, tries them on several machines, and reports.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write},
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    boot::Machine,
    device::Device,
    disk::{self, RunRoot},
    options::{CUTTINGS, Kind, Options},
    oracle::{Depth, Truth},
    recording::{self, Beginning, Others, Recording, Trial, Volumes},
    shutdown_cell::{self, Cell},
    states::Cut,
    story::Chapter,
};
use crate::{
    harness::{Sandbox, leaks, random::Random, sandbox},
    sweep::scenario::Victim,
};

/// How often the state is printed.
const PROGRESS: Duration = Duration::from_secs(20);
/// States of one recovery.
const RECOVERIES: usize = 6;

/// One thing to be tried.
#[derive(Debug, Clone, Copy)]
enum Task {
    Disk { recording: usize, trial: Trial },
    Recovery { recording: usize, cut: Cut, run_root: RunRoot },
    Shutdown(Cell),
}

/// The figures of one kind.
#[derive(Debug, Default)]
struct Figures {
    states: usize,
    reached: usize,
    failures: Vec<String>,
}

/// Everything that is known before the first state is tried.
pub(super) struct Campaign {
    options: Options,
    beginning: Beginning,
    recordings: Vec<Recording>,
    queue: Mutex<VecDeque<Task>>,
    all: usize,
    figures: Mutex<BTreeMap<Kind, Figures>>,
    skipped: Vec<String>,
    began: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn say(line: &str) {
    // A closed standard output must not end a campaign.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Runs what the options ask for, as a command.
pub(super) fn run(options: &Options) -> ExitCode {
    panic::set_hook(Box::new(|_| {}));
    say(&format!("power cuts, seed {}, {} workers", options.seed, options.workers));
    let before = leaks::Host::now();
    let sandbox = Sandbox::new("power", Random::new(options.seed, "power"));
    let prepared = disk::apart(|| {
        let machine = Machine::new(&sandbox);
        let _volumes = Volumes::plant(&sandbox);
        let prepared = Campaign::prepare(&machine, options);
        machine.places.close();
        prepared
    });
    sandbox.sweep(false);
    let campaign = match prepared {
        Ok(campaign) => campaign,
        Err(reason) => {
            say(&format!("SKIP all power cuts: {reason}"));
            return ExitCode::SUCCESS;
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| campaign.progress());
        for worker in 0..options.workers {
            let campaign = &campaign;
            scope.spawn(move || campaign.work(worker));
        }
    });
    let base = format!("{}/", sandbox::base().display());
    let left: Vec<String> =
        leaks::Host::settled_difference(&before).into_iter().filter(|line| line.contains(&base)).collect();
    campaign.report(&left)
}

impl Campaign {
    /// Makes the beginning and the recordings on a machine with volumes, and chooses what is tried.
    ///
    /// # Errors
    /// Why power cannot be cut here.
    pub(super) fn prepare(machine: &Machine<'_>, options: &Options) -> Result<Campaign, String> {
        let began = Instant::now();
        let beginning =
            Beginning::make(machine).map_err(|error| format!("no ext4 on a loop device here: {error}"))?;
        let mut campaign = Campaign {
            options: options.clone(),
            beginning,
            recordings: Vec::new(),
            queue: Mutex::default(),
            all: 0,
            figures: Mutex::default(),
            skipped: Vec::new(),
            began,
        };
        let mut tasks = Vec::new();
        if options.kinds.contains(&Kind::Shutdown) {
            tasks.extend(campaign.shutdowns(machine));
        }
        if options.kinds.iter().any(|kind| *kind != Kind::Shutdown) {
            if Device::is_possible() {
                tasks.extend(campaign.states(machine)?);
            } else {
                campaign.skipped.push("states of a disk with lost writes: no /dev/fuse here".to_owned());
            }
        }
        campaign.all = tasks.len();
        campaign.queue = Mutex::new(tasks.into());
        Ok(campaign)
    }

    /// The states of a quiet and a busy disk, with the run root beside it and on it.
    fn states(&mut self, machine: &Machine<'_>) -> Result<Vec<Task>, String> {
        let mut tasks = Vec::new();
        let mut recoveries = Vec::new();
        let mut disks: Vec<(Others, RunRoot)> = [Others::Quiet, Others::Syncing]
            .into_iter()
            .flat_map(|others| [RunRoot::Stale, RunRoot::SameDisk].map(|run_root| (others, run_root)))
            .collect();
        self.sample(&mut disks, 2, "disks");
        for (others, run_root) in disks {
            let recorded =
                recording::record(machine, &self.beginning, run_root, others, &self.options.chapters);
            let recorded = recorded.map_err(|error| format!("no disk on FUSE here: {error}"))?;
            let index = self.recordings.len();
            let cuts = recorded.log.cuts(if self.options.full { 6 } else { 3 });
            say(&format!(
                "recorded: {others:?}, run root {run_root:?}: {} writes and flushes, {} states",
                recorded.log.entries.len(),
                cuts.len()
            ));
            for (number, cut) in cuts.into_iter().enumerate() {
                let run_root = match run_root {
                    RunRoot::SameDisk => RunRoot::SameDisk,
                    // What was on another disk may be found, or was memory.
                    RunRoot::Stale | RunRoot::Memory if number % 2 == 0 => RunRoot::Memory,
                    RunRoot::Stale | RunRoot::Memory => RunRoot::Stale,
                };
                let depth = if number % 5 == 0 { Depth::Use } else { Depth::Look };
                tasks.push(Task::Disk { recording: index, trial: Trial { cut, run_root, depth } });
                recoveries.push(Task::Recovery { recording: index, cut, run_root });
            }
            self.recordings.push(recorded);
        }
        let disk = if self.options.kinds.contains(&Kind::Disk) { tasks } else { Vec::new() };
        let recovery = if self.options.kinds.contains(&Kind::Recovery) { recoveries } else { Vec::new() };
        let mut chosen = self.chosen(disk, 1, "disk");
        // Each gives several states.
        chosen.extend(self.chosen(recovery, RECOVERIES, "recovery"));
        Ok(chosen)
    }

    /// Counts the boundaries of each chapter in a run that is cut at its end.
    fn shutdowns(&mut self, machine: &Machine<'_>) -> Vec<Task> {
        let mut cells = Vec::new();
        let chapters = self.options.chapters.iter();
        let mut pairs: Vec<(Chapter, Victim)> = chapters
            .flat_map(|chapter| [Victim::Supervisor, Victim::Shim].map(|victim| (*chapter, victim)))
            .filter(|(chapter, victim)| *victim == Victim::Supervisor || chapter.has_shim())
            .collect();
        self.sample(&mut pairs, self.options.sample.div_ceil(5), "chapters");
        for (chapter, victim) in pairs {
            let how = CUTTINGS[0];
            let mut cell =
                Cell { chapter, victim, at: None, how, run_root: RunRoot::Memory, depth: Depth::Use };
            let mut seen = shutdown_cell::Seen::default();
            shutdown_cell::run(machine, &self.beginning, cell, &mut seen);
            // Runs differ a little.
            let last = seen.boundaries + seen.boundaries / 50 + 1;
            for at in (1..=last).filter(|at| self.options.at.is_none_or(|only| only == *at)) {
                for (number, how) in CUTTINGS.into_iter().enumerate() {
                    let run_root = [RunRoot::Memory, RunRoot::Stale, RunRoot::SameDisk][(at + number) % 3];
                    let depth = if (at + number) % 5 == 0 { Depth::Use } else { Depth::Look };
                    cell = Cell { at: Some(at), how, run_root, depth, ..cell };
                    cells.push(Task::Shutdown(cell));
                }
            }
        }
        self.chosen(cells, 1, "shutdown")
    }

    /// A sample of the tasks, in the order of the seed; all of them when full. Each gives so many states.
    fn chosen(&self, mut tasks: Vec<Task>, each: usize, name: &str) -> Vec<Task> {
        self.sample(&mut tasks, self.options.sample.div_ceil(each), name);
        tasks
    }

    /// Puts everything into the order of the seed, and leaves so many when not full.
    fn sample<T>(&self, all: &mut Vec<T>, count: usize, name: &str) {
        let mut random = Random::new(self.options.seed, name);
        for last in (1..all.len()).rev() {
            let other = usize::try_from(random.next() >> 33).unwrap_or(0) % (last + 1);
            all.swap(last, other);
        }
        if !self.options.full && self.options.at.is_none() {
            all.truncate(count);
        }
    }

    fn progress(&self) {
        let mut told = Instant::now();
        loop {
            let left = lock(&self.queue).len();
            if left == 0 {
                return;
            }
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let failures: usize =
                    lock(&self.figures).values().map(|figures| figures.failures.len()).sum();
                say(&format!(
                    "{} of {}, {failures} failures, {:?}",
                    self.all - left,
                    self.all,
                    self.began.elapsed()
                ));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Tries what is in the queue on one machine; after a failure on a new one.
    fn work(&self, worker: usize) {
        while !lock(&self.queue).is_empty() {
            let name = format!("power worker {worker}");
            let sandbox = Sandbox::new(&name, Random::new(self.options.seed, &name));
            let result = panic::catch_unwind(AssertUnwindSafe(|| disk::apart(|| self.work_on(&sandbox))));
            let failed = result.is_err();
            if failed {
                say(&sandbox.log());
            }
            sandbox.sweep(false);
        }
    }

    /// Goes on to the first failure, which is a panic.
    fn work_on(&self, sandbox: &Sandbox) {
        let volumes = Volumes::plant(sandbox);
        let machine = Machine::new(sandbox);
        loop {
            let Some(task) = lock(&self.queue).pop_front() else { break };
            if self.options.limit.is_some_and(|limit| self.began.elapsed() > limit) {
                lock(&self.queue).clear();
                break;
            }
            let result = panic::catch_unwind(AssertUnwindSafe(|| {
                self.try_task(&machine, task);
                volumes.expect_unchanged();
            }));
            if let Err(payload) = result {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text =
                    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no text").to_owned();
                self.failed(&machine, task, &text);
                panic::resume_unwind(payload);
            }
        }
        machine.places.close();
    }

    /// Tries one task; a failure is a panic.
    #[track_caller]
    fn try_task(&self, machine: &Machine<'_>, task: Task) {
        match task {
            Task::Disk { recording, trial } => {
                self.count(Kind::Disk, true);
                let recording = &self.recordings[recording];
                self.arrange(machine, recording);
                let state = recording.log.state(trial.cut, self.options.seed);
                recording::try_state(machine, &state, self.truth(recording, trial.cut), trial);
            }
            Task::Recovery { recording, cut, run_root } => {
                let recording = &self.recordings[recording];
                self.arrange(machine, recording);
                let state = recording.log.state(cut, self.options.seed);
                let log = recording::record_recovery(machine, &state, run_root)
                    .unwrap_or_else(|error| panic!("no disk on FUSE: {error}"));
                let mut random = Random::new(self.options.seed, &format!("{cut:?}"));
                for again in recording::some_cuts(&log, &mut random, RECOVERIES) {
                    self.count(Kind::Recovery, true);
                    let trial = Trial { cut: again, run_root, depth: Depth::Look };
                    let state = log.state(again, self.options.seed);
                    recording::try_state(machine, &state, self.truth(recording, cut), trial);
                }
            }
            Task::Shutdown(cell) => {
                let mut seen = shutdown_cell::Seen::default();
                let result = panic::catch_unwind(AssertUnwindSafe(|| {
                    shutdown_cell::run(machine, &self.beginning, cell, &mut seen);
                }));
                self.count(Kind::Shutdown, seen.acted.is_some());
                if let Err(payload) = result {
                    say(&format!("at the call {:?}", seen.acted));
                    panic::resume_unwind(payload);
                }
            }
        }
    }

    fn truth<'a>(&'a self, recording: &'a Recording, cut: Cut) -> Truth<'a> {
        Truth { told: &recording.told, at: cut.at, layers: &self.beginning.layers }
    }

    /// Puts the stale run root of a recording where this machine finds it.
    fn arrange(&self, machine: &Machine<'_>, recording: &Recording) {
        machine.places.forget_run_root();
        if let Some(archive) = &recording.stale {
            machine.places.unpack_run_root(archive);
        }
    }

    fn count(&self, kind: Kind, reached: bool) {
        let mut figures = lock(&self.figures);
        let figures = figures.entry(kind).or_default();
        figures.states += 1;
        figures.reached += usize::from(reached);
    }

    /// Tells of a failure, and keeps the disk.
    fn failed(&self, machine: &Machine<'_>, task: Task, text: &str) {
        let (kind, words) = match task {
            Task::Disk { recording, trial } => (
                Kind::Disk,
                format!(
                    "recording {recording}, {}, run root {:?}",
                    recording::describe(trial.cut),
                    trial.run_root
                ),
            ),
            Task::Recovery { recording, cut, run_root } => (
                Kind::Recovery,
                format!(
                    "recovery in recording {recording}, {}, run root {run_root:?}",
                    recording::describe(cut)
                ),
            ),
            Task::Shutdown(cell) => {
                let again = format!(
                    "tests/power/run --full --kind shutdown --chapter {} --at {} --seed {}",
                    cell.chapter,
                    cell.at.unwrap_or(0),
                    self.options.seed
                );
                (Kind::Shutdown, format!("{cell}\n  {again}"))
            }
        };
        let kept =
            keep(&machine.places.file("plain"), lock(&self.figures).values().map(|f| f.failures.len()).sum());
        let text = format!(
            "FAILED {kind}: {words}\n  the disk is kept: {}\n  {}",
            kept.display(),
            text.replace('\n', "\n  ")
        );
        say(&text);
        lock(&self.figures).entry(kind).or_default().failures.push(text);
    }

    /// Tries everything on one machine, and fails at the first failure.
    #[track_caller]
    pub(super) fn try_all(&self, machine: &Machine<'_>, volumes: &Volumes) {
        loop {
            let Some(task) = lock(&self.queue).pop_front() else { break };
            if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| self.try_task(machine, task))) {
                self.failed(machine, task, "see below");
                panic::resume_unwind(payload);
            }
            volumes.expect_unchanged();
        }
    }

    /// Why some of it could not be tried.
    pub(super) fn skipped(&self) -> &[String] {
        &self.skipped
    }

    fn report(&self, left: &[String]) -> ExitCode {
        let figures = lock(&self.figures);
        say(&format!("\n{:<10} {:>8} {:>8} {:>9}", "kind", "states", "reached", "failures"));
        for (kind, figures) in figures.iter() {
            say(&format!(
                "{:<10} {:>8} {:>8} {:>9}",
                kind.to_string(),
                figures.states,
                figures.reached,
                figures.failures.len()
            ));
        }
        self.skipped.iter().for_each(|reason| say(&format!("SKIP {reason}")));
        left.iter().for_each(|line| say(&format!("left on the host: {line}")));
        let failures: usize = figures.values().map(|figures| figures.failures.len()).sum();
        let states: usize = figures.values().map(|figures| figures.states).sum();
        let word = if failures == 0 && left.is_empty() { "ok" } else { "FAILED" };
        say(&format!(
            "power result: {word}. {states} states, {failures} failures, seed {} in {:?}",
            self.options.seed,
            self.began.elapsed()
        ));
        if word == "ok" { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Copies a disk to where the end of its sandbox does not reach it.
fn keep(disk: &PathBuf, number: usize) -> PathBuf {
    let kept = PathBuf::from(format!("{}-power-{number}.img", sandbox::base().display()));
    // Without it there is still the text.
    let _ = std::process::Command::new("cp").arg("--sparse=always").arg(disk).arg(&kept).status();
    kept
}
