//! A whole matrix: finds the points of each scenario in a clean run, makes the cells, runs them on several instances.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, Write},
    panic,
    path::Path,
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use mysup_ipc::point::Step;

use super::{
    cell::{Cell, Outcome, Place, Stage},
    options::Options,
    oracle,
    scenario::Scenario,
    victims::{FollowUp, Victims},
};
use crate::harness::{Sandbox, leaks, random::Random};

/// How often the state is printed.
const PROGRESS: Duration = Duration::from_secs(20);

/// The points of all scenarios that are asked for.
///
/// # Errors
/// If a clean run is not clean, or nobody ever comes to a point of the table.
pub(super) fn places(stage: &Stage<'_>, options: &Options) -> Result<Vec<Place>, String> {
    let mut places = Vec::new();
    for scenario in &options.scenarios {
        let found = stage.count(*scenario, options.seed);
        places.extend(found.map_err(|error| format!("the clean run of {scenario} failed: {error}"))?);
    }
    let reached: BTreeSet<&str> = places.iter().map(|place| place.point.as_str()).collect();
    let all = Step::ALL.iter().flat_map(|step| step.points());
    let never: Vec<String> = all.filter(|point| !reached.contains(point.as_str())).collect();
    if options.is_everything() && !never.is_empty() {
        return Err(format!("no scenario reaches {}", never.join(", ")));
    }
    places.retain(|place| options.points.is_empty() || options.points.contains(&place.point));
    Ok(places)
}

/// The cells of some points, in an order that the seed decides.
pub(super) fn cells(places: &[Place], options: &Options) -> Vec<Cell> {
    let mut cells = Vec::new();
    for place in places {
        for victims in &options.victims {
            for follow_up in &options.follow_ups {
                if place.scenario.has_shim() || *follow_up == FollowUp::AtOnce {
                    cells.push(Cell { place: place.clone(), victims: *victims, follow_up: *follow_up });
                }
            }
        }
    }
    let mut random = Random::new(options.seed, "matrix");
    for last in (1..cells.len()).rev() {
        let other = usize::try_from(random.next() >> 33).unwrap_or(0) % (last + 1);
        cells.swap(last, other);
    }
    let (part, parts) = options.shard;
    let mut index = 0;
    cells.retain(|_| {
        index += 1;
        index % parts == part % parts
    });
    cells
}

/// The figures of one scenario.
#[derive(Debug, Default)]
struct Figures {
    points: usize,
    cells: usize,
    run: usize,
    no_victim: usize,
    failures: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line on standard output.
pub(super) fn say(line: &str) {
    // A closed standard output must not end a matrix.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

struct Campaign<'a> {
    options: &'a Options,
    program: &'a Path,
    queue: Mutex<VecDeque<Cell>>,
    figures: Mutex<BTreeMap<Scenario, Figures>>,
    /// Where some victims do not exist.
    without: Mutex<BTreeSet<(Place, Victims)>>,
    /// Runs are under way or to come.
    working: Mutex<usize>,
    began: Instant,
}

/// Runs what the options ask for.
pub(super) fn run(options: &Options, program: &Path) -> ExitCode {
    panic::set_hook(Box::new(|_| {}));
    say(&format!("kill points, seed {}, {} workers", options.seed, options.workers));
    let before = leaks::Host::now();
    let campaign = Campaign {
        options,
        program,
        queue: Mutex::default(),
        figures: Mutex::default(),
        without: Mutex::default(),
        working: Mutex::new(options.workers),
        began: Instant::now(),
    };
    if let Err(error) = campaign.plan() {
        say(&format!("FAILED {error}"));
        return ExitCode::FAILURE;
    }
    thread::scope(|scope| {
        scope.spawn(|| campaign.progress());
        for worker in 0..options.workers {
            let campaign = &campaign;
            scope.spawn(move || campaign.work(worker));
        }
    });
    campaign.report(&oracle::left_by_us(&before))
}

impl Campaign<'_> {
    fn plan(&self) -> Result<(), String> {
        let sandbox = Sandbox::new("count", Random::new(self.options.seed, "count"));
        let places = panic::catch_unwind(|| Stage::new(&sandbox, self.program.to_owned()))
            .map_err(|_| "no instance can be made".to_owned())
            .and_then(|stage| places(&stage, self.options));
        let log = sandbox.sweep(places.is_err());
        let places = places.map_err(|error| format!("{error}\n{log}"))?;
        let mut cells = cells(&places, self.options);
        if !self.options.full {
            cells.truncate(self.options.sample);
        }
        let mut all = lock(&self.figures);
        for place in &places {
            all.entry(place.scenario).or_default().points += 1;
        }
        for cell in &cells {
            all.entry(cell.place.scenario).or_default().cells += 1;
        }
        lock(&self.queue).extend(cells);
        Ok(())
    }

    fn progress(&self) {
        let mut told = Instant::now();
        while *lock(&self.working) > 0 {
            thread::sleep(Duration::from_millis(100));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let failures: usize =
                    lock(&self.figures).values().map(|figures| figures.failures.len()).sum();
                let left = lock(&self.queue).len();
                say(&format!("{left} cells to go, {failures} failures, {:?}", self.began.elapsed()));
            }
        }
    }

    /// Runs cells on one instance; after a failure on a new one.
    fn work(&self, worker: usize) {
        while !lock(&self.queue).is_empty() {
            let name = format!("matrix worker {worker}");
            let sandbox = Sandbox::new(&name, Random::new(self.options.seed, &name));
            let mut broken = false;
            let stage = panic::catch_unwind(|| Stage::new(&sandbox, self.program.to_owned()));
            while let Ok(stage) = &stage
                && !broken
            {
                let Some(cell) = lock(&self.queue).pop_front() else { break };
                broken = self.run_cell(stage, &cell);
            }
            let log = sandbox.sweep(broken);
            if broken {
                say(&log);
            }
        }
        *lock(&self.working) -= 1;
    }

    fn run_cell(&self, stage: &Stage<'_>, cell: &Cell) -> bool {
        let known = lock(&self.without)
            .iter()
            .any(|(place, absent)| *place == cell.place && cell.victims.includes(*absent));
        let outcome = if known { Outcome::NoVictim } else { stage.run(cell, self.options.seed) };
        let mut all = lock(&self.figures);
        let figures = all.entry(cell.place.scenario).or_default();
        match outcome {
            Outcome::Good => figures.run += 1,
            Outcome::NoVictim => {
                figures.no_victim += 1;
                lock(&self.without).insert((cell.place.clone(), cell.victims));
            }
            Outcome::Bad(error) => {
                figures.run += 1;
                let command = cell.command(self.options.seed);
                say(&format!("FAILED {command}\n  {}", error.replace('\n', "\n  ")));
                figures.failures.push(format!("{command}   # {}", error.lines().next().unwrap_or_default()));
                return true;
            }
        }
        false
    }

    fn report(&self, left: &[String]) -> ExitCode {
        let all = lock(&self.figures);
        let row = |name: &str, figures: [usize; 5]| {
            let [points, cells, run, no_victim, failures] = figures;
            say(&format!("{name:<13} {points:>6} {cells:>6} {run:>6} {no_victim:>9} {failures:>8}"));
        };
        say(&format!(
            "\n{:<13} {:>6} {:>6} {:>6} {:>9} {:>8}",
            "scenario", "points", "cells", "run", "no victim", "failures"
        ));
        let mut sum = [0; 5];
        for (scenario, figures) in all.iter() {
            let Figures { points, cells, run, no_victim, failures } = figures;
            let line = [*points, *cells, *run, *no_victim, failures.len()];
            sum.iter_mut().zip(line).for_each(|(sum, figure)| *sum += figure);
            row(scenario.word(), line);
        }
        row("all", sum);
        let unrun = sum[1] - sum[2] - sum[3];
        all.values().flat_map(|figures| &figures.failures).for_each(|line| say(&format!("FAILED {line}")));
        left.iter().for_each(|line| say(&format!("LEFT {line}")));
        say(&format!("seed {}, {:?}, {unrun} cells not run", self.options.seed, self.began.elapsed()));
        let good = sum[4] == 0 && left.is_empty() && unrun == 0;
        if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
