//! One chapter, and the file system is shut down before one system call of supervisor or shim.

use std::{
    fmt,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    boot::Machine,
    disk::RunRoot,
    options::Cutting,
    oracle::{self, Depth, Truth},
    recording::Beginning,
    shutdown,
    story::{Chapter, Player},
};
use crate::{
    harness::command,
    sweep::{
        calls,
        scenario::{self, Victim},
        tracer::{Act, Acted, Manner, Target, Tracer},
    },
};

/// Calls at which something on the disk, or in what others know of it, changes.
const BOUNDARIES: &[&str] = &[
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "splice",
    "copy_file_range",
    "fsync",
    "fdatasync",
    "syncfs",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "symlink",
    "symlinkat",
    "link",
    "linkat",
    "mknodat",
    "ftruncate",
    "fallocate",
    "openat2",
    "fsmount",
    "fsconfig",
    "move_mount",
    "umount2",
    "mount",
    "pivot_root",
    "unshare",
    "clone3",
    "sendmsg",
    "sendto",
    "kill",
    "pidfd_send_signal",
    "exit_group",
];

fn is_boundary(number: u64) -> bool {
    BOUNDARIES.contains(&calls::name(number).as_str())
}

/// Where the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    /// What is being done.
    pub(super) chapter: Chapter,
    /// Whose calls are counted.
    pub(super) victim: Victim,
    /// Before which of them; never without one.
    pub(super) at: Option<usize>,
    /// What the file system writes before.
    pub(super) how: Cutting,
    /// What is found of the run root.
    pub(super) run_root: RunRoot,
    /// How much is asked after the boot.
    pub(super) depth: Depth,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { chapter, victim, at, how, run_root, .. } = self;
        let at = at.unwrap_or(0);
        write!(f, "{chapter}, {victim} before its call {at}, {how:?}, run root {run_root:?}")
    }
}

/// What became of a cell.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Boundaries of the victim.
    pub(super) boundaries: usize,
    /// The call, in words, if it was reached.
    pub(super) acted: Option<String>,
}

/// Runs a cell on a machine that is off, and judges.
#[track_caller]
pub(super) fn run(machine: &Machine<'_>, beginning: &Beginning, cell: Cell, seen: &mut Seen) {
    machine.places.forget_run_root();
    let disk = machine.places.plain(&beginning.disk);
    machine.boot(&disk, cell.run_root, 0).expect("a good disk is mounted");
    let gone = Arc::new(AtomicBool::new(false));
    let cut = {
        let (gone, residents) = (Arc::clone(&gone), machine.residents.clone());
        let mountpoint = machine.places.mountpoint().to_owned();
        move || {
            gone.store(true, Ordering::SeqCst);
            residents.stop();
            shutdown::cut(&mountpoint, cell.how).expect("ext4 can be shut down");
            residents.kill();
        }
    };
    let mut player = Player::new(machine.sandbox, || 0, &gone, &beginning.layers);
    player.told = beginning.told.clone();
    let target = prepare(machine, cell.victim);
    let acted = Acted::default();
    let act = cell.at.map_or(Act::Count, Act::Kill);
    let manner = Manner { counts: is_boundary, before_death: Some(Box::new(cut.clone())) };
    let tracer = Tracer::with(&target, act, &acted, manner);
    // Its end is the cut, sooner or later.
    let _ = player.play(cell.chapter);
    tracer.wait_for_quiet();
    let calls = tracer.finish();
    machine.sandbox.use_program(command::program().to_owned());
    seen.boundaries = calls.calls.len();
    seen.acted = acted.lock().unwrap_or_else(PoisonError::into_inner).take();
    assert!(calls.trouble.is_none(), "the tracer failed: {:?}", calls.trouble);
    if !gone.load(Ordering::SeqCst) {
        cut();
    }
    machine.residents.kill();
    if cell.run_root == RunRoot::Stale {
        machine.places.keep_run_root();
    }
    machine.places.unmount();
    machine.boot(&disk, cell.run_root, 1).unwrap_or_else(|error| panic!("after the cut: {error}"));
    let truth = Truth { told: &player.told, at: 0, layers: &beginning.layers };
    oracle::judge(machine, truth, cell.depth);
    oracle::end_of_boot(machine);
    machine.places.unmount();
}

/// Starts a supervisor and says whom to trace.
fn prepare(machine: &Machine<'_>, victim: Victim) -> Target {
    let sandbox = machine.sandbox;
    match victim {
        Victim::Supervisor => Target::Running(sandbox.supervisor()),
        Victim::Shim | Victim::Sweep => {
            let gate = scenario::make_gate(sandbox);
            let word = if victim == Victim::Sweep { "sweep" } else { "run" };
            scenario::wrap_shim(sandbox, &gate, word);
            sandbox.ok(&["info"]);
            Target::Gate(gate)
        }
    }
}
