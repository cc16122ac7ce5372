//! One who talks to the shim: the supervisor, an attached client, a log follower. Never blocks: what cannot be sent is
//! queued, and an attached client's full queue stops the reading of the program's output (its pipeline waits, as in a
//! shell), never the shim.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use mysup_ipc::{
    blocking::{Connection, ConnectionError, Received},
    codec::Message,
    fds,
    plan::AttachPlan,
    shim::{FromShim, ToShim},
};

/// Beyond this many bytes a queue counts as full.
const FULL: usize = 1 << 18;

/// What a peer may say and gets told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerRole {
    /// Connected, and has not said what it is.
    Unknown,
    /// Gets every event; may stop, signal and retry.
    Supervisor,
    /// Gets output and the end; may give input.
    Attached(AttachPlan),
    /// Gets a tick when the log grew.
    LogFollower,
    /// The container stands still while it is connected.
    Pauser {
        /// That it does.
        told: bool,
    },
}

/// A connection and what is still to be sent over it.
#[derive(Debug)]
pub(crate) struct Peer {
    connection: Connection,
    pub(crate) role: PeerRole,
    queue: VecDeque<Item>,
    queued: usize,
    closed: bool,
}

#[derive(Debug)]
struct Item {
    bytes: Vec<u8>,
    sent: usize,
    /// They ride with the first byte.
    descriptors: Vec<OwnedFd>,
}

impl Peer {
    /// Takes over a connected socket.
    pub(crate) fn new(socket: UnixStream, role: PeerRole) -> io::Result<Self> {
        Self::from_connection(Connection::new(socket), role)
    }

    /// Takes over a connection with what was already read of it.
    pub(crate) fn from_connection(connection: Connection, role: PeerRole) -> io::Result<Self> {
        connection.socket().set_nonblocking(true)?;
        Ok(Self { connection, role, queue: VecDeque::new(), queued: 0, closed: false })
    }

    /// For poll(2).
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.connection.socket().as_fd()
    }

    /// Whether the other side is gone, or said nonsense.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether something waits to be sent.
    pub(crate) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether it takes output slower than the program makes it.
    pub(crate) fn is_full(&self) -> bool {
        self.queued > FULL
    }

    /// Sends or queues a message.
    pub(crate) fn send(&mut self, message: &FromShim) {
        self.send_with(message, Vec::new());
    }

    /// Sends or queues a message with descriptors.
    pub(crate) fn send_with(&mut self, message: &FromShim, descriptors: Vec<OwnedFd>) {
        if self.closed {
            return;
        }
        match message.to_frame() {
            Ok(bytes) => {
                self.queued += bytes.len();
                self.queue.push_back(Item { bytes, sent: 0, descriptors });
                self.flush();
            }
            Err(error) => {
                tracing::error!(%error, "a message cannot be sent");
                self.closed = true;
            }
        }
    }

    /// Sends as much of the queue as the socket takes.
    pub(crate) fn flush(&mut self) {
        while let Some(item) = self.queue.front_mut() {
            let descriptors: Vec<BorrowedFd<'_>> = item.descriptors.iter().map(AsFd::as_fd).collect();
            match fds::send(self.connection.socket().as_fd(), &item.bytes[item.sent..], &descriptors) {
                Ok(count) => {
                    item.descriptors.clear();
                    item.sent += count;
                    self.queued -= count;
                    if item.sent == item.bytes.len() {
                        self.queue.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Without memory for the moment: the next turn of the event loop tries again.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory) =>
                {
                    return;
                }
                Err(_) => return self.close(),
            }
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.queue.clear();
        self.queued = 0;
    }

    /// The next message that has come. `None` when there is none for now, or never more.
    pub(crate) fn receive(&mut self) -> Option<ToShim> {
        if self.closed {
            return None;
        }
        match self.connection.receive() {
            Ok(Received::Message(message)) => Some(message),
            Ok(Received::NotYet) => None,
            Err(ConnectionError::Io(error)) if error.kind() == io::ErrorKind::OutOfMemory => None,
            Ok(Received::Closed) => {
                self.close();
                None
            }
            Err(error) => {
                tracing::warn!(%error, role = ?self.role, "a connection is closed for what came over it");
                self.close();
                None
            }
        }
    }

    /// The oldest descriptor that came over it.
    pub(crate) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.connection.take_descriptor()
    }

    /// Closes for a message that this role may not send, or not now.
    pub(crate) fn refuse(&mut self, message: &ToShim) {
        tracing::warn!(role = ?self.role, ?message, "a message that is not allowed here, closing the connection");
        self.close();
    }
}
