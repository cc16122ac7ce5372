//! One cell: one scenario, stopped at one point, some victims, one way to go on; from a clean instance to a clean instance.

use std::{fs, panic::AssertUnwindSafe, path::PathBuf, thread, time::Duration};

use rustix::process::Signal;

use super::{
    control::Control,
    oracle::{self, Fate},
    scenario::{self, Play, Scenario},
    victims::{self, FollowUp, Present, Victims, id_on_disk},
};
use crate::harness::{
    Sandbox, holds_within, processes,
    random::Random,
    tree::{Tree, plant_data},
    wait_until,
};

/// A point of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// What is going on.
    pub(super) scenario: Scenario,
    /// Where somebody stops.
    pub(super) point: String,
    /// It comes only when the program was let go on to its end.
    pub(super) late: bool,
}

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    /// Where.
    pub(super) place: Place,
    /// Who dies.
    pub(super) victims: Victims,
    /// What then.
    pub(super) follow_up: FollowUp,
}

impl Cell {
    /// The command that does this again.
    pub(super) fn command(&self, seed: u64) -> String {
        let Cell { place, victims, follow_up } = self;
        format!(
            "tests/kill_points/run --scenario {} --point {} --victims {victims} --follow-up {follow_up} --seed {seed}",
            place.scenario, place.point
        )
    }
}

/// What became of a cell.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As it must be.
    Good,
    /// One of the victims does not exist at this point: nobody was killed.
    NoVictim,
    /// What is wrong, in words.
    Bad(String),
}

/// An instance with volumes in which cell after cell is run.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    sandbox: &'a Sandbox,
    control: Control,
    program: PathBuf,
    kept: Vec<(PathBuf, Tree)>,
}

impl<'a> Stage<'a> {
    /// Fills the volumes and imports the image.
    #[track_caller]
    pub(super) fn new(sandbox: &'a Sandbox, program: PathBuf) -> Stage<'a> {
        for name in ["a/b", "b", "proof", "decoy"] {
            sandbox.new_directory(name);
        }
        let kept = ["a", "b", "decoy"]
            .into_iter()
            .map(|name| (sandbox.place(name), plant_data(&sandbox.place(name), name)))
            .collect();
        sandbox.use_program(program.clone());
        let control = Control::new(sandbox);
        sandbox.image();
        sandbox.ok(&["shutdown"]);
        Stage { sandbox, control, program, kept }
    }

    /// The points of a scenario in which nobody is killed.
    ///
    /// # Errors
    /// If it does not end as it must.
    pub(super) fn count(&self, scenario: Scenario, seed: u64) -> Result<Vec<Place>, String> {
        caught(|| {
            let code = self.begin_cell(scenario, seed, "count");
            let mut play = Play::begin(self.sandbox, scenario, code);
            wait_until("all commands have ended", || {
                play.go_on();
                play.is_over()
            });
            let early = self.seen_so_far(scenario);
            scenario::let_go(self.sandbox);
            let told = play.finish();
            oracle::settle(self.sandbox, scenario);
            let seen = self.seen_so_far(scenario);
            let changed = oracle::judge(self.sandbox, &Fate::unharmed(scenario, code), told.as_ref());
            assert!(changed.is_none(), "{}", changed.unwrap_or_default());
            self.end_cell();
            let place = |point: String| Place { scenario, late: !early.contains(&point), point };
            seen.into_iter().map(place).collect()
        })
    }

    /// What was reached when nothing more comes.
    fn seen_so_far(&self, scenario: Scenario) -> Vec<String> {
        const QUIET: Duration = Duration::from_millis(150);
        if scenario == Scenario::Adopt {
            let adopted = || self.control.seen().iter().any(|point| point == "adopt.after");
            wait_until("another shim has adopted", adopted);
        }
        loop {
            let before = self.control.seen();
            thread::sleep(QUIET);
            if self.control.seen() == before {
                return before;
            }
        }
    }

    /// Runs a cell and judges it. After anything bad the stage is not fit for another cell.
    pub(super) fn run(&self, cell: &Cell, seed: u64) -> Outcome {
        match caught(|| self.try_run(cell, seed)) {
            Ok(true) => Outcome::Good,
            Ok(false) => Outcome::NoVictim,
            Err(error) => Outcome::Bad(error),
        }
    }

    /// Whether the victims were there.
    fn try_run(&self, cell: &Cell, seed: u64) -> bool {
        let Place { scenario, point, late } = &cell.place;
        let (sandbox, scenario) = (self.sandbox, *scenario);
        let name = format!("{scenario} {point} {} {}", cell.victims, cell.follow_up);
        let code = self.begin_cell(scenario, seed, &name);
        self.control.arm(point);
        let mut play = Play::begin(sandbox, scenario, code);
        let arrived = self.wait_for_arrival(&mut play, *late);
        let id = id_on_disk(sandbox);
        let present = Present::look(sandbox, arrived, id.as_deref());
        let there = present.has(cell.victims);
        let mut fate = Fate::unharmed(scenario, code);
        if there {
            fate = Fate::of(sandbox, cell, code, present, id.as_deref());
            present.kill(cell.victims);
        }
        // Nobody, if it was killed.
        processes::signal(arrived, Signal::CONT);
        if there {
            self.follow_up(cell.follow_up, &fate, id.as_deref());
        }
        scenario::let_go(sandbox);
        let told = play.finish();
        let changed = oracle::judge(sandbox, &fate, told.as_ref());
        self.end_cell();
        assert!(changed.is_none(), "{}", changed.unwrap_or_default());
        there
    }

    fn begin_cell(&self, scenario: Scenario, seed: u64, name: &str) -> i32 {
        self.sandbox.use_program(self.program.clone());
        // Not there in the first cell.
        let _ = fs::remove_file(self.sandbox.run_root().join("supervisor.log"));
        let code = Random::new(seed, name).exit_code();
        scenario::prepare(self.sandbox, scenario, code);
        self.control.clear();
        code
    }

    fn end_cell(&self) {
        for (place, tree) in &self.kept {
            tree.expect_unchanged(place);
        }
        self.control.clear();
        self.sandbox.finish();
    }

    fn wait_for_arrival(&self, play: &mut Play<'_>, late: bool) -> i32 {
        let mut arrived = None;
        let came = holds_within(Duration::from_secs(20), || {
            arrived = self.control.arrived();
            if arrived.is_none() {
                play.go_on();
                if late && scenario::has_started(self.sandbox) {
                    scenario::let_go(self.sandbox);
                }
            }
            arrived.is_some_and(|pid| processes::stat(pid).is_some_and(|stat| stat.state == 'T'))
        });
        assert!(came, "nobody came to this point; seen: {}", self.control.seen().join(" "));
        arrived.expect("just seen")
    }

    fn follow_up(&self, follow_up: FollowUp, fate: &Fate, id: Option<&str>) {
        let sandbox = self.sandbox;
        if follow_up == FollowUp::AtOnce {
            // Whoever is asked first starts one, if none runs.
            sandbox.ok(&["ps"]);
            return;
        }
        if let Some(supervisor) = fate.supervisor {
            processes::signal(supervisor, Signal::TERM);
            wait_until("the supervisor has ended", || !processes::is_alive(supervisor));
        }
        scenario::let_go(sandbox);
        self.wait_until_all_have_ended(id);
        if follow_up == FollowUp::Never {
            oracle::expect_shim_ended_alone(sandbox, fate, id);
        }
        sandbox.ok(&["ps"]);
    }

    /// Without a supervisor: the program, and whoever has to do with it.
    fn wait_until_all_have_ended(&self, id: Option<&str>) {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let marks: Vec<String> = id.map(str::to_owned).into_iter().chain([self.sandbox.mark()]).collect();
        let mut left = Vec::new();
        let ended = holds_within(crate::harness::PATIENCE, || {
            left = processes::bearing(&marks);
            left.retain(|pid| processes::stat(*pid).is_some_and(|stat| stat.parent != own));
            left.is_empty() && id.is_none_or(|id| victims::init(id).is_none())
        });
        let left: Vec<String> = left.into_iter().map(processes::describe).collect();
        assert!(ended, "without a supervisor these do not end:\n{}", left.join("\n"));
    }
}

/// The words of a panic as an error.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("panicked with no text").to_owned()
    })
}
