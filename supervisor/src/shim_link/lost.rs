//! What becomes of a container whose shim died: the true end of its init is found out, or it is said to be unknown.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use mysup_ipc::{
    exit::{ExitReport, ExitStatus},
    init_status::{self, InitStatus},
    layout, point,
    record::{self, Durability, ReadError},
};
use tokio::time::{sleep, timeout};

use super::{children::Children, journal, start};
use crate::{config::Places, error::chain, sys};

/// A killed init that has not ended by now hangs in the kernel; its status will then be unknown.
const INIT_END: Duration = Duration::from_secs(10);
/// How long the init's other parent (PID 1, when an older supervisor started the shim) may take to reap it.
const REAPED: Duration = Duration::from_secs(1);
/// Between two looks for that.
const LOOK: Duration = Duration::from_millis(10);
/// docker's code of a container that could not be started.
const NOT_STARTED: ExitStatus = ExitStatus::Code(128);

/// What is known of an init.
#[derive(Debug, Default)]
pub(super) struct Init {
    /// While it lives.
    pub(super) pidfd: Option<OwnedFd>,
    /// Of its input and output, held for a shim that adopts.
    pub(super) kept: Vec<OwnedFd>,
    /// On the host.
    pub(super) pid: Option<u32>,
    /// When it was let go, nanoseconds since 1970.
    pub(super) started_at: Option<u64>,
}

impl Init {
    /// Sends it a signal; false if we cannot reach it ourselves.
    pub(super) fn signal(&self, number: u8) -> bool {
        self.pidfd.as_ref().is_some_and(|pidfd| sys::signal(pidfd.as_fd(), number).is_ok())
    }

    /// It has ended: nothing of it is held any more. A terminal of which we kept a side would keep its mount busy.
    pub(super) fn let_go(&mut self) {
        self.pidfd = None;
        self.kept.clear();
    }
}

/// How the container of a dead shim ended; afterwards its init has ended too, if we ever knew it.
pub(super) async fn ending(init: &mut Init, places: &Places, children: &Children) -> ExitReport {
    let found = settle_init(init, children).await;
    init.let_go();
    let left = on_disk(places).await;
    if let Some(report) = left.recorded {
        // The first durable value wins, whatever was seen since.
        return report;
    }
    if let Some(error) = left.failure {
        // The init ends with docker's codes.
        let code = found.filter(|status| matches!(status, ExitStatus::Code(126..=128)));
        return not_started(code.unwrap_or(NOT_STARTED), error);
    }
    let Some(started_at) = init.started_at.or(left.released) else {
        return not_started(NOT_STARTED, "the shim was killed while it prepared the container".into());
    };
    if let Some(InitStatus { status, at }) = left.by_init {
        // It was about to leave by itself, even if it was killed on the way.
        return ExitReport {
            status,
            oom_killed: false,
            started_at: Some(started_at),
            finished_at: at,
            error: String::new(),
        };
    }
    let error = match found {
        Some(_) => "the shim was killed, and its container with it",
        None => "the shim was killed, and nothing that saw the container end has survived",
    };
    ExitReport {
        status: found.unwrap_or(ExitStatus::Unknown),
        oom_killed: false,
        started_at: Some(started_at),
        finished_at: sys::now(),
        error: error.into(),
    }
}

fn not_started(status: ExitStatus, error: String) -> ExitReport {
    ExitReport { status, oom_killed: false, started_at: None, finished_at: sys::now(), error }
}

/// The end of an init that no new shim could adopt: it is killed, for nobody would keep its output and its end.
async fn settle_init(init: &mut Init, children: &Children) -> Option<ExitStatus> {
    let pidfd = match sys::watch(init.pidfd.take()?) {
        Ok(pidfd) => pidfd,
        Err(error) => {
            tracing::warn!(%error, pid = ?init.pid, "cannot watch an init, its status is not known, continuing");
            return None;
        }
    };
    if let Err(error) = sys::kill(pidfd.get_ref().as_fd()) {
        tracing::warn!(%error, pid = ?init.pid, "cannot kill the init of a dead shim, continuing");
    }
    match timeout(INIT_END, pidfd.readable()).await {
        Ok(Ok(_ended)) => {}
        Ok(Err(error)) => tracing::warn!(%error, pid = ?init.pid, "cannot wait for an init, continuing"),
        Err(_elapsed) => {
            tracing::warn!(pid = ?init.pid, "a killed init does not end, continuing");
            return None;
        }
    }
    // It has ended, SIGCHLD may still be on the way.
    children.reap();
    let by_pidfd = || sys::exit_of(pidfd.get_ref().as_fd());
    // KERNEL(6.15): the pidfd tells, whoever reaped it. Below, only its parent knows.
    let known = by_pidfd().or_else(|| init.pid.and_then(|pid| children.take(pid)));
    let status = match known {
        Some(status) => Some(status),
        None => timeout(REAPED, reaped_by_another(pidfd.get_ref().as_fd())).await.ok(),
    };
    status.map(ExitStatus::from_wait_status)
}

async fn reaped_by_another(pidfd: BorrowedFd<'_>) -> i32 {
    loop {
        if let Some(status) = sys::exit_of(pidfd) {
            return status;
        }
        sleep(LOOK).await;
    }
}

/// What a dead shim and its init left on disk.
#[derive(Default)]
struct Left {
    /// The exit record.
    recorded: Option<ExitReport>,
    /// When the journal says that the program was let go.
    released: Option<u64>,
    /// Why it was not executed all the same.
    failure: Option<String>,
    /// What PID 1 wrote, with `--init`.
    by_init: Option<InitStatus>,
}

async fn on_disk(places: &Places) -> Left {
    let places = places.clone();
    let read = move || Left {
        recorded: recorded_exit(&places),
        released: journal::released(&places.run).ok().flatten().map(|release| release.at),
        failure: start::failure(&places.run),
        by_init: File::open(&places.run).ok().and_then(|run| init_status::read(run.as_fd())),
    };
    // Fails only when the runtime ends, and we with it.
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

/// The exit record of a container, if there is a good one. Blocks.
pub(crate) fn recorded_exit(places: &Places) -> Option<ExitReport> {
    try_recorded_exit(places).unwrap_or_else(|error| {
        tracing::warn!(%error, "an exit record cannot be read, continuing");
        None
    })
}

/// The same, with an error if there is one that cannot be read now. Blocks.
///
/// # Errors
/// If we have no descriptor or memory for it. A disk that fails is as good as no record.
pub(super) fn try_recorded_exit(places: &Places) -> io::Result<Option<ExitReport>> {
    match record::read(&places.state.join(layout::EXIT)) {
        Ok(report) => Ok(report),
        Err(ReadError::Io { source, .. }) if is_shortage(&source) => Err(source),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "an exit record cannot be read, continuing");
            Ok(None)
        }
    }
}

/// Writes an exit record unless there is one: the first durable value wins, and one that is damaged is none. Only for
/// containers without a shim. Blocks.
///
/// # Errors
/// If it is not on disk.
pub(crate) fn record_exit(places: &Places, report: &ExitReport) -> io::Result<()> {
    match record::read::<ExitReport>(&places.state.join(layout::EXIT)) {
        Ok(None) | Err(ReadError::Damaged { .. } | ReadError::Short { .. }) => {}
        Ok(Some(_)) => return Ok(()),
        // It may be whole, and a disk that works again may give it.
        Err(ReadError::Io { source, .. }) => return Err(source),
    }
    let directory = File::open(&places.state)?;
    point::before(point::Step::UnseenExit);
    let written = record::write(directory.as_fd(), layout::EXIT, report, Durability::Durable);
    point::after(point::Step::UnseenExit);
    written
}

/// The same for an end that is about to be told; gives what is to be told. One whose directory is gone has left
/// nothing (`--rm`), and none is recorded. Blocks.
///
/// # Errors
/// As [`record_exit`].
pub(super) fn settled_exit(places: &Places, seen: ExitReport) -> io::Result<ExitReport> {
    match record_exit(places, &seen) {
        Ok(()) => Ok(recorded_exit(places).unwrap_or(seen)),
        Err(_)
            if places
                .state
                .symlink_metadata()
                .is_err_and(|error| error.kind() == io::ErrorKind::NotFound) =>
        {
            Ok(seen)
        }
        Err(error) => Err(error),
    }
}

/// Whether an error is about us, and will pass: open(2).
fn is_shortage(error: &io::Error) -> bool {
    /// `ENFILE` and `EMFILE`, which std has no kind for.
    const NO_DESCRIPTOR: [i32; 2] = [23, 24];
    error.kind() == io::ErrorKind::OutOfMemory
        || error.raw_os_error().is_some_and(|number| NO_DESCRIPTOR.contains(&number))
}
