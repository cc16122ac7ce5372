//! What links and jobs tell the registry, and whom it tells.

use std::sync::Arc;

use mysup_ipc::{
    error::{ErrorCode, WireError},
    exit::ExitReport,
    id::ContainerId,
    shim::ShimReport,
    teardown::{Outcome, TeardownReport, TeardownStep},
};

use super::{
    Registry,
    container::{Container, KILL, failed_start, obstacle, ran},
    jobs::JobDone,
    record::Record,
    state::{self, Live, Said, State, Want},
    volumes::Anonymous,
};
use crate::{
    shim_link::{Command, Event, LinkMessage},
    sys,
};

impl Registry {
    /// A link says something about its container.
    pub(super) fn link_said(&mut self, message: LinkMessage) {
        let LinkMessage { id, epoch, event } = message;
        let Some(container) = self.containers.get_mut(&id) else { return };
        if container.link.as_ref().is_none_or(|link| link.epoch != epoch) {
            tracing::debug!(container = %id, ?event, "an old link spoke, ignored");
            return;
        }
        let said = said(&event);
        match state::next(&container.state, state::Event::Said(said)) {
            Ok(state) => container.state = state,
            Err(refusal) => {
                tracing::warn!(container = %id, ?said, state = ?container.state, ?refusal, "a shim spoke out of order, continuing");
                return;
            }
        }
        log(&id, &event);
        match event {
            Event::Held { .. } => {}
            Event::Started { .. } => container.started(),
            Event::Failed(error) => container.failed(error),
            Event::Exited(report) => container.exited(report),
            Event::Lost => container.teardown = None,
            Event::Step(step) => container.step(step),
            Event::Leftover(report) => container.left_over(report),
            Event::Silent(what) => container.silent(what),
            Event::Stands(report) => container.stands(report),
            Event::GaveUp(reason) => {
                container.link = None;
                container.left_over(TeardownReport { steps: vec![obstacle(reason)] });
            }
            Event::NotLaunched(error) => {
                container.link = None;
                if let Ok(record) = &container.record {
                    // Whether that was written is not known: the next start writes it again.
                    container.record = Ok(Arc::new(Record { launched: false, ..Record::clone(record) }));
                }
                container.failed(error);
                self.finish(&id);
            }
            Event::TornDown(report) => {
                container.link = None;
                container.teardown = Some(report);
                self.finish(&id);
            }
        }
    }

    /// Nothing is left of a container's last run: what must be on disk before anybody is told gets there.
    pub(super) fn finish(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get(id) else { return };
        if container.is_ephemeral() {
            let leaving = self.leaving_with(container, &Anonymous::Stay).unwrap_or_else(|error| {
                // The container goes all the same: its shim has removed it already.
                tracing::warn!(container = %id, error = %error.message, "volumes stay for now, continuing");
                self.means.volumes.owe();
                Vec::new()
            });
            let Some(container) = self.containers.get_mut(id) else { return };
            if let Ok(state) = state::next(&container.state, state::Event::Wanted(Want::Remove)) {
                container.state = state;
                self.job_bury(id, leaving);
            }
            return;
        }
        let Some(container) = self.containers.get_mut(id) else { return };
        match (&container.failure, container.exit.clone()) {
            (Some(_), Some(report)) => {
                container.busy = true;
                self.job_record_failure(id, report);
            }
            (Some(_) | None, None) | (None, Some(_)) => container.settle(),
        }
    }

    /// A job on disk has ended.
    pub(super) fn job_done(&mut self, done: JobDone) {
        match done {
            JobDone::Created(id, result, reply) => self.created(&id, result, reply),
            JobDone::Listed(listed, reply) => self.listed(listed, reply),
            JobDone::TakenIn(found, reply) => self.taken_in(found, reply),
            JobDone::Buried(id, result) => self.buried(&id, result),
            JobDone::FailureRecorded(id, result) => {
                let Some(container) = self.containers.get_mut(&id) else { return };
                container.busy = false;
                match result {
                    Ok(report) => container.exit = Some(report),
                    Err(error) => {
                        tracing::warn!(container = %id, error = %error.message, "cannot record a failed start, continuing");
                    }
                }
                container.settle();
            }
            JobDone::Renamed(id, record, result, reply) => {
                let answer = match (result, self.containers.get_mut(&id)) {
                    (Ok(()), Some(container)) => {
                        container.busy = false;
                        let old = container.name().cloned();
                        container.record = Ok(record);
                        if let Some(old) = old {
                            self.names.remove(&old);
                        }
                        Ok(())
                    }
                    (Ok(()), None) => {
                        self.names.remove(&record.name);
                        Err(super::gone(&id))
                    }
                    (Err(error), found) => {
                        if let Some(container) = found {
                            container.busy = false;
                        }
                        self.names.remove(&record.name);
                        Err(error)
                    }
                };
                // A client that hung up needs no answer.
                let _ = reply.send(answer);
            }
        }
    }

    fn created(&mut self, id: &ContainerId, result: Result<(), WireError>, reply: super::Reply<ContainerId>) {
        let answer = match result {
            Ok(()) => {
                if let Some(container) = self.containers.get_mut(id)
                    && let Ok(state) = state::next(&container.state, state::Event::Written)
                {
                    container.state = state;
                    tracing::info!(container = %id, name = %container.label(), "created");
                }
                Ok(id.clone())
            }
            Err(error) => {
                self.forget(id);
                Err(error)
            }
        };
        // A client that hung up needs no answer.
        let _ = reply.send(answer);
    }

    fn buried(&mut self, id: &ContainerId, result: Result<(), WireError>) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Some(failure) = container.failure.take() {
            container.tell_not_started(&failure);
        }
        // Also after an error: it may be in the trash and not synced.
        self.means.sweeper.wake();
        match result {
            Ok(()) => {
                self.forget(id);
                self.means.freed.notify_one();
            }
            Err(error) => {
                tracing::warn!(container = %id, error = %error.message, "cannot remove a container, continuing");
                if let Ok(state) = state::next(&container.state, state::Event::NotRemoved) {
                    container.state = state;
                }
                container.tell_settled(&Err(error));
            }
        }
    }
}

impl Container {
    fn started(&mut self) {
        self.tell_started();
        if let Some((signal, grace_ms)) = self.early_stop.take()
            && let Ok(state) = state::next(&self.state, state::Event::Wanted(Want::Stop))
        {
            if self.send_stop(signal, grace_ms) {
                self.state = state;
            } else if !self.is_over() {
                self.tell_settled(&Err(self.unreachable_error()));
            }
        }
    }

    fn failed(&mut self, error: WireError) {
        let report = failed_start(&error, sys::now());
        self.failure = Some(error);
        self.tell_exit(&report);
        self.exit = Some(report);
    }

    fn exited(&mut self, report: ExitReport) {
        if ran(&report) {
            // Even if the word of it was lost with its shim.
            self.tell_started();
        } else if self.failure.is_none() {
            self.failure = Some(WireError::new(ErrorCode::System, report.error.clone()));
        }
        self.tell_exit(&report);
        self.exit = Some(report);
    }

    fn step(&mut self, step: TeardownStep) {
        let is_in_the_way = step.outcome != Outcome::Done;
        self.note_step(step);
        if is_in_the_way && matches!(self.state, State::Live(Live::Running { .. } | Live::Stopping { .. })) {
            self.tell_settled(&Err(self.not_ending_error()));
        }
    }

    fn left_over(&mut self, report: TeardownReport) {
        self.teardown = Some(report);
        if let Some(failure) = self.failure.take() {
            self.tell_not_started(&failure);
        }
        self.tell_settled(&Err(self.leftover_error()));
    }

    fn silent(&mut self, what: String) {
        self.silence = what;
        let error = self.unreachable_error();
        self.tell_not_started(&error);
        self.tell_settled(&Err(error));
    }

    fn stands(&mut self, report: ShimReport) {
        if let Some(exit) = report.exit {
            self.exited(exit);
        } else if matches!(self.state, State::Live(Live::Running { .. } | Live::Stopping { .. })) {
            self.started();
            if self.doomed {
                // It may have been asked while it did not listen.
                let _ = self.send_stop(KILL, Some(0));
            }
            if let Ok(state) = state::next(&self.state, state::Event::Wanted(Want::Stop))
                && self.send_stop_again(report.stopping)
            {
                self.state = state;
            }
        }
        if let Some(leftover) = report.leftover {
            self.teardown = Some(leftover);
            // A new supervisor tries what was left once more; a shim that takes no command tries by itself.
            let _ = self.command(Command::Retry);
        }
    }

    /// All that was to be written is written: everybody is told.
    fn settle(&mut self) {
        let failure = self.failure.take().unwrap_or_else(|| {
            WireError::new(ErrorCode::System, "the container was stopped before its program was started")
        });
        self.tell_not_started(&failure);
        self.tell_settled(&Ok(()));
    }
}

/// What an event means to the state.
fn said(event: &Event) -> Said {
    match event {
        Event::NotLaunched(_) => Said::NotLaunched,
        Event::Held { pid } => Said::Held { pid: *pid },
        Event::Started { at } => Said::Started { at: *at },
        Event::Failed(_) => Said::Failed,
        Event::Exited(report) => Said::Ended { ran: ran(report) },
        Event::Lost => Said::Lost,
        Event::Step(_) => Said::Step,
        Event::TornDown(_) => Said::TornDown,
        Event::Leftover(_) | Event::GaveUp(_) => Said::Leftover,
        Event::Silent(_) => Said::Silent,
        Event::Stands(report) => Said::Stands(standing(report)),
    }
}

/// Where a shim says it is.
fn standing(report: &ShimReport) -> Live {
    let ran = report.started_at.is_some() || report.exit.as_ref().is_some_and(ran);
    match (&report.leftover, &report.exit, report.init_pid, report.started_at) {
        (Some(_), _, _, _) => Live::Leftover { ran },
        (None, Some(_), _, _) => Live::TearingDown { ran },
        (None, None, Some(pid), Some(since)) if report.stopping => Live::Stopping { pid, since },
        (None, None, Some(pid), Some(since)) => Live::Running { pid, since },
        (None, None, Some(pid), None) => Live::Held { pid },
        // Its init has ended, and the record of it is on its way.
        (None, None, None, Some(_)) => Live::TearingDown { ran: true },
        (None, None, None, None) => Live::Starting,
    }
}

fn log(id: &ContainerId, event: &Event) {
    match event {
        Event::Started { .. } => tracing::info!(container = %id, "started"),
        Event::Exited(report) => {
            tracing::info!(container = %id, status = ?report.status, error = %report.error, "ended");
        }
        Event::TornDown(_) => tracing::info!(container = %id, "torn down"),
        Event::Failed(error) | Event::NotLaunched(error) => {
            tracing::info!(container = %id, error = %error.message, "could not be started");
        }
        Event::Lost => {
            tracing::warn!(container = %id, "its shim is dead, another one takes it down, continuing")
        }
        Event::Leftover(report) => {
            tracing::warn!(container = %id, steps = ?report.failures().collect::<Vec<_>>(), "not all could be taken down, continuing");
        }
        Event::Silent(what) => tracing::warn!(container = %id, %what, "its shim does not answer, continuing"),
        Event::GaveUp(reason) => {
            tracing::warn!(container = %id, %reason, "cannot be taken down now, continuing")
        }
        Event::Held { .. } | Event::Step(_) | Event::Stands(_) => {
            tracing::debug!(container = %id, ?event, "its shim says");
        }
    }
}
