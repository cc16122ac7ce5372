//! Unmounting what the shim mounted, by mount id: never by device (`umount -A` of a bind takes down other people's mounts)
//! and never by a path that was not just verified to be that mount.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use mysup_ipc::{layout, teardown::Holder};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::{
    fs::{AtFlags, CWD, inotify},
    io::Errno,
    mount::UnmountFlags,
};

use super::holders;
use crate::{
    aside::Aside,
    error::{Call, SysError},
    mountinfo::{self, Mount},
    rootfs,
};

/// How long one attempt waits for a server.
const PATIENCE: Duration = Duration::from_millis(100);
/// Milliseconds for the end of a union that nobody holds.
const LAST_SIGN_PATIENCE: u8 = 50;

/// The mounts of the shim's own namespace, innermost first, without its root.
pub(crate) struct OwnMounts {
    sorted: Vec<Mount>,
    upper: [String; 2],
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
        is_union_of(mount, &self.upper) || (mount.kind == "aufs" && *mount.point == *own_mountpoint())
    }
}

fn own_mountpoint() -> String {
    format!("/{}", layout::MOUNTPOINT)
}

/// The option by which an overlay says whose write layer it has: as it is, or as it was given.
fn upper_option(state_directory: &str) -> [String; 2] {
    let upper = format!("{state_directory}/{}", layout::WRITE_LAYER);
    [format!("upperdir={upper}"), format!("upperdir={}", rootfs::union::escaped(&upper))]
}

fn is_union_of(mount: &Mount, upper: &[String]) -> bool {
    mount.kind == "overlay" && mount.super_options().any(|option| upper.iter().any(|upper| option == **upper))
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
        return ended(proc, mount, detach(proc, mount));
    }
    match Aside::start(&[proc], || (encode(detach(proc, mount)), None)) {
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
        let (point, kind) = (self.mount.point.display(), &self.mount.kind);
        let pid = self.aside.pid();
        format!(
            "umount2(\"{point}\") does not return: its file system (type {kind}) does not answer pid {pid}"
        )
    }
}

fn ended(proc: BorrowedFd<'_>, mount: &Mount, outcome: Result<(), SysError>) -> Progress {
    match outcome {
        Ok(()) => Progress::Done,
        Err(error) => {
            let Ok(mounts) = mountinfo::read_at(proc, "self") else {
                return Progress::Busy(Busy { error, holders: Vec::new() });
            };
            let below = below(&mounts, mount.id);
            let ids: Vec<u64> = below.iter().map(|mount| mount.id).chain([mount.id]).collect();
            let holders = holders::of_mounts(proc, &ids);
            let unreachable = holders.as_deref() == Some(&[]) && !below.iter().any(is_at_its_path);
            if error.errno() == Some(Errno::BUSY) && !mount.may_hang() && unreachable {
                return match drop_with_unreachable(mount) {
                    Ok(()) => Progress::Done,
                    Err(error) => Progress::Busy(Busy { error, holders: Vec::new() }),
                };
            }
            Progress::Busy(Busy { error, holders: holders.unwrap_or_default() })
        }
    }
}

/// Unmounts it if it is still there.
fn detach(proc: BorrowedFd<'_>, mount: &Mount) -> Result<(), SysError> {
    let there = mountinfo::id_at(CWD, &mount.point, AtFlags::SYMLINK_NOFOLLOW);
    if there.as_ref().is_ok_and(|id| *id == mount.id) {
        return match rustix::mount::unmount(mount.point.as_os_str(), UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            result => result.call(|| format!("umount2(\"{}\")", mount.point.display())),
        };
    }
    // Its mountpoint was removed, and the kernel detached it; or what is there now is not ours. But a path is only where it
    // was when the table was read: what the program renamed since is mounted still.
    if mountinfo::read_at(proc, "self")?.iter().all(|other| other.id != mount.id) {
        return Ok(());
    }
    there?;
    let moved = io::Error::other("something else is at its path");
    Err(SysError::new(format!("umount2(\"{}\")", mount.point.display()), moved))
}

/// All mounts below the mount `id`, at any depth.
fn below(mounts: &[Mount], id: u64) -> Vec<Mount> {
    let mut found: Vec<Mount> = Vec::new();
    let mut ids = vec![id];
    while let Some(id) = ids.pop() {
        let children = mounts.iter().filter(|mount| mount.parent == id && mount.id != id);
        ids.extend(children.clone().map(|mount| mount.id));
        found.extend(children.cloned());
    }
    found
}

fn is_at_its_path(mount: &Mount) -> bool {
    mountinfo::id_at(CWD, &mount.point, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|id| id == mount.id)
}

/// Of a mount that is busy though no process is on it or on what is below: it has a mount below it that no path leads to, since
/// a directory above that was moved out of what is mounted here, or to a path longer than the kernel takes. In this namespace
/// of ours, in which nobody is, it goes with all below it.
fn drop_with_unreachable(mount: &Mount) -> Result<(), SysError> {
    let call = || format!("umount2(\"{}\", MNT_DETACH)", mount.point.display());
    if !is_at_its_path(mount) {
        return Err(SysError::new(call(), Errno::BUSY));
    }
    let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
    rustix::mount::unmount(mount.point.as_os_str(), flags).call(call)
}

/// Tells when the container's union is gone for everybody: its file system is, not only the mounts of it that we know.
#[derive(Debug)]
pub(crate) struct LastSign(OwnedFd);

impl LastSign {
    /// Of the union that `mount` is; `None` if the kernel has none for us: inotify(7) has limits.
    pub(crate) fn of(mount: &Mount) -> Option<Self> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).ok()?;
        // IN_UNMOUNT comes in any case; the root is never removed.
        let flags = inotify::WatchFlags::DELETE_SELF | inotify::WatchFlags::DONT_FOLLOW;
        inotify::add_watch(&fd, mount.point.as_os_str(), flags).ok()?;
        Some(Self(fd))
    }

    /// Whether the file system came to its end, or does within a moment: the kernel may leave that to a work queue.
    pub(crate) fn has_come(&self) -> bool {
        let mut events = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut events, PollTimeout::from(LAST_SIGN_PATIENCE)), Ok(1))
    }
}

fn encode(outcome: Result<(), SysError>) -> Vec<u8> {
    outcome.map_or_else(|error| error.to_bytes(), |()| 0_i32.to_le_bytes().to_vec())
}

fn decode(bytes: &[u8]) -> Result<(), SysError> {
    if bytes == 0_i32.to_le_bytes() { Ok(()) } else { Err(SysError::from_bytes(bytes)) }
}

/// Processes in other mount namespaces that still have a container's union mounted. The kernel drops the namespaces of shim
/// and init with these, unless somebody else has entered.
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
