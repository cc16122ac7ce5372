//! A container whose shim died and whose init lives, or has ended with its output unread, is given to a new shim.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use mysup_ipc::shim::{AdoptOrder, FromShim, ShimReport, ToShim};
use tokio::{
    io::unix::AsyncFd,
    net::UnixStream,
    time::{sleep, timeout},
};

use super::{
    children::Children,
    deadlines::SEND,
    framed::{Framed, FramedError},
    journal::{self, Release},
    lost::{self, Init},
    spawn::Spawner,
    start,
};
use crate::{
    config::{Places, text},
    error::chain,
    sys,
};

/// How long the other parent of an init may take to reap it.
const REAPED: Duration = Duration::from_secs(1);
/// Between two looks for that.
const LOOK: Duration = Duration::from_millis(2);

/// Whether a new shim can go on.
pub(super) enum Possible {
    /// The program was released, its end is in no record, and its init is held.
    Yes,
    /// One of that is not so.
    No,
    /// Not even this can be found out now (no descriptor, no memory).
    NotKnown(String),
}

/// Why no new shim goes on.
pub(super) enum Refusal {
    /// None could be started.
    NotStarted(String),
    /// It was started, and did not adopt.
    ByShim(String),
}

/// Whether a new shim can go on with a container.
pub(super) async fn is_possible(init: &mut Init, places: &Places) -> Possible {
    let places = places.clone();
    let read = move || match (lost::try_recorded_exit(&places), journal::released(&places.run)) {
        (Ok(exit), Ok(released)) => Ok((exit.is_some(), released, places)),
        (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
    };
    let (recorded, released, places) = match tokio::task::spawn_blocking(read).await {
        Ok(Ok((recorded, Some(released), places))) => (recorded, released, places),
        Ok(Ok((_, None, _))) => return Possible::No,
        Ok(Err(reason)) => return Possible::NotKnown(reason),
        // Only when the runtime ends, and we with it.
        Err(error) => return Possible::NotKnown(error.to_string()),
    };
    if recorded || start::failure_when_over(&places).await.is_some() {
        return Possible::No;
    }
    init.pid.get_or_insert(released.init_pid);
    init.started_at.get_or_insert(released.at);
    if init.pidfd.is_none() {
        init.pidfd = found_again(released, &places);
        // It says the same if there was no descriptor for the look.
        if init.pidfd.is_none() {
            if let Err(error) = descriptors_for_a_look() {
                return Possible::NotKnown(error.to_string());
            }
            init.pidfd = found_again(released, &places);
        }
    }
    if init.pidfd.is_some() { Possible::Yes } else { Possible::No }
}

/// The init of a journal of this boot, if it lives: by its start, wherever somebody may have moved it; an older shim has not
/// noted that, and its cgroup tells.
fn found_again(released: Release, places: &Places) -> Option<OwnedFd> {
    match released.init_start {
        0 => sys::pidfd_in_cgroup(released.init_pid, &places.id()),
        start => sys::pidfd_started_at(released.init_pid, start),
    }
}

/// An error if there are not as many descriptors as a look at a process needs.
fn descriptors_for_a_look() -> io::Result<()> {
    let open = || std::fs::File::open("/proc/self/stat");
    let _both = (open()?, open()?);
    Ok(())
}

/// Starts a shim that is to adopt; gives its pid and its connection.
pub(super) async fn start(spawner: &Spawner, places: &Places, init: &Init) -> Result<(u32, Framed), Refusal> {
    let spawner = spawner.clone();
    let spawned = tokio::task::spawn_blocking(move || spawner.adopt())
        .await
        .map_err(|error| Refusal::NotStarted(error.to_string()))?
        .map_err(|error| Refusal::NotStarted(format!("start mysup-shim: {}", chain(&error))))?;
    let order = AdoptOrder { state_dir: text(&places.state), run_dir: text(&places.run) };
    let descriptors: Vec<BorrowedFd<'_>> = init.pidfd.iter().chain(&init.kept).map(AsFd::as_fd).collect();
    let control = UnixStream::from_std(spawned.control)
        .map_err(|error| Refusal::NotStarted(format!("watch its connection: {error}")))?;
    let mut shim = Framed::new(control);
    shim.send_with(&ToShim::Adopt(order), &descriptors, SEND)
        .await
        .map_err(|error| Refusal::ByShim(chain(&error)))?;
    Ok((spawned.pid, shim))
}

/// The first word of a shim that was started to adopt.
pub(super) async fn answer(shim: &mut Framed) -> Result<ShimReport, String> {
    match known(shim).await {
        Ok(Some(FromShim::Report(report))) => Ok(report),
        Ok(Some(_)) => Err("it answered something else".to_owned()),
        Ok(None) => Err("it ended at once; the supervisor's log has its reason".to_owned()),
        Err(error) => Err(chain(&error)),
    }
}

/// What a shim says next that we know.
async fn known(shim: &mut Framed) -> Result<Option<FromShim>, FramedError> {
    loop {
        match shim.receive().await? {
            Some(FromShim::Unknown) => {}
            known => return Ok(known),
        }
    }
}

/// The report that a living shim gives first.
pub(super) async fn report(shim: &mut Framed) -> Result<ShimReport, FramedError> {
    match known(shim).await? {
        Some(FromShim::Report(report)) => Ok(report),
        Some(_) | None => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
    }
}

/// Waits for the end of an adopted init and gives its status word, if we or the kernel can tell. Never ends before it.
pub(super) async fn reaped(
    init: Option<&AsyncFd<OwnedFd>>,
    pid: Option<u32>,
    children: &Children,
) -> Option<i32> {
    let Some(init) = init else {
        // Nothing to wait for.
        return std::future::pending().await;
    };
    if let Err(error) = init.readable().await {
        tracing::warn!(%error, ?pid, "cannot wait for an init, continuing");
        return None;
    }
    // SIGCHLD may still be on the way. Only its parent can reap it, and until then no pidfd tells.
    children.reap();
    let status = || sys::exit_of(init.get_ref().as_fd()).or_else(|| children.take(pid?));
    let look = async {
        loop {
            match status() {
                Some(status) => return status,
                None => sleep(LOOK).await,
            }
        }
    };
    timeout(REAPED, look).await.ok()
}
