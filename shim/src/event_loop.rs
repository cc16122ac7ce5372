//! The one poll(2) of the shim: everything that can happen to it is in [`Event`].

use std::{
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    time::{Duration, Instant},
};

use mysup_ipc::shim::Stream;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    error::{Call, SysError},
    peer::Peer,
};

/// Something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A signal came for the shim.
    Signal,
    /// The init has ended.
    InitEnded,
    /// The program wrote something.
    Output(Stream),
    /// The program takes more input.
    InputRoom,
    /// Somebody connects.
    Connecting,
    /// This peer said something, or left.
    PeerSpoke(usize),
    /// This peer takes more.
    PeerRoom(usize),
}

/// What is watched in one turn.
#[derive(Default)]
pub(crate) struct Watch<'a> {
    fds: Vec<PollFd<'a>>,
    events: Vec<Event>,
    deadline: Option<Instant>,
}

impl<'a> Watch<'a> {
    /// The shim's own signals.
    pub(crate) fn signals(&mut self, pipe: &'a UnixStream) {
        self.add(pipe.as_fd(), PollFlags::POLLIN, Event::Signal);
    }

    /// New connections.
    pub(crate) fn listener(&mut self, listener: &'a UnixListener) {
        self.add(listener.as_fd(), PollFlags::POLLIN, Event::Connecting);
    }

    /// The end of the init.
    pub(crate) fn init(&mut self, pidfd: BorrowedFd<'a>) {
        self.add(pidfd, PollFlags::POLLIN, Event::InitEnded);
    }

    /// Output of the program.
    pub(crate) fn output(&mut self, stream: Stream, fd: BorrowedFd<'a>) {
        self.add(fd, PollFlags::POLLIN, Event::Output(stream));
    }

    /// Room for input.
    pub(crate) fn input(&mut self, fd: BorrowedFd<'a>) {
        self.add(fd, PollFlags::POLLOUT, Event::InputRoom);
    }

    /// All peers; of those in `deaf` nothing is read for now.
    pub(crate) fn peers(&mut self, peers: &'a [Peer], deaf: impl Fn(&Peer) -> bool) {
        for (index, peer) in peers.iter().enumerate() {
            if peer.has_queue() {
                self.add(peer.socket(), PollFlags::POLLOUT, Event::PeerRoom(index));
            }
            if !deaf(peer) {
                self.add(peer.socket(), PollFlags::POLLIN, Event::PeerSpoke(index));
            }
        }
    }

    /// Comes back at this time even if nothing happens; the earliest counts.
    pub(crate) fn until(&mut self, deadline: Option<Instant>) {
        self.deadline = match (self.deadline, deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    fn add(&mut self, fd: BorrowedFd<'a>, flags: PollFlags, event: Event) {
        self.fds.push(PollFd::new(fd, flags));
        self.events.push(event);
    }

    /// Waits, and says what happened, in the order of watching. An interrupted wait is a wait in which nothing happened.
    pub(crate) fn wait(mut self) -> Result<Vec<Event>, SysError> {
        match poll(&mut self.fds, timeout(self.deadline)) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error).call(|| "poll()"),
        }
        let happened = |fd: &PollFd<'_>| fd.revents().is_some_and(|flags| !flags.is_empty());
        let pairs = self.fds.iter().zip(&self.events);
        Ok(pairs.filter(|(fd, _)| happened(fd)).map(|(_, event)| *event).collect())
    }
}

fn timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    // Rounded up: waking a moment early would spin until the deadline.
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}
