//! One run of one scenario with one fault at one boundary, from a clean instance to a clean instance.

use std::{fs, panic::AssertUnwindSafe, path::PathBuf, sync::PoisonError};

use super::{
    oracle::{self, Fault, Question},
    scenario::{self, NAME, Scenario, Victim},
    tracer::{Act, Acted, Seen, Tracer},
};
use crate::harness::{
    Sandbox,
    plant::{Bind, Decoys},
    random::Random,
    tree::{Tree, plant_data},
};

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    /// What is done meanwhile.
    pub(super) scenario: Scenario,
    /// Whose calls are counted.
    pub(super) victim: Victim,
    /// What is done to it, and where.
    pub(super) act: Act,
}

impl Cell {
    /// The boundary, or 0 for a clean run.
    pub(super) fn at(self) -> usize {
        match self.act {
            Act::Count => 0,
            Act::Kill(at) | Act::Fail(at, _) => at,
        }
    }

    fn fault(self) -> Fault {
        match self.act {
            Act::Count | Act::Kill(_) => Fault::Death,
            Act::Fail(..) => Fault::Error,
        }
    }

    /// The command that does this again.
    pub(super) fn command(self, seed: u64) -> String {
        let error = match self.act {
            Act::Count | Act::Kill(_) => String::new(),
            Act::Fail(_, error) => format!(" --error {error:?}"),
        };
        format!(
            "tests/sweep/run --scenario {} --victim {}{error} --at {} --seed {seed}",
            self.scenario,
            self.victim,
            self.at()
        )
    }
}

/// What became of a cell.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The calls of the victim.
    pub(super) seen: Seen,
    /// The call at which something was done, in words; nothing if the victim never came to it.
    pub(super) acted: Option<String>,
    /// What is wrong, in words.
    pub(super) result: Result<(), String>,
}

/// An instance with volumes in which cell after cell is run.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    sandbox: &'a Sandbox,
    kept: Vec<(PathBuf, Tree)>,
}

impl<'a> Stage<'a> {
    /// Fills the volumes and imports the image.
    #[track_caller]
    pub(super) fn new(sandbox: &'a Sandbox) -> Stage<'a> {
        for name in ["a/b", "b", "proof", "decoy"] {
            sandbox.new_directory(name);
        }
        let kept = ["a", "b", "decoy"]
            .into_iter()
            .map(|name| (sandbox.place(name), plant_data(&sandbox.place(name), name)))
            .collect();
        sandbox.image();
        scenario::extra_tar(sandbox);
        sandbox.ok(&["shutdown"]);
        Stage { sandbox, kept }
    }

    /// Runs a cell and judges it. After an error the stage is not fit for another cell.
    pub(super) fn run(&self, cell: Cell, seed: u64) -> Outcome {
        let (mut seen, acted) = (Seen::default(), Acted::default());
        let result =
            std::panic::catch_unwind(AssertUnwindSafe(|| self.try_run(cell, seed, &mut seen, &acted)));
        let result = result.map_err(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| payload.downcast_ref::<&str>().copied())
                .unwrap_or("panicked with no text")
                .to_owned()
        });
        let trouble =
            seen.trouble.clone().map_or(Ok(()), |trouble| Err(format!("the tracer failed: {trouble}")));
        let acted = acted.lock().unwrap_or_else(PoisonError::into_inner).take();
        Outcome { seen, acted, result: result.and(trouble) }
    }

    fn try_run(&self, cell: Cell, seed: u64, seen: &mut Seen, acted: &Acted) {
        let Cell { scenario, victim, act } = cell;
        let sandbox = self.sandbox;
        let name = format!("{scenario} {victim} {}", cell.at());
        let code = Random::new(seed, &name).exit_code();
        scenario::forget_proofs(sandbox);
        for log in oracle::logs(sandbox) {
            // Not there in the first cell.
            let _ = fs::remove_file(log);
        }
        let bind = Bind::new(&sandbox.place("a"), &sandbox.place("bound"));
        let target = scenario::prepare(sandbox, scenario, victim, code);
        let decoys = (scenario.has_container_before() && scenario != Scenario::Remove)
            .then(|| Decoys::beside(sandbox, &sandbox.ok(&["inspect", "-f", "{{.Id}}", NAME])));
        let tracer = Tracer::start(&target, act, acted);
        let done = scenario::act(sandbox, scenario, victim, code, &tracer);
        *seen = tracer.finish();
        sandbox.use_program(crate::harness::command::program().to_owned());
        let changed = oracle::judge(sandbox, Question { scenario, victim, fault: cell.fault(), code }, &done);
        if let Some(decoys) = decoys {
            decoys.expect_untouched();
        }
        bind.remove();
        for (place, tree) in &self.kept {
            tree.expect_unchanged(place);
        }
        sandbox.finish();
        sandbox.forget_ids();
        assert!(changed.is_none(), "{}", changed.unwrap_or_default());
    }
}
