//! A client in the foreground: the user's terminal on one side, a shim on the other. The supervisor only brings them
//! together; it may die in the middle.
//!
//! One poll(2) waits for the shim, the supervisor's answer, the user's input and signals. Nothing is sent before the
//! shim has said that the program runs (it refuses what is early), and no input is read while the shim is busy.

pub(crate) mod rest;

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use mysup_ipc::{
    api::{Request, Response},
    blocking::{Connection, ConnectionError, Received},
    codec::Message,
    error::WireError,
    exit::ExitStatus,
    fds,
    id::ContainerId,
    plan::AttachPlan,
    shim::{FromShim, Role, ToShim},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};

use self::rest::{Rest, Shown};
use super::{
    client::{Client, connection_error},
    error::CliError,
    output,
    signals::Signals,
    terminal::{self, DetachKeys, RawMode, Typed},
};

/// Most bytes of one read of the user's input.
const INPUT_CHUNK: usize = 32 << 10;
/// How long the supervisor's answer is waited for when the container has ended already: it has warnings and the id.
const ANSWER_AFTER_END: Duration = Duration::from_secs(5);
/// How long the supervisor may take to say what went wrong when the shim has hung up.
const ANSWER_AFTER_LOSS: Duration = Duration::from_secs(60);

/// What the user wants of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// Input is passed on.
    pub(crate) stdin: bool,
    /// The container has a terminal.
    pub(crate) terminal: bool,
}

/// How an attached client ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The container has ended like this.
    Status(ExitStatus),
    /// The user left it with the detach keys.
    Detached,
    /// Nobody reads the output any more; the container goes on.
    ReaderGone,
    /// A second INT or the like came before the program ran.
    Interrupted(u8),
    /// The shim is gone and did not say how the container ended.
    Lost {
        /// It had said that the program runs.
        started: bool,
        /// What was shown of its output.
        shown: Shown,
        /// What is held of the program's terminal.
        terminal: Vec<OwnedFd>,
    },
}

/// Hears of the container's id and of the supervisor's warnings.
pub(crate) type Created<'a> = &'a mut dyn FnMut(&ContainerId, &[String]) -> Result<(), CliError>;

/// Sends the request (`Run` or `Start` with `attach`) and stays with the container to its end. `created` hears of the
/// supervisor's answer, once at most.
///
/// # Errors
/// If the container could not be made or started, or a connection failed.
pub(crate) fn attached(
    mut client: Client,
    request: &Request,
    archive: Option<&File>,
    wish: Wish,
    created: Created<'_>,
) -> Result<Ended, CliError> {
    let failed = |action| move |source| CliError::Call { action, source };
    // From here on no signal is lost, and none kills us with the terminal in raw mode.
    let mut signals = Signals::take().map_err(failed("take signals"))?;
    let mut early_signal = None;
    let again = client.again();
    loop {
        let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket pair"))?;
        ours.set_nonblocking(true).map_err(failed("set up a socket"))?;
        let descriptors: Vec<BorrowedFd<'_>> =
            archive.map(AsFd::as_fd).into_iter().chain([theirs.as_fd()]).collect();
        let sent = client.send(request, &descriptors);
        drop(theirs);
        let supervisor = Some(client.into_connection());
        let mut attachment = Attachment::new(Connection::new(ours), supervisor, signals, wish);
        attachment.early_signal = early_signal;
        match sent.and_then(|()| attachment.stay(&mut *created)) {
            Err(CliError::Unread) => {}
            outcome => return outcome,
        }
        (signals, early_signal) = (attachment.signals, attachment.early_signal);
        client = again.next()?;
    }
}

/// Attaches again to a container whose shim was replaced, over a connection to the new one, which gets the `terminal`
/// that we have held. Output is taken from `rest` if there is one.
///
/// # Errors
/// If the terminal cannot be set up or a connection failed.
pub(crate) fn again(
    shim: UnixStream,
    wish: Wish,
    rest: Option<&mut Rest>,
    terminal: Vec<OwnedFd>,
) -> Result<Ended, CliError> {
    let failed = |action| move |source| CliError::Call { action, source };
    let signals = Signals::take().map_err(failed("take signals"))?;
    let mut shim = Connection::new(shim);
    let hello = ToShim::Hello(Role::Attach(AttachPlan { stdin: wish.stdin }));
    // The FIFO it finds by its path.
    let descriptors: Vec<BorrowedFd<'_>> = terminal.iter().take(1).map(AsFd::as_fd).collect();
    if shim.send_with(&hello, &descriptors).is_err() {
        // It is dead, too. What is held is for the next one.
        return Ok(Ended::Lost { started: true, shown: Shown::default(), terminal });
    }
    shim.socket().set_nonblocking(true).map_err(failed("set up a socket"))?;
    let mut attachment = Attachment::new(shim, None, signals, wish);
    attachment.rest = rest;
    attachment.terminal = terminal;
    attachment.stay(&mut |_, _| Ok(()))
}

struct Attachment<'a> {
    /// `None` when it has said its last word.
    shim: Option<Connection>,
    /// `None` when it has answered, or is gone.
    supervisor: Option<Connection>,
    /// Dropped before `signals`: no signal may kill us while the terminal is raw.
    raw: Option<RawMode>,
    signals: Signals,
    wish: Wish,
    input_open: bool,
    started: bool,
    shown: Shown,
    /// Where output is taken from after the death of a shim.
    rest: Option<&'a mut Rest>,
    /// Bytes for the shim that it did not take yet.
    outbox: VecDeque<u8>,
    /// A signal that came before the program ran.
    early_signal: Option<u8>,
    keys: DetachKeys,
    status: Option<ExitStatus>,
    failure: Option<WireError>,
    /// The master of the program's terminal and the FIFO for its output, held for a shim that may come after this one: the
    /// terminal is not hung up then, and the FIFO's bytes are not forgotten.
    terminal: Vec<OwnedFd>,
    /// Until when the supervisor's answer is waited for.
    deadline: Option<Instant>,
}

/// What a poll found.
struct Found {
    shim: bool,
    supervisor: bool,
    stdin: bool,
    signals: bool,
}

impl Attachment<'_> {
    fn new(shim: Connection, supervisor: Option<Connection>, signals: Signals, wish: Wish) -> Self {
        Self {
            shim: Some(shim),
            supervisor,
            signals,
            wish,
            input_open: wish.stdin,
            started: false,
            shown: Shown::default(),
            rest: None,
            outbox: VecDeque::new(),
            early_signal: None,
            keys: DetachKeys::default(),
            raw: None,
            status: None,
            failure: None,
            terminal: Vec::new(),
            deadline: None,
        }
    }

    fn stay(&mut self, created: Created<'_>) -> Result<Ended, CliError> {
        while !self.is_over() {
            let found = self.wait()?;
            if found.signals
                && let Some(ended) = self.pass_signals()?
            {
                return Ok(ended);
            }
            if found.shim {
                match self.hear_shim() {
                    Err(CliError::ReaderGone) => return Ok(Ended::ReaderGone),
                    other => other?,
                }
            }
            if found.supervisor {
                self.hear_supervisor(&mut *created)?;
            }
            // What is typed while there is no shim stays where it is, for the next one.
            if found.stdin && self.shim.is_some() && self.read_input()? {
                return Ok(Ended::Detached);
            }
            self.flush();
        }
        if let Some(rest) = &mut self.rest {
            match rest.show() {
                Err(CliError::ReaderGone) => return Ok(Ended::ReaderGone),
                other => other?,
            }
        }
        // The user's terminal is his again before anything is said about the end.
        self.raw = None;
        match (self.failure.take(), self.status) {
            (Some(failure), _) => Err(failure.into()),
            (None, Some(status)) => Ok(Ended::Status(status)),
            (None, None) => Ok(Ended::Lost {
                started: self.started,
                shown: std::mem::take(&mut self.shown),
                terminal: std::mem::take(&mut self.terminal),
            }),
        }
    }

    fn is_over(&self) -> bool {
        self.shim.is_none()
            && (self.supervisor.is_none() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline))
    }

    /// Waits until one of the four has something.
    fn wait(&self) -> Result<Found, CliError> {
        let stdin = io::stdin();
        let mut polled = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let mut add = |fd, flags| {
            polled.push(PollFd::new(fd, flags));
            polled.len() - 1
        };
        let shim = self.shim.as_ref().map(|shim| {
            let write = if self.outbox.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            add(shim.socket().as_fd(), PollFlags::POLLIN | write)
        });
        let supervisor = self.supervisor.as_ref().map(|peer| add(peer.socket().as_fd(), PollFlags::POLLIN));
        let reads = self.input_open && self.started && self.outbox.is_empty() && self.shim.is_some();
        let input = reads.then(|| add(stdin.as_fd(), PollFlags::POLLIN));
        match poll(&mut polled, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                return Err(CliError::Call { action: "wait for the container", source: error.into() });
            }
        }
        // POLLERR, POLLHUP and POLLNVAL too: the read then says what is wrong.
        let came = |at: usize| {
            let events = polled.get(at).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
            events.intersects(!PollFlags::POLLOUT)
        };
        Ok(Found {
            signals: came(0),
            shim: shim.is_some_and(came),
            supervisor: supervisor.is_some_and(came),
            stdin: input.is_some_and(came),
        })
    }

    fn timeout(&self) -> PollTimeout {
        let Some(deadline) = self.deadline else { return PollTimeout::NONE };
        // One millisecond more: poll counts in whole ones, and would spin through the last.
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn hear_shim(&mut self) -> Result<(), CliError> {
        let Some(shim) = &mut self.shim else { return Ok(()) };
        match shim.receive() {
            Ok(Received::Message(message)) => self.take(message)?,
            Ok(Received::NotYet) => {}
            Ok(Received::Closed) => self.shim_is_done(),
            Err(ConnectionError::Codec(error)) => {
                return Err(CliError::Connection { peer: "the shim", source: error.into() });
            }
            // Killed with something of ours unread, or in the middle of a message: it is gone.
            Err(ConnectionError::Io(_) | ConnectionError::Torn) => self.shim_is_done(),
        }
        // What was read along with it, but no more: a program that prints without end must not keep us from the
        // user's keys.
        while let Some(shim) = &mut self.shim {
            let more = shim.buffered();
            match more.map_err(|source| CliError::Connection { peer: "the shim", source })? {
                Some(message) => self.take(message)?,
                None => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, message: FromShim) -> Result<(), CliError> {
        match message {
            FromShim::Started { at } => {
                let next = || self.shim.as_mut().and_then(Connection::take_descriptor);
                let came: Vec<OwnedFd> = std::iter::from_fn(next).collect();
                if !came.is_empty() {
                    self.terminal = came;
                }
                self.start(at)?;
            }
            FromShim::Output { stream, bytes } => match &mut self.rest {
                Some(rest) => rest.show()?,
                None => {
                    rest::show(stream, &bytes)?;
                    self.shown.add(stream, &bytes);
                }
            },
            FromShim::Failed(error) => self.failure = Some(error),
            FromShim::Exited(report) => {
                self.status = Some(report.status);
                self.input_open = false;
                self.raw = None;
                if report.status == ExitStatus::Unknown && !report.error.is_empty() {
                    output::complain(&report.error);
                }
            }
            FromShim::Leftover(report) => {
                self.raw = None;
                output::warn_of_leftovers(&report);
                self.shim_is_done();
            }
            FromShim::TornDown(_) => self.shim_is_done(),
            FromShim::Created { .. }
            | FromShim::LogGrew
            | FromShim::Step(_)
            | FromShim::Report(_)
            | FromShim::Paused
            | FromShim::Unknown => {}
        }
        Ok(())
    }

    fn start(&mut self, at: u64) -> Result<(), CliError> {
        self.started = true;
        self.shown.since = Some(at);
        if self.wish.terminal && self.wish.stdin {
            let raw = RawMode::enter();
            self.raw = Some(raw.map_err(|source| CliError::Call { action: "set up the terminal", source })?);
        }
        if self.wish.terminal {
            // It may have changed since the request was made.
            self.queue(&ToShim::Resize(terminal::size()))?;
        }
        if let Some(signal) = self.early_signal.take() {
            self.queue(&ToShim::Signal(signal))?;
        }
        Ok(())
    }

    fn shim_is_done(&mut self) {
        self.shim = None;
        self.outbox.clear();
        let known = self.status.is_some() || self.failure.is_some();
        let wait = if known { ANSWER_AFTER_END } else { ANSWER_AFTER_LOSS };
        self.deadline = Some(Instant::now() + wait);
    }

    fn hear_supervisor(&mut self, created: Created<'_>) -> Result<(), CliError> {
        let Some(mut supervisor) = self.supervisor.take() else { return Ok(()) };
        match supervisor.receive() {
            Ok(Received::Message(Response::Created { id, warnings })) => created(&id, &warnings),
            // When it runs, the supervisor's trouble is not the container's.
            Ok(Received::Message(Response::Error(error))) if self.started => {
                output::complain(&format!("warning: {error}"));
                Ok(())
            }
            Ok(Received::Message(Response::Error(error))) => Err(error.into()),
            Ok(Received::Message(_)) => Err(CliError::WrongAnswer),
            Ok(Received::NotYet) => {
                self.supervisor = Some(supervisor);
                Ok(())
            }
            Ok(Received::Closed) if supervisor.has_left_unread() => Err(CliError::Unread),
            // It died. The container may live: its shim says so.
            Ok(Received::Closed) | Err(ConnectionError::Io(_) | ConnectionError::Torn) => Ok(()),
            Err(error @ ConnectionError::Codec(_)) => Err(connection_error(error)),
        }
    }

    /// Passes signals on; what came before the program ran is kept until it does.
    fn pass_signals(&mut self) -> Result<Option<Ended>, CliError> {
        const FATAL: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
        while let Some(signal) = self.signals.next() {
            let known = Signal::try_from(i32::from(signal)).ok();
            if known == Some(Signal::SIGWINCH) {
                if self.wish.terminal && self.started {
                    self.queue(&ToShim::Resize(terminal::size()))?;
                }
                continue;
            }
            if known == Some(Signal::SIGCONT)
                && let Some(raw) = &self.raw
            {
                // The shell had the terminal meanwhile; if it is gone, reading it will say so.
                let _ = raw.apply();
            }
            if self.started {
                self.queue(&ToShim::Signal(signal))?;
                continue;
            }
            let fatal = known.is_some_and(|known| FATAL.contains(&known));
            if fatal && self.early_signal.is_some() {
                return Ok(Some(Ended::Interrupted(signal)));
            }
            if fatal || self.early_signal.is_none() {
                self.early_signal = Some(signal);
            }
        }
        Ok(None)
    }

    /// Reads the user's input once; whether he wants to leave.
    fn read_input(&mut self) -> Result<bool, CliError> {
        let mut buffer = vec![0; INPUT_CHUNK];
        // Unbuffered: what is not for the program must not be swallowed.
        match nix::unistd::read(io::stdin().as_fd(), &mut buffer) {
            Ok(0) => {
                self.input_open = false;
                self.queue(&ToShim::StdinEnd)?;
            }
            Ok(count) => {
                buffer.truncate(count);
                if self.wish.terminal {
                    match self.keys.look(&buffer) {
                        Typed::Detach(_) => return Ok(true),
                        Typed::Input(bytes) => buffer = bytes,
                    }
                }
                if !buffer.is_empty() {
                    self.queue(&ToShim::Stdin(buffer))?;
                }
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // A terminal that is not ours (we are in the background), or is gone.
            Err(Errno::EIO) => self.input_open = false,
            Err(error) => {
                return Err(CliError::Call { action: "read standard input", source: error.into() });
            }
        }
        Ok(false)
    }

    fn queue(&mut self, message: &ToShim) -> Result<(), CliError> {
        if self.shim.is_some() {
            self.outbox.extend(message.to_frame()?);
        }
        Ok(())
    }

    /// Sends what the shim takes without waiting.
    fn flush(&mut self) {
        let Some(shim) = &self.shim else { return };
        while !self.outbox.is_empty() {
            let (front, _) = self.outbox.as_slices();
            match fds::send(shim.socket().as_fd(), front, &[]) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It takes nothing any more; what it still has to say is read, and then its end.
                Err(_) => {
                    self.outbox.clear();
                    self.input_open = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
