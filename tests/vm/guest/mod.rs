//! What is done inside the machine, beside the cases of the suite.

mod leave;
mod recover;

use std::{
    io::{self, Read, Write},
    panic,
    path::Path,
    process::ExitCode,
};

use super::promise::Promise;
use crate::harness::{Sandbox, random::Random};

/// Both roots and the volumes are on the disk, so that the next boot finds them.
const DIRECTORY: &str = "/tmp/power";

fn sandbox() -> Sandbox {
    Sandbox::at("power", Path::new(DIRECTORY), Random::new(1, "power"))
}

/// Runs a phase; what fails is said on the serial line.
pub(super) fn phase(name: &str) -> ExitCode {
    let run: fn() = match name {
        "leave" => leave::run,
        "recover" => || recover::run(&promises()),
        _ => return ExitCode::from(2),
    };
    if panic::catch_unwind(run).is_err() {
        say(&format!("FAILED {name}\n{}", sandbox().log()));
        return ExitCode::FAILURE;
    }
    say(&format!("ok {name}"));
    ExitCode::SUCCESS
}

/// What the last boot promised: the standard input.
fn promises() -> Vec<Promise> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).expect("the promises can be read");
    text.lines().map(|line| line.parse().unwrap_or_else(|()| panic!("no promise: {line}"))).collect()
}

fn say(line: &str) {
    // One call for each line: other threads speak, too.
    writeln!(io::stdout().lock(), "{line}").expect("the serial line takes it");
}
