//! What is left of a container whose journal is gone: somebody has cleaned up the run directory. Its cgroups have its id for
//! their name; but so have those of a copy of the state root elsewhere. Whose they are, the processes in them show.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use mysup_ipc::{layout, teardown::JournalEntry};

use super::unmount;
use crate::{
    cgroup::{self, Directory},
    error::SysError,
    mountinfo,
};

/// The entries that such a journal must have had: for the mounts, of which nobody knows, and for each cgroup that is empty or
/// has a process with this container's root file system.
pub(crate) fn entries(proc: &OwnedFd, state_dir: &str) -> Result<Vec<JournalEntry>, SysError> {
    let id = Path::new(state_dir).file_name().unwrap_or_default();
    let users = unmount::foreign_holders(proc.as_fd(), state_dir);
    let mut entries = vec![JournalEntry::Mountpoint];
    for hierarchy in cgroup::find_hierarchies(&mountinfo::read()?) {
        let path = hierarchy.mount_point.join(layout::CGROUP_PARENT).join(id);
        let Some(directory) = Directory::open(&path)? else { continue };
        let members = directory.processes()?;
        if members.is_empty() || users.iter().any(|user| members.contains(&user.pid)) {
            entries.push(JournalEntry::Cgroup { path: path.display().to_string() });
        } else {
            tracing::warn!(path = %path.display(), "nothing shows whose cgroup this is, it is left alone, continuing");
        }
    }
    Ok(entries)
}
