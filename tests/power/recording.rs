//! A story on a disk that remembers: one run gives the states of every instant of it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    boot::Machine,
    device::{Device, Log},
    disk::RunRoot,
    facts::Told,
    oracle::{self, Depth, Truth},
    states::{Cut, Lost},
    story::{Chapter, Layers, Player},
};
use crate::harness::{
    Sandbox, holds_within,
    random::Random,
    tree::{Tree, plant_data},
};

/// A disk before the story, and what was told by then.
#[derive(Debug, Clone)]
pub(super) struct Beginning {
    /// The disk.
    pub(super) disk: Arc<Vec<u8>>,
    /// What was told.
    pub(super) told: Told,
    /// Layers that are known.
    pub(super) layers: Layers,
}

/// Volumes, on a disk that is never cut: whatever mysup does after a boot, they are what they were.
#[derive(Debug)]
pub(super) struct Volumes(Vec<(PathBuf, Tree)>);

impl Volumes {
    /// Fills them.
    pub(super) fn plant(sandbox: &Sandbox) -> Volumes {
        for name in ["a/b", "b", "proof"] {
            sandbox.new_directory(name);
        }
        let planted = ["a", "b"].map(|name| (sandbox.place(name), plant_data(&sandbox.place(name), name)));
        Volumes(planted.into())
    }

    /// Fails if a byte of them has changed.
    #[track_caller]
    pub(super) fn expect_unchanged(&self) {
        self.0.iter().for_each(|(place, tree)| tree.expect_unchanged(place));
    }
}

impl Beginning {
    /// Makes a disk with an image and two ended containers.
    ///
    /// # Errors
    /// If this machine has no ext4 or no loop devices.
    pub(super) fn make(machine: &Machine<'_>) -> std::io::Result<Beginning> {
        let fresh = machine.places.fresh()?;
        let layers = Layers::default();
        let disk = machine.places.plain(&fresh);
        machine.boot(&disk, RunRoot::Memory, 0)?;
        let gone = Arc::new(AtomicBool::new(false));
        let mut player = Player::new(machine.sandbox, || 0, &gone, &layers);
        player.before_the_story().expect("nobody cuts the power");
        let told = player.told;
        machine.sandbox.ok(&["shutdown"]);
        machine.places.unmount();
        Ok(Beginning { disk: Arc::new(fs::read(disk)?), told, layers })
    }
}

/// What else is done on the disk meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// Nothing.
    Quiet,
    /// Somebody syncs files of his own all the time: the journal goes to the disk at any instant, data not.
    Syncing,
}

/// A story that was played, and the disk's log of it.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) log: Log,
    pub(super) told: Told,
    /// The run root of its end, if it was on another disk.
    pub(super) stale: Option<PathBuf>,
}

/// Plays the story on a disk that remembers, up to the cut at its end. The run root is kept if it was on another disk.
///
/// # Errors
/// If this machine has no FUSE.
pub(super) fn record(
    machine: &Machine<'_>,
    beginning: &Beginning,
    run_root: RunRoot,
    others: Others,
    chapters: &[Chapter],
) -> std::io::Result<Recording> {
    machine.places.forget_run_root();
    let device = Device::new(&machine.places.file("recorded"), &beginning.disk)?;
    machine.boot(device.path(), run_root, 0)?;
    let (gone, over) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    let mut player = Player::new(machine.sandbox, device.position(), &gone, &beginning.layers);
    player.told = beginning.told.clone();
    let mut told = Told::default();
    let mut end = 0;
    thread::scope(|scope| {
        if others == Others::Syncing {
            scope.spawn(|| sync_all_the_time(machine.places.mountpoint(), &over));
        }
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            chapters.iter().try_for_each(|chapter| player.play(*chapter)).expect("nobody cuts the power");
        }));
        machine.residents.stop();
        end = device.position()();
        over.store(true, Ordering::SeqCst);
        told = std::mem::take(&mut player.told);
        if let Err(payload) = played {
            std::panic::resume_unwind(payload);
        }
    });
    drop(player);
    let stale = (run_root == RunRoot::Stale).then(|| machine.places.pack_run_root());
    machine.residents.kill();
    machine.places.unmount();
    let mut log = device.finish();
    log.entries.truncate(end);
    Ok(Recording { log, told, stale })
}

fn sync_all_the_time(mountpoint: &Path, over: &AtomicBool) {
    let file = File::create(mountpoint.join("others")).expect("the disk has room");
    let mut number = 0_u64;
    while !over.load(Ordering::SeqCst) {
        number += 1;
        file.write_all_at(&number.to_le_bytes(), 0).expect("the disk has room");
        file.sync_all().expect("the disk works");
        thread::sleep(Duration::from_millis(2));
    }
}

/// One state of a recording, booted and judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    /// The state.
    pub(super) cut: Cut,
    /// Where the run root is found.
    pub(super) run_root: RunRoot,
    /// How much is asked.
    pub(super) depth: Depth,
}

/// Boots a disk with these bytes, judges, and ends.
#[track_caller]
pub(super) fn try_state(machine: &Machine<'_>, disk: &[u8], truth: Truth<'_>, trial: Trial) {
    let file = machine.places.plain(disk);
    machine.boot(&file, trial.run_root, 1).unwrap_or_else(|error| panic!("after the cut: {error}"));
    oracle::judge(machine, truth, trial.depth);
    oracle::end_of_boot(machine);
    machine.places.unmount();
}

/// Boots a disk with these bytes and cuts the power while the supervisor recovers: gives the log of it.
///
/// # Errors
/// If this machine has no FUSE.
pub(super) fn record_recovery(
    machine: &Machine<'_>,
    disk: &Arc<Vec<u8>>,
    run_root: RunRoot,
) -> std::io::Result<Log> {
    let device = Device::new(&machine.places.file("recovered"), disk)?;
    machine.boot(device.path(), run_root, 1)?;
    machine.mysup(&["start"]).expect_code(0);
    let trash = machine.sandbox.root().join("trash");
    holds_within(Duration::from_secs(5), || {
        fs::read_dir(&trash).is_ok_and(|mut found| found.next().is_none())
    });
    let end = device.position()();
    machine.residents.kill();
    machine.places.unmount();
    let mut log = device.finish();
    log.entries.truncate(end);
    Ok(log)
}

/// A few states of a recovery, by chance.
pub(super) fn some_cuts(log: &Log, random: &mut Random, count: usize) -> Vec<Cut> {
    let mut cuts = log.cuts(3);
    for index in 0..cuts.len() {
        let other = usize::try_from(random.next() >> 33).unwrap_or(0) % cuts.len();
        cuts.swap(index, other);
    }
    cuts.truncate(count);
    cuts
}

/// Of how a state was made, for people.
pub(super) fn describe(cut: Cut) -> String {
    let lost = match cut.lost {
        Lost::Nothing => "nothing lost".to_owned(),
        Lost::Everything => "all that was not flushed lost".to_owned(),
        Lost::Some(chance, number) => format!("{chance}/8 of what was not flushed lost (part {number})"),
    };
    format!("entry {} of the disk's log, {lost}", cut.at)
}
