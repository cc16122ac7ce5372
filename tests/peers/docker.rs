//! docker: the monitor is containerd's shim, the daemon is dockerd with its containerd. `--live-restore`, since that is its
//! option for containers that outlive the daemon.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    containerd,
    engine::{self, ANSWER, Daemon, Engine, Told},
    process::{self, Process},
};
use crate::harness::{command::Call, image};

/// A dockerd of our own.
#[derive(Debug)]
pub(crate) struct Docker {
    place: PathBuf,
    daemon: Daemon,
}

impl Docker {
    /// With all its files in `place`.
    pub(crate) fn new(place: &Path) -> Docker {
        Docker { place: place.to_owned(), daemon: Daemon::default() }
    }

    fn address(&self) -> String {
        format!("unix://{}", self.place.join("sock").display())
    }

    fn call(&self, arguments: &[&str]) -> Call {
        Call::new(Path::new("docker"), arguments.iter().copied())
            .env("DOCKER_HOST", self.address())
            .env("DOCKER_CONFIG", self.place.join("client"))
    }

    fn mark(&self) -> String {
        self.place.join("exec").to_string_lossy().into_owned()
    }
}

impl Engine for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn programs(&self) -> Vec<&Path> {
        ["dockerd", "containerd", "runc", "docker"].map(Path::new).to_vec()
    }

    fn about(&self) -> &'static str {
        "monitor containerd-shim-runc-v2, daemon dockerd and containerd, --live-restore"
    }

    fn start(&mut self) -> Result<(), String> {
        let cgroup = format!("/{}", containerd::name_of(&self.place));
        let mut command = Command::new("dockerd");
        command
            .args(["--live-restore", "--iptables=false", "--ip-forward=false", "--ip-masq=false"])
            .args(["--bridge=none", "--cgroup-parent", &cgroup, "--host", &self.address()])
            .arg("--data-root")
            .arg(self.place.join("data"))
            .arg("--exec-root")
            .arg(self.place.join("exec"))
            .arg("--pidfile")
            .arg(self.place.join("pid"));
        let log = self.place.with_extension("log");
        let mut daemon = std::mem::take(&mut self.daemon);
        let probe = || engine::ok(self.call(&["version"])).is_ok();
        let started = daemon.start(command, &log, probe);
        self.daemon = daemon;
        started
    }

    fn prepare(&mut self) -> Result<(), String> {
        let tar = image::tar_path(&self.place).to_string_lossy().into_owned();
        engine::ok(self.call(&["import", &tar, image::NAME])).map(drop)
    }

    fn daemon(&self) -> Vec<Process> {
        let mut found = process::with("dockerd", &self.mark());
        found.extend(process::with("containerd", &self.mark()));
        found
    }

    fn monitor(&self, id: &str) -> Option<Process> {
        process::with("containerd-shim-runc-v2", id).pop()
    }

    fn run(&self, name: &str, volume: &Path, script: &str) -> Result<String, String> {
        let volume = format!("{}:/v", volume.display());
        let line = ["run", "-d", "--name", name, "--network", "none", "-v", &volume, image::NAME];
        engine::ok(self.call(&[&line[..], &["sh", "-c", script]].concat()))
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

    fn swept_later(&self) -> &'static [&'static str] {
        &["exec/netns"]
    }

    fn stop(&mut self) {
        self.daemon.stop();
    }
}
