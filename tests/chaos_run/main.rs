//! `tests/chaos --minutes N --seed S [--workers W]`, or `--round R` for one round again.

#[path = "mod.rs"]
mod chaos_run;
#[path = "../harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "what only the suite needs")]
mod harness;

use std::{
    env,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chaos_run::{Order, say};
use harness::sandbox;

const USAGE: &str = "usage: tests/chaos [--minutes N | --seconds N] [--seed S] [--workers W] [--round R]";

fn main() -> ExitCode {
    let order = match parse(env::args().skip(1)) {
        Ok(order) => order,
        Err(error) => {
            say(&format!("{error}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    // A failed step is told by its text, not by a trace of the tester.
    std::panic::set_hook(Box::new(|_| {}));
    let Order { seed, time, workers, .. } = order;
    say(&format!("chaos: seed {seed}, {} seconds, {workers} workers", time.as_secs()));
    let before = harness::leaks::Host::now();
    let mut outcome = chaos_run::run(order);
    let mut left = harness::leaks::Host::settled_difference(&before);
    // Others may use the host too.
    let mut marks: Vec<String> = sandbox::all_ids().iter().map(|id| id[..12].to_owned()).collect();
    marks.push(sandbox::base().to_string_lossy().into_owned());
    left.retain(|line| marks.iter().any(|mark| line.contains(mark)));
    if !left.is_empty() {
        let failure = format!("FAILURE seed {seed}: left on the host: {}", left.join("; "));
        say(&failure);
        outcome.failures.push(failure);
        outcome.figures.failures += 1;
    }
    say(&format!("chaos: seed {seed}: {}", outcome.figures));
    if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Order, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let mut order = Order { seed: now, time: Duration::from_secs(60), workers: 2, only: None };
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, String> {
            let text = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            text.parse().map_err(|_| format!("not a number: {text}"))
        };
        match word.as_str() {
            "--minutes" => order.time = Duration::from_secs(number()? * 60),
            "--seconds" => order.time = Duration::from_secs(number()?),
            "--seed" => order.seed = number()?,
            "--workers" => order.workers = usize::try_from(number()?).unwrap_or(1).clamp(1, 16),
            "--round" => order.only = Some(number()?),
            other => return Err(format!("unknown word {other}")),
        }
    }
    Ok(order)
}
