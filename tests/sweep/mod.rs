//! The machine that proves it, part 1: a process dies, or a system call fails, at every boundary between two system calls.
//!
//! `tests/sweep/run` sweeps by command; a sample of each scenario is a case of the suite. A clean run counts the calls of
//! the victim; then the scenario is run once for each of them, with the fault exactly there, and the oracle judges:
//! exit status, output, volumes, decoys, leaks, a second recovery, and that the name can be used again.

pub(crate) mod calls;
mod campaign;
mod cell;
mod options;
mod oracle;
pub(crate) mod scenario;
pub(crate) mod tracer;

use std::{env, io::Write, process::ExitCode};

use self::{
    cell::Stage,
    options::{ERRORS, Options},
    scenario::{SWEEPS, Scenario, Victim},
};
pub(crate) use self::{
    oracle::{changed_by_recovery, expect_no_panic},
    scenario::{IMPORTED, NAME, extra_tar},
};
use crate::harness::{Case, Sandbox};

/// Boundaries of each scenario and victim in the suite.
const KILLS: usize = 10;
/// Boundaries with an error of each scenario and victim in the suite.
const FAILURES: usize = 6;

/// Runs a sweep in place of the suite if the command line says so: `sweep FLAGS`.
pub(crate) fn command() -> Option<ExitCode> {
    let mut arguments = env::args().skip(1);
    (arguments.next()? == "sweep").then(|| match Options::parse(arguments) {
        Ok(options) => campaign::run(&options),
        Err(error) => {
            // Nobody reads it: then nobody misses it.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    })
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (scenario, victim) in SWEEPS {
        let name = format!("sweep::{victim}_killed_in_a_sample_of_{}", scenario.word().replace('-', "_"));
        cases.push(Case::new(name, move |sandbox| sample(sandbox, *scenario, *victim, Vec::new(), KILLS)));
        let name = format!("sweep::{victim}_met_by_errors_in_{}", scenario.word().replace('-', "_"));
        let errors = ERRORS.to_vec();
        cases.push(Case::new(name, move |sandbox| {
            sample(sandbox, *scenario, *victim, errors.clone(), FAILURES);
        }));
    }
    cases
}

fn sample(
    sandbox: &Sandbox,
    scenario: Scenario,
    victim: Victim,
    errors: Vec<nix::errno::Errno>,
    sample: usize,
) {
    let seed = u64::try_from(sandbox.exit_code()).unwrap_or(1);
    let options = Options { errors, sample, ..Options::of(seed) };
    let stage = Stage::new(sandbox);
    let plan = campaign::plan(&stage, scenario, victim, &options).unwrap_or_else(|error| panic!("{error}"));
    for cell in plan.cells {
        let outcome = stage.run(cell, seed);
        if let Err(error) = outcome.result {
            panic!("{}\nbefore {:?}\n{error}", cell.command(seed), outcome.acted);
        }
    }
}
