//! `start --replace`: another supervisor takes the place of the one that runs. Containers and their clients do not notice.
//!
//! One that does not answer is killed, and only that: by a pidfd that was made before it was asked, of the process that listens at
//! the socket and has the locked file open. Whatever else goes wrong kills nobody.

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    time::{Duration, Instant},
};

use mysup_ipc::api::{Request, Response};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{
    client::{Client, Instance},
    error::CliError,
    launch::{self, Launched},
    output,
};
use crate::{error::chain, shim_link::spawn::Spawner};

/// How long a supervisor may take to say that it ends, and then to end. It waits for no disk longer than 5 s.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(5);
/// How long this may take in all: when several do it at once, one comes through after the other.
const ALL: Duration = Duration::from_secs(60);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Ends the supervisor, if one runs, and starts another. Whoever was faster with the start is replaced in turn.
///
/// # Errors
/// If the old one cannot be ended, or no other can be started.
pub(crate) fn replace(instance: &Instance) -> Result<u8, CliError> {
    // Before the old one goes: a new one without a shim could not take its place.
    Spawner::find().map_err(|error| CliError::Launch { reason: chain(&error) })?;
    let deadline = Instant::now() + ALL;
    loop {
        if let Some(client) = instance.connect_running()? {
            end(instance, client)?;
        }
        match launch::in_background(instance)? {
            Launched::Ready => return Ok(0),
            Launched::Refused(reason) if Instant::now() >= deadline => {
                let reason = format!("{reason}, and does not end: it may have to be killed");
                return Err(CliError::Launch { reason });
            }
            // Its lock ends a moment after its socket; or another one was faster.
            Launched::Refused(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Has a supervisor end, or kills it if it does not answer.
fn end(instance: &Instance, client: Client) -> Result<(), CliError> {
    let holder = holder(instance, client.peer());
    let mut client = client.asked_once();
    match client.answer_within(&Request::Shutdown { containers: false }, ANSWER) {
        Ok(Some(Response::Done)) => {
            // That it hangs up is its end.
            client.wait_for_end();
            Ok(())
        }
        Ok(Some(_)) => Err(CliError::WrongAnswer),
        Ok(None) => kill(instance, holder),
        // It has ended, or is about to.
        Err(CliError::NoAnswer | CliError::Unread) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A supervisor that can be killed: no other process can be meant.
struct Holder {
    pid: Pid,
    pidfd: OwnedFd,
}

/// The process that listens at the socket, if it is also the one that is named in the locked file, and has that open.
fn holder(instance: &Instance, listener: Option<i32>) -> Option<Holder> {
    let [lock, _] = instance.config.locks();
    let named: i32 = fs::read_to_string(&lock).ok()?.trim().parse().ok()?;
    if listener != Some(named) {
        return None;
    }
    let pid = Pid::from_raw(named)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let is_holder = has_open(named, &lock);
    // It lived before and lives after the look, so it was looked at, and not one with its number.
    (is_holder && is_alive(&pidfd)).then_some(Holder { pid, pidfd })
}

fn has_open(pid: i32, file: &Path) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    let Ok(wanted) = fs::metadata(file).map(identity) else { return false };
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    // Through the link to the open file itself: where its path leads by now does not matter.
    entries.filter_map(|entry| fs::metadata(entry.path()).ok()).any(|found| identity(found) == wanted)
}

/// A pidfd is readable when its process has ended: pidfd_open(2).
fn is_alive(pidfd: &OwnedFd) -> bool {
    matches!(poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO), Ok(0))
}

fn kill(instance: &Instance, holder: Option<Holder>) -> Result<(), CliError> {
    let seconds = ANSWER.as_secs();
    let Some(Holder { pid, pidfd }) = holder else {
        let [lock, _] = instance.config.locks();
        let reason = format!(
            "the one that runs has not answered for {seconds} s, and that it is the process named in {} cannot be proven: end it",
            lock.display()
        );
        return Err(CliError::Launch { reason });
    };
    output::complain(&format!(
        "the supervisor (pid {}) has not answered for {seconds} s and is killed; containers go on",
        pid.as_raw_nonzero()
    ));
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => return Err(CliError::Call { action: "kill the supervisor", source: errno.into() }),
    }
    // One that stays all the same keeps its lock: the start says so.
    let patience = PollTimeout::try_from(DEATH).unwrap_or(PollTimeout::MAX);
    let _ = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], patience);
    Ok(())
}
