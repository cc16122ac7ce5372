//! How long it takes from the death of shim and supervisor together until mysup is well again: a running container is
//! adopted, a dead one is cleaned away. And how soon ten containers answer whose shims died at once.
//!
//! The clock starts before the first SIGKILL. `mysup start` follows at once, as a service manager would do it, and its
//! start is part of the time, as are the command that asks and the look at the whole host that finds nothing.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use super::{
    containerd::name_of,
    engine::{self, Engine, Told},
    leftovers::{Left, Look},
    matrix::Program,
    mysup::Mysup,
    process::Process,
    say,
};
use crate::harness::{holds_within, random::Random};

/// A state that has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(20);
/// To know what one costs.
const LOOKS: u32 = 20;
/// Shims that die at once.
const MANY: usize = 10;

/// What was going on when both were killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// The program runs on.
    Running,
    /// The program ends in the same moment.
    Ending,
    /// The program is killed, too.
    AllKilled,
}

/// What the rounds of a scene gave.
#[derive(Debug, Default)]
struct Figures {
    times: Vec<Duration>,
    late: usize,
    right: usize,
    unknown: usize,
    wrong: usize,
}

/// Measures and prints; the exit code tells only whether it could be measured.
pub(crate) fn run(scratch: &Path, rounds: usize) -> ExitCode {
    match measure(scratch, rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("not measured: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn measure(scratch: &Path, rounds: usize) -> Result<(), String> {
    let place = scratch.join("mysup");
    std::fs::create_dir(&place).map_err(|error| error.to_string())?;
    let mut mysup = Mysup::new(&place, &[]);
    mysup.start()?;
    mysup.prepare()?;
    let mut bench =
        Bench { records: BTreeSet::new(), mysup, place, count: 0, random: Random::new(1, "recovery") };
    bench.learn_records()?;
    say(&format!("{}: from SIGKILL, {rounds} rounds each", engine::versions(&bench.mysup)?));
    for (scene, title) in [
        (Scene::Running, "shim and supervisor killed; adopted, ps shows Up"),
        (Scene::Ending, "the same while the program ends; nothing is left"),
        (Scene::AllKilled, "shim, supervisor and program killed; nothing is left"),
    ] {
        let mut figures = Figures::default();
        for _ in 0..rounds {
            bench.round(scene, &mut figures)?;
        }
        print(title, figures);
    }
    let begun = Instant::now();
    (0..LOOKS).for_each(|_| drop(Look::now(&bench.mysup, &bench.place, None)));
    let look = begun.elapsed().as_secs_f64() * 1e3 / f64::from(LOOKS);
    say(&format!("  one look at the whole host takes {look:.1} ms of these times"));
    let mut figures = Figures::default();
    for _ in 0..rounds.div_ceil(MANY) {
        bench.many(&mut figures)?;
    }
    let soon = figures.times.iter().filter(|time| **time <= Duration::from_secs(1)).count();
    let all = figures.times.len() + figures.late;
    print("ten shims killed at once; adopted, ps shows Up", figures);
    say(&format!("  of these {all} containers answered within a second: {soon}"));
    bench.mysup.stop();
    Ok(())
}

fn print(title: &str, mut figures: Figures) {
    figures.times.sort_unstable();
    let last = figures.times.len().saturating_sub(1);
    let at =
        |share: usize| figures.times.get(last * share / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    say(&format!("{title:<54} p50 {:>7.1} ms  p99 {:>7.1} ms  max {:>7.1} ms", at(50), at(99), at(100)));
    say(&format!(
        "  containers {}, exit code right {}, unknown and said so {}, wrong or none {}, not well after {} s: {}",
        figures.times.len() + figures.late,
        figures.right,
        figures.unknown,
        figures.wrong,
        PATIENCE.as_secs(),
        figures.late
    ));
}

struct Bench {
    mysup: Mysup,
    place: PathBuf,
    /// Names in the record of a container that has ended as it should.
    records: BTreeSet<PathBuf>,
    count: usize,
    random: Random,
}

impl Bench {
    fn program(&mut self) -> Result<(String, Program), String> {
        self.count += 1;
        let name = format!("{}-{:04}", name_of(&self.place), self.count);
        let program = Program::start(&self.mysup, &self.place, &name, self.random.exit_code())?;
        Ok((name, program))
    }

    /// An ordinary end shows which files make the record that stays.
    fn learn_records(&mut self) -> Result<(), String> {
        let (name, program) = self.program()?;
        program.tell_to_end();
        if self.mysup.told(&name) != Told::Code(program.code) {
            return Err("an ordinary container has not the code that it should have".to_owned());
        }
        let directory = self.mysup.directory(&program.id);
        let settled = holds_within(PATIENCE, || self.status(&name).starts_with("Exited"));
        if !settled {
            return Err(format!("{name} is {}", self.status(&name)));
        }
        let entries = std::fs::read_dir(directory).map_err(|error| error.to_string())?;
        self.records = entries.flatten().map(|entry| entry.file_name().into()).collect();
        self.mysup.remove(&name)
    }

    fn status(&self, name: &str) -> String {
        let filter = format!("name={name}");
        let words = ["ps", "-a", "--filter", &filter, "--format", "{{.Status}}"];
        engine::ok(self.mysup.call(&words)).unwrap_or_default()
    }

    fn monitor(&self, id: &str) -> Result<Process, String> {
        self.mysup.monitor(id).ok_or(format!("the shim of {id} is not found"))
    }

    /// Whether nothing but its record is left.
    fn is_clean(&self, id: &str, before: &Look) -> bool {
        let directory = self.mysup.directory(id);
        let expected = |path: &Path| path == directory;
        let Left { mounts, processes, cgroups, paths } =
            Look::now(&self.mysup, &self.place, Some(id)).beyond(before);
        let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        mounts.is_empty()
            && processes.is_empty()
            && cgroups.is_empty()
            && paths.iter().all(|path| expected(path))
            && entries.into_iter().all(|entry| self.records.contains(Path::new(&entry.file_name())))
    }

    fn round(&mut self, scene: Scene, figures: &mut Figures) -> Result<(), String> {
        let before = Look::now(&self.mysup, &self.place, None);
        let (name, program) = self.program()?;
        let shim = self.monitor(&program.id)?;
        let supervisors = self.mysup.daemon();
        if scene == Scene::Ending {
            program.tell_to_end();
            // Somewhere in the end and the teardown, which take a few milliseconds.
            let pause = self.random.between(0, 4000).unsigned_abs();
            std::thread::sleep(Duration::from_micros(pause.into()));
        }
        let begun = Instant::now();
        shim.kill();
        for supervisor in &supervisors {
            supervisor.kill();
        }
        if scene == Scene::AllKilled {
            program.process.kill();
        }
        self.mysup.start()?;
        let well = holds_within(PATIENCE, || match scene {
            Scene::Running => {
                self.status(&name).starts_with("Up")
                    && self.mysup.monitor(&program.id).is_some_and(|new| new.pid != shim.pid)
            }
            Scene::Ending | Scene::AllKilled => {
                self.status(&name).starts_with("Exited") && self.is_clean(&program.id, &before)
            }
        });
        figures.add(well.then(|| begun.elapsed()));
        if scene == Scene::Running {
            program.tell_to_end();
        }
        figures.judge(&self.mysup.told(&name), &program);
        self.mysup.remove(&name)
    }

    fn many(&mut self, figures: &mut Figures) -> Result<(), String> {
        let all = (0..MANY).map(|_| self.program()).collect::<Result<Vec<_>, String>>()?;
        let shims =
            all.iter().map(|(_, program)| self.monitor(&program.id)).collect::<Result<Vec<_>, String>>()?;
        let begun = Instant::now();
        for shim in &shims {
            shim.kill();
        }
        let mut waiting: Vec<usize> = (0..MANY).collect();
        holds_within(PATIENCE, || {
            waiting.retain(|number| {
                let (name, program) = &all[*number];
                let new = self.mysup.monitor(&program.id).is_some_and(|new| new.pid != shims[*number].pid);
                let well = new && self.status(name).starts_with("Up");
                if well {
                    figures.add(Some(begun.elapsed()));
                }
                !well
            });
            waiting.is_empty()
        });
        waiting.iter().for_each(|_| figures.add(None));
        for (name, program) in &all {
            program.tell_to_end();
            figures.judge(&self.mysup.told(name), program);
            self.mysup.remove(name)?;
        }
        Ok(())
    }
}

impl Figures {
    fn add(&mut self, time: Option<Duration>) {
        match time {
            Some(time) => self.times.push(time),
            None => self.late += 1,
        }
    }

    fn judge(&mut self, told: &Told, program: &Program) {
        match told {
            Told::Code(code) if *code == program.truth() => self.right += 1,
            Told::Code(_) | Told::Silence(_) => self.wrong += 1,
            Told::Unknown(_) => self.unknown += 1,
        }
    }
}
