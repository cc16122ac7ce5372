//! The matrix: who is killed, and when. One cell is one container.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    containerd::name_of,
    engine::{self, Engine, NOTICED, Told},
    leftovers::{self, Left, Look, VOLUMES},
    process::{self, Process},
    say,
};
use crate::harness::{holds_within, random::Random};

/// Milliseconds from the word to end, on which the program exits, to the kill.
const DELAYS: [i32; 11] = [-20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20];
/// How long it is watched whether a program outlives what was killed.
const WATCHED: Duration = Duration::from_secs(1);
/// What must come comes by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    /// The control: what is counted then is the mistake of the oracle.
    Nobody,
    /// The process beside the container.
    Monitor,
    /// What answers the user.
    Daemon,
    /// At the same instant.
    Both,
}

/// When it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// The program runs and goes on.
    Running,
    /// The program is told to end so many milliseconds before (or after, if negative).
    Ending(i32),
}

/// A row of the table: the same victim at the same kind of moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    /// Whether the kill was around the exit.
    pub(crate) ending: bool,
    /// Who was killed.
    pub(crate) victim: Victim,
}

/// What was seen in the cells of a row.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    /// Containers.
    pub(crate) cells: usize,
    /// Of those that were running: the program went on.
    pub(crate) lived: usize,
    /// `ps` said running of what had ended, or the other way round.
    pub(crate) shown_wrong: usize,
    /// The user was told the true exit code.
    pub(crate) right: usize,
    /// He was told that it is unknown.
    pub(crate) unknown: usize,
    /// He was told nothing.
    pub(crate) silent: usize,
    /// He was told another one.
    pub(crate) wrong: usize,
    /// A start of the daemon or a removal failed.
    pub(crate) refused: usize,
    /// What was left.
    pub(crate) mounts: usize,
    pub(crate) processes: usize,
    pub(crate) cgroups: usize,
    pub(crate) paths: usize,
    /// Cells that left anything.
    pub(crate) leaking: usize,
}

/// The rows of one engine, and why it was given up if it was.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Of all programs of the engine.
    pub(crate) versions: String,
    /// In the order of the table.
    pub(crate) rows: Vec<(Case, Tally)>,
    /// An engine that cannot be started again has no more cells.
    pub(crate) given_up: Option<String>,
}

/// Runs the whole matrix on one engine.
///
/// # Errors
/// The engine cannot be started, or cannot run one container; nothing was measured.
pub(crate) fn run(
    engine: &mut dyn Engine,
    place: &Path,
    rounds: usize,
    verbose: bool,
) -> Result<Outcome, String> {
    let versions = engine::versions(engine)?;
    engine.start()?;
    engine.prepare()?;
    let mut bench = Bench { place, verbose, count: 0, random: Random::new(1, engine.name()) };
    // The first container makes directories that stay.
    bench.cell(engine, Victim::Nobody, Moment::Running, &mut Tally::default())?;
    let mut outcome = Outcome { versions, ..Outcome::default() };
    for (case, moments) in cases(engine.has_daemon()) {
        let mut tally = Tally::default();
        for moment in (0..rounds).flat_map(|_| moments.clone()) {
            if let Err(error) = bench.cell(engine, case.victim, moment, &mut tally) {
                outcome.given_up = Some(format!("given up at {case:?} {moment:?}: {error}"));
                outcome.rows.push((case, tally));
                return Ok(outcome);
            }
        }
        outcome.rows.push((case, tally));
    }
    Ok(outcome)
}

fn cases(daemon: bool) -> Vec<(Case, Vec<Moment>)> {
    let victims =
        |all: [Victim; 4]| all.into_iter().filter(move |victim| daemon || *victim <= Victim::Monitor);
    let all = [Victim::Nobody, Victim::Monitor, Victim::Daemon, Victim::Both];
    let mut cases: Vec<_> =
        victims(all).map(|victim| (Case { ending: false, victim }, vec![Moment::Running])).collect();
    let moments: Vec<Moment> = DELAYS.iter().map(|delay| Moment::Ending(*delay)).collect();
    let killed = victims(all).filter(|victim| *victim != Victim::Nobody);
    cases.extend(killed.map(|victim| (Case { ending: true, victim }, moments.clone())));
    cases
}

/// What all cells of one engine share.
struct Bench<'a> {
    place: &'a Path,
    verbose: bool,
    count: usize,
    random: Random,
}

/// A program that runs, and what is expected of it.
pub(crate) struct Program {
    /// Of its container.
    pub(crate) id: String,
    /// The code with which it ends by itself.
    pub(crate) code: i32,
    /// Its process.
    pub(crate) process: Process,
    volume: PathBuf,
}

impl Program {
    /// Starts a container whose program ends with `code` when it is told to.
    pub(crate) fn start(engine: &dyn Engine, place: &Path, name: &str, code: i32) -> Result<Program, String> {
        let volume = place.join(VOLUMES).join(name);
        fs::create_dir_all(&volume).map_err(|error| error.to_string())?;
        let gate = volume.join("gate");
        nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).map_err(|error| error.to_string())?;
        let script = format!("echo > /v/started; read x < /v/gate; echo {code} > /v/code; exit {code}");
        let id = engine.run(name, &volume, &script)?;
        if !holds_within(PATIENCE, || volume.join("started").exists()) {
            return Err(format!("the program of {name} does not run"));
        }
        let process = process::first(&id).ok_or(format!("the program of {name} is not found"))?;
        Ok(Program { id, code, process, volume })
    }

    /// Tells it to end; whether it could hear that.
    pub(crate) fn tell_to_end(&self) -> bool {
        let mut told = false;
        holds_within(PATIENCE, || {
            let gate =
                fs::File::options().write(true).custom_flags(libc::O_NONBLOCK).open(self.volume.join("gate"));
            told = gate.is_ok_and(|mut gate| gate.write_all(b"\n").is_ok());
            told || !self.process.is_alive()
        });
        told
    }

    /// How it ended: by itself if it wrote its code, which it does last of all; else it was killed.
    pub(crate) fn truth(&self) -> i32 {
        let written = fs::read_to_string(self.volume.join("code")).unwrap_or_default();
        if written.trim() == self.code.to_string() { self.code } else { 128 + libc::SIGKILL }
    }
}

impl Bench<'_> {
    fn cell(
        &mut self,
        engine: &mut dyn Engine,
        victim: Victim,
        moment: Moment,
        tally: &mut Tally,
    ) -> Result<(), String> {
        self.count += 1;
        let name = format!("{}-{:04}", name_of(self.place), self.count);
        let before = Look::now(engine, self.place, None);
        let program = Program::start(engine, self.place, &name, self.random.exit_code())?;
        let victims = victims(engine, victim, &program.id)?;
        tally.cells += 1;
        let (mut notes, mut shown_wrong) = (Vec::new(), false);
        let restart = matches!(victim, Victim::Daemon | Victim::Both);
        match moment {
            Moment::Running => {
                process::kill(&victims);
                if restart {
                    start_again(engine, tally, &mut notes)?;
                }
                let lived = !holds_within(WATCHED, || !program.process.is_alive());
                tally.lived += usize::from(lived);
                shown_wrong = !holds_within(NOTICED, || engine.shows_running(&name) == lived);
                program.tell_to_end();
            }
            Moment::Ending(delay) => around(&program, delay, &victims),
        }
        if !holds_within(PATIENCE, || !program.process.is_alive()) {
            notes.push("the program does not end".to_owned());
        }
        if restart && moment != Moment::Running {
            start_again(engine, tally, &mut notes)?;
        }
        judge(&engine.told(&name), program.truth(), tally, &mut notes);
        shown_wrong |= !holds_within(NOTICED, || !engine.shows_running(&name));
        if shown_wrong {
            tally.shown_wrong += 1;
            notes.push("ps told whether it runs, and that was wrong".to_owned());
        }
        if let Err(error) = engine.remove(&name) {
            tally.refused += 1;
            notes.push(error);
        }
        let left = leftovers::settled(engine, self.place, &program.id, &before);
        leftovers::sweep(engine, self.place, &program.id, &before);
        count(&left, tally);
        notes.extend(left.lines());
        if self.verbose {
            say(&format!("{} {victim:?} {moment:?} {name}: {}", engine.name(), notes.join("\n    ")));
        }
        Ok(())
    }
}

/// The daemon comes first, so that of both none sees the other die.
fn victims(engine: &dyn Engine, victim: Victim, id: &str) -> Result<Vec<Process>, String> {
    let mut victims = Vec::new();
    if matches!(victim, Victim::Daemon | Victim::Both) {
        victims.extend(engine.daemon());
        if victims.is_empty() {
            return Err("the daemon is not found".to_owned());
        }
    }
    if matches!(victim, Victim::Monitor | Victim::Both) {
        victims.push(engine.monitor(id).ok_or(format!("the monitor of {id} is not found"))?);
    }
    Ok(victims)
}

/// Tells the program to end and kills, in the order and distance of `delay`.
fn around(program: &Program, delay: i32, victims: &[Process]) {
    let distance = Duration::from_millis(delay.unsigned_abs().into());
    let kill = || {
        for victim in victims {
            victim.kill();
        }
    };
    let begun = Instant::now();
    let rest = || distance.saturating_sub(begun.elapsed());
    // Here the distance itself is what is wanted.
    if delay < 0 {
        kill();
        thread::sleep(rest());
        program.tell_to_end();
    } else {
        program.tell_to_end();
        thread::sleep(rest());
        kill();
    }
    process::kill(victims);
}

fn start_again(engine: &mut dyn Engine, tally: &mut Tally, notes: &mut Vec<String>) -> Result<(), String> {
    let Err(error) = engine.start() else { return Ok(()) };
    tally.refused += 1;
    notes.push(error);
    engine.start()
}

fn judge(told: &Told, truth: i32, tally: &mut Tally, notes: &mut Vec<String>) {
    match told {
        Told::Code(code) if *code == truth => tally.right += 1,
        Told::Code(code) => {
            tally.wrong += 1;
            notes.push(format!("told {code}, but it was {truth}"));
        }
        Told::Unknown(words) => {
            tally.unknown += 1;
            notes.push(format!("it was {truth}, told: {words}"));
        }
        Told::Silence(words) => {
            tally.silent += 1;
            notes.push(format!("it was {truth}, and nothing was told: {words}"));
        }
    }
}

fn count(left: &Left, tally: &mut Tally) {
    tally.mounts += left.mounts.len();
    tally.processes += left.processes.len();
    tally.cgroups += left.cgroups.len();
    tally.paths += left.paths.len();
    tally.leaking += usize::from(!left.is_empty());
}
