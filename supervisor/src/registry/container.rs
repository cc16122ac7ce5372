//! One container in the registry: its record, where it is, and who waits for it.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use mysup_ipc::{
    container::{ContainerInfo, ContainerState},
    error::{ErrorCode, WireError},
    exit::{ExitReport, ExitStatus},
    id::{ContainerId, ContainerName},
    teardown::{Outcome, StepKind, TeardownReport, TeardownStep},
};
use tokio::sync::oneshot;

use super::{
    Reply, plan,
    record::Record,
    state::{Live, State},
};
use crate::{
    config::{Config, text},
    shim_link::{Command, Link},
    sys,
};

/// SIGKILL.
pub(crate) const KILL: u8 = 9;

/// What the registry knows of one container.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its id.
    pub(crate) id: ContainerId,
    /// Its record, or what is wrong with it.
    pub(crate) record: Result<Arc<Record>, String>,
    /// Where it is.
    pub(crate) state: State,
    /// How it last ended, or why it could not be started.
    pub(crate) exit: Option<ExitReport>,
    /// Its last teardown, or the one under way.
    pub(crate) teardown: Option<TeardownReport>,
    /// To its shim.
    pub(crate) link: Option<Link>,
    /// Why its start failed: told when it is torn down.
    pub(crate) failure: Option<WireError>,
    /// A stop that came before the program ran.
    pub(crate) early_stop: Option<(u8, Option<u64>)>,
    /// The stop that its shim was told of: one that adopts the container knows nothing of it.
    pub(crate) sent_stop: Option<SentStop>,
    /// What a silent shim was asked.
    pub(crate) silence: String,
    /// It was to be removed by force, and something stood in the way: it goes when that is over.
    pub(crate) doomed: bool,
    /// Its anonymous volumes are to go then, too.
    pub(crate) volumes_go: bool,
    /// A job writes one of its records.
    pub(crate) busy: bool,
    /// Somebody reads its write layer while it is at rest.
    held: Weak<()>,
    /// Those who wait for its program to run.
    pub(crate) starters: Vec<Reply<()>>,
    /// Those who wait for the end of its teardown.
    pub(crate) watchers: Vec<Reply<()>>,
    /// Those who wait for its end.
    pub(crate) waiters: Vec<oneshot::Sender<ExitReport>>,
}

/// A container stays at rest for as long as there is one: it is neither started nor removed.
#[derive(Debug)]
pub(crate) struct Hold(#[expect(dead_code, reason = "what counts is its end")] Arc<()>);

/// A stop under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentStop {
    signal: u8,
    /// When the shim kills; `None` waits for ever.
    kill_at: Option<Instant>,
}

impl Container {
    /// A container that nobody waits for yet.
    pub(crate) fn new(id: ContainerId, record: Result<Arc<Record>, String>, state: State) -> Self {
        Self {
            id,
            record,
            state,
            exit: None,
            teardown: None,
            link: None,
            failure: None,
            early_stop: None,
            sent_stop: None,
            silence: String::new(),
            doomed: false,
            volumes_go: false,
            busy: false,
            held: Weak::new(),
            starters: Vec::new(),
            watchers: Vec::new(),
            waiters: Vec::new(),
        }
    }

    /// Whether it can be neither started nor removed for the moment.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy || self.held.strong_count() > 0
    }

    /// Keeps it at rest; several may.
    pub(crate) fn hold(&mut self) -> Hold {
        let hold = self.held.upgrade().unwrap_or_default();
        self.held = Arc::downgrade(&hold);
        Hold(hold)
    }

    /// Its name, unless its record is damaged.
    pub(crate) fn name(&self) -> Option<&ContainerName> {
        self.record.as_ref().ok().map(|record| &record.name)
    }

    /// How it is called in messages.
    pub(crate) fn label(&self) -> String {
        self.name().map_or_else(|| self.id.short().to_owned(), ToString::to_string)
    }

    /// Nothing of it is to remain after its end.
    pub(crate) fn is_ephemeral(&self) -> bool {
        self.doomed || self.record.as_ref().is_ok_and(|record| record.config.remove)
    }

    /// It is to be killed and removed whenever that can be done.
    pub(crate) fn doom(&mut self) {
        self.doomed = true;
        // A shim that does not answer may still read; one that comes back is told again.
        let _ = self.send_stop(KILL, Some(0));
    }

    /// As the user sees it.
    pub(crate) fn info(&self, own: &Config) -> ContainerInfo {
        let places = own.places(&self.id);
        let record = self.record.as_ref().ok();
        let program = record.map(|record| record.program.clone());
        let (args, env, workdir) =
            program.map(|program| (program.args, program.env, program.workdir)).unwrap_or_default();
        ContainerInfo {
            id: self.id.clone(),
            name: self.name().cloned(),
            created_at: record.map_or(0, |record| record.created_at),
            config: record.map(|record| plan::with_directories(record.config.clone(), own)),
            image: record.and_then(|record| record.image.clone()),
            args,
            env,
            workdir,
            state: self.shown_state(),
            exit: self.exit.clone(),
            teardown: self.shown_teardown(),
            state_dir: text(&places.state),
            run_dir: text(&places.run),
        }
    }

    /// Its last teardown, or what stands in the way of one.
    fn shown_teardown(&self) -> Option<TeardownReport> {
        let mut report = self.teardown.clone();
        if let State::Unreachable(_) = self.state {
            let step = obstacle(format!("its shim does not answer: {}", self.silence));
            report.get_or_insert_default().steps.push(step);
        }
        report
    }

    /// docker's idea of where it is.
    pub(crate) fn shown_state(&self) -> ContainerState {
        if let Err(reason) = &self.record {
            return ContainerState::Damaged(reason.clone());
        }
        match &self.state {
            State::New | State::Created | State::Removing { ran: false } => ContainerState::Created,
            State::Exited | State::Removing { ran: true } => ContainerState::Exited,
            State::Unreachable(_) => ContainerState::Unreachable,
            State::Live(live) => match *live {
                Live::Starting | Live::Held { .. } => ContainerState::Starting,
                Live::Running { pid, since } => ContainerState::Running { pid, since },
                Live::Stopping { pid, since } => ContainerState::Stopping { pid, since },
                Live::TearingDown { .. } => ContainerState::TearingDown,
                Live::Leftover { .. } => ContainerState::Leftover,
            },
        }
    }

    /// Its init on the host, while it runs.
    pub(crate) fn running_pid(&self) -> Option<u32> {
        match &self.state {
            State::Live(Live::Running { pid, .. } | Live::Stopping { pid, .. }) => Some(*pid),
            State::New
            | State::Created
            | State::Exited
            | State::Removing { .. }
            | State::Unreachable(_)
            | State::Live(
                Live::Starting | Live::Held { .. } | Live::TearingDown { .. } | Live::Leftover { .. },
            ) => None,
        }
    }

    /// Its shim has said its last word, which is handled next.
    pub(crate) fn is_over(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_done)
    }

    /// Tells its shim to stop the program; false if that cannot be done. As in the shim, an earlier end wins.
    pub(crate) fn send_stop(&mut self, signal: u8, grace_ms: Option<u64>) -> bool {
        if !self.command(Command::Stop { signal, grace_ms }) {
            return false;
        }
        // A grace beyond the end of time is no end.
        let end = grace_ms.and_then(|grace| Instant::now().checked_add(Duration::from_millis(grace)));
        let before = self.sent_stop.and_then(|sent| sent.kill_at);
        let kill_at = match (before, end) {
            (Some(before), Some(end)) => Some(before.min(end)),
            (one, other) => one.or(other),
        };
        self.sent_stop = Some(SentStop { signal, kill_at });
        true
    }

    /// Tells a shim that has adopted the container of the stop under way, with what is left of its grace. Whether it knows of
    /// one from the dead shim, which may have died over a later one: then only the end counts, and the program is not asked
    /// once more.
    pub(crate) fn send_stop_again(&mut self, is_known: bool) -> bool {
        let Some(SentStop { signal, kill_at }) = self.sent_stop else { return false };
        // The null signal: kill(2).
        let signal = if is_known { 0 } else { signal };
        let left = kill_at.map(|at| at.saturating_duration_since(Instant::now()).as_millis());
        let grace_ms = left.map(|left| u64::try_from(left).unwrap_or(u64::MAX));
        self.send_stop(signal, grace_ms)
    }

    /// A step of a teardown; of a step that is tried again only the last try is kept.
    pub(crate) fn note_step(&mut self, step: TeardownStep) {
        let steps = &mut self.teardown.get_or_insert_default().steps;
        steps.retain(|old| (old.kind, &old.target) != (step.kind, &step.target));
        steps.push(step);
    }

    /// The program has ended: those who wait are told.
    pub(crate) fn tell_exit(&mut self, report: &ExitReport) {
        for waiter in self.waiters.drain(..) {
            // A client that hung up does not wait any more.
            let _ = waiter.send(report.clone());
        }
    }

    /// The program runs: those who started it are told.
    pub(crate) fn tell_started(&mut self) {
        for starter in self.starters.drain(..) {
            // A client that hung up does not wait any more.
            let _ = starter.send(Ok(()));
        }
    }

    /// The program will not run: those who started it are told why.
    pub(crate) fn tell_not_started(&mut self, error: &WireError) {
        for starter in self.starters.drain(..) {
            // A client that hung up does not wait any more.
            let _ = starter.send(Err(error.clone()));
        }
    }

    /// The teardown has come to an end, good or bad: those who watch are told.
    pub(crate) fn tell_settled(&mut self, outcome: &Result<(), WireError>) {
        for watcher in self.watchers.drain(..) {
            // A client that hung up does not wait any more.
            let _ = watcher.send(outcome.clone());
        }
    }

    /// What is left, and who holds it.
    pub(crate) fn leftover_error(&self) -> WireError {
        let message =
            format!("the teardown of container {} is not finished: {}", self.label(), self.obstacles());
        WireError::new(ErrorCode::Leftover, message)
    }

    /// It was killed, and does not end.
    pub(crate) fn not_ending_error(&self) -> WireError {
        let message = format!("container {} does not end: {}", self.label(), self.obstacles());
        WireError::new(ErrorCode::Timeout, message)
    }

    /// What stands in the way of its end.
    fn obstacles(&self) -> String {
        let mut reasons = Vec::new();
        for step in self.teardown.iter().flat_map(TeardownReport::failures) {
            let Outcome::Failed { error, holders } = &step.outcome else { continue };
            let mut reason = format!("{} {}: {error}", step.kind.name(), step.target);
            if !holders.is_empty() {
                let named: Vec<String> =
                    holders.iter().map(|holder| format!("{} (pid {})", holder.program, holder.pid)).collect();
                reason.push_str(&format!(", held by {}", named.join(", ")));
            }
            reasons.push(reason);
        }
        if reasons.is_empty() { "the reason is not known".to_owned() } else { reasons.join("; ") }
    }

    /// Its shim does not answer.
    pub(crate) fn unreachable_error(&self) -> WireError {
        let message = format!("the shim of container {} does not answer: {}", self.label(), self.silence);
        WireError::new(ErrorCode::Timeout, message)
    }
}

/// A step that could not even be tried.
pub(crate) fn obstacle(reason: String) -> TeardownStep {
    TeardownStep {
        kind: StepKind::Processes,
        target: String::new(),
        at: sys::now(),
        took: 0,
        outcome: Outcome::Failed { error: reason, holders: Vec::new() },
    }
}

/// Whether a report is of a program that ran. One whose end is unknown may have.
pub(crate) fn ran(report: &ExitReport) -> bool {
    report.started_at.is_some() || report.status == ExitStatus::Unknown
}

/// The report of a start that failed, for the time until the shim's own, or where there is none: docker's codes.
pub(crate) fn failed_start(error: &WireError, at: u64) -> ExitReport {
    let code = match error.code {
        ErrorCode::CommandNotFound => 127,
        ErrorCode::CommandNotExecutable => 126,
        ErrorCode::NotFound
        | ErrorCode::Ambiguous
        | ErrorCode::Conflict
        | ErrorCode::Invalid
        | ErrorCode::System
        | ErrorCode::Timeout
        | ErrorCode::Leftover
        | ErrorCode::Protocol
        | ErrorCode::Unknown => 128,
    };
    ExitReport {
        status: ExitStatus::Code(code),
        oom_killed: false,
        started_at: None,
        finished_at: at,
        error: error.message.clone(),
    }
}
