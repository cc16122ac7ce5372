//! The floor: what the kernel alone asks for one container with a write layer and one volume, and nothing else. A static
//! program is started (the shim's share); in a new mount namespace an overlay and a bind are mounted; a child in new pid,
//! mount, uts, ipc and network namespaces pivots, mounts /proc and executes `true`; it is waited for; both mounts are taken
//! down in order; the write layer is removed.
#![expect(unsafe_code, reason = "fork and clone without a library is what is measured")]

use std::{
    ffi::CString,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{ForkResult, chdir, fork, pivot_root},
};

/// Runs it once.
pub(crate) fn run(scratch: &Path, rootfs: &Path) -> io::Result<()> {
    Command::new(rootfs.join("bin/busybox")).arg("true").stdin(Stdio::null()).status()?;
    let base = scratch.join("floor");
    for name in ["upper", "work", "volume", "mnt"] {
        fs::create_dir_all(base.join(name))?;
    }
    // SAFETY: this program has one thread; the child makes system calls and leaves with _exit.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let code = i32::from(monitor(&base, rootfs).is_err());
            // SAFETY: leaves without running anything of the parent's.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => wait(child.as_raw())?,
    }
    fs::remove_dir(base.join("upper/volume"))?;
    for name in ["upper", "work/work", "work", "volume", "mnt"] {
        fs::remove_dir(base.join(name))?;
    }
    Ok(())
}

fn monitor(base: &Path, rootfs: &Path) -> nix::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let (root, volume) = (base.join("mnt"), base.join("volume"));
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        rootfs.display(),
        base.join("upper").display(),
        base.join("work").display()
    );
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    let target = root.join("volume");
    fs::create_dir(&target).map_err(|_| nix::errno::Errno::EIO)?;
    mount(Some(&volume), &target, none, MsFlags::MS_BIND, none)?;
    unshare(
        CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET,
    )?;
    // SAFETY: one thread; the child makes system calls and executes.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let _ = init(&root);
            // SAFETY: reached only when exec failed.
            unsafe { libc::_exit(1) }
        }
        ForkResult::Parent { child } => wait(child.as_raw()).map_err(|_| nix::errno::Errno::ECHILD)?,
    }
    umount2(&target, MntFlags::empty())?;
    umount2(&root, MntFlags::empty())
}

fn init(root: &Path) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    chdir(root)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)?;
    let program =
        CString::new(Path::new("/bin/true").as_os_str().as_bytes()).map_err(|_| nix::errno::Errno::EINVAL)?;
    nix::unistd::execv(&program, &[&program]).map(drop)
}

fn wait(pid: i32) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: waitpid(2) writes one int.
    let result = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if result == pid && status == 0 { Ok(()) } else { Err(io::Error::other("the bare container failed")) }
}
