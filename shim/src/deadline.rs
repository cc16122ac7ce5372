//! The end of a stop: when the program is killed. It is on record before the program is asked, so that a shim that goes on for
//! a dead one keeps it, also when the supervisor died with that.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use mysup_ipc::{
    layout,
    record::{self, Durability},
    stop::StopUnderWay,
};

use crate::sys::time::monotonic_clock;

/// When a program that was asked to stop is killed, if ever.
#[derive(Debug)]
pub(crate) struct Deadline {
    run_directory: OwnedFd,
    kill_at: Option<Instant>,
}

impl Deadline {
    /// None yet; it will be on record in this run directory.
    pub(crate) fn new(run_directory: OwnedFd) -> Self {
        Self { run_directory, kill_at: None }
    }

    /// When that is.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.kill_at
    }

    /// A stop begins: its program is to be asked after this. An earlier end wins over one that was asked for before; nobody can
    /// prolong it.
    pub(crate) fn begin(&mut self, signal: u8, grace_ms: Option<u64>) {
        // A grace beyond the end of time is no end.
        let end = grace_ms.and_then(|grace| Instant::now().checked_add(Duration::from_millis(grace)));
        self.kill_at = match (self.kill_at, end) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
        let left = self.kill_at.map(|at| milliseconds(at.saturating_duration_since(Instant::now())));
        let kill_at = left.map(|left| monotonic_clock().saturating_add(left));
        let under_way = StopUnderWay { signal, kill_at };
        // The program is asked all the same: what would be forgotten by that is kept as long as we live.
        if let Err(error) =
            record::write(self.run_directory.as_fd(), layout::STOP, &under_way, Durability::Volatile)
        {
            tracing::warn!(%error, "a stop cannot be recorded, continuing");
        }
    }

    /// Whether it is over, once.
    pub(crate) fn take_over(&mut self) -> bool {
        let over = self.kill_at.is_some_and(|at| at <= Instant::now());
        if over {
            self.kill_at = None;
        }
        over
    }
}

/// The stop that was under way when a shim died: its signal, and the milliseconds that are left of its grace.
pub(crate) fn under_way(run_directory: &str) -> Option<(u8, Option<u64>)> {
    match record::read::<StopUnderWay>(&Path::new(run_directory).join(layout::STOP)) {
        Ok(found) => found.map(|stop| {
            let left = stop.kill_at.map(|at| at.saturating_sub(monotonic_clock()));
            (stop.signal, left)
        }),
        Err(error) => {
            tracing::warn!("{}, continuing without the stop", crate::error::chain(&error));
            None
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
