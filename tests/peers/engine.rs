//! What the matrix asks of an engine, and how its commands are called.

use std::{
    fs::File,
    panic::{self, AssertUnwindSafe},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::process::Process;
use crate::harness::{
    command::{Call, Output},
    holds_within,
};

/// A user does not wait longer for an answer to "how did it end?" of a container that has ended.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);
/// A list of containers that is wrong for longer is wrong.
pub(crate) const NOTICED: Duration = Duration::from_secs(2);
/// Every other command.
const COMMAND: Duration = Duration::from_secs(30);
/// A daemon that does not answer by then does not start.
const START: Duration = Duration::from_secs(30);

/// What the user is told about the end of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// A code.
    Code(i32),
    /// That it is unknown (-1, 255), or an error; the engine's words.
    Unknown(String),
    /// Nothing, for as long as he waits.
    Silence(String),
}

impl Told {
    /// From what a `wait` printed.
    pub(crate) fn of_wait(output: Result<Output, String>) -> Told {
        let output = match output {
            Ok(output) => output,
            Err(error) => return Told::Silence(error),
        };
        match output.text().trim().parse() {
            Ok(code @ 0..=254) => Told::Code(code),
            Ok(_) | Err(_) => Told::Unknown(format!("{} {}", output.text(), output.errors().trim())),
        }
    }
}

/// One engine with all its files in a directory of its own.
pub(crate) trait Engine {
    /// As in the table.
    fn name(&self) -> &'static str;

    /// What must be installed, to be shown with its version.
    fn programs(&self) -> Vec<&Path>;

    /// Its daemon, the monitors and the options that matter, in one line.
    fn about(&self) -> &'static str;

    /// Starts the daemon, for the first time or again, and waits until it answers. Without a daemon: does nothing.
    fn start(&mut self) -> Result<(), String>;

    /// Makes the image, once.
    fn prepare(&mut self) -> Result<(), String>;

    /// The processes of the daemon; none if the engine has no daemon.
    fn daemon(&self) -> Vec<Process>;

    /// Whether it has one at all.
    fn has_daemon(&self) -> bool {
        true
    }

    /// The monitor of a running container.
    fn monitor(&self, id: &str) -> Option<Process>;

    /// Runs `sh -c SCRIPT` in the background with the directory as `/v`; gives the id.
    fn run(&self, name: &str, volume: &Path, script: &str) -> Result<String, String>;

    /// Whether the list of containers shows it as running.
    fn shows_running(&self, name: &str) -> bool;

    /// How it ended, for a container that has ended.
    fn told(&self, name: &str) -> Told;

    /// Removes it by force; whether the command succeeded.
    fn remove(&self, name: &str) -> Result<(), String>;

    /// Directories below its own whose files it removes after a minute by itself: what is new there is not counted.
    fn swept_later(&self) -> &'static [&'static str] {
        &[]
    }

    /// Ends the daemon.
    fn stop(&mut self);
}

/// Runs a call that may not take longer; otherwise it is killed, and the error says so.
pub(crate) fn within(mut call: Call, limit: Duration) -> Result<Output, String> {
    call.deadline = limit;
    panic::catch_unwind(AssertUnwindSafe(|| call.run())).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map_or("it panicked", String::as_str);
        text.lines().next().unwrap_or("").to_owned()
    })
}

/// Runs a call that must succeed; its output, or why not in one line.
pub(crate) fn ok(call: Call) -> Result<String, String> {
    let shown = call.to_string();
    match within(call, COMMAND) {
        Ok(output) if output.code == 0 => Ok(output.text()),
        Ok(output) => {
            let errors = output.errors();
            Err(format!("{shown}: {}", errors.lines().next_back().unwrap_or("no message").trim()))
        }
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// The versions of all programs of an engine.
///
/// # Errors
/// One of them is not installed.
pub(crate) fn versions(engine: &dyn Engine) -> Result<String, String> {
    let all: Result<Vec<String>, String> = engine.programs().into_iter().map(version).collect();
    all.map(|all| all.join(", "))
}

fn version(program: &Path) -> Result<String, String> {
    let name = program.file_name().unwrap_or_default().display();
    let output =
        Command::new(program).arg("--version").output().map_err(|error| format!("{name}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_number =
        |word: &&str| word.starts_with(|letter: char| letter.is_ascii_digit()) && word.contains('.');
    let number = text.split([' ', ',', '\n']).find(is_number).unwrap_or("of an unknown version");
    Ok(format!("{name} {number}"))
}

/// A daemon that was started here.
#[derive(Debug, Default)]
pub(crate) struct Daemon(Option<Child>);

impl Daemon {
    /// Starts a program with its output in a log, and waits until `answers`.
    pub(crate) fn start(
        &mut self,
        mut command: Command,
        log: &Path,
        answers: impl Fn() -> bool,
    ) -> Result<(), String> {
        self.reap();
        let program = command.get_program().to_string_lossy().into_owned();
        let file = File::options().create(true).append(true).open(log).map_err(|error| error.to_string())?;
        let copy = file.try_clone().map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(file).stderr(copy);
        let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        let mut ended = false;
        let up = holds_within(START, || {
            ended = !matches!(child.try_wait(), Ok(None));
            ended || answers()
        });
        self.0 = Some(child);
        if up && !ended { Ok(()) } else { Err(format!("{program} does not start: {}", last_words(log))) }
    }

    /// Collects it after it was killed.
    fn reap(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Dead already, or what does not answer has to go.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end, waits, and kills it if it does not.
    pub(crate) fn stop(&mut self) {
        if let Some(child) = &mut self.0 {
            let pid = i32::try_from(child.id()).unwrap_or(0);
            crate::harness::processes::signal(pid, rustix::process::Signal::TERM);
            holds_within(Duration::from_secs(20), || !matches!(child.try_wait(), Ok(None)));
        }
        self.reap();
    }
}

fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().next_back().unwrap_or("it said nothing").to_owned()
}
