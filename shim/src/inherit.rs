//! The work that a dead shim left: going on with a container whose init lives, or finishing its teardown.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use mysup_ipc::{
    exit::ExitReport,
    layout,
    plan::{ContainerPlan, Lifetime},
    point, record,
    shim::{AdoptOrder, TeardownOrder, ToShim},
    teardown::JournalEntry,
};

use crate::{
    cgroup::{self, Directory},
    deadline::{self, Deadline},
    ending::Ending,
    error::{Call, SysError},
    hub::Hub,
    life::{Remains, finish, first_message, first_write, keepsakes, open_log, protocol_error},
    log,
    prepare::LifeLock,
    rootfs,
    running::{Init, Parent, Parts, Running},
    stdio::Stdio,
    teardown::{OwedRecord, Places, Teardown, boot_id, journal, sweep, unnamed},
};

/// Goes on with a container whose shim died and whose init lives.
///
/// # Errors
/// If the dead shim left too little to go on with; the container is untouched then.
pub(crate) fn adopt(control: UnixStream) -> Result<(), SysError> {
    let (mut connection, order) = match first_message(control)? {
        (connection, ToShim::Adopt(order)) => (connection, order),
        (_, other) => return Err(protocol_error(&other)),
    };
    let pidfd = connection.take_descriptor().ok_or_else(|| missing("the pidfd"))?;
    let kept: Vec<OwnedFd> = std::iter::from_fn(|| connection.take_descriptor()).collect();
    log::install(order.state_dir.rsplit('/').next().unwrap_or_default());
    let lock = LifeLock::take(&order.state_dir)?;
    point::before(point::Step::Adopt);
    let run = rootfs::open_directory(&order.run_dir)?;
    let state = rootfs::open_directory(&order.state_dir)?;
    let plan = read_plan(&order)?;
    let entries = of_this_boot(journal::read(run.as_fd())?);
    let (pid, started_at) = released(&entries).ok_or_else(|| missing("the release of its program"))?;
    let mut hub = Hub::new(connection, plan.process.terminal.is_some())?;
    hub.listen_again(&run);
    let stdio = Stdio::reopen(run.as_fd(), &plan.process, kept)?;
    let keepsakes = keepsakes(&pidfd, &stdio, false)?;
    let cgroups = open_cgroups(&entries)?;
    // The dead shim may have paused it for somebody.
    if let Err(error) = cgroup::thaw(&cgroups) {
        tracing::warn!("{}, continuing", crate::error::chain(&error));
    }
    let deadline = Deadline::new(run.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)")?);
    let parts = Parts {
        init: Init { pidfd, parent: Parent::another(run) },
        stdio,
        cgroups,
        log: open_log(&state, &plan)?,
        started_at,
        proc: rootfs::open_directory("/proc")?,
        deadline,
    };
    let stop = deadline::under_way(&order.run_dir);
    if stop.is_some() {
        hub.stopping();
    }
    hub.adopted(pid, started_at, keepsakes);
    tracing::info!(init = pid, "adopted");
    point::after(point::Step::Adopt);
    let mut running = Running::new(&plan, parts);
    if let Some((signal, left)) = stop {
        // Once more: the dead shim may not have come to it.
        running.begin_stop(signal, left, &mut hub);
    }
    let report = running.until_exit(&mut hub)?;
    let proc = rootfs::open_directory("/proc")?;
    let cgroups = open_cgroups(&entries)?;
    finish(&plan, Remains { lock, state, entries, proc, host: None, cgroups }, &report, hub)
}

fn missing(what: &'static str) -> SysError {
    SysError::new(format!("adopt a container without {what}"), io::Error::from(io::ErrorKind::NotFound))
}

fn read_plan(order: &AdoptOrder) -> Result<Box<ContainerPlan>, SysError> {
    let kept = record::read(&Path::new(&order.run_dir).join(layout::PLAN));
    match kept.map_err(io::Error::other).call(|| "read the plan")? {
        Some(ToShim::Plan(plan)) => Ok(plan),
        Some(_) | None => Err(missing("its plan")),
    }
}

fn released(entries: &[JournalEntry]) -> Option<(u32, u64)> {
    entries.iter().find_map(|entry| match entry {
        JournalEntry::Released { init_pid, at, .. } => Some((*init_pid, *at)),
        JournalEntry::Begin { .. }
        | JournalEntry::Cgroup { .. }
        | JournalEntry::WriteLayer
        | JournalEntry::Mountpoint
        | JournalEntry::Unknown => None,
    })
}

fn open_cgroups(entries: &[JournalEntry]) -> Result<Vec<Directory>, SysError> {
    let mut cgroups = Vec::new();
    for entry in entries {
        if let JournalEntry::Cgroup { path } = entry {
            cgroups.extend(Directory::open(Path::new(path))?);
        }
    }
    Ok(cgroups)
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
    let lock = LifeLock::take(&order.state_dir)?;
    let mut hub = Hub::new(connection, false)?;
    let state = rootfs::open_directory(&order.state_dir)?;
    // With a mount on it there would be no journal, and nothing to undo.
    let mut entries = match sweep::open_root(&order.run_dir) {
        Ok(run) => {
            hub.listen_again(&run);
            of_this_boot(journal::read(run.as_fd())?)
        }
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => Vec::new(),
        Err(error) => return Err(error),
    };
    let proc = rootfs::open_directory("/proc")?;
    if !entries.iter().any(|entry| matches!(entry, JournalEntry::Begin { .. })) {
        entries.extend(unnamed::entries(&proc, &order.state_dir)?);
    }
    let keeps_record =
        !entries.iter().any(|entry| matches!(entry, JournalEntry::Begin { lifetime: Lifetime::Nothing, .. }));
    let mut owed = OwedRecord::default();
    if let Some((report, origin)) = known_end(&order) {
        if keeps_record && origin == Origin::Seen {
            owed = first_write(&state, &report)?;
        }
        hub.exited(&report);
    }
    let places = Places { state_dir: order.state_dir, run_dir: order.run_dir, trash_dir: order.trash_dir };
    let teardown = Teardown::new(places, &entries, proc, None, Vec::new(), owed)?;
    Ending::new(teardown, keeps_record.then_some(state.as_fd()), lock).run(hub)
}

/// Where it is known from how a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Its exit record.
    Record,
    /// The supervisor saw it.
    Seen,
}

/// How the container ended: the first durable value wins, since a dead shim that wrote one saw more than anybody after
/// it; else what the supervisor saw.
fn known_end(order: &TeardownOrder) -> Option<(ExitReport, Origin)> {
    let recorded = record::read::<ExitReport>(&Path::new(&order.state_dir).join(layout::EXIT));
    match (recorded, &order.exit) {
        (Ok(Some(recorded)), _) => Some((recorded, Origin::Record)),
        (Ok(None) | Err(_), Some(seen)) => Some((seen.clone(), Origin::Seen)),
        (Ok(None) | Err(_), None) => None,
    }
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
        JournalEntry::Begin { .. } | JournalEntry::WriteLayer | JournalEntry::Unknown => true,
        JournalEntry::Cgroup { .. } | JournalEntry::Mountpoint | JournalEntry::Released { .. } => false,
    };
    entries.into_iter().filter(on_disk).collect()
}
