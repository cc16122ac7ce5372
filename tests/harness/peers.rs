//! The other tools that hand images around, each with a store of its own in the sandbox.

use std::{
    fs, panic,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{PATIENCE, Sandbox, holds_within, skip, tree::Tree};

/// Runs a tool to its end and gives its output. One that is not here is a skip.
#[track_caller]
pub(crate) fn tool(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).env("LC_ALL", "C");
    let Ok(output) = command.output() else { skip(format!("no {program} here")) };
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Whether a tool can be started at all.
pub(crate) fn is_here(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// podman with its own store.
pub(crate) struct Podman(PathBuf);

impl Podman {
    pub(crate) fn new(sandbox: &Sandbox) -> Podman {
        if !is_here("podman") {
            skip("no podman here");
        }
        Podman(sandbox.place("podman"))
    }

    /// Whether it loads an archive.
    pub(crate) fn takes(&self, archive: &str) -> bool {
        panic::catch_unwind(panic::AssertUnwindSafe(|| self.call(&["load", "-i", archive]))).is_ok()
    }

    #[track_caller]
    pub(crate) fn call(&self, arguments: &[&str]) -> String {
        let path = |name: &str| self.0.join(name).to_string_lossy().into_owned();
        let (root, run, temporary) = (path("root"), path("run"), path("tmp"));
        let own = ["--root", &root, "--runroot", &run, "--tmpdir", &temporary, "--storage-driver", "vfs"];
        tool("podman", &[&own[..], arguments].concat())
    }
}

/// docker's daemon, on a socket of its own, without a network.
pub(crate) struct Docker {
    daemon: Child,
    socket: String,
}

impl Docker {
    /// Starts it; where that is not possible is a skip.
    pub(crate) fn start(sandbox: &Sandbox) -> Docker {
        if !is_here("docker") || !is_here("dockerd") {
            skip("no docker here");
        }
        let root = sandbox.place("docker");
        fs::create_dir_all(&root).expect("the sandbox is ours");
        let path = |name: &str| root.join(name).to_string_lossy().into_owned();
        let socket = format!("unix://{}", path("s"));
        let log = fs::File::create(path("log")).expect("the sandbox is ours");
        // In a mount namespace of its own, so that nobody who starts meanwhile copies its mounts.
        let mut command = Command::new("unshare");
        command.args(["--mount", "dockerd"]);
        command.args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")]);
        command.args(["-H", &socket, "--bridge", "none", "--iptables=false", "--ip6tables=false"]);
        command.args(["--storage-driver", "vfs"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = command.spawn().expect("it is here");
        let mut docker = Docker { daemon, socket };
        let answers = |docker: &mut Docker| {
            let mut look = Command::new("docker");
            look.args(["-H", &docker.socket, "version"]).stdout(Stdio::null()).stderr(Stdio::null());
            look.status().is_ok_and(|status| status.success())
        };
        let mut ended = false;
        let came = holds_within(PATIENCE, || {
            ended = docker.daemon.try_wait().is_ok_and(|status| status.is_some());
            ended || answers(&mut docker)
        });
        if ended || !came {
            let log = fs::read_to_string(path("log")).unwrap_or_default();
            let reason = log.lines().last().unwrap_or_default().to_owned();
            drop(docker);
            skip(format!("dockerd cannot run here: {reason}"));
        }
        docker
    }

    #[track_caller]
    pub(crate) fn call(&self, arguments: &[&str]) -> String {
        tool("docker", &[&["-H", &self.socket], arguments].concat())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.daemon.id()) {
            // It ends its containerd too, and that takes a moment.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.daemon.wait();
    }
}

/// What `docker export` leaves of a tree: whole seconds, and of all attributes capabilities.
pub(crate) fn as_docker_exports(tree: Tree) -> Tree {
    tree.seen_by(|_, text| {
        let (head, attributes) = text.rsplit_once(' ')?;
        let (before, after) = head.split_once(" mtime ")?;
        let (seconds, rest) = after.split_once('.')?;
        let rest = rest.split_once(' ')?.1;
        let kept: Vec<&str> = attributes.split(',').filter(|one| one.starts_with("security.")).collect();
        Some(format!("{before} mtime {seconds} {rest} {}", kept.join(",")))
    })
}

/// The root file system that umoci makes of an image in an OCI layout.
pub(crate) fn unpacked_by_umoci(layout: &Path, name: &str, bundle: &Path) -> PathBuf {
    let image = format!("{}:{name}", layout.display());
    tool("umoci", &["unpack", "--image", &image, &bundle.to_string_lossy()]);
    bundle.join("rootfs")
}
