//! The machine's disk and memory: an ext4 in a file with both roots on it or only one, and where they are mounted.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{FileExt, PermissionsExt},
    panic,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::harness::{Sandbox, holds_within, sandbox};

/// Bytes of the disk: a journal of 4 MiB, three images and what is being unpacked.
const SIZE: u64 = 32 << 20;

/// Bytes that are written, or left out as zeros, together.
const PAGE: usize = 4096;

/// Where the run root is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RunRoot {
    /// In memory, as it should be: the cut takes it away.
    Memory,
    /// On another disk, which was faster: all of it is there after the cut, and stale.
    Stale,
    /// On the same disk, cut like everything.
    SameDisk,
}

/// The places of one sandbox.
#[derive(Debug)]
pub(super) struct Places {
    /// Where the disk is mounted.
    mountpoint: PathBuf,
    root: PathBuf,
    run_root: PathBuf,
    /// Files in memory, so that no real disk slows a flush down.
    memory: PathBuf,
    stale: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{program} {}: {said}", arguments.join(" "))))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the sandbox's path is text")
}

/// Does something in a mount namespace of its own: others who copy the host's, such as unshare(1), would keep a disk
/// busy that is to be pulled out.
pub(super) fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let apart = || {
        unshare(CloneFlags::CLONE_NEWNS).expect("the tests run as root");
        for how in [MountPropagationFlags::DOWNSTREAM, MountPropagationFlags::SHARED] {
            rustix::mount::mount_change("/", how | MountPropagationFlags::REC)
                .expect("the tests run as root");
        }
        work()
    };
    thread::scope(|scope| scope.spawn(apart).join()).unwrap_or_else(|payload| panic::resume_unwind(payload))
}

impl Places {
    /// Makes the mountpoints.
    pub(super) fn new(sandbox: &Sandbox) -> Places {
        let places = Places {
            mountpoint: sandbox.directory().join("disk"),
            root: sandbox.root(),
            run_root: sandbox.run_root(),
            memory: sandbox.directory().join("memory"),
            stale: sandbox.directory().join("stale"),
        };
        for path in [&places.mountpoint, &places.root, &places.run_root, &places.memory, &places.stale] {
            fs::create_dir_all(path).expect("the sandbox is ours");
            fs::set_permissions(path, Permissions::from_mode(0o700)).expect("the sandbox is ours");
        }
        rustix::mount::mount("none", &places.memory, "tmpfs", MountFlags::empty(), Some(c"size=512m"))
            .expect("tmpfs can be mounted");
        places
    }

    /// A new ext4, as bytes.
    ///
    /// # Errors
    /// If ext4 or loop devices are not to be had here.
    pub(super) fn fresh(&self) -> io::Result<Vec<u8>> {
        let file = self.file("fresh");
        File::create(&file)?.set_len(SIZE)?;
        let lazy = "lazy_itable_init=0,lazy_journal_init=0";
        let options = ["-q", "-F", "-b", "4096", "-m", "0", "-N", "4096", "-J", "size=4", "-E", lazy];
        run("mkfs.ext4", &[&options[..], &[text(&file)]].concat())?;
        run("mount", &["-o", "loop", text(&file), text(&self.mountpoint)])?;
        for name in ["s", "r"] {
            fs::create_dir(self.mountpoint.join(name))?;
            fs::set_permissions(self.mountpoint.join(name), Permissions::from_mode(0o700))?;
        }
        self.unmount();
        let bytes = fs::read(&file)?;
        fs::remove_file(file)?;
        Ok(bytes)
    }

    /// A place for a disk.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.memory.join(name)
    }

    /// A disk with these bytes; its zeros take no memory.
    pub(super) fn plain(&self, bytes: &[u8]) -> PathBuf {
        let path = self.file("plain");
        let file = File::create(&path).expect("tmpfs has room");
        file.set_len(SIZE).expect("tmpfs has room");
        for (number, page) in (0_u64..).zip(bytes.chunks(PAGE)) {
            if page != [0; PAGE] {
                file.write_all_at(page, number * PAGE as u64).expect("tmpfs has room");
            }
        }
        path
    }

    /// Mounts a disk, and both roots where mysup looks for them.
    ///
    /// # Errors
    /// If the kernel cannot mount it.
    pub(super) fn mount(&self, disk: &Path, run_root: RunRoot) -> io::Result<()> {
        run("mount", &["-o", "loop", text(disk), text(&self.mountpoint)])?;
        rustix::mount::mount_bind(self.mountpoint.join("s"), &self.root)?;
        match run_root {
            RunRoot::Memory => {
                let options = Some(c"mode=0700,size=16m");
                rustix::mount::mount("none", &self.run_root, "tmpfs", MountFlags::empty(), options)?;
            }
            RunRoot::Stale => {}
            RunRoot::SameDisk => rustix::mount::mount_bind(self.mountpoint.join("r"), &self.run_root)?,
        }
        Ok(())
    }

    /// Where the disk is mounted.
    pub(super) fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Unmounts the disk and both roots; nothing of the instance may live.
    #[track_caller]
    pub(super) fn unmount(&self) {
        let mut last = String::new();
        // What was killed a moment ago may still be on its way out.
        let gone = holds_within(crate::harness::PATIENCE, || {
            // Of this thread: it is in a namespace of its own.
            let lines = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
            let points: Vec<&str> = lines.lines().filter_map(|line| line.split(' ').nth(4)).collect();
            let mut places = [&self.run_root, &self.root, &self.mountpoint].map(PathBuf::as_path).to_vec();
            places.retain(|place| points.contains(&text(place)));
            for place in &places {
                if let Err(error) = rustix::mount::unmount(*place, UnmountFlags::empty()) {
                    last = format!("{}: {error}", place.display());
                }
            }
            places.is_empty() && !self.is_attached()
        });
        assert!(gone, "the disk stays busy: {last}");
    }

    /// Whether a loop device is on one of our files: a mount namespace on its way out may have the disk mounted for a
    /// while, and mount(8) would take the same device, and the kernel the same file system, again.
    fn is_attached(&self) -> bool {
        let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let mut files = devices.filter_map(|entry| fs::read(entry.path().join("loop/backing_file")).ok());
        files.any(|file| String::from_utf8_lossy(&file).starts_with(text(&self.memory)))
    }

    /// Keeps the run root of the moment, to be found stale after each cut.
    pub(super) fn keep_run_root(&self) {
        run("cp", &["-a", &format!("{}/.", text(&self.run_root)), text(&self.stale)])
            .expect("the sandbox is ours");
    }

    /// Puts the kept run root in place, or nothing.
    pub(super) fn set_run_root(&self, run_root: RunRoot) {
        run("find", &[text(&self.run_root), "-mindepth", "1", "-delete"]).expect("the sandbox is ours");
        if run_root == RunRoot::Stale {
            run("cp", &["-a", &format!("{}/.", text(&self.stale)), text(&self.run_root)])
                .expect("the sandbox is ours");
        }
    }

    /// Keeps the run root of the moment where every machine finds it.
    pub(super) fn pack_run_root(&self) -> PathBuf {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let place = sandbox::base().join(format!("stale-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&place).expect("the directory of the suite is writable");
        run("cp", &["-a", &format!("{}/.", text(&self.run_root)), text(&place)]).expect("it is ours");
        place
    }

    /// Puts a kept run root where this machine finds it stale after each cut.
    pub(super) fn unpack_run_root(&self, place: &Path) {
        run("cp", &["-a", &format!("{}/.", text(place)), text(&self.stale)]).expect("the sandbox is ours");
    }

    /// Forgets the kept run root.
    pub(super) fn forget_run_root(&self) {
        run("find", &[text(&self.stale), "-mindepth", "1", "-delete"]).expect("the sandbox is ours");
    }

    /// Unmounts everything.
    pub(super) fn close(&self) {
        self.unmount();
        // A device that is still there shows in the comparison of the host.
        let _ = rustix::mount::unmount(&self.memory, UnmountFlags::DETACH);
    }
}
