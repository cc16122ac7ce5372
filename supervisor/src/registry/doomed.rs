//! A removal by force that has begun, on disk: it is gone on with by the next supervisor, whatever died meanwhile, and in
//! another boot too.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::fd::AsFd,
};

use mysup_ipc::{
    layout,
    record::{Durability, replace},
};

use super::volumes::Anonymous;
use crate::config::Places;

/// Notes that a container is to be killed and removed. Blocks.
///
/// # Errors
/// If it is not on disk; the removal is then forgotten with its supervisor.
pub(crate) fn note(places: &Places, anonymous: &Anonymous, durability: Durability) -> io::Result<()> {
    let text: &str = match anonymous {
        Anonymous::Stay => "",
        Anonymous::Go(_) => layout::DOOMED_WITH_VOLUMES,
    };
    if fs::read(places.doomed()).is_ok_and(|noted| noted == text.as_bytes()) {
        return Ok(());
    }
    replace(File::open(&places.state)?.as_fd(), layout::DOOMED, text.as_bytes(), durability)
}

/// What was noted, if anything. Blocks.
pub(crate) fn noted(places: &Places) -> Option<Anonymous> {
    match fs::read(places.doomed()) {
        Ok(text) if text == layout::DOOMED_WITH_VOLUMES.as_bytes() => Some(Anonymous::Go(Vec::new())),
        Ok(_) => Some(Anonymous::Stay),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(%error, path = %places.doomed().display(), "cannot look for a removal, continuing");
            None
        }
    }
}

/// The removal was refused, and the user told so. Blocks.
pub(crate) fn withdraw(places: &Places) {
    match fs::remove_file(places.doomed()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(%error, path = %places.doomed().display(), "a refused removal stays on record, continuing");
        }
    }
}
