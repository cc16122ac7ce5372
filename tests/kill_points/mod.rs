//! The machine that proves it, part 2: supervisor, shim and init die in every combination at every named point.
//!
//! The points are in `ipc/src/point.rs`: before and after each journaled step and each record, and between a journal entry
//! and its effect. `tests/kill_points/run --full` runs point x victims x follow-up; a sample is a case of the suite. A clean
//! run of each scenario finds the points it reaches; one that no scenario reaches is a failure.

mod cell;
mod control;
mod matrix;
mod options;
mod oracle;
mod scenario;
mod victims;

use std::{env, fs, io::Write, path::PathBuf, process::ExitCode};

use self::{
    cell::{Cell, Outcome, Stage},
    options::Options,
    scenario::Scenario,
    victims::{FollowUp, Victims},
};
use crate::harness::{Case, Sandbox, command};

/// Cells of the sample in the suite.
const SAMPLE: usize = 24;
/// Cells that once found something: they are in every sample.
const FOUND: [(Scenario, &str, Victims, FollowUp); 4] = [
    // The adopting shim took an init that had not come to its program for a program.
    (Scenario::Life, "released.noted", Victims::Shim, FollowUp::AtOnce),
    (Scenario::CreateStart, "released.noted", Victims::Both, FollowUp::AtOnce),
    (Scenario::Life, "released.after", Victims::All, FollowUp::Never),
    (Scenario::Failing, "exit-record.before", Victims::Both, FollowUp::AtOnce),
];

/// Runs a matrix in place of the suite if the command line says so: `kill-points FLAGS`.
pub(crate) fn command() -> Option<ExitCode> {
    let mut arguments = env::args().skip(1);
    (arguments.next()? == "kill-points").then(|| match Options::parse(arguments) {
        Ok(options) => matrix::run(&options, command::program()),
        Err(error) => {
            // Nobody reads it: then nobody misses it.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    })
}

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![a_release_has_no_kill_points, a_sample_of_deaths_at_kill_points]
}

/// The programs with kill points.
fn program() -> PathBuf {
    let path = command::repository().join("target/kill-points/mysup");
    assert!(path.exists(), "{} is not built: run tests/kill_points/build", path.display());
    path
}

fn a_release_has_no_kill_points(_: &Sandbox) {
    const MARKS: [&[u8]; 2] = [b"MYSUP_KILL_POINTS", b"undo-run-directory"];
    let has = |program: PathBuf, mark: &[u8]| {
        let bytes = fs::read(&program).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        bytes.windows(mark.len()).any(|window| window == mark)
    };
    for name in ["mysup", "mysup-shim"] {
        for mark in MARKS {
            let shown = String::from_utf8_lossy(mark);
            assert!(
                has(program().with_file_name(name), mark),
                "{shown} is no mark of a {name} with kill points"
            );
            assert!(
                !has(command::program().with_file_name(name), mark),
                "{shown} is in the {name} of a release"
            );
        }
    }
}

fn a_sample_of_deaths_at_kill_points(sandbox: &Sandbox) {
    let seed = u64::try_from(sandbox.exit_code() * 128 + sandbox.exit_code()).unwrap_or(1);
    let options = Options::of(seed);
    let stage = Stage::new(sandbox, program());
    let places = matrix::places(&stage, &options).unwrap_or_else(|error| panic!("{error}"));
    let found = |cell: &Cell| {
        let Cell { place, victims, follow_up } = cell;
        FOUND.contains(&(place.scenario, &place.point, *victims, *follow_up))
    };
    let (first, others): (Vec<Cell>, Vec<Cell>) =
        matrix::cells(&places, &options).into_iter().partition(found);
    assert_eq!(first.len(), FOUND.len(), "a cell that once found something is not there any more");
    let mut run = 0;
    for cell in first.into_iter().chain(others) {
        match stage.run(&cell, seed) {
            Outcome::Good => run += 1,
            Outcome::NoVictim => {}
            Outcome::Bad(error) => panic!("{}\n{error}", cell.command(seed)),
        }
        if run == SAMPLE {
            break;
        }
    }
    matrix::say(&format!("     kill points: seed {seed}, {} points, {run} cells", places.len()));
}
