//! Things a test puts in mysup's way: binds, holders, decoys.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::{
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags},
};

use super::{PATIENCE, Sandbox, holds_within, processes, tree::Tree};

/// A bind mount of a directory, unmounted at the end of the test.
#[derive(Debug)]
pub(crate) struct Bind(PathBuf);

impl Bind {
    /// Binds `source` on `target`, which is made if needed, in the namespace of the host.
    #[track_caller]
    pub(crate) fn new(source: &Path, target: &Path) -> Bind {
        fs::create_dir_all(target).unwrap_or_else(|error| panic!("mkdir {}: {error}", target.display()));
        rustix::mount::mount_bind(source, target)
            .unwrap_or_else(|error| panic!("bind {}: {error}", target.display()));
        Bind(target.to_owned())
    }

    /// Unmounts it; a mount that somebody took away is a failure.
    #[track_caller]
    pub(crate) fn remove(self) {
        // Whoever has just looked at it may have it open still.
        let mut result = Ok(());
        holds_within(PATIENCE, || {
            result = rustix::mount::unmount(&self.0, UnmountFlags::NOFOLLOW);
            result != Err(Errno::BUSY)
        });
        assert!(result.is_ok(), "the bind on {} is not there any more: {result:?}", self.0.display());
    }

    /// Unmounts it where it is now: the directory above it may have been renamed. A mount that is gone is a failure.
    #[track_caller]
    pub(crate) fn remove_wherever(self, source: &Path) {
        let own = i32::try_from(std::process::id()).expect("pids are small");
        let source = source.to_string_lossy().into_owned();
        let lines = processes::mount_lines(own);
        let targets: Vec<&str> = lines
            .iter()
            .filter(|line| line.split(' ').nth(3).is_some_and(|root| source.ends_with(root)))
            .filter_map(|line| line.split(' ').nth(4))
            .collect();
        assert!(!targets.is_empty(), "the bind of {source} was taken away:\n{}", lines.join("\n"));
        for target in targets {
            rustix::mount::unmount(target, UnmountFlags::NOFOLLOW)
                .unwrap_or_else(|error| panic!("unmount {target}: {error}"));
        }
    }

    /// Unmounts what is mounted below a directory on something of this name.
    pub(crate) fn forget_mounts_named(below: &Path, name: &str) {
        let own = i32::try_from(std::process::id()).expect("pids are small");
        for line in processes::mount_lines(own) {
            let target = line.split(' ').nth(4).unwrap_or("");
            if Path::new(target).starts_with(below) && target.ends_with(name) {
                // Gone already is what we want.
                let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
            }
        }
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        // Already gone after `remove`.
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Binds a directory of the host on a path in another process's mount namespace. The path is made there if needed.
#[track_caller]
pub(crate) fn bind_inside(pid: i32, source: &Path, target: &Path) {
    let copy =
        rustix::mount::open_tree(rustix::fs::CWD, source, copy_flags()).expect("the source is a directory");
    attach_inside(pid, move || Ok(copy), target);
}

fn copy_flags() -> OpenTreeFlags {
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC
}

/// Binds something of another process's mount namespace on a path in it.
#[track_caller]
pub(crate) fn copy_inside(pid: i32, source: &Path, target: &Path) {
    let source = source.to_owned();
    let open = move || {
        rustix::mount::open_tree(rustix::fs::CWD, &source, copy_flags())
            .map_err(|error| format!("open_tree {}: {error}", source.display()))
    };
    attach_inside(pid, open, target);
}

fn attach_inside(pid: i32, open: impl FnOnce() -> Result<OwnedFd, String> + Send + 'static, target: &Path) {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/mnt")).expect("the process runs");
    let target = target.to_owned();
    // A thread of its own: it never comes back to our namespace.
    let result = thread::spawn(move || -> Result<(), String> {
        unshare(CloneFlags::CLONE_FS).map_err(|error| format!("unshare: {error}"))?;
        setns(namespace, CloneFlags::CLONE_NEWNS).map_err(|error| format!("setns: {error}"))?;
        let copy = open()?;
        fs::create_dir_all(&target).map_err(|error| format!("mkdir {}: {error}", target.display()))?;
        rustix::mount::move_mount(
            &copy,
            "",
            rustix::fs::CWD,
            &target,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(|error| format!("move_mount {}: {error}", target.display()))
    })
    .join()
    .expect("the thread does not panic");
    result.unwrap_or_else(|error| panic!("bind inside the namespace of {pid}: {error}"));
}

/// A process on the host that has its working directory in some place and so keeps its mount busy.
#[derive(Debug)]
pub(crate) struct Holder(Child);

impl Holder {
    /// Sits down in a directory.
    #[track_caller]
    pub(crate) fn sit_in(directory: &Path) -> Holder {
        let mut command = Command::new("sleep");
        command
            .arg("1000")
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("sit in {}: {error}", directory.display()));
        Holder(child)
    }

    /// Its pid, as text to look for.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Stands up.
    pub(crate) fn leave(self) {}
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Errors mean that it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where something the shim has mounted for its container is, seen from the host: `destination` inside the container.
#[track_caller]
pub(crate) fn in_shim(sandbox: &Sandbox, name: &str, destination: &str) -> PathBuf {
    let shim = sandbox.shim_pid(name);
    let lines = processes::mount_lines(shim);
    let root = lines
        .iter()
        .find(|line| line.contains(" - overlay "))
        .and_then(|line| line.split(' ').nth(4))
        .unwrap_or_else(|| panic!("the shim has no overlay mount:\n{}", lines.join("\n")));
    let path = format!("{}{destination}", root.trim_end_matches('/'));
    assert!(
        destination.is_empty() || lines.iter().any(|line| line.split(' ').nth(4) == Some(path.as_str())),
        "the shim has no mount at {path}:\n{}",
        lines.join("\n")
    );
    PathBuf::from(format!("/proc/{shim}/root{path}"))
}

/// Directories full of data beside everything that a teardown removes.
#[derive(Debug)]
pub(crate) struct Decoys {
    files: Vec<(PathBuf, Tree)>,
    cgroups: Vec<(PathBuf, u64)>,
}

impl Decoys {
    /// Puts them beside the directories and cgroups of a container that runs.
    #[track_caller]
    pub(crate) fn beside(sandbox: &Sandbox, id: &str) -> Decoys {
        let state = sandbox.root().join("containers");
        let run = sandbox.run_root().join("containers");
        let places = [
            sandbox.root().join("decoy"),
            state.join("decoy"),
            state.join(format!("{id}.decoy")),
            sandbox.run_root().join("decoy"),
            run.join("decoy"),
            run.join(format!("{id}.decoy")),
        ];
        let files = places
            .into_iter()
            .map(|place| {
                let tree = super::tree::plant_data(&place, "decoy");
                (place, tree)
            })
            .collect();
        let near = processes::cgroup_directories().into_iter();
        let parents: std::collections::BTreeSet<PathBuf> = near
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(id)))
            .filter_map(|path| path.parent().map(Path::to_owned))
            .collect();
        let cgroups = parents
            .into_iter()
            .map(|parent| {
                let place = parent.join(format!("decoy-{}", &id[..12]));
                fs::create_dir_all(&place).expect("cgroups can be made");
                let inode = fs::metadata(&place).expect("just made").ino();
                (place, inode)
            })
            .collect();
        Decoys { files, cgroups }
    }

    /// Fails unless every one of them is untouched, then takes them away.
    #[track_caller]
    pub(crate) fn expect_untouched(self) {
        assert!(!self.cgroups.is_empty(), "the container had no cgroup to put a decoy beside");
        for (place, tree) in &self.files {
            tree.expect_unchanged(place);
        }
        for (place, inode) in &self.cgroups {
            let now = fs::metadata(place).map(|meta| meta.ino());
            assert!(
                now.as_ref().is_ok_and(|now| now == inode),
                "cgroup {} was touched: {now:?}",
                place.display()
            );
        }
        for (place, _) in &self.files {
            remove_decoy(place);
        }
    }
}

impl Drop for Decoys {
    fn drop(&mut self) {
        // Errors mean that a test has failed before; the directories go with the sandbox.
        self.cgroups.iter().for_each(|(place, _)| drop(fs::remove_dir(place)));
    }
}

#[expect(clippy::disallowed_methods, reason = "a tree this file has made; nothing is mounted in it")]
fn remove_decoy(place: &Path) {
    fs::remove_dir_all(place).expect("the decoy is ours");
}
