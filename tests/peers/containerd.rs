//! containerd by its own client `ctr`: the monitor is containerd's shim. An exit code is in what `ctr task rm` says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    engine::{self, ANSWER, Daemon, Engine, Told},
    process::{self, Process},
};
use crate::harness::{
    command::Call,
    holds_within,
    image::{self, TarWriter},
    tree::hex,
};

const IMAGE: &str = "docker.io/library/busybox:latest";

/// A name that belongs to this run alone: of cgroups and of containerd's namespace.
pub(crate) fn name_of(place: &Path) -> String {
    let names: Vec<_> = place.iter().rev().take(2).map(|name| name.to_string_lossy().into_owned()).collect();
    format!("{}-{}", names[1], names[0])
}

/// A containerd of our own.
#[derive(Debug)]
pub(crate) struct Containerd {
    place: PathBuf,
    daemon: Daemon,
}

impl Containerd {
    /// With all its files in `place`.
    pub(crate) fn new(place: &Path) -> Containerd {
        Containerd { place: place.to_owned(), daemon: Daemon::default() }
    }

    fn at(&self, name: &str) -> String {
        self.place.join(name).to_string_lossy().into_owned()
    }

    fn call(&self, arguments: &[&str]) -> Call {
        let (socket, namespace) = (self.at("sock"), name_of(&self.place));
        let words = [&["--address", &socket, "--namespace", &namespace], arguments].concat();
        Call::new(Path::new("ctr"), words)
    }

    /// What `ctr task ls` says of a container.
    fn status(&self, name: &str) -> Option<String> {
        let list = engine::ok(self.call(&["task", "ls"])).ok()?;
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(name))?.to_owned();
        line.split_whitespace().nth(2).map(str::to_owned)
    }
}

impl Engine for Containerd {
    fn name(&self) -> &'static str {
        "containerd"
    }

    fn programs(&self) -> Vec<&Path> {
        ["containerd", "runc", "ctr"].map(Path::new).to_vec()
    }

    fn about(&self) -> &'static str {
        "by ctr; monitor containerd-shim-runc-v2, daemon containerd"
    }

    fn start(&mut self) -> Result<(), String> {
        let config = self.place.join("config.toml");
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            self.at("root"),
            self.at("state"),
            self.at("sock")
        );
        fs::write(&config, text).map_err(|error| error.to_string())?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(config);
        let log = self.place.with_extension("log");
        let mut daemon = std::mem::take(&mut self.daemon);
        let probe = || engine::ok(self.call(&["version"])).is_ok();
        let started = daemon.start(command, &log, probe);
        self.daemon = daemon;
        started
    }

    fn prepare(&mut self) -> Result<(), String> {
        let archive = self.place.join("archive.tar");
        fs::write(&archive, archive_bytes()).map_err(|error| error.to_string())?;
        engine::ok(self.call(&["image", "import", &archive.to_string_lossy()])).map(drop)
    }

    fn daemon(&self) -> Vec<Process> {
        process::with("containerd", &self.at("config.toml"))
    }

    fn monitor(&self, id: &str) -> Option<Process> {
        process::with("containerd-shim-runc-v2", &format!("-id {id}")).pop()
    }

    fn run(&self, name: &str, volume: &Path, script: &str) -> Result<String, String> {
        let mount = format!("type=bind,src={},dst=/v,options=rbind:rw", volume.display());
        let cgroup = format!("/{}/{name}", name_of(&self.place));
        let line = ["run", "-d", "--cgroup", &cgroup, "--mount", &mount, IMAGE, name];
        engine::ok(self.call(&[&line[..], &["/bin/sh", "-c", script]].concat()))?;
        Ok(name.to_owned())
    }

    fn shows_running(&self, name: &str) -> bool {
        self.status(name).as_deref() == Some("RUNNING")
    }

    fn told(&self, name: &str) -> Told {
        let mut status = None;
        holds_within(ANSWER, || {
            status = self.status(name);
            status.as_deref() != Some("RUNNING")
        });
        if status.as_deref() == Some("RUNNING") {
            return Told::Silence("the task is RUNNING".to_owned());
        }
        if status.as_deref() != Some("STOPPED") {
            return Told::Unknown(format!("the task is {status:?}"));
        }
        match engine::within(self.call(&["task", "rm", name]), ANSWER) {
            // Its own exit code is 0; it warns of each code that is not.
            Ok(output) if output.code == 0 => {
                let text = output.errors();
                let code = match text.split_once("non-zero exit code ") {
                    None => Some(0),
                    Some((_, rest)) => rest.trim_end().trim_end_matches('"').parse().ok(),
                };
                code.map_or(Told::Unknown(text), Told::Code)
            }
            Ok(output) => Told::Unknown(output.errors()),
            Err(error) => Told::Silence(error),
        }
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        if self.status(name).is_some() {
            // Whether it worked is seen by the next command.
            let _ = engine::ok(self.call(&["task", "rm", "-f", name]));
        }
        engine::ok(self.call(&["container", "rm", name])).map(drop)
    }

    fn stop(&mut self) {
        self.daemon.stop();
    }
}

/// The image of the tests as `docker save` would write it.
fn archive_bytes() -> Vec<u8> {
    let layer = image::tar_bytes(&[]);
    let digest = format!("sha256:{}", hex(&Sha256::digest(&layer)));
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Env": ["PATH=/bin:/usr/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [digest] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
    let mut archive = TarWriter::new();
    archive.file("config.json", 0o644, config.to_string().as_bytes());
    archive.file("layer.tar", 0o644, &layer);
    archive.file("manifest.json", 0o644, manifest.to_string().as_bytes());
    archive.finish()
}
