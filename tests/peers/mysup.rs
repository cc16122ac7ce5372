//! mysup itself: the monitor is `mysup-shim`, the daemon the supervisor.

use std::path::{Path, PathBuf};

use super::{
    engine::{self, ANSWER, Engine, Told},
    process::{self, Process},
};
use crate::harness::{
    command::{self, Call},
    image,
};

/// An instance.
#[derive(Debug)]
pub(crate) struct Mysup {
    place: PathBuf,
    flags: &'static [&'static str],
}

impl Mysup {
    /// With all its files in `place`; `flags` are for `run`.
    pub(crate) fn new(place: &Path, flags: &'static [&'static str]) -> Mysup {
        Mysup { place: place.to_owned(), flags }
    }

    /// A call of the command line.
    pub(crate) fn call(&self, arguments: &[&str]) -> Call {
        Call::new(command::program(), arguments.iter().copied())
            .env("MYSUP_ROOT", self.place.join("s"))
            .env("MYSUP_RUN_ROOT", self.place.join("r"))
    }

    /// Where a container has its lock and its records.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.place.join("s").join(mysup_ipc::layout::CONTAINERS).join(id)
    }
}

impl Engine for Mysup {
    fn name(&self) -> &'static str {
        if self.flags.is_empty() { "mysup" } else { "mysup --init" }
    }

    fn programs(&self) -> Vec<&Path> {
        vec![command::program()]
    }

    fn about(&self) -> &'static str {
        "monitor mysup-shim, daemon mysup"
    }

    fn start(&mut self) -> Result<(), String> {
        engine::ok(self.call(&["start"])).map(drop)
    }

    fn prepare(&mut self) -> Result<(), String> {
        let tar = image::tar_path(&self.place).to_string_lossy().into_owned();
        engine::ok(self.call(&["import", &tar, image::NAME])).map(drop)
    }

    fn daemon(&self) -> Vec<Process> {
        process::with("mysup", &self.place.join("s").to_string_lossy())
    }

    fn monitor(&self, id: &str) -> Option<Process> {
        process::holder(&self.directory(id).join("lock"), "/mysup-shim")
    }

    fn run(&self, name: &str, volume: &Path, script: &str) -> Result<String, String> {
        let volume = format!("{}:/v", volume.display());
        let head = ["run", "-d", "--name", name, "-v", &volume];
        engine::ok(self.call(&[&head, self.flags, &[image::NAME, "sh", "-c", script]].concat()))
    }

    fn shows_running(&self, name: &str) -> bool {
        let shown = engine::ok(self.call(&["inspect", "-f", "{{.State.Status}}", name]));
        shown.is_ok_and(|text| text.to_lowercase() == "running")
    }

    fn told(&self, name: &str) -> Told {
        Told::of_wait(engine::within(self.call(&["wait", name]), ANSWER))
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        engine::ok(self.call(&["rm", "-f", name])).map(drop)
    }

    fn stop(&mut self) {
        // What does not end by this ends with the namespace.
        let _ = engine::ok(self.call(&["shutdown", "--containers"]));
    }
}
