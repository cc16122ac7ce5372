//! After a reboot a pid, a cgroup and a path may be somebody else's. Here they are, where an old journal says, and must be
//! untouched.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Arc, atomic::AtomicBool},
};

use mysup_ipc::{codec::Message, frame::Decoder, layout, teardown::JournalEntry};
use rustix::mount::UnmountFlags;

use super::{
    boot::Machine,
    disk::RunRoot,
    options::Cutting,
    recording::{Beginning, Volumes},
    shutdown,
    story::{Chapter, Player},
};
use crate::harness::{processes, skip};

/// A container runs, everything is cut, and decoys take the places of what its journal names.
#[track_caller]
pub(super) fn stand_where_an_old_journal_points(machine: &Machine<'_>) {
    let volumes = Volumes::plant(machine.sandbox);
    let beginning = match Beginning::make(machine) {
        Ok(beginning) => beginning,
        Err(error) => {
            machine.places.close();
            skip(format!("no ext4 on a loop device here: {error}"));
        }
    };
    let disk = machine.places.plain(&beginning.disk);
    machine.boot(&disk, RunRoot::Stale, 0).expect("a good disk is mounted");
    let gone = Arc::new(AtomicBool::new(false));
    let mut player = Player::new(machine.sandbox, || 0, &gone, &beginning.layers);
    player.play(Chapter::RunDetached).expect("nobody cuts the power");
    machine.residents.stop();
    shutdown::cut(machine.places.mountpoint(), Cutting::NothingFlushed).expect("ext4 can be shut down");
    machine.places.keep_run_root();
    machine.residents.kill();
    machine.places.unmount();
    machine.boot(&disk, RunRoot::Stale, 1).expect("the disk is mounted after the cut");
    let containers = fs::read_dir(machine.sandbox.run_root().join(layout::CONTAINERS)).expect("it is stale");
    let run: Vec<PathBuf> = containers.flatten().map(|entry| entry.path()).collect();
    assert!(run.len() == 1, "one container ran: {run:?}");
    let mut decoys = Decoys::stand(&run[0], &machine.sandbox.place("a"));
    machine.mysup(&["start"]).expect_code(0);
    assert_eq!(machine.sandbox.status("runs"), "exited");
    decoys.expect_untouched();
    decoys.leave();
    volumes.expect_unchanged();
    machine.sandbox.ok(&["shutdown"]);
    machine.places.unmount();
    machine.places.close();
}

/// A process with the pid, in the cgroups, and a mount on the mountpoint of an old journal.
struct Decoys {
    process: Child,
    cgroups: Vec<PathBuf>,
    source: PathBuf,
}

impl Decoys {
    #[track_caller]
    fn stand(run: &Path, source: &Path) -> Decoys {
        let journal = run.join(layout::JOURNAL);
        let cgroups: Vec<PathBuf> = entries(&journal)
            .into_iter()
            .filter_map(|entry| match entry {
                JournalEntry::Cgroup { path } => Some(PathBuf::from(path)),
                JournalEntry::Begin { .. }
                | JournalEntry::WriteLayer
                | JournalEntry::Mountpoint
                | JournalEntry::Released { .. }
                | JournalEntry::Unknown => None,
            })
            .collect();
        assert!(!cgroups.is_empty(), "a container that runs has cgroups");
        let process = Command::new("sleep").arg("1000").spawn().expect("sleep is installed");
        for cgroup in &cgroups {
            fs::create_dir_all(cgroup).expect("the tests run as root");
            fs::write(cgroup.join("cgroup.procs"), process.id().to_string()).expect("the tests run as root");
        }
        let released = JournalEntry::Released { init_pid: process.id(), at: 1, init_start: 0 };
        let mut file = OpenOptions::new().append(true).open(&journal).expect("it was just read");
        file.write_all(&released.to_frame().expect("it is short")).expect("the sandbox is ours");
        rustix::mount::mount_bind(source, run.join(layout::MOUNTPOINT)).expect("the tests run as root");
        Decoys { process, cgroups, source: source.to_owned() }
    }

    #[track_caller]
    fn expect_untouched(&self) {
        let pid = i32::try_from(self.process.id()).expect("pids are small");
        assert!(processes::is_alive(pid), "the process that has the pid of an old init now was killed");
        for cgroup in &self.cgroups {
            let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            assert!(members.contains(&pid.to_string()), "{} was emptied", cgroup.display());
        }
        assert!(!self.mounts().is_empty(), "what is mounted on an old mountpoint was unmounted");
    }

    /// Where the source is mounted; the directory above may have been renamed.
    fn mounts(&self) -> Vec<String> {
        let lines = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let is_ours = |line: &&str| {
            let root = line.split(' ').nth(3).unwrap_or("/");
            root != "/" && self.source.ends_with(root.trim_start_matches('/'))
        };
        lines.lines().filter(is_ours).filter_map(|line| line.split(' ').nth(4).map(str::to_owned)).collect()
    }

    #[track_caller]
    fn leave(&mut self) {
        for place in self.mounts() {
            rustix::mount::unmount(place.as_str(), UnmountFlags::empty()).expect("nobody uses it");
        }
        self.process.kill().expect("it is ours");
        self.process.wait().expect("it is ours");
        for cgroup in &self.cgroups {
            fs::remove_dir(cgroup).expect("it is empty");
        }
    }
}

#[track_caller]
fn entries(journal: &Path) -> Vec<JournalEntry> {
    let mut bytes = Vec::new();
    File::open(journal)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .expect("the journal is stale, and there");
    let mut decoder = Decoder::new();
    decoder.push(&bytes);
    let frames = std::iter::from_fn(|| decoder.next_frame().ok().flatten());
    frames.filter_map(|frame| JournalEntry::from_frame(&frame).ok()).collect()
}
