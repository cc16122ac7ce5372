//! The life of a container as its shim leads it: a straight line from plan to nothing left.
//!
//! ```text
//! plan ─▶ make ─▶ held ─▶ release ─▶ running ─▶ exited ─▶ tear down ─▶ gone
//!           └────────failed──────────────────────────────▶ (tries again until nothing is left)
//! ```

use std::{
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use mysup_ipc::{
    blocking::{Connection, Received},
    error::ErrorCode,
    exit::{ExitReport, ExitStatus},
    layout,
    plan::{ContainerPlan, Lifetime},
    record::{self, Durability},
    shim::{FromShim, ToShim},
    teardown::JournalEntry,
};

use crate::{
    ending::Ending,
    error::{Call, StartError, Step, SysError},
    hub::Hub,
    log,
    namespace::HostNamespace,
    peer::{Peer, PeerRole},
    prepare::{self, Ground, LifeLock, Made},
    rootfs,
    running::Running,
    sys::time::wall_clock,
    teardown::{Places, Teardown, boot_id, journal},
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
    let mut hub = Hub::new(connection)?;
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
    finish(&plan, ground, host, report, hub)
}

fn first_message(socket: UnixStream) -> Result<(Connection, ToShim), SysError> {
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

fn protocol_error(message: &ToShim) -> SysError {
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
    let mut running = Running::new(plan, ground, made).step("open the log")?;
    let pidfd = running.clone_pidfd().step("start the init")?;
    hub.tell_supervisor(&FromShim::Created { init_pid: running.pid() }, Some(pidfd));
    let entry = JournalEntry::Released { init_pid: running.pid(), at: wall_clock() };
    ground.journal.append(&entry).step("write the journal")?;
    running.release()?;
    hub.started(running.started_at());
    Ok(running)
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
        | ErrorCode::Protocol => 128,
    };
    ExitReport {
        status: ExitStatus::Code(status),
        oom_killed: false,
        started_at: None,
        finished_at: wall_clock(),
        error: message,
    }
}

/// Record first, then tell, then tear down.
fn finish(
    plan: &ContainerPlan,
    ground: Ground,
    host: Option<HostNamespace>,
    report: ExitReport,
    mut hub: Hub,
) -> Result<(), SysError> {
    if plan.lifetime != Lifetime::Nothing {
        let written = record::write(ground.state.as_fd(), layout::EXIT, &report, Durability::Durable);
        if let Err(error) = written {
            tracing::error!(%error, "the exit record cannot be written, the status is only told");
        }
    }
    hub.exited(&report);
    let places = Places {
        state_dir: plan.state_dir.clone(),
        run_dir: plan.run_dir.clone(),
        trash_dir: plan.trash_dir.clone(),
    };
    let teardown = Teardown::new(places, ground.journal.entries(), ground.proc, host)?;
    let record_in = (plan.lifetime != Lifetime::Nothing).then_some(ground.state.as_fd());
    Ending::new(teardown, record_in).run(hub)
}

/// Finishes what a dead shim left.
///
/// # Errors
/// If the order or the directories cannot be read; nothing was changed then.
pub(crate) fn take_down(control: UnixStream) -> Result<(), SysError> {
    let (connection, order) = match first_message(control)? {
        (connection, ToShim::Teardown(order)) => (connection, order),
        (_, other) => return Err(protocol_error(&other)),
    };
    let id = order.state_dir.rsplit('/').next().unwrap_or_default().to_owned();
    log::install(&id);
    let _lock = LifeLock::take(&order.state_dir)?;
    let mut hub = Hub::new(connection)?;
    let state = rootfs::open_directory(&order.state_dir)?;
    let entries = match rootfs::open_directory(&order.run_dir) {
        Ok(run) => {
            hub.listen_again(&run);
            of_this_boot(journal::read(run.as_fd())?)
        }
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => Vec::new(),
        Err(error) => return Err(error),
    };
    let keeps_record =
        !entries.iter().any(|entry| matches!(entry, JournalEntry::Begin { lifetime: Lifetime::Nothing, .. }));
    if let Some(report) = order.exit {
        let known = record::read::<ExitReport>(&std::path::Path::new(&order.state_dir).join(layout::EXIT));
        // The first durable value wins: a dead shim that wrote one saw more than anybody after it.
        let report = match known {
            Ok(Some(known)) => known,
            Ok(None) | Err(_) => {
                if keeps_record {
                    record::write(state.as_fd(), layout::EXIT, &report, Durability::Durable)
                        .call(|| "write the exit record")?;
                }
                report
            }
        };
        hub.exited(&report);
    }
    let places = Places { state_dir: order.state_dir, run_dir: order.run_dir, trash_dir: order.trash_dir };
    let teardown = Teardown::new(places, &entries, rootfs::open_directory("/proc")?, None)?;
    Ending::new(teardown, keeps_record.then_some(state.as_fd())).run(hub)
}

/// Of a journal of another boot only files are acted on: its cgroups and mounts are somebody else's now, or nobody's.
fn of_this_boot(entries: Vec<JournalEntry>) -> Vec<JournalEntry> {
    let now = boot_id();
    let other_boot =
        entries.iter().any(|entry| matches!(entry, JournalEntry::Begin { boot_id, .. } if *boot_id != now));
    if !other_boot {
        return entries;
    }
    let on_disk = |entry: &JournalEntry| match entry {
        JournalEntry::Begin { .. } | JournalEntry::WriteLayer => true,
        JournalEntry::Cgroup { .. } | JournalEntry::Mountpoint | JournalEntry::Released { .. } => false,
    };
    entries.into_iter().filter(on_disk).collect()
}

/// Waits a bounded time in the event loop; shared by the phases.
pub(crate) fn in_time(duration: Duration) -> Option<Instant> {
    Instant::now().checked_add(duration)
}
