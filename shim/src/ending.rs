//! The last phase: teardown until nothing is left, however long something holds on. The shim stays for it, keeps its
//! mount namespace, answers, and tries again by itself: when the cause goes away it heals without a command.

use std::{
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use mysup_ipc::{
    layout, point,
    record::{self, Durability},
    shim::{FromShim, ToShim},
};

use crate::{
    error::SysError,
    event_loop::{Event, Watch},
    hub::Hub,
    life::in_time,
    prepare::LifeLock,
    teardown::Teardown,
};

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// What is still busy after this long is reported. Most holders (a process on its way out, an indexer) are gone sooner.
const REPORT_AFTER: Duration = Duration::from_secs(1);
/// A supervisor that does not read its last messages for so long finds the records instead.
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(5);

/// The end of one container.
pub(crate) struct Ending<'a> {
    teardown: Teardown,
    /// The state directory, if a record stays there.
    record_in: Option<BorrowedFd<'a>>,
    lock: LifeLock,
    began: Instant,
    pause: Duration,
    reported: bool,
}

impl<'a> Ending<'a> {
    /// Nothing is done yet.
    pub(crate) fn new(teardown: Teardown, record_in: Option<BorrowedFd<'a>>, lock: LifeLock) -> Self {
        Self { teardown, record_in, lock, began: Instant::now(), pause: FIRST_RETRY, reported: false }
    }

    /// Tears down, tries again until it is done, tells everybody, and waits until attached clients have all their output.
    pub(crate) fn run(mut self, mut hub: Hub) -> Result<(), SysError> {
        while !self.teardown.attempt(&mut |step| hub.tell(&FromShim::Step(step.clone()))) {
            if !self.reported && self.began.elapsed() >= REPORT_AFTER {
                self.report(&mut hub);
            }
            self.pause = (self.pause * 2).min(LAST_RETRY);
            if self.wait_for_retry(&mut hub)? {
                // Asked for: the asker waits for the outcome of this attempt.
                self.reported = false;
                self.began = Instant::now().checked_sub(REPORT_AFTER).unwrap_or(self.began);
            }
        }
        point::before(point::Step::TeardownRecord);
        self.write_record();
        point::after(point::Step::TeardownRecord);
        // Before anybody hears of it: the container may be started again at once, however long we linger.
        drop(self.lock);
        point::before(point::Step::Farewell);
        hub.torn_down(self.teardown.report());
        linger(hub)?;
        point::after(point::Step::Farewell);
        Ok(())
    }

    fn report(&mut self, hub: &mut Hub) {
        self.reported = true;
        self.write_record();
        hub.leftover(self.teardown.report());
    }

    fn write_record(&self) {
        let Some(state) = self.record_in else { return };
        // Not durable: when it is lost, the teardown is found done or is done again.
        let write = || record::write(state, layout::TEARDOWN, self.teardown.report(), Durability::Volatile);
        // Once more: there are errors of the moment.
        let written = write().or_else(|_| write());
        if let Err(error) = written {
            tracing::warn!(%error, "the teardown record cannot be written, continuing");
        }
    }

    /// Serves connections until the pause is over (false) or somebody asks for a try (true).
    fn wait_for_retry(&mut self, hub: &mut Hub) -> Result<bool, SysError> {
        let deadline = in_time(self.pause);
        while deadline.is_none_or(|deadline| Instant::now() < deadline) {
            if serve(hub, deadline)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// One turn of the event loop without a program. Returns whether a try was asked for.
fn serve(hub: &mut Hub, deadline: Option<Instant>) -> Result<bool, SysError> {
    let mut watch = Watch::default();
    hub.watch(&mut watch, |_| false);
    watch.until(deadline);
    let mut asked = false;
    for event in watch.wait()? {
        if event == Event::Signal {
            // The shim ends when it is done, not before: what is left would be forgotten.
            hub.take_signal();
        }
        for message in hub.handle(event) {
            asked |= message == ToShim::RetryTeardown;
        }
    }
    hub.forget_closed();
    Ok(asked)
}

/// Waits until attached clients have read everything (a pager may take an hour; the container is gone all the same) and
/// the supervisor, within bounds, too.
fn linger(mut hub: Hub) -> Result<(), SysError> {
    let deadline = in_time(SUPERVISOR_PATIENCE);
    let in_time = || deadline.is_some_and(|deadline| Instant::now() < deadline);
    while hub.has_unsent_output() || (hub.has_unsent_reports() && in_time()) {
        let until = if hub.has_unsent_output() { None } else { deadline };
        serve(&mut hub, until)?;
    }
    Ok(())
}
