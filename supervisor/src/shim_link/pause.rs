//! A container that stands still for a moment: its shim keeps it so for as long as this connection lasts. So whatever dies,
//! it goes on.
//!
//! A connection of its own, for threads that may block: the link's is for what the container is told.

use std::{
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use mysup_ipc::{
    blocking::{Connection, Received},
    layout,
    shim::{FromShim, Role, ToShim},
};

use crate::{error::chain, sys};

/// The shim gives up after ten seconds by itself, and says why.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// A container stands still until this is dropped.
#[derive(Debug)]
pub(crate) struct Pause(Connection);

impl Pause {
    /// Pauses the container of this run directory. Blocks until it stands still, or is not wanted any more.
    ///
    /// # Errors
    /// The reason for people, if it cannot be paused; it goes on then.
    pub(crate) fn begin(run_directory: &Path, is_cancelled: impl Fn() -> bool) -> Result<Self, String> {
        let deadline = Instant::now() + PATIENCE;
        let connected =
            sys::short_socket_path(run_directory, layout::SHIM_SOCKET).and_then(|(path, _kept)| {
                let socket = UnixStream::connect(path)?;
                socket.set_read_timeout(Some(LOOK))?;
                Ok(socket)
            });
        let socket = connected.map_err(|error| format!("its shim cannot be reached: {error}"))?;
        let mut connection = Connection::new(socket);
        connection.send(&ToShim::Hello(Role::Pause)).map_err(|error| chain(&error))?;
        loop {
            match connection.receive() {
                Ok(Received::Message(FromShim::Paused)) => return Ok(Self(connection)),
                Ok(Received::Message(FromShim::Failed(error))) => return Err(error.message),
                // Of a newer shim.
                Ok(Received::Message(_)) => {}
                Ok(Received::NotYet) if is_cancelled() => return Err("it was cancelled".to_owned()),
                Ok(Received::NotYet) if Instant::now() < deadline => {}
                Ok(Received::NotYet) => return Err("its shim does not answer".to_owned()),
                Ok(Received::Closed) | Err(_) => {
                    return Err("the container has ended, or its shim is too old to pause it".to_owned());
                }
            }
        }
    }

    /// Whether it has stood still since, and still does. Ask after the last look at what it must not change: the shim closes
    /// the connection before it lets the container go on.
    pub(crate) fn holds(&mut self) -> bool {
        if self.0.socket().set_nonblocking(true).is_err() {
            return false;
        }
        loop {
            match self.0.receive::<FromShim>() {
                Ok(Received::NotYet) => return true,
                // Of a newer shim.
                Ok(Received::Message(_)) => {}
                Ok(Received::Closed) | Err(_) => return false,
            }
        }
    }
}
