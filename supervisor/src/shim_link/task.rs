//! One task for each container that has something to undo: from its shim to the registry and back, across the shim's
//! death and silence.
//!
//! ```text
//!   launch ──▶ serve ──closed──▶ lock free? ──yes──▶ lost ──▶ teardown ──▶ serve ──▶ ...
//!                ▲                   │ no
//!                └──── reconnect ◀───┘ until it answers or its lock is free
//! ```

mod after_death;

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use mysup_ipc::{
    error::WireError,
    exit::ExitReport,
    layout,
    shim::{FromShim, Role, ShimReport, ToShim},
};
use tokio::{
    io::unix::AsyncFd,
    net::UnixStream,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    Command, Event, Events, adopt, alive,
    children::Children,
    deadlines::{ENDING, LOCK_END, LOOK, REPORT, RETRY, SEND, START, STEP},
    entry::{Entry, Launch},
    framed::{Framed, FramedError},
    lost::Init,
    silence::Watch,
    spawn::{Spawned, Spawner},
};
use crate::{
    config::Places,
    error::{chain, system_failure},
    sys,
};

/// A link's task.
pub(crate) struct Task {
    /// The container's directories.
    pub(crate) places: Places,
    /// To the registry.
    pub(crate) events: Events,
    /// From the registry.
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Starts shims.
    pub(crate) spawner: Spawner,
    /// Knows how children ended.
    pub(crate) children: Arc<Children>,
}

/// Why serving a connection ended.
enum Served {
    /// Nothing is left, or the registry has no more interest.
    Done,
    /// The shim is gone, or makes no sense.
    Closed,
}

/// A task at work.
struct Working {
    task: Task,
    init: Init,
    /// The end of the program (or of its start) was told.
    ended: bool,
    /// How the container of a dead shim ended: told once the teardown shim has made it durable.
    ending: Option<ExitReport>,
    /// The end that was told. Whoever goes on for a shim that could not record it must.
    exit: Option<ExitReport>,
    /// When the shim is called silent.
    watch: Watch,
    /// Teardown processes that were started so far.
    teardowns: u32,
    /// The init of an adopted container: its end is ours to tell, below Linux 6.15 nobody else can.
    adopted: Option<AsyncFd<OwnedFd>>,
}

impl Task {
    /// Works until nothing is left of the container. Not cancelled by whoever asked for anything.
    pub(crate) async fn run(self, entry: Entry) {
        let mut working = Working {
            task: self,
            init: Init::default(),
            ended: false,
            ending: None,
            exit: None,
            watch: Watch::default(),
            teardowns: 0,
            adopted: None,
        };
        let mut connection = match entry {
            Entry::Launch(launch) => working.launch(launch).await,
            Entry::Reconnect => working.reconnect().await,
            Entry::TearDown { ending } => {
                working.ending = ending;
                working.lose().await
            }
        };
        while let Some(mut shim) = connection {
            connection = match working.serve(&mut shim).await {
                Served::Done => return,
                Served::Closed => {
                    drop(shim);
                    working.after_close().await
                }
            };
        }
    }
}

impl Working {
    async fn launch(&mut self, launch: Launch) -> Option<Framed> {
        let (spawner, attach) = (self.task.spawner.clone(), launch.attach);
        let prepare = launch.prepare;
        let job = move || {
            prepare()?;
            spawner.run(attach).map_err(|error| system_failure("cannot start mysup-shim", &error))
        };
        let spawned = match tokio::task::spawn_blocking(job).await {
            Ok(Ok(spawned)) => spawned,
            Ok(Err(error)) => return self.not_launched(error).await,
            Err(error) => return self.not_launched(system_failure("cannot start", &error)).await,
        };
        self.watch.is_of(Some(spawned.pid));
        match self.greet(spawned, &ToShim::Plan(launch.plan), START).await {
            Ok(shim) => {
                self.watch.ask(START, "to start its program");
                Some(shim)
            }
            Err(error) => {
                // It may have died at once, or be stuck: what is true is found out as for any shim.
                tracing::warn!(error = %chain(&error), "cannot send a plan, continuing");
                self.after_close().await
            }
        }
    }

    async fn not_launched(&mut self, error: WireError) -> Option<Framed> {
        self.task.events.say(Event::NotLaunched(error)).await;
        None
    }

    async fn greet(
        &self,
        spawned: Spawned,
        first: &ToShim,
        deadline: Duration,
    ) -> Result<Framed, FramedError> {
        tracing::debug!(pid = spawned.pid, "shim started");
        let mut shim = Framed::new(UnixStream::from_std(spawned.control)?);
        shim.send(first, deadline).await?;
        Ok(shim)
    }

    async fn serve(&mut self, shim: &mut Framed) -> Served {
        loop {
            tokio::select! {
                // What the shim has said comes before what it is to be told: the order in which things happened.
                biased;
                message = shim.receive::<FromShim>() => match message {
                    Ok(Some(FromShim::Unknown)) => {}
                    Ok(Some(message)) => {
                        if self.hear(message, shim).await.is_break() {
                            return Served::Done;
                        }
                    }
                    Ok(None) => return Served::Closed,
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "a shim's connection failed, continuing");
                        return Served::Closed;
                    }
                },
                command = self.task.commands.recv() => match command {
                    // Straight to the init: a shim that is stopped or dying must not lose a signal.
                    Some(Command::Signal(signal)) if self.init.signal(signal) => {}
                    Some(command) => {
                        if let Err(error) = shim.send(&self.order(command), SEND).await {
                            tracing::warn!(error = %chain(&error), "a shim does not take commands, continuing");
                            return Served::Closed;
                        }
                    }
                    None => return Served::Done,
                },
                status = adopt::reaped(self.adopted.as_ref(), self.init.pid, &self.task.children) => {
                    self.adopted = None;
                    if let Some(status) = status
                        && let Err(error) = shim.send(&ToShim::InitReaped { status }, SEND).await
                    {
                        tracing::warn!(error = %chain(&error), "a shim does not hear of its init, continuing");
                        return Served::Closed;
                    }
                }
                what = self.watch.silence() => self.task.events.say(Event::Silent(what)).await,
            }
        }
    }

    fn order(&mut self, command: Command) -> ToShim {
        match command {
            Command::Stop { signal, grace_ms } => {
                self.watch.ask_with_grace(grace_ms, STEP, "to stop its program");
                ToShim::Stop { signal, grace_ms }
            }
            Command::Signal(signal) => ToShim::Signal(signal),
            Command::Retry => ToShim::RetryTeardown,
        }
    }

    async fn hear(&mut self, message: FromShim, shim: &mut Framed) -> std::ops::ControlFlow<()> {
        self.tell_ending().await;
        let event = match message {
            FromShim::Created { init_pid } => {
                self.know_init(shim, init_pid);
                Event::Held { pid: init_pid }
            }
            FromShim::Started { at } => {
                self.init.started_at = Some(at);
                self.watch.answered();
                Event::Started { at }
            }
            FromShim::Failed(error) => {
                self.ended = true;
                self.init.let_go();
                self.watch.ask(STEP, "to take down what it made");
                Event::Failed(error)
            }
            FromShim::Exited(report) => {
                self.ended = true;
                self.init.let_go();
                self.watch.ask(STEP, "to take down its container");
                if self.exit.replace(report.clone()).is_some() {
                    // A second shim says what the first one has said.
                    return std::ops::ControlFlow::Continue(());
                }
                Event::Exited(report)
            }
            FromShim::Step(step) => {
                match self.ended {
                    true => self.watch.ask(STEP, "to go on with its teardown"),
                    // What was killed and does not end: the shim has said so, and waits itself.
                    false => self.watch.answered(),
                }
                Event::Step(step)
            }
            FromShim::TornDown(report) => {
                self.task.events.say(Event::TornDown(report)).await;
                return std::ops::ControlFlow::Break(());
            }
            FromShim::Leftover(report) => {
                self.watch.answered();
                Event::Leftover(report)
            }
            FromShim::Report(report) => {
                self.know_report(shim, &report);
                Event::Stands(report)
            }
            // For attached clients and readers of the log, or for newer supervisors, not for us.
            FromShim::Output { .. } | FromShim::LogGrew | FromShim::Paused | FromShim::Unknown => {
                return std::ops::ControlFlow::Continue(());
            }
        };
        self.task.events.say(event).await;
        std::ops::ControlFlow::Continue(())
    }

    fn know_init(&mut self, shim: &mut Framed, pid: u32) {
        // A child of this number that ended before was another process.
        self.task.children.forget(pid);
        self.init.pid = Some(pid);
        self.init.pidfd = shim.take_descriptor();
        self.init.kept = std::iter::from_fn(|| shim.take_descriptor()).collect();
        if self.init.pidfd.is_none() {
            tracing::warn!(pid, "an init came without its pidfd, continuing");
        }
    }

    fn know_report(&mut self, shim: &mut Framed, report: &ShimReport) {
        self.init.started_at = report.started_at;
        self.ended = report.exit.is_some();
        self.exit.clone_from(&report.exit);
        self.watch.answered();
        match report.init_pid {
            Some(pid) => self.know_init(shim, pid),
            None => self.init.let_go(),
        }
    }

    /// The connection ended without a last word.
    async fn after_close(&mut self) -> Option<Framed> {
        self.watch.answered();
        let deadline = Instant::now() + LOCK_END;
        // The kernel closes a dead process' descriptors one after another: the lock may come after the socket.
        while self.shim_lives().await {
            if Instant::now() > deadline {
                return self.reconnect().await;
            }
            sleep(LOOK).await;
        }
        self.lose().await
    }

    async fn shim_lives(&self) -> bool {
        let places = self.task.places.clone();
        // Fails only when the runtime ends, and we with it.
        tokio::task::spawn_blocking(move || alive::lives(&places)).await.unwrap_or(true)
    }

    /// Goes on until the shim answers or its lock is free: a stopped shim heals without a command.
    async fn reconnect(&mut self) -> Option<Framed> {
        let began = Instant::now();
        let mut told = false;
        loop {
            let pause = match timeout(REPORT, self.connect()).await {
                Ok(Ok((mut shim, report))) => {
                    self.know_report(&mut shim, &report);
                    self.task.events.say(Event::Stands(report)).await;
                    return Some(shim);
                }
                _ if !self.shim_lives().await => return self.lose().await,
                Ok(Err(_)) if began.elapsed() < ENDING => LOOK,
                Ok(Err(error)) => {
                    self.silent_once(&mut told, format!("it cannot be reached: {}", chain(&error))).await;
                    RETRY
                }
                Err(_elapsed) => {
                    self.silent_once(&mut told, self.watch.describe("where it is")).await;
                    RETRY
                }
            };
            self.pause(pause).await?;
        }
    }

    /// Waits while no shim can be told anything. `None` is the end of the registry; commands cannot be passed on and are
    /// refused there.
    async fn pause(&mut self, pause: Duration) -> Option<()> {
        tokio::select! {
            biased;
            command = self.task.commands.recv() => drop(command?),
            () = sleep(pause) => {}
        }
        Some(())
    }

    async fn silent_once(&self, told: &mut bool, what: String) {
        if !std::mem::replace(told, true) {
            self.task.events.say(Event::Silent(what)).await;
        }
    }

    async fn connect(&mut self) -> Result<(Framed, ShimReport), FramedError> {
        let (path, _directory) = sys::short_socket_path(&self.task.places.run, layout::SHIM_SOCKET)?;
        let socket = UnixStream::connect(path).await?;
        self.watch.is_of(socket.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok()));
        let mut shim = Framed::new(socket);
        shim.send(&ToShim::Hello(Role::Supervisor), SEND).await?;
        let report = adopt::report(&mut shim).await?;
        Ok((shim, report))
    }
}
