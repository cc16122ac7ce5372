//! The end of a container as data: the steps, what became of them, and the journal of what is to be undone.

use serde::{Deserialize, Serialize};

crate::growing::growing!(TeardownStep, TeardownReport, Holder);

/// The steps, in their order. Each is idempotent: "not there" is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StepKind {
    /// Kill what is left, by cgroup, and wait until it is empty.
    Processes,
    /// Unmount one volume (or tmpfs, or what the container mounted below it), innermost first.
    Volume,
    /// Unmount the root file system: every mount of this container's own superblock.
    Rootfs,
    /// rmdir the mountpoint; never a recursive removal.
    Mountpoint,
    /// Remove the write layer and the init layer: renamed to the trash, then swept without crossing a mount.
    WriteLayer,
    /// Remove the cgroups in every hierarchy.
    Cgroups,
    /// Remove the run directory: FIFOs, socket, journal.
    RunDirectory,
    /// `--rm`: remove the container's directory with record and log.
    StateDirectory,
    /// A step of a newer version. Never sent; new variants go before it.
    #[serde(other)]
    Unknown,
}

impl StepKind {
    /// Short name for people.
    pub fn name(self) -> &'static str {
        match self {
            StepKind::Processes => "processes",
            StepKind::Volume => "volume",
            StepKind::Rootfs => "rootfs",
            StepKind::Mountpoint => "mountpoint",
            StepKind::WriteLayer => "write-layer",
            StepKind::Cgroups => "cgroups",
            StepKind::RunDirectory => "run-directory",
            StepKind::StateDirectory => "state-directory",
            StepKind::Unknown => "unknown",
        }
    }
}

/// One step that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TeardownStep {
    /// Which.
    pub kind: StepKind,
    /// On what: a path, or empty.
    pub target: String,
    /// When it began, nanoseconds since 1970.
    pub at: u64,
    /// Nanoseconds it took.
    pub took: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, or there was nothing to do.
    Done,
    /// Could not be done; will be tried again.
    Failed {
        /// The call and its error.
        error: String,
        /// Processes that hold it.
        holders: Vec<Holder>,
    },
}

/// A process that keeps something busy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Holder {
    /// Its pid on the host.
    pub pid: u32,
    /// Its name (comm).
    pub program: String,
}

/// All steps of one teardown; also a record on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TeardownReport {
    /// In the order they were taken; of a step that was tried again only the last try.
    pub steps: Vec<TeardownStep>,
}

impl TeardownReport {
    /// The steps that failed.
    pub fn failures(&self) -> impl Iterator<Item = &TeardownStep> {
        self.steps.iter().filter(|step| matches!(step.outcome, Outcome::Failed { .. }))
    }

    /// Whether nothing is left to do.
    pub fn is_clean(&self) -> bool {
        self.failures().next().is_none()
    }
}

/// An effect that can outlive the shim. It is in the journal before it is made; `shim/src/teardown` has its undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalEntry {
    /// First entry: what the undo needs to know.
    Begin {
        /// The boot it belongs to. In another boot no pid, cgroup or mount of it is acted on.
        boot_id: String,
        /// What remains after the end.
        lifetime: crate::plan::Lifetime,
    },
    /// A cgroup directory, absolute.
    Cgroup {
        /// Where.
        path: String,
    },
    /// The directories of the write and init layer, in the state directory.
    WriteLayer,
    /// The mountpoint, in the run directory; the mounts on it are in the shim's mount namespace.
    Mountpoint,
    /// The program was released: from here on its exit status is asked for.
    Released {
        /// Its init, for people.
        init_pid: u32,
        /// Nanoseconds since 1970.
        at: u64,
        /// When that process was started, in clock ticks since the machine was; 0 where it is not known. Both numbers are of
        /// one process in a boot.
        init_start: u64,
    },
    /// An effect that a newer shim made and this version cannot undo. Never written; new variants go before it.
    #[serde(skip)]
    Unknown,
}
