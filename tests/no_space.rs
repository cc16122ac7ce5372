//! A disk with no byte or no inode left: removal and teardown need neither, and what cannot be done is said in one line.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::harness::{
    Case, Sandbox, image, inspect, skip,
    tree::{self, plant_data},
    wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        removal_without_bytes_on_tmpfs,
        removal_without_inodes_on_tmpfs,
        removal_without_bytes_and_inodes_on_ext4,
        many_at_once_are_removed_from_a_full_ext4,
        trash_that_takes_no_more_names_is_emptied_first,
        run_without_space_is_refused_and_leaves_nothing,
        kept_write_layer_survives_a_full_disk,
    ]
}

/// A small file system of its own, mounted on the state root of a sandbox.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

/// What there is nothing of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Every block is taken.
    Bytes,
    /// Every inode is taken.
    Inodes,
}

impl Disk {
    /// A tmpfs for an image and a few containers.
    #[track_caller]
    pub(crate) fn tmpfs(sandbox: &Sandbox) -> Disk {
        let disk = Disk::mountpoint(sandbox);
        let options = c"size=32m,nr_inodes=3000,mode=0700";
        rustix::mount::mount("none", &disk.0, "tmpfs", MountFlags::empty(), Some(options))
            .expect("tmpfs can be mounted");
        disk
    }

    /// An ext4 in a file, without blocks set aside for root; nothing if that cannot be had here.
    #[track_caller]
    pub(crate) fn ext4(sandbox: &Sandbox) -> Option<Disk> {
        let file = sandbox.place("ext4");
        File::create(&file).and_then(|file| file.set_len(64 << 20)).expect("the sandbox is ours");
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-N", "3000"]).arg(&file).status();
        let disk = Disk::mountpoint(sandbox);
        let mount = || Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&disk.0).status();
        let ok = |status: io::Result<ExitStatus>| status.is_ok_and(|status| status.success());
        if !ok(made) || !ok(mount()) {
            return None;
        }
        fs::set_permissions(&disk.0, Permissions::from_mode(0o700)).expect("just mounted");
        // Made by mkfs.
        let _ = fs::remove_dir(disk.0.join("lost+found"));
        Some(disk)
    }

    fn mountpoint(sandbox: &Sandbox) -> Disk {
        let root = sandbox.root();
        fs::create_dir_all(&root).expect("the sandbox is ours");
        fs::set_permissions(&root, Permissions::from_mode(0o700)).expect("the sandbox is ours");
        Disk(root)
    }

    /// Takes all that is left. To be called again after something was freed.
    #[track_caller]
    pub(crate) fn fill(&self, full: &[Full]) {
        let place = self.0.join("filling");
        if full.contains(&Full::Bytes) {
            fill_bytes(&place.with_extension("bytes"));
        }
        if full.contains(&Full::Inodes) {
            // A directory may need a block that is not there: then the inodes are as good as gone.
            let _ = fs::create_dir(&place);
            let mut number = fs::read_dir(&place).map_or(0, |entries| entries.count());
            while File::create_new(place.join(number.to_string())).is_ok() {
                number += 1;
            }
        }
        let probe = self.0.join("probe");
        let written = File::create_new(&probe).and_then(|mut file| file.write_all(&[1; 64]));
        assert!(written.is_err(), "the disk is not full");
        // Not there if no inode was left.
        let _ = fs::remove_file(probe);
    }

    /// Gives it all back.
    pub(crate) fn free(&self) {
        let _ = fs::remove_file(self.0.join("filling.bytes"));
        for entry in fs::read_dir(self.0.join("filling")).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(self.0.join("filling"));
    }

    /// Makes it read-only, or not.
    #[track_caller]
    pub(crate) fn remount(&self, read_only: bool) {
        let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        // A writer that is about to close its file makes it busy.
        wait_until("the disk is mounted anew", || rustix::mount::mount_remount(&self.0, flags, "").is_ok());
    }

    /// Ends the instance and takes the disk away: the oracle then looks at what is below.
    #[track_caller]
    pub(crate) fn remove(self, sandbox: &Sandbox) {
        self.free();
        sandbox.ok(&["shutdown", "--containers"]);
        wait_until("nobody uses the disk", || rustix::mount::unmount(&self.0, UnmountFlags::empty()).is_ok());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Gone already, unless the test has failed.
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn fill_bytes(path: &Path) {
    let Ok(mut file) = File::options().create(true).append(true).open(path) else { return };
    for size in [1 << 16, 1 << 12, 1] {
        let block = vec![7; size];
        while file.write_all(&block).is_ok() {}
    }
    // What was not written yet may have been counted on.
    let _ = file.sync_all();
}

/// Containers in every state, then nothing is left, then all of it is removed.
fn removal(sandbox: &Sandbox, disk: Disk, full: &[Full]) {
    let code = sandbox.exit_code();
    let image = sandbox.image();
    let tar = sandbox.place("other.tar");
    fs::write(&tar, image::tar_bytes(&[("other", "other\n")])).expect("the sandbox is ours");
    sandbox.ok(&["import", &tar.to_string_lossy(), "other"]);
    let volume = sandbox.new_directory("v");
    let before = plant_data(Path::new(&volume), "precious");
    sandbox.run(&["--name", "ended"], &["sh", "-c", "echo x > /x"]).expect_code(0);
    sandbox
        .run(&["--name", "kept", "--keep"], &["sh", "-c", "mkdir -p /a/b; echo x > /a/b/x"])
        .expect_code(0);
    sandbox.ok(&["create", "--name", "created", image, "true"]);
    let script = "head -c 100000 /dev/zero > /big";
    sandbox.start("killed", &[], &format!("{script}; mkdir /done; sleep 1000"));
    sandbox.start_obedient("running", &["-v", &format!("{volume}:/v")], code);
    wait_until("the file is written", || {
        let directory =
            sandbox.root().join("containers").join(sandbox.ok(&["inspect", "--format", "{{.Id}}", "killed"]));
        directory.join("upper/done").exists()
    });

    disk.fill(full);
    sandbox.ok(&["stop", "running"]);
    disk.fill(full);
    sandbox.wait_status("running", "exited");
    assert_eq!(inspect::number(&sandbox.inspect("running"), "State.ExitCode"), i64::from(code));
    for name in ["running", "ended", "kept", "created"] {
        disk.fill(full);
        sandbox.ok(&["rm", name]);
        assert_eq!(sandbox.status(name), "absent");
    }
    disk.fill(full);
    sandbox.ok(&["rm", "-f", "killed"]);
    disk.fill(full);
    sandbox.ok(&["rmi", "other"]);
    disk.fill(full);
    sandbox.ok(&["rmi", image]);
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
    assert_eq!(sandbox.ok(&["images", "-q"]), "");
    wait_until("the trash is empty", || {
        tree::paths(&sandbox.root().join("trash"), &[]).is_empty()
            && tree::paths(&sandbox.root().join("containers"), &[]).is_empty()
            && tree::paths(&sandbox.root().join("layers"), &[]).is_empty()
    });
    before.expect_unchanged(Path::new(&volume));
    disk.remove(sandbox);
}

fn removal_without_bytes_on_tmpfs(sandbox: &Sandbox) {
    let disk = Disk::tmpfs(sandbox);
    removal(sandbox, disk, &[Full::Bytes]);
}

fn removal_without_inodes_on_tmpfs(sandbox: &Sandbox) {
    let disk = Disk::tmpfs(sandbox);
    removal(sandbox, disk, &[Full::Inodes]);
}

fn removal_without_bytes_and_inodes_on_ext4(sandbox: &Sandbox) {
    let Some(disk) = Disk::ext4(sandbox) else { skip("no mkfs.ext4, or no loop device can be had") };
    removal(sandbox, disk, &[Full::Bytes, Full::Inodes]);
}

/// More than the trash has room for names of, when not even its directory can grow.
fn many_at_once_are_removed_from_a_full_ext4(sandbox: &Sandbox) {
    let Some(disk) = Disk::ext4(sandbox) else { skip("no mkfs.ext4, or no loop device can be had") };
    let image = sandbox.image();
    let made: Vec<String> = (0..24).map(|number| format!("made{number}")).collect();
    for name in &made {
        sandbox.ok(&["create", "--name", name, image, "true"]);
    }
    let running: Vec<String> = (0..8).map(|number| format!("running{number}")).collect();
    for name in &running {
        sandbox.start_obedient(name, &[], 3);
    }
    disk.fill(&[Full::Bytes, Full::Inodes]);
    std::thread::scope(|scope| {
        for name in made.iter().chain(&running) {
            scope.spawn(|| sandbox.ok(&["rm", "-f", name]));
        }
    });
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
    wait_until("nothing is left of them", || {
        tree::paths(&sandbox.root().join("trash"), &[]).is_empty()
            && tree::paths(&sandbox.root().join("containers"), &[]).is_empty()
    });
    disk.remove(sandbox);
}

/// What can be renamed nowhere on a full disk.
fn trash_that_takes_no_more_names_is_emptied_first(sandbox: &Sandbox) {
    let Some(disk) = Disk::ext4(sandbox) else { skip("no mkfs.ext4, or no loop device can be had") };
    let image = sandbox.image();
    sandbox.ok(&["create", "--name", "made", image, "true"]);
    sandbox.start_obedient("kept", &[], 3);
    sandbox.start_obedient("removed", &["--rm"], 3);
    let file = disk.0.join("names");
    File::create(&file).expect("there is room");
    disk.fill(&[Full::Bytes, Full::Inodes]);
    let fill_trash = || {
        let trash = sandbox.root().join("trash");
        let mut number = 0;
        while fs::hard_link(&file, trash.join(format!("{number:0>200}"))).is_ok() {
            number += 1;
        }
        for length in (1..200).rev() {
            while fs::hard_link(&file, trash.join(format!("{number:0>length$}"))).is_ok() {
                number += 1;
            }
        }
    };
    fill_trash();
    sandbox.ok(&["rm", "made"]);
    fill_trash();
    sandbox.ok(&["stop", "kept"]);
    sandbox.wait_status("kept", "exited");
    fill_trash();
    sandbox.ok(&["stop", "removed"]);
    wait_until("it is gone", || sandbox.status("removed") == "absent");
    sandbox.ok(&["rm", "kept"]);
    fill_trash();
    sandbox.ok(&["rmi", image]);
    wait_until("the trash is empty", || tree::paths(&sandbox.root().join("trash"), &[]).is_empty());
    fs::remove_file(&file).expect("it is ours");
    disk.remove(sandbox);
}

fn run_without_space_is_refused_and_leaves_nothing(sandbox: &Sandbox) {
    let disk = Disk::tmpfs(sandbox);
    sandbox.image();
    for full in [Full::Bytes, Full::Inodes] {
        disk.fill(&[full]);
        for flags in [&["--rm"][..], &["-d"], &["--name", "one"]] {
            let output = sandbox.run(flags, &["true"]);
            assert_eq!(output.code, 125, "{full:?}: {output}");
            let errors = output.errors();
            assert!(
                errors.to_lowercase().contains("no space") && errors.lines().count() == 1,
                "{full:?}: {output}"
            );
        }
        disk.free();
        let all = sandbox.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
        assert_eq!(all, "", "{full:?}: what was refused is not there");
        sandbox.run(&["--rm"], &["sh", "-c", "exit 5"]).expect_code(5);
    }
    disk.remove(sandbox);
}

fn kept_write_layer_survives_a_full_disk(sandbox: &Sandbox) {
    let disk = Disk::tmpfs(sandbox);
    let image = sandbox.image();
    let script = "if [ -e /kept ]; then cat /kept; exit 4; fi; echo precious > /kept; exit 3";
    sandbox.run(&["--name", "one", "--keep"], &["sh", "-c", script]).expect_code(3);
    disk.fill(&[Full::Bytes, Full::Inodes]);
    let output = sandbox.mysup(&["start", "-a", "one"]);
    assert!(output.code != 0 && output.errors().lines().count() == 1, "{output}");
    disk.free();
    let output = sandbox.mysup(&["start", "-a", "one"]).expect_code(4);
    assert_eq!(output.text(), "precious");
    sandbox.ok(&["rm", "one"]);
    sandbox.ok(&["rmi", image]);
    disk.remove(sandbox);
}
