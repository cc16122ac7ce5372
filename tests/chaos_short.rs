//! A short run of `tests/chaos`, with a seed of this run of the suite.

use std::time::Duration;

use crate::{
    chaos_run::{self, Order, Outcome, say},
    harness::{Case, Sandbox},
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![random_deaths_lose_and_leave_nothing]
}

/// The last round goes on for a few seconds more.
const TIME: Duration = Duration::from_secs(35);

fn random_deaths_lose_and_leave_nothing(sandbox: &Sandbox) {
    let seed = (0..4).fold(0, |seed, _| seed * 128 + u64::try_from(sandbox.exit_code()).unwrap_or(0));
    say(&format!("     chaos: seed {seed}"));
    let Outcome { figures, failures } = chaos_run::run(Order { seed, time: TIME, workers: 1, only: None });
    say(&format!("     chaos: seed {seed}: {figures}"));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
