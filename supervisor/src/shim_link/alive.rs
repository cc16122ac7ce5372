//! Whether a container's shim lives: its lock says so, never a pid. Where somebody has removed the file of the lock, which a
//! shim holds all the same, its socket does: nobody listens at that of a dead one.

use std::io;

use mysup_ipc::layout;

use crate::{config::Places, sys};

/// Whether it lives. What cannot be looked at is no proof of death. Blocks.
pub(crate) fn lives(places: &Places) -> bool {
    try_lives(places).unwrap_or_else(|error| {
        tracing::warn!(%error, lock = %places.lock().display(), "cannot look at a lock, continuing");
        true
    })
}

fn try_lives(places: &Places) -> io::Result<bool> {
    if sys::is_locked(&places.lock())? {
        return Ok(true);
    }
    match places.lock().symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (socket, _directory) = match sys::short_socket_path(&places.run, layout::SHIM_SOCKET) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                path => path?,
            };
            sys::is_listened_at(&socket)
        }
        there => there.map(|_| false),
    }
}
