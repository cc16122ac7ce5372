//! `tests/peers/run`: what is left when monitor and daemon of an engine are killed, side by side in one run.
//!
//! Each cell is one container with a volume and an exit code that is known beforehand. It is killed around, the daemon is
//! started again, the ordinary commands of a user are given (is it running, how did it end, remove it), and then it is
//! counted what is left. Nothing is judged: the table has the figures.

mod containerd;
mod docker;
mod engine;
#[path = "../harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "what only the suite needs")]
mod harness;
mod leftovers;
mod matrix;
mod mysup;
mod podman;
mod process;
mod recovery;
mod table;

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use engine::Engine;

const USAGE: &str = "usage: tests/peers/run [--rounds N] [--engine NAME]... [--verbose] [--recovery]";
/// All engines, in the order of the table.
const NAMES: [&str; 5] = ["mysup", "mysup --init", "docker", "podman", "containerd"];

/// What was asked for.
#[derive(Debug, Default)]
struct Order {
    rounds: Option<usize>,
    engines: Vec<String>,
    verbose: bool,
    recovery: bool,
}

fn main() -> ExitCode {
    let order = match parse(env::args().skip(1)) {
        Ok(order) => order,
        Err(error) => {
            say(&format!("{error}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    let Some(scratch) = env::var_os("MYSUP_PEERS_SCRATCH").map(PathBuf::from) else {
        say("not started by tests/peers/run, whose namespaces end what an engine leaves");
        return ExitCode::from(2);
    };
    // A call that was given up is told by its text, not by a trace of the tester.
    std::panic::set_hook(Box::new(|_| {}));
    if order.recovery {
        return recovery::run(&scratch, order.rounds.unwrap_or(200));
    }
    let rounds = order.rounds.unwrap_or(3);
    let wanted = |name: &str| order.engines.is_empty() || order.engines.iter().any(|word| word == name);
    let mut figures = table::Table::new(rounds);
    for name in NAMES.into_iter().filter(|name| wanted(name)) {
        let place = scratch.join(name.replace(" --", "-"));
        fs::create_dir(&place).expect("the scratch directory is ours");
        let mut engine = make(name, &place);
        if order.verbose {
            say(&format!("{name}: {}", place.display()));
        }
        match matrix::run(engine.as_mut(), &place, rounds, order.verbose) {
            Ok(tallies) => figures.add(engine.as_ref(), tallies),
            Err(error) => figures.skip(name, &error),
        }
        engine.stop();
    }
    say(&figures.to_string());
    ExitCode::SUCCESS
}

fn make(name: &str, place: &Path) -> Box<dyn Engine> {
    match name {
        "docker" => Box::new(docker::Docker::new(place)),
        "podman" => Box::new(podman::Podman::new(place)),
        "containerd" => Box::new(containerd::Containerd::new(place)),
        "mysup --init" => Box::new(mysup::Mysup::new(place, &["--init"])),
        _ => Box::new(mysup::Mysup::new(place, &[])),
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Order, String> {
    let mut order = Order::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--rounds" => {
                let text = value()?;
                order.rounds = Some(text.parse().map_err(|_| format!("not a number of rounds: {text}"))?);
            }
            "--engine" => {
                let name = value()?;
                if !NAMES.contains(&name.as_str()) {
                    return Err(format!("no engine {name}; there are: {}", NAMES.join(", ")));
                }
                order.engines.push(name);
            }
            "--verbose" => order.verbose = true,
            "--recovery" => order.recovery = true,
            _ => return Err(format!("unknown: {word}")),
        }
    }
    Ok(order)
}

/// One line for people.
fn say(text: &str) {
    // Nobody reads it: then nobody misses it.
    let _ = writeln!(std::io::stdout(), "{text}");
}
