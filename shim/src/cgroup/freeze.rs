//! Stopping everything in a container's cgroups where it is, and letting it go on: `cgroup.freeze` of the unified tree, or
//! version 1's freezer where there is none.
//!
//! What is frozen has left the kernel: no write(2) of it is half done. SIGKILL ends what the unified tree has frozen; what
//! version 1 has frozen dies when it is thawed.

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
    match freezer(directories) {
        Some((directory, FREEZE)) => directory.write(FREEZE, "1"),
        Some((directory, file)) => directory.write(file, "FROZEN"),
        None => {
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
    match freezer(directories) {
        Some((directory, FREEZE)) => Ok(directory.read(EVENTS)?.lines().any(|line| line == "frozen 1")),
        // FREEZING until the last one stands still; reading makes the kernel look again.
        Some((directory, file)) => Ok(directory.read(file)?.trim() == "FROZEN"),
        None => Ok(false),
    }
}

/// Lets all of it go on, whoever froze it.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn thaw(directories: &[Directory]) -> Result<(), SysError> {
    match freezer(directories) {
        Some((directory, FREEZE)) => directory.write(FREEZE, "0"),
        Some((directory, file)) => directory.write(file, THAWED),
        None => Ok(()),
    }
}

fn freezer(directories: &[Directory]) -> Option<(&Directory, &'static str)> {
    let with = |file: &'static str| Some((directories.iter().find(|directory| directory.has(file))?, file));
    with(FREEZE).or_else(|| with(STATE))
}
