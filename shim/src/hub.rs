//! All who are connected to the shim, and what each is told.

use std::os::{
    fd::OwnedFd,
    unix::net::{UnixListener, UnixStream},
};

use mysup_ipc::{
    blocking::Connection,
    error::{ErrorCode, WireError},
    exit::ExitReport,
    layout,
    shim::{FromShim, Role, ShimReport, Stream, ToShim},
    teardown::TeardownReport,
};
use nix::libc::{SIGHUP, SIGINT, SIGTERM};

use crate::{
    error::{Call, SysError},
    event_loop::{Event, Watch},
    peer::{Peer, PeerRole},
};

/// The connections of one shim.
#[derive(Debug)]
pub(crate) struct Hub {
    peers: Vec<Peer>,
    listener: Option<UnixListener>,
    /// Written by the handlers of SIGTERM, SIGINT and SIGHUP.
    signals: UnixStream,
    state: ShimReport,
    /// What a supervisor holds for a shim that may come after this one: the init's pidfd, and behind it what is to
    /// outlive us of the program's input and output.
    keepsakes: Vec<OwnedFd>,
    /// Behind the pidfd there is the master of a terminal, and the FIFO for its output.
    terminal: bool,
    /// The master of a terminal that a client has held.
    offered: Option<OwnedFd>,
}

impl Hub {
    /// With the supervisor that started this shim, and whether the program has a terminal.
    pub(crate) fn new(control: Connection, terminal: bool) -> Result<Self, SysError> {
        let supervisor = Peer::from_connection(control, PeerRole::Supervisor).call(|| "fcntl(O_NONBLOCK)")?;
        let (signals, handler_end) = UnixStream::pair().call(|| "socketpair()")?;
        signals.set_nonblocking(true).call(|| "fcntl(O_NONBLOCK)")?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            let end = handler_end.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)")?;
            signal_hook::low_level::pipe::register(signal, end).call(|| "sigaction()")?;
        }
        let state =
            ShimReport { init_pid: None, started_at: None, exit: None, stopping: false, leftover: None };
        Ok(Self {
            peers: vec![supervisor],
            listener: None,
            signals,
            state,
            keepsakes: Vec::new(),
            terminal,
            offered: None,
        })
    }

    /// One more.
    pub(crate) fn add(&mut self, peer: Peer) {
        self.peers.push(peer);
    }

    /// Accepts connections from now on.
    pub(crate) fn listen(&mut self, listener: &UnixListener) -> Result<(), SysError> {
        self.listener = Some(listener.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)")?);
        Ok(())
    }

    /// Accepts connections at the place of a dead shim; one that cannot only misses those who connect later.
    pub(crate) fn listen_again(&mut self, run: &OwnedFd) {
        let unlinked = rustix::fs::unlinkat(run, layout::SHIM_SOCKET, rustix::fs::AtFlags::empty());
        let bound = rustix::process::fchdir(run)
            .map_err(std::io::Error::from)
            .and_then(|()| UnixListener::bind(layout::SHIM_SOCKET))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        match bound {
            Ok(listener) => self.listener = Some(listener),
            Err(error) => tracing::warn!(%error, ?unlinked, "shim.sock cannot be bound again, continuing"),
        }
        // The run directory is to be removed; fails only if / is gone.
        let _ = rustix::process::chdir("/");
    }

    /// Adds everything that may speak to a turn of the event loop.
    pub(crate) fn watch<'a>(&'a self, watch: &mut Watch<'a>, deaf: impl Fn(&Peer) -> bool) {
        watch.signals(&self.signals);
        if let Some(listener) = &self.listener {
            watch.listener(listener);
        }
        watch.peers(&self.peers, deaf);
    }

    /// What came together with the first message of the connections there are, which no poll tells of.
    pub(crate) fn already_said(&self) -> Vec<Event> {
        (0..self.peers.len()).map(Event::PeerSpoke).collect()
    }

    /// Handles what concerns connections only, and gives the messages that ask for something.
    pub(crate) fn handle(&mut self, event: Event) -> Vec<ToShim> {
        match event {
            Event::Connecting => self.accept(),
            Event::PeerRoom(index) => self.peers[index].flush(),
            Event::PeerSpoke(index) => return self.listen_to(index),
            Event::Signal | Event::InitEnded | Event::Output(_) | Event::InputRoom => {}
        }
        Vec::new()
    }

    /// Forgets who left. Indexes of earlier events are void after this.
    pub(crate) fn forget_closed(&mut self) {
        self.peers.retain(|peer| !peer.is_closed());
    }

    /// Whether a signal came for the shim, which is a wish to stop.
    pub(crate) fn take_signal(&self) -> bool {
        let mut buffer = [0; 64];
        let mut came = false;
        while rustix::io::read(&self.signals, &mut buffer).is_ok_and(|count| count > 0) {
            came = true;
        }
        came
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        match listener.accept().and_then(|(socket, _)| Peer::new(socket, PeerRole::Unknown)) {
            Ok(peer) => self.peers.push(peer),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => tracing::warn!(%error, "a connection could not be accepted"),
        }
    }

    fn listen_to(&mut self, index: usize) -> Vec<ToShim> {
        let mut asked = Vec::new();
        while let Some(message) = self.peers[index].receive() {
            match (self.peers[index].role, &message) {
                (PeerRole::Unknown, ToShim::Hello(role)) => self.greet(index, *role),
                (
                    PeerRole::Supervisor,
                    ToShim::Stop { .. }
                    | ToShim::Signal(_)
                    | ToShim::RetryTeardown
                    | ToShim::InitReaped { .. },
                )
                | (PeerRole::Attached(_), ToShim::Signal(_) | ToShim::Resize(_)) => asked.push(message),
                (PeerRole::Attached(plan), ToShim::Stdin(_) | ToShim::StdinEnd) if plan.stdin => {
                    asked.push(message);
                }
                (
                    PeerRole::Supervisor
                    | PeerRole::Attached(_)
                    | PeerRole::LogFollower
                    | PeerRole::Pauser { .. },
                    ToShim::Unknown,
                ) => {
                    tracing::warn!(role = ?self.peers[index].role, "a newer version says what is not known here, ignored");
                }
                _ => self.peers[index].refuse(&message),
            }
        }
        asked
    }

    fn greet(&mut self, index: usize, role: Role) {
        let (keepsakes, terminal) = (self.copy_keepsakes(), self.copy_terminal());
        let state = self.state.clone();
        let peer = &mut self.peers[index];
        match role {
            Role::Supervisor => {
                peer.role = PeerRole::Supervisor;
                peer.send_with(&FromShim::Report(state), keepsakes);
            }
            Role::Attach(plan) => {
                peer.role = PeerRole::Attached(plan);
                self.offered = peer.take_descriptor();
                if let Some(at) = state.started_at {
                    peer.send_with(&FromShim::Started { at }, terminal);
                }
                if let Some(report) = state.exit {
                    peer.send(&FromShim::Exited(report));
                }
            }
            Role::LogFollower => {
                peer.role = PeerRole::LogFollower;
                // What was written before it asked.
                peer.send(&FromShim::LogGrew);
            }
            Role::Pause if state.init_pid.is_some() => peer.role = PeerRole::Pauser { told: false },
            Role::Pause => {
                let message = "the container does not run, it cannot be paused";
                peer.send(&FromShim::Failed(WireError::new(ErrorCode::Conflict, message)));
            }
        }
    }

    /// Tells supervisors and attached clients.
    pub(crate) fn tell(&mut self, message: &FromShim) {
        for peer in &mut self.peers {
            match peer.role {
                PeerRole::Supervisor | PeerRole::Attached(_) => peer.send(message),
                PeerRole::Unknown | PeerRole::LogFollower | PeerRole::Pauser { .. } => {}
            }
        }
    }

    /// The init exists.
    pub(crate) fn created(&mut self, init_pid: u32, keepsakes: Vec<OwnedFd>) {
        self.state.init_pid = Some(init_pid);
        self.keepsakes = keepsakes;
        self.tell_supervisors(&FromShim::Created { init_pid });
    }

    /// A living init was adopted.
    pub(crate) fn adopted(&mut self, init_pid: u32, started_at: u64, keepsakes: Vec<OwnedFd>) {
        self.state.init_pid = Some(init_pid);
        self.state.started_at = Some(started_at);
        self.keepsakes = keepsakes;
        self.tell_supervisors(&FromShim::Report(self.state.clone()));
    }

    fn tell_supervisors(&mut self, message: &FromShim) {
        for index in 0..self.peers.len() {
            if self.peers[index].role == PeerRole::Supervisor {
                let keepsakes = self.copy_keepsakes();
                self.peers[index].send_with(message, keepsakes);
            }
        }
    }

    /// A client had it, and we do not.
    pub(crate) fn take_offered_terminal(&mut self) -> Option<OwnedFd> {
        let offered = self.offered.take();
        offered.filter(|_| self.terminal && self.keepsakes.len() == 1)
    }

    /// The master of the terminal is here again: the supervisor is to hold it, too.
    pub(crate) fn keep_terminal(&mut self, keepsakes: Vec<OwnedFd>) {
        self.keepsakes.extend(keepsakes);
        self.tell_supervisors(&FromShim::Report(self.state.clone()));
    }

    /// What a client in the foreground holds of the terminal.
    fn copy_terminal(&self) -> Vec<OwnedFd> {
        let terminal = self.keepsakes.iter().skip(1).filter(|_| self.terminal);
        terminal.map_while(|fd| fd.try_clone().ok()).collect()
    }

    fn copy_keepsakes(&self) -> Vec<OwnedFd> {
        // Without descriptors left a supervisor gets none, and this shim must then not die.
        self.keepsakes.iter().map_while(|fd| fd.try_clone().ok()).collect()
    }

    /// The program runs.
    pub(crate) fn started(&mut self, at: u64) {
        self.state.started_at = Some(at);
        for index in 0..self.peers.len() {
            match self.peers[index].role {
                PeerRole::Supervisor => self.peers[index].send(&FromShim::Started { at }),
                PeerRole::Attached(_) => {
                    let terminal = self.copy_terminal();
                    self.peers[index].send_with(&FromShim::Started { at }, terminal);
                }
                PeerRole::Unknown | PeerRole::LogFollower | PeerRole::Pauser { .. } => {}
            }
        }
    }

    /// A stop is under way.
    pub(crate) fn stopping(&mut self) {
        self.state.stopping = true;
    }

    /// The program ended, or was never started: clients have heard of that already, supervisors are to know the record.
    pub(crate) fn exited(&mut self, report: &ExitReport) {
        self.state.init_pid = None;
        self.keepsakes.clear();
        self.state.exit = Some(report.clone());
        if report.started_at.is_some() {
            self.tell(&FromShim::Exited(report.clone()));
        } else {
            self.tell_supervisors(&FromShim::Exited(report.clone()));
        }
    }

    /// Something is left.
    pub(crate) fn leftover(&mut self, report: &TeardownReport) {
        self.state.leftover = Some(report.clone());
        self.tell(&FromShim::Leftover(report.clone()));
    }

    /// Nothing is left. Nobody can connect any more.
    pub(crate) fn torn_down(&mut self, report: &TeardownReport) {
        self.listener = None;
        self.tell(&FromShim::TornDown(report.clone()));
        // Followers of the log read on until this closes.
        self.peers.retain(|peer| match peer.role {
            PeerRole::Supervisor | PeerRole::Attached(_) => true,
            PeerRole::Unknown | PeerRole::LogFollower | PeerRole::Pauser { .. } => false,
        });
    }

    /// What the program wrote, to those who are attached; a tick to those who follow the log.
    pub(crate) fn output(&mut self, stream: Stream, bytes: &[u8]) {
        for peer in self.peers.iter_mut().filter(|peer| matches!(peer.role, PeerRole::Attached(_))) {
            peer.send(&FromShim::Output { stream, bytes: bytes.to_vec() });
        }
        self.log_grew();
    }

    /// Closes the connections of attached clients: they come back by themselves, and take what they missed from the log.
    pub(crate) fn send_away_clients(&mut self) {
        self.peers.retain(|peer| !matches!(peer.role, PeerRole::Attached(_)));
    }

    /// A tick to those who follow the log. One in the queue says as much as ten.
    pub(crate) fn log_grew(&mut self) {
        for peer in self.peers.iter_mut().filter(|peer| peer.role == PeerRole::LogFollower) {
            if !peer.has_queue() {
                peer.send(&FromShim::LogGrew);
            }
        }
    }

    /// Whether somebody wants the container to stand still.
    pub(crate) fn has_pausers(&self) -> bool {
        self.peers.iter().any(|peer| matches!(peer.role, PeerRole::Pauser { .. }))
    }

    /// It stands still.
    pub(crate) fn paused(&mut self) {
        for peer in &mut self.peers {
            if peer.role == (PeerRole::Pauser { told: false }) {
                peer.role = PeerRole::Pauser { told: true };
                peer.send(&FromShim::Paused);
            }
        }
    }

    /// It cannot stand still.
    pub(crate) fn refuse_pausers(&mut self, error: &WireError) {
        for peer in self.peers.iter_mut().filter(|peer| matches!(peer.role, PeerRole::Pauser { .. })) {
            peer.send(&FromShim::Failed(error.clone()));
        }
    }

    /// Closes the connections of those who paused it: it does not stand still any more.
    pub(crate) fn send_away_pausers(&mut self) {
        self.peers.retain(|peer| !matches!(peer.role, PeerRole::Pauser { .. }));
    }

    /// Whether somebody wants the program's output itself.
    pub(crate) fn wants_bytes(&self) -> bool {
        self.peers.iter().any(|peer| matches!(peer.role, PeerRole::Attached(_)))
    }

    /// Whether an attached client takes output slower than it comes.
    pub(crate) fn is_congested(&self) -> bool {
        self.peers.iter().any(|peer| matches!(peer.role, PeerRole::Attached(_)) && peer.is_full())
    }

    /// Whether somebody attached gives input.
    pub(crate) fn has_input_source(&self) -> bool {
        self.peers.iter().any(|peer| matches!(peer.role, PeerRole::Attached(plan) if plan.stdin))
    }

    /// Whether an attached client has not got everything yet.
    pub(crate) fn has_unsent_output(&self) -> bool {
        self.peers.iter().any(|peer| matches!(peer.role, PeerRole::Attached(_)) && peer.has_queue())
    }

    /// Whether a supervisor has not got everything yet.
    pub(crate) fn has_unsent_reports(&self) -> bool {
        self.peers.iter().any(|peer| peer.role == PeerRole::Supervisor && peer.has_queue())
    }
}
