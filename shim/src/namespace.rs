//! The shim's private mount namespace. It holds this container's mounts and nothing else: its root is a bind of the
//! container's run directory. The host's mount table does not grow, the shim pins none of the host's mounts, nobody can
//! pin ours by copying a table, and if the shim dies the kernel drops them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{AtFlags, Mode, OFlags, StatxFlags},
    mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
};

use crate::{
    error::{Call, SysError},
    sys::{
        mount::{Attributes, set_attributes},
        process,
    },
};

/// The namespace the shim came from.
#[derive(Debug)]
pub(crate) struct HostNamespace(OwnedFd);

/// Enters a new mount namespace whose only mount is `run_directory`, as `/`.
///
/// Needs nothing to be undone: a namespace ends with its last process.
pub(crate) fn enter(run_directory: &str) -> Result<HostNamespace, SysError> {
    let host = rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open(\"/proc/self/ns/mnt\")")?;
    let root = clone_tree(rustix::fs::CWD, run_directory, false)?;
    process::unshare_mounts().call(|| "unshare(CLONE_NEWNS)")?;
    let host = HostNamespace(host);
    match make_root(&root, run_directory) {
        Ok(()) => Ok(host),
        Err(error) => {
            // Half made, it is full of copies of the host's mounts, which no teardown must ever take for ours.
            host.return_to()?;
            Err(error)
        }
    }
}

/// Makes `root`, the only mount of this namespace.
fn make_root(root: &OwnedFd, run_directory: &str) -> Result<(), SysError> {
    // Before anything is attached: what is mounted here must not travel to the host.
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .call(|| "mount(\"/\", MS_REC|MS_PRIVATE)")?;
    attach(root.as_fd(), rustix::fs::CWD, run_directory)?;
    rustix::process::fchdir(root).call(|| format!("fchdir(\"{run_directory}\")"))?;
    // pivot_root(2): the new root may be stacked on the old one, which then lies on top and is detached.
    rustix::process::pivot_root(".", ".").call(|| "pivot_root(\".\", \".\")")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).call(|| "umount2(\".\", MNT_DETACH)")?;
    rustix::process::chdir("/").call(|| "chdir(\"/\")")
}

impl HostNamespace {
    /// Goes back to the host's mounts; the private namespace ends, since nobody else is in it.
    pub(crate) fn return_to(&self) -> Result<(), SysError> {
        process::enter_mounts(self.0.as_fd()).call(|| "setns(CLONE_NEWNS)")
    }
}

/// A detached private copy of the mount at `path`, with all below it if `recursive`. It is gone when its descriptor is,
/// unless it was attached.
pub(crate) fn clone_tree(at: BorrowedFd<'_>, path: &str, recursive: bool) -> Result<OwnedFd, SysError> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = rustix::mount::open_tree(at, path, flags)
        .call(|| format!("open_tree(\"{path}\", OPEN_TREE_CLONE)"))?;
    set_attributes(tree.as_fd(), Attributes { set: 0, private: true, recursive })
        .call(|| format!("mount_setattr(\"{path}\", MS_PRIVATE)"))?;
    Ok(tree)
}

/// Attaches a detached mount at a path that is not followed if its last part is a link.
pub(crate) fn attach(mount: BorrowedFd<'_>, at: BorrowedFd<'_>, path: &str) -> Result<(), SysError> {
    rustix::mount::move_mount(mount, "", at, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .call(|| format!("move_mount(\"{path}\")"))
}

/// Attaches a detached mount on what `target` refers to.
pub(crate) fn attach_on(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), SysError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags).call(|| "move_mount(fd, fd)")
}

/// Whether `fd` is a directory. Whoever opened it knows, so that no server is asked.
pub(crate) fn is_directory(fd: BorrowedFd<'_>) -> Result<bool, SysError> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let status = rustix::fs::statx(fd, "", flags, StatxFlags::TYPE).call(|| "statx(AT_EMPTY_PATH)")?;
    let kind = rustix::fs::FileType::from_raw_mode(u32::from(status.stx_mode));
    Ok(kind == rustix::fs::FileType::Directory)
}
