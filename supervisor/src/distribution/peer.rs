//! The client: its orders, and what it is told. When it is gone, this program ends at once.

use std::{
    fs::File,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use mysup_ipc::{
    blocking::{Connection, Received},
    progress::{PAUSE, Progress, ProgressStep},
    registry::{FromRegistry, ToRegistry},
};
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::error::Error;

/// The connection to the client. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    connection: Arc<Mutex<Connection>>,
}

impl Peer {
    /// Over a connected socket.
    ///
    /// # Errors
    /// If it is none.
    pub(super) fn new(socket: UnixStream) -> Result<Self, Error> {
        socket.local_addr().map_err(Error::Peer)?;
        Ok(Self { connection: Arc::new(Mutex::new(Connection::new(socket))) })
    }

    /// The next order; waits for it.
    ///
    /// # Errors
    /// If the client is gone.
    pub(super) fn order(&mut self) -> Result<ToRegistry, Error> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match connection.receive() {
            Ok(Received::Message(order)) => Ok(order),
            Ok(Received::NotYet | Received::Closed) | Err(_) => Err(Error::Gone),
        }
    }

    /// The file that came with the order.
    ///
    /// # Errors
    /// If none did.
    pub(super) fn file(&mut self) -> Result<File, Error> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.take_descriptor().map(File::from).ok_or(Error::Order)
    }

    /// Says something.
    ///
    /// # Errors
    /// If the client is gone.
    pub(super) fn send(&self, message: &FromRegistry) -> Result<(), Error> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.send(message).map_err(|_| Error::Gone)
    }

    /// Does something until the client is gone.
    ///
    /// # Errors
    /// As what is done, and if the client is gone.
    pub(super) async fn unless_gone<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let socket = {
            let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            connection.socket().try_clone().map_err(Error::Peer)?
        };
        let (gone, is_gone) = tokio::sync::oneshot::channel();
        // It may wait longer than the work takes; then nobody listens, and the end of the program ends it.
        let watch = move || {
            let mut watched = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            while nix::poll::poll(&mut watched, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
            // Nobody waits for it any more when the work is done.
            let _ = gone.send(());
        };
        std::thread::Builder::new().name("client".to_owned()).spawn(watch).map_err(Error::Peer)?;
        tokio::select! {
            // What is done is done, whoever is still there.
            biased;
            done = work => done,
            // Nothing is sent to us while we work: it can only be the end.
            _ = is_gone => Err(Error::Gone),
        }
    }
}

/// Tells of one part, not too often.
#[derive(Debug)]
pub(super) struct Report {
    peer: Peer,
    part: String,
    total: u64,
    last: Option<(ProgressStep, Instant)>,
    is_silent: bool,
}

impl Report {
    /// About what is too small to be spoken of.
    pub(super) fn silent(peer: &Peer) -> Self {
        Self { peer: peer.clone(), part: String::new(), total: 0, last: None, is_silent: true }
    }

    /// About a part of so many bytes.
    pub(super) fn new(peer: &Peer, part: &str, total: u64) -> Self {
        Self { peer: peer.clone(), part: part.to_owned(), total, last: None, is_silent: false }
    }

    /// So far it is; said if it is another step, or the last was some time ago.
    ///
    /// # Errors
    /// If the client is gone.
    pub(super) fn tell(&mut self, step: ProgressStep, done: u64) -> Result<(), Error> {
        if self.is_silent || self.last.is_some_and(|(last, at)| last == step && at.elapsed() < PAUSE) {
            return Ok(());
        }
        self.last = Some((step, Instant::now()));
        let progress = Progress { part: self.part.clone(), step, done, total: self.total };
        self.peer.send(&FromRegistry::Progress(progress))
    }
}
