//! Decoys: directories full of data, mounted where a careless removal would empty them. Nothing here makes a directory
//! where none of the product's is, and nothing panics: the container may be gone at any moment.

use std::{
    fs::{self, File},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags},
};

use crate::harness::{
    processes,
    tree::{self, Tree},
};

/// A tree that must not change.
#[derive(Debug)]
pub(crate) struct Decoy {
    /// Where it is.
    pub(crate) path: PathBuf,
    before: Tree,
    /// Mounted in our namespace, and so to be taken down by us.
    pub(crate) on_host: bool,
}

impl Decoy {
    /// Makes one.
    pub(crate) fn make(path: PathBuf) -> Decoy {
        let before = tree::plant_data(&path, "decoy");
        Decoy { path, before, on_host: false }
    }

    /// What has changed.
    pub(crate) fn damage(&self) -> Vec<String> {
        let changes = self.before.difference(&Tree::read(&self.path));
        changes.into_iter().map(|change| format!("{}: {change}", self.path.display())).collect()
    }

    /// Binds it on a new directory `name` in a directory of our namespace.
    pub(crate) fn bind_in(&mut self, parent: &Path, name: &str) -> bool {
        let target = parent.join(name);
        // Only where the parent is: a directory we made would be a leak.
        if fs::create_dir(&target).is_err() {
            return false;
        }
        if rustix::mount::mount_bind(&self.path, &target).is_err() {
            let _ = fs::remove_dir(&target);
            return false;
        }
        self.on_host = true;
        true
    }

    /// Binds it on a new directory `name` in a directory of another mount namespace, which must be the one expected.
    pub(crate) fn bind_inside(&self, pid: i32, parent: &Path, name: &str, expected: Expected) -> bool {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let Ok(copy) = rustix::mount::open_tree(CWD, &self.path, flags) else { return false };
        let Ok(namespace) = File::open(format!("/proc/{pid}/ns/mnt")) else { return false };
        let (parent, name) = (parent.to_owned(), name.to_owned());
        // A thread of its own: it never comes back to our namespace.
        let attached = thread::spawn(move || attach(&copy, namespace, &parent, &name, expected));
        attached.join().is_ok_and(|attached| attached.is_some())
    }

    /// Unmounts it wherever it was moved to; false if somebody took it away.
    pub(crate) fn unmount(&mut self) -> bool {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let source = self.path.to_string_lossy().into_owned();
        let lines = processes::mount_lines(own);
        let targets = lines.iter().filter_map(|line| {
            let mut fields = line.split(' ').skip(3);
            let root = fields.next()?;
            (root.len() > 1 && source.ends_with(root)).then(|| fields.next().unwrap_or("").to_owned())
        });
        let mut found = false;
        for target in targets {
            found |= rustix::mount::unmount(&target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH).is_ok();
        }
        self.on_host = false;
        found
    }
}

/// What a directory in another namespace must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// On an overlay.
    Overlay,
    /// This very directory.
    Is { device: u64, inode: u64 },
}

impl Expected {
    /// A directory of ours, seen from elsewhere.
    pub(crate) fn same(path: &Path) -> Option<Expected> {
        let meta = fs::metadata(path).ok()?;
        Some(Expected::Is { device: meta.dev(), inode: meta.ino() })
    }

    fn holds(self, directory: &OwnedFd) -> bool {
        match self {
            // OVERLAYFS_SUPER_MAGIC
            Expected::Overlay => rustix::fs::fstatfs(directory).is_ok_and(|kind| kind.f_type == 0x794c_7630),
            Expected::Is { device, inode } => {
                rustix::fs::fstat(directory).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (device, inode))
            }
        }
    }
}

fn attach(copy: &OwnedFd, namespace: File, parent: &Path, name: &str, expected: Expected) -> Option<()> {
    unshare(CloneFlags::CLONE_FS).ok()?;
    setns(namespace, CloneFlags::CLONE_NEWNS).ok()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::open(parent, flags, Mode::empty()).ok()?;
    if !expected.holds(&parent) {
        return None;
    }
    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)).ok()?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(copy, "", &parent, name, empty).ok()
}

/// How many bytes the files below a directory have.
pub(crate) fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, meta)| if meta.is_dir() { bytes_below(&path) } else { meta.len() })
        .sum()
}
