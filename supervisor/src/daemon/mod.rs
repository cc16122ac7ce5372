//! The supervisor process: in this order it takes its locks, recovers what is there, listens, and says that it is
//! ready; at its end it refuses, removes its socket and goes. Containers do not notice.

mod api;
mod commits;
mod image_requests;
mod images;
mod info;
mod operations;
mod processes;
mod ready;
mod roots;
mod runtime;
mod server;
mod shutdown;
mod storage_requests;
mod usage;

use std::{sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::Notify,
    time::{sleep, timeout},
};

pub(crate) use self::ready::Ready;
use self::{api::Api, images::Images, operations::Operations, shutdown::Shutdown};
use crate::{
    config::Config,
    error::{Error, chain},
    images::Store,
    log,
    registry::{
        Handle, Means, Registry, capabilities,
        plan::Machine,
        recover::{self, Boot},
    },
    shim_link::{children::Children, spawn::Spawner, sweep::Sweeper},
    sys, volumes,
};

/// How long the living shims of an earlier supervisor may take before the API answers without them.
const ADOPTION: Duration = Duration::from_millis(500);
/// Between two looks whether they have answered.
const LOOK: Duration = Duration::from_millis(2);
/// What may still be on its way to a disk when the process ends.
const LAST_JOBS: Duration = Duration::from_secs(5);
/// Removals are gathered this long before the images they may have freed are looked at.
const GATHER: Duration = Duration::from_secs(1);

/// Runs the supervisor until it is told to end.
///
/// # Errors
/// If it cannot start; whoever waits on `ready` is told, too.
pub(crate) fn run(config: Config, mut ready: Ready) -> Result<(), Error> {
    let outcome = become_daemon(&ready).and_then(|()| start(config, &mut ready));
    if let Err(error) = &outcome {
        ready.failed(&chain(error));
    }
    outcome
}

/// In the background nothing of the starter's is kept, neither its descriptors nor its terminal.
fn become_daemon(ready: &Ready) -> Result<(), Error> {
    if ready.is_awaited() {
        sys::close_inherited().map_err(Error::system("close inherited descriptors"))?;
        sys::leave_session();
    }
    log::install();
    Ok(())
}

fn start(config: Config, ready: &mut Ready) -> Result<(), Error> {
    if sys::effective_uid() != 0 {
        return Err(Error::NotRoot);
    }
    let open_files = sys::prepare_process().map_err(Error::system("become a subreaper"))?;
    let machine = Machine { capabilities: capabilities::Available::of_this_process(), open_files };
    // Held to the end of this function: dropped after the runtime, so after the last job on disk.
    let _locks = roots::take(&config)?;
    let runtime = runtime::start()?;
    let outcome = runtime.block_on(serve(Arc::new(config), machine, ready));
    runtime.shutdown_timeout(LAST_JOBS);
    outcome
}

async fn serve(config: Arc<Config>, machine: Machine, ready: &mut Ready) -> Result<(), Error> {
    // A limit on the size of files (setrlimit(2)) is an error of a write then, and not a death. The handler stays.
    drop(signal(SignalKind::from_raw(Signal::SIGXFSZ as i32)).map_err(Error::system("handle SIGXFSZ"))?);
    let (spawner, children) = (Spawner::find()?, Arc::new(Children::default()));
    let (sweeper, freed) = (Sweeper::new(), Arc::new(Notify::new()));
    start_helpers(&config, &spawner, &children, &sweeper);
    let Recovered { images, volumes, found } = recovered(Arc::clone(&config), sweeper.clone()).await?;
    let means = Means {
        config: Arc::clone(&config),
        spawner,
        children,
        sweeper: sweeper.clone(),
        freed: Arc::clone(&freed),
        volumes: volumes.clone(),
    };
    let (registry, handle) = Registry::new(means, found);
    // Detached: it ends with the runtime.
    drop(tokio::spawn(registry.run()));
    adopted(&handle).await;

    let images = Images::new(images, sweeper.clone());
    let listener = listen(&config)?;
    let shutdown = Shutdown::new();
    let operations = Operations { registry: handle, images, volumes, config: Arc::clone(&config), machine };
    // Before anybody is answered, so that the first list of volumes is true.
    storage_requests::settle(&operations).await;
    // Detached: it ends with the runtime.
    drop(tokio::spawn(collect(operations.clone(), freed, sweeper.clone())));
    sweeper.wake();
    tracing::info!(root = %config.root.display(), run_root = %config.run_root.display(), "ready");
    ready.tell();

    server::serve(listener, Api::new(operations, shutdown.clone()), shutdown).await?;
    ready.stopping();
    // Still under the lock, so it is ours.
    std::fs::remove_file(config.socket()).map_err(Error::file("remove", config.socket()))?;
    tracing::info!("ended, containers go on");
    Ok(())
}

fn start_helpers(config: &Config, spawner: &Spawner, children: &Arc<Children>, sweeper: &Sweeper) {
    let reaper = Arc::clone(children);
    // Detached, both: they end with the runtime.
    drop(tokio::spawn(async move {
        if let Err(error) = reaper.serve().await {
            tracing::error!(%error, "cannot watch for ended children");
        }
    }));
    let trashes = vec![config.trash(), config.run_trash()];
    drop(tokio::spawn(sweeper.clone().serve(spawner.clone(), Arc::clone(children), trashes)));
}

/// What was found on the disk.
struct Recovered {
    images: Store,
    volumes: volumes::Store,
    found: Vec<recover::Found>,
}

async fn recovered(config: Arc<Config>, sweeper: Sweeper) -> Result<Recovered, Error> {
    let work = move || {
        let images = Store::open(&config.root, sweeper.clone(), config.image_limits.clone())
            .map_err(|error| Error::Images(error.to_wire()))?;
        let volumes = volumes::Store::open(&config, sweeper)?;
        let boot = roots::boot(&config)?;
        let found = recover::scan(&config, boot)?;
        if boot == Boot::Other {
            roots::write_boot(&config)?;
        }
        Ok(Recovered { images, volumes, found })
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(panic) => Err(Error::system("recover")(std::io::Error::other(panic))),
    }
}

/// Gives the shims of an earlier supervisor a moment to say where they are, so that the first `ps` is true.
async fn adopted(registry: &Handle) {
    let all = async {
        while registry.unreachable().await.unwrap_or(0) > 0 {
            sleep(LOOK).await;
        }
    };
    if timeout(ADOPTION, all).await.is_err() {
        tracing::warn!("some shims do not answer yet, continuing");
    }
}

/// A socket left by a dead supervisor is replaced: we hold the lock.
fn listen(config: &Config) -> Result<UnixListener, Error> {
    let socket = config.socket();
    match std::fs::remove_file(&socket) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::file("remove", socket)(error)),
    }
    let name = mysup_ipc::layout::SUPERVISOR_SOCKET;
    let (path, _directory) =
        sys::short_socket_path(&config.run_root, name).map_err(Error::file("open", &config.run_root))?;
    UnixListener::bind(path).map_err(Error::file("listen on", socket))
}

/// Lets go of images that were removed while containers needed them, and of volumes that were to go with a container.
async fn collect(operations: Operations, freed: Arc<Notify>, sweeper: Sweeper) {
    loop {
        operations.images.collect(&operations.registry).await;
        if operations.volumes.take_owed() {
            storage_requests::settle(&operations).await;
        }
        sweeper.wake();
        freed.notified().await;
        sleep(GATHER).await;
    }
}
