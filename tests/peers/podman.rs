//! podman: the monitor is conmon, and there is no daemon.

use std::path::{Path, PathBuf};

use super::{
    containerd,
    engine::{self, ANSWER, Engine, Told},
    process::{self, Process},
};
use crate::harness::{command::Call, image};

/// A podman with its own store.
#[derive(Debug)]
pub(crate) struct Podman {
    place: PathBuf,
}

impl Podman {
    /// With all its files in `place`.
    pub(crate) fn new(place: &Path) -> Podman {
        Podman { place: place.to_owned() }
    }

    fn call(&self, arguments: &[&str]) -> Call {
        let at = |name: &str| self.place.join(name).to_string_lossy().into_owned();
        let (root, run, tmp) = (at("root"), at("run"), at("tmp"));
        let global = ["--root", &root, "--runroot", &run, "--tmpdir", &tmp, "--storage-driver", "overlay"];
        let more = ["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc"];
        let words = [&global[..], &more, arguments].concat();
        Call::new(Path::new("podman"), words)
    }
}

impl Engine for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn programs(&self) -> Vec<&Path> {
        ["podman", "conmon", "runc"].map(Path::new).to_vec()
    }

    fn about(&self) -> &'static str {
        "monitor conmon, no daemon"
    }

    fn start(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn prepare(&mut self) -> Result<(), String> {
        let tar = image::tar_path(&self.place).to_string_lossy().into_owned();
        engine::ok(self.call(&["import", &tar, image::NAME])).map(drop)
    }

    fn daemon(&self) -> Vec<Process> {
        Vec::new()
    }

    fn has_daemon(&self) -> bool {
        false
    }

    fn monitor(&self, id: &str) -> Option<Process> {
        process::with("conmon", id).pop()
    }

    fn run(&self, name: &str, volume: &Path, script: &str) -> Result<String, String> {
        let volume = format!("{}:/v", volume.display());
        let cgroup = format!("/{}", containerd::name_of(&self.place));
        let line = ["run", "-d", "--name", name, "--network", "none", "--cgroup-parent", &cgroup];
        let more = ["--ulimit", "host", "-v", &volume, image::NAME, "sh", "-c", script];
        engine::ok(self.call(&[&line[..], &more].concat()))
    }

    fn shows_running(&self, name: &str) -> bool {
        engine::ok(self.call(&["inspect", "-f", "{{.State.Running}}", name])).is_ok_and(|text| text == "true")
    }

    fn told(&self, name: &str) -> Told {
        Told::of_wait(engine::within(self.call(&["wait", name]), ANSWER))
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        engine::ok(self.call(&["rm", "-f", name])).map(drop)
    }

    fn stop(&mut self) {}
}
