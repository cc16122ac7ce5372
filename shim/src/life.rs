//! The life of a container as its shim leads it: a straight line from plan to nothing left.
//!
//! ```text
//! plan ─▶ make ─▶ held ─▶ release ─▶ running ─▶ exited ─▶ tear down ─▶ gone
//!           └────────failed──────────────────────────────▶ (tries again until nothing is left)
//! ```

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use mysup_ipc::{
    blocking::{Connection, Received},
    error::ErrorCode,
    exit::{ExitReport, ExitStatus},
    plan::{ContainerPlan, Lifetime},
    point,
    shim::{FromShim, ToShim},
    teardown::JournalEntry,
};

use crate::{
    cgroup::Directory,
    deadline::Deadline,
    ending::Ending,
    error::{Call, StartError, Step, SysError},
    hub::Hub,
    log,
    namespace::HostNamespace,
    peer::{Peer, PeerRole},
    prepare::{self, Ground, LifeLock, Made},
    running::{Init, Parent, Parts, Running},
    stdio::{Stdio, log_file::LogFile},
    sys::time::wall_clock,
    teardown::{OwedRecord, Places, Teardown},
};

/// A supervisor that starts a shim and then says nothing for so long is dead or broken.
const PLAN_PATIENCE: Duration = Duration::from_secs(60);

/// Leads one container from its plan to its end.
///
/// # Errors
/// If nothing could be made at all; everything later is told to the supervisor and ends in teardown.
pub(crate) fn run(control: UnixStream, attach: Option<UnixStream>) -> Result<(), SysError> {
    let (connection, plan) = match first_message(control)? {
        (connection, ToShim::Plan(plan)) => (connection, plan),
        (_, other) => return Err(protocol_error(&other)),
    };
    log::install(plan.id.as_str());
    let lock = LifeLock::take(&plan.state_dir)?;
    let mut hub = Hub::new(connection, plan.process.terminal.is_some())?;
    if let (Some(socket), Some(attached)) = (attach, plan.attach) {
        hub.add(Peer::new(socket, PeerRole::Attached(attached)).call(|| "fcntl(O_NONBLOCK)")?);
    }
    let mut ground = match Ground::prepare(&plan) {
        Ok(ground) => ground,
        Err(error) => {
            let failed = Err(error).step("prepare the run directory");
            return failed.or_else(|error: StartError| {
                hub.tell(&FromShim::Failed(error.to_wire()));
                Ok(())
            });
        }
    };
    hub.listen(&ground.listener)?;
    let mut host = None;
    let made = prepare::make(&plan, &mut ground, &lock, &mut host);
    let report = match made.and_then(|made| start(&plan, &mut ground, made, &mut hub)) {
        Ok(running) => running.until_exit(&mut hub)?,
        Err(error) => {
            tracing::info!("{}", crate::error::chain(&error));
            let error = error.to_wire();
            hub.tell(&FromShim::Failed(error.clone()));
            failed_report(error.code, error.message)
        }
    };
    let Ground { state, journal, proc, cgroups, .. } = ground;
    let entries = journal.entries().to_vec();
    finish(&plan, Remains { lock, state, entries, proc, host, cgroups }, &report, hub)
}

pub(crate) fn first_message(socket: UnixStream) -> Result<(Connection, ToShim), SysError> {
    socket.set_read_timeout(Some(PLAN_PATIENCE)).call(|| "setsockopt(SO_RCVTIMEO)")?;
    let mut connection = Connection::new(socket);
    match connection.receive() {
        Ok(Received::Message(message)) => Ok((connection, message)),
        Ok(Received::NotYet | Received::Closed) => {
            Err(SysError::new("receive a plan", std::io::Error::from(std::io::ErrorKind::UnexpectedEof)))
        }
        Err(error) => Err(SysError::new("receive a plan", std::io::Error::other(error))),
    }
}

pub(crate) fn protocol_error(message: &ToShim) -> SysError {
    let text = format!("{message:?} as the first message");
    SysError::new("receive a plan", std::io::Error::other(text))
}

/// Tells of the init, and lets it go.
fn start(
    plan: &ContainerPlan,
    ground: &mut Ground,
    made: Made,
    hub: &mut Hub,
) -> Result<Running, StartError> {
    let Made { mut held, stdio, cgroups } = made;
    let mut log = open_log(&ground.state, plan).step("open the log")?;
    log.settle().step("mend the log")?;
    let client_owns_input = plan.attach.is_some_and(|attach| attach.stdin);
    hub.created(held.pid, keepsakes(&held.pidfd, &stdio, client_owns_input).step("start the init")?);
    let proc = ground.proc.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)").step("start the init")?;
    let run = ground.run.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)").step("start the init")?;
    let deadline = Deadline::new(run);
    let started_at = wall_clock();
    let entry =
        JournalEntry::Released { init_pid: held.pid, at: started_at, init_start: held.start(proc.as_fd()) };
    ground.journal.append(&entry).step("write the journal")?;
    held.release()?;
    point::after(point::Step::Released);
    hub.started(started_at);
    let init = Init { pidfd: held.pidfd, parent: Parent::Us };
    Ok(Running::new(plan, Parts { init, stdio, cgroups, log, started_at, proc, deadline }))
}

/// Opens the log; an earlier start's records stay.
pub(crate) fn open_log(state: &OwnedFd, plan: &ContainerPlan) -> Result<LogFile, SysError> {
    LogFile::open(state.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)")?, plan.log)
}

/// What the supervisor holds for a shim that may come after this one.
pub(crate) fn keepsakes(
    pidfd: &OwnedFd,
    stdio: &Stdio,
    client_owns_input: bool,
) -> Result<Vec<OwnedFd>, SysError> {
    let mut keepsakes = vec![pidfd.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)")?];
    keepsakes.extend(stdio.keepsakes(client_owns_input)?);
    Ok(keepsakes)
}

/// What is recorded of a container that could not be started, with docker's codes.
fn failed_report(code: ErrorCode, message: String) -> ExitReport {
    let status = match code {
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
        status: ExitStatus::Code(status),
        oom_killed: false,
        started_at: None,
        finished_at: wall_clock(),
        error: message,
    }
}

/// What is needed to take a container down.
pub(crate) struct Remains {
    /// Given back when nothing is left.
    pub(crate) lock: LifeLock,
    /// Its state directory.
    pub(crate) state: OwnedFd,
    /// Its journal.
    pub(crate) entries: Vec<JournalEntry>,
    /// /proc of the host.
    pub(crate) proc: OwnedFd,
    /// The way back from the private mount namespace.
    pub(crate) host: Option<HostNamespace>,
    /// Its cgroups.
    pub(crate) cgroups: Vec<Directory>,
}

/// Record first, then tell, then tear down.
pub(crate) fn finish(
    plan: &ContainerPlan,
    remains: Remains,
    report: &ExitReport,
    mut hub: Hub,
) -> Result<(), SysError> {
    let record_in = (plan.lifetime != Lifetime::Nothing).then_some(remains.state.as_fd());
    let owed = match record_in {
        Some(_) => first_write(&remains.state, report)?,
        None => OwedRecord::default(),
    };
    hub.exited(report);
    let places = Places {
        state_dir: plan.state_dir.clone(),
        run_dir: plan.run_dir.clone(),
        trash_dir: plan.trash_dir.clone(),
    };
    let teardown =
        Teardown::new(places, &remains.entries, remains.proc, remains.host, remains.cgroups, owed)?;
    Ending::new(teardown, record_in, remains.lock).run(hub)
}

/// Writes the exit record. One that cannot be written now is owed if a program ran; the failure of a start is told, and
/// the supervisor records it if it can.
pub(crate) fn first_write(state: &OwnedFd, report: &ExitReport) -> Result<OwedRecord, SysError> {
    let mut owed = OwedRecord::new(state, report)?;
    match owed.write() {
        Ok(()) => {}
        Err(error) if report.started_at.is_some() => {
            tracing::error!("{}", crate::error::chain(&error));
        }
        Err(error) => {
            tracing::warn!("{}, continuing without it", crate::error::chain(&error));
            return Ok(OwedRecord::default());
        }
    }
    Ok(owed)
}

/// Waits a bounded time in the event loop; shared by the phases.
pub(crate) fn in_time(duration: Duration) -> Option<Instant> {
    Instant::now().checked_add(duration)
}
