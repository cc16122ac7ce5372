//! Starts the supervisor in the background: this same program as `start --foreground`, with a pipe on which it says
//! that it is ready, or why it is not.

use std::{
    fs::{DirBuilder, File},
    io::{self, BufRead, BufReader},
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{client::Instance, error::CliError};

/// Tells the started supervisor which descriptor is the pipe: its stdout.
const READY_FD: &str = "MYSUP_READY_FD";
/// What it says and logs until it has a log of its own, in the run root.
const LOG: &str = "supervisor.log";
/// How long it may take to be ready; it recovers all containers first.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Words by which it says that the lock is taken.
const ALREADY_RUNNING: &str = "already running";

/// What became of the start.
#[derive(Debug)]
pub(crate) enum Launched {
    /// It answers.
    Ready,
    /// Another one has the lock; the text says which.
    Refused(String),
}

/// Starts the supervisor and waits until it answers.
///
/// # Errors
/// If it cannot be started, or ends before it is ready.
pub(crate) fn in_background(instance: &Instance) -> Result<Launched, CliError> {
    let log = open_log(&instance.config.run_root)?;
    let program = std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        // An upgrade may have replaced the file; the kernel still has ours.
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
    let mut child = Command::new(&program)
        .arg("--root")
        .arg(&instance.config.root)
        .arg("--run-root")
        .arg(&instance.config.run_root)
        .args(["start", "--foreground"])
        .args(instance.config.image_limits.setting().map(|setting| format!("--image-limits={setting}")))
        .env(READY_FD, "1")
        // So that it keeps no file system of the caller busy.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|source| CliError::File { action: "run", path: program, source })?;
    let Some(pipe) = child.stdout.take() else {
        return Err(CliError::Launch { reason: "it has no pipe".to_owned() });
    };
    let line = first_line(pipe)?;
    let log = instance.config.run_root.join(LOG);
    match line.as_deref().map(str::trim_end).and_then(|line| line.split_once(' ')) {
        Some(("ready", _)) => Ok(Launched::Ready),
        Some(("error", reason)) => {
            bury(&mut child);
            if reason.contains(ALREADY_RUNNING) {
                return Ok(Launched::Refused(reason.to_owned()));
            }
            Err(CliError::Launch { reason: reason.to_owned() })
        }
        Some(_) | None if line.is_none() => Err(CliError::Launch {
            reason: format!("it was not ready within {} s (see {})", READY_DEADLINE.as_secs(), log.display()),
        }),
        Some(_) | None => {
            bury(&mut child);
            let reason = last_line(&log).unwrap_or_else(|| format!("see {}", log.display()));
            Err(CliError::Launch { reason: format!("it ended before it was ready: {reason}") })
        }
    }
}

/// Waits for a supervisor that has said its last word.
fn bury(child: &mut Child) {
    // Its end is all we want; how it ended was said on the pipe.
    let _ = child.wait();
}

/// The first line, empty if there is none, `None` after the deadline.
fn first_line(pipe: ChildStdout) -> Result<Option<String>, CliError> {
    let failed = |source| CliError::Call { action: "hear from the supervisor", source };
    let timeout = PollTimeout::try_from(READY_DEADLINE).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
    let mut line = String::new();
    BufReader::new(pipe).read_line(&mut line).map_err(failed)?;
    Ok(Some(line))
}

fn open_log(run_root: &Path) -> Result<File, CliError> {
    DirBuilder::new().recursive(true).mode(0o700).create(run_root).map_err(|source| CliError::File {
        action: "make the directory",
        path: run_root.to_owned(),
        source,
    })?;
    let path = run_root.join(LOG);
    File::options().create(true).append(true).mode(0o600).open(&path).map_err(|source| CliError::File {
        action: "open",
        path,
        source,
    })
}

fn last_line(log: &Path) -> Option<String> {
    let lines = BufReader::new(File::open(log).ok()?).lines();
    lines.map_while(Result::<String, io::Error>::ok).filter(|line| !line.trim().is_empty()).last()
}
