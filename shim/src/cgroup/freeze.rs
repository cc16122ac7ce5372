//! Stopping everything in a container's cgroups where it is, and letting it go on: `cgroup.freeze` of the unified tree, or
//! version 1's freezer where there is none.
//!
//! What is frozen has left the kernel: no write(2) of it is half done. SIGKILL ends what the unified tree has frozen; what
//! version 1 has frozen dies when it is thawed.

use rustix::io::Errno;

use super::Directory;
use crate::error::SysError;

/// Of the unified tree, since Linux 5.2, also in hybrid layouts.
const FREEZE: &str = "cgroup.freeze";
const EVENTS: &str = "cgroup.events";
/// Of version 1.
pub(super) const STATE: &str = "freezer.state";
pub(super) const THAWED: &str = "THAWED";

/// Asks all that is in these cgroups to stand still; [`is_frozen`] says when it does.
///
/// # Errors
/// If there is no freezer among them, or it cannot be written.
pub(crate) fn freeze(directories: &[Directory]) -> Result<(), SysError> {
    match set(directories, "1", "FROZEN")? {
        true => Ok(()),
        false => {
            let none = std::io::Error::from(std::io::ErrorKind::Unsupported);
            Err(SysError::new("freeze the container without a freezer among its cgroups", none))
        }
    }
}

/// Whether all of it stands still.
///
/// # Errors
/// If that cannot be read.
pub(crate) fn is_frozen(directories: &[Directory]) -> Result<bool, SysError> {
    for directory in directories {
        if let Some(word) = directory.read(EVENTS)?.lines().find_map(|line| line.strip_prefix("frozen ")) {
            return Ok(word == "1");
        }
    }
    for directory in directories {
        match directory.read(STATE)?.trim() {
            "" => {}
            // FREEZING until the last one stands still; reading makes the kernel look again.
            state => return Ok(state == "FROZEN"),
        }
    }
    Ok(false)
}

/// Lets all of it go on, whoever froze it.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn thaw(directories: &[Directory]) -> Result<(), SysError> {
    set(directories, "0", THAWED).map(drop)
}

/// Writes to the freezer of the unified tree, or of version 1; false if there is none. Only a file that is not there is
/// no freezer: an error of the moment must not look like that.
fn set(directories: &[Directory], unified: &str, old: &str) -> Result<bool, SysError> {
    for (file, value) in [(FREEZE, unified), (STATE, old)] {
        for directory in directories {
            match directory.write(file, value) {
                Ok(()) => return Ok(true),
                Err(error) if error.errno() == Some(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(false)
}
