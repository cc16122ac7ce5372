//! Unmounting what the shim mounted, by mount id: never by device (`umount -A` of a bind takes down other people's mounts)
//! and never by a path that was not just verified to be that mount.

use std::{os::fd::BorrowedFd, time::Duration};

use mysup_ipc::{layout, teardown::Holder};
use rustix::{
    fs::{AtFlags, CWD},
    io::Errno,
    mount::UnmountFlags,
};

use super::holders;
use crate::{
    aside::Aside,
    error::{Call, SysError},
    mountinfo::{self, Mount},
};

/// How long one attempt waits for a server.
const PATIENCE: Duration = Duration::from_millis(100);

/// The mounts of the shim's own namespace, innermost first, without its root.
pub(crate) struct OwnMounts {
    sorted: Vec<Mount>,
    upper: String,
}

/// A mount that is still there.
#[derive(Debug)]
pub(crate) struct Busy {
    /// The call and its error.
    pub(crate) error: SysError,
    /// Who holds it.
    pub(crate) holders: Vec<Holder>,
}

impl OwnMounts {
    /// Lists them. `state_directory` tells which overlay is this container's own.
    pub(crate) fn read(proc: BorrowedFd<'_>, state_directory: &str) -> Result<Self, SysError> {
        let all = mountinfo::read_at(proc, "self")?;
        let depth = |mount: &Mount| {
            let mut depth = 0usize;
            let mut current = mount;
            while let Some(parent) =
                all.iter().find(|other| other.id == current.parent && other.id != current.id)
            {
                depth += 1;
                current = parent;
            }
            depth
        };
        let mut sorted: Vec<Mount> = all.iter().filter(|mount| mount.point != "/").cloned().collect();
        sorted.sort_by_key(|mount| std::cmp::Reverse((depth(mount), mount.id)));
        Ok(Self { sorted, upper: upper_option(state_directory) })
    }

    /// Everything but the root file system.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &Mount> {
        self.sorted.iter().filter(|mount| !self.is_own_root(mount))
    }

    /// Every mount of the container's own superblock.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Mount> {
        self.sorted.iter().filter(|mount| self.is_own_root(mount))
    }

    fn is_own_root(&self, mount: &Mount) -> bool {
        is_union_of(mount, &self.upper) || (mount.kind == "aufs" && mount.point == own_mountpoint())
    }
}

fn own_mountpoint() -> String {
    format!("/{}", layout::MOUNTPOINT)
}

/// The option by which an overlay says whose write layer it has.
fn upper_option(state_directory: &str) -> String {
    format!("upperdir={state_directory}/{}", layout::WRITE_LAYER)
}

fn is_union_of(mount: &Mount, upper: &str) -> bool {
    mount.kind == "overlay" && mount.super_options.split(',').any(|option| option == upper)
}

/// An unmount that has not returned yet.
#[derive(Debug)]
pub(crate) struct Hanging {
    aside: Aside,
    mount: Mount,
}

/// How far an unmount got.
pub(crate) enum Progress {
    /// "Not there any more" is done, too.
    Done,
    /// It is still there.
    Busy(Busy),
    /// It goes on by itself.
    Hangs(Hanging),
}

/// Unmounts one: at once where nobody can make the call wait, else in a process of its own.
pub(crate) fn unmount(proc: BorrowedFd<'_>, mount: &Mount) -> Progress {
    if !mount.may_hang() {
        return ended(proc, mount, detach(mount));
    }
    match Aside::start(&[], || (encode(detach(mount)), None)) {
        Ok(aside) => Hanging { aside, mount: mount.clone() }.look(proc, PATIENCE),
        Err(error) => Progress::Busy(Busy { error, holders: Vec::new() }),
    }
}

impl Hanging {
    /// Which mount it is about.
    pub(crate) fn mount(&self) -> &Mount {
        &self.mount
    }

    /// Whether it has come to an end.
    pub(crate) fn look(self, proc: BorrowedFd<'_>, patience: Duration) -> Progress {
        match self.aside.wait(patience) {
            Ok(None) => Progress::Hangs(self),
            Ok(Some(answer)) => ended(proc, &self.mount, decode(&answer.bytes)),
            Err(error) => Progress::Busy(Busy { error, holders: Vec::new() }),
        }
    }

    /// What is waited for.
    pub(crate) fn reason(&self) -> String {
        let Mount { point, kind, .. } = &self.mount;
        let pid = self.aside.pid();
        format!(
            "umount2(\"{point}\") does not return: its file system (type {kind}) does not answer pid {pid}"
        )
    }
}

fn ended(proc: BorrowedFd<'_>, mount: &Mount, outcome: Result<(), SysError>) -> Progress {
    match outcome {
        Ok(()) => Progress::Done,
        Err(error) => Progress::Busy(Busy { error, holders: holders::of_mount(proc, mount.id) }),
    }
}

/// Unmounts it if it is still there.
fn detach(mount: &Mount) -> Result<(), SysError> {
    match mountinfo::id_at(CWD, &mount.point, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(id) if id == mount.id => {}
        // Its mountpoint was removed, and the kernel detached it; or it is something else now, which is not ours.
        Ok(_) => return Ok(()),
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    }
    match rustix::mount::unmount(mount.point.as_str(), UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        result => result.call(|| format!("umount2(\"{}\")", mount.point)),
    }
}

fn encode(outcome: Result<(), SysError>) -> Vec<u8> {
    outcome.map_or_else(|error| error.to_bytes(), |()| 0_i32.to_le_bytes().to_vec())
}

fn decode(bytes: &[u8]) -> Result<(), SysError> {
    if bytes == 0_i32.to_le_bytes() { Ok(()) } else { Err(SysError::from_bytes(bytes)) }
}

/// After the death of a shim: processes in other mount namespaces that still have its union mounted. The kernel dropped
/// the shim's own namespace with it, unless somebody else had entered.
pub(crate) fn foreign_holders(proc: BorrowedFd<'_>, state_directory: &str) -> Vec<Holder> {
    let upper = upper_option(state_directory);
    let mut seen: Vec<(std::ffi::CString, bool)> = Vec::new();
    let mut found = Vec::new();
    for pid in holders::pids(proc) {
        let Ok(namespace) = rustix::fs::readlinkat(proc, format!("{pid}/ns/mnt"), Vec::new()) else {
            continue;
        };
        let holds = match seen.iter().find(|(known, _)| *known == namespace) {
            Some((_, holds)) => *holds,
            None => {
                let mounts = mountinfo::read_at(proc, &pid.to_string()).unwrap_or_default();
                let holds = mounts.iter().any(|mount| is_union_of(mount, &upper));
                seen.push((namespace, holds));
                holds
            }
        };
        if holds {
            found.push(holders::describe(proc, pid));
        }
    }
    found
}
