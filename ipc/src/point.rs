//! Named kill points: places in supervisor and shim where a test can stop the process and kill whom it likes, exactly there.
//!
//! Only with the cargo feature `kill-points`; without it each call is nothing, and no name is in the programs. With it the
//! variable `MYSUP_KILL_POINTS` names a directory:
//!
//! ```text
//! seen              each point that was reached, one a line
//! <point>           made by the test: the first process to reach this point takes it away,
//! arrived           writes its pid here, and stops (SIGSTOP)
//! ```

use crate::teardown::{JournalEntry, StepKind};

/// When, as seen from a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Nothing of it is done.
    Before,
    /// Its entry is in the journal, its effect is not made.
    Noted,
    /// All of it is done.
    After,
}

macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident = $name:literal),* $(,)?) => {
        /// What has a point before and one after it; what is journaled has one between the entry and the effect, too.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Step { $($(#[$doc])* $step),* }

        impl Step {
            /// All of them.
            pub const ALL: &[Step] = &[$(Step::$step),*];

            /// Its name, of which those of its points are made.
            pub fn name(self) -> &'static str {
                match self { $(Step::$step => $name),* }
            }
        }
    };
}

steps! {
    /// Shim: journal, plan and socket in the run directory.
    Begin = "begin",
    /// Shim: a cgroup directory.
    Cgroup = "cgroup",
    /// Shim: the directories of the layers, and their union.
    WriteLayer = "write-layer",
    /// Shim: the mountpoint.
    Mountpoint = "mountpoint",
    /// Shim: its own mount namespace.
    Namespace = "namespace",
    /// Shim: the root file system and the volumes, attached.
    Attach = "attach",
    /// Shim: FIFOs or pty.
    Stdio = "stdio",
    /// Shim: the clone of the init.
    Clone = "clone",
    /// Shim: the release of the program.
    Released = "released",
    /// Shim: the exit record.
    ExitRecord = "exit-record",
    /// Shim: processes killed.
    UndoProcesses = "undo-processes",
    /// Shim: one volume unmounted.
    UndoVolume = "undo-volume",
    /// Shim: the root file system unmounted.
    UndoRootfs = "undo-rootfs",
    /// Shim: the mountpoint removed.
    UndoMountpoint = "undo-mountpoint",
    /// Shim: the layers removed.
    UndoWriteLayer = "undo-write-layer",
    /// Shim: the cgroups removed.
    UndoCgroups = "undo-cgroups",
    /// Shim: the run directory removed.
    UndoRunDirectory = "undo-run-directory",
    /// Shim: the state directory removed.
    UndoStateDirectory = "undo-state-directory",
    /// Shim: the teardown record.
    TeardownRecord = "teardown-record",
    /// Shim: the last word, after its lock is free.
    Farewell = "farewell",
    /// Shim: the adoption of a living init.
    Adopt = "adopt",
    /// Supervisor: directories and record of a new container.
    Create = "create",
    /// Supervisor: what is made ready on disk for a start.
    PrepareStart = "prepare-start",
    /// Supervisor: the start of a shim.
    Spawn = "spawn",
    /// Supervisor: the record with a new name.
    Rename = "rename",
    /// Supervisor: a container's directory goes into the trash.
    Bury = "bury",
    /// Supervisor: an exit record, where no shim could write one.
    UnseenExit = "unseen-exit",
    /// Supervisor: a directory of another boot, or of an ended container, goes into the trash.
    Discard = "discard",
    /// Supervisor: the boot that the run root belongs to.
    BootRecord = "boot-record",
    /// Supervisor: a new layer gets its name.
    KeepLayer = "keep-layer",
    /// Supervisor: a layer goes into the trash.
    DropLayer = "drop-layer",
    /// Shim: the image's content is copied into a new volume.
    FillVolume = "fill-volume",
    /// Supervisor: a new volume.
    MakeVolume = "make-volume",
    /// Supervisor: a volume goes into the trash.
    DropVolume = "drop-volume",
    /// Supervisor: an image's record.
    ImageRecord = "image-record",
    /// Supervisor: the removal of an image's record.
    ImageRemoval = "image-removal",
}

impl Step {
    /// The step of a journaled effect; of what is never made here there is none. A new kind does not compile without one.
    pub fn of_entry(entry: &JournalEntry) -> Option<Step> {
        match entry {
            JournalEntry::Begin { .. } => Some(Step::Begin),
            JournalEntry::Cgroup { .. } => Some(Step::Cgroup),
            JournalEntry::WriteLayer => Some(Step::WriteLayer),
            JournalEntry::Mountpoint => Some(Step::Mountpoint),
            JournalEntry::Released { .. } => Some(Step::Released),
            JournalEntry::Unknown => None,
        }
    }

    /// The step of a part of the teardown; of what is never done here there is none. A new kind does not compile without one.
    pub fn of_teardown(kind: StepKind) -> Option<Step> {
        let step = match kind {
            StepKind::Processes => Step::UndoProcesses,
            StepKind::Volume => Step::UndoVolume,
            StepKind::Rootfs => Step::UndoRootfs,
            StepKind::Mountpoint => Step::UndoMountpoint,
            StepKind::WriteLayer => Step::UndoWriteLayer,
            StepKind::Cgroups => Step::UndoCgroups,
            StepKind::RunDirectory => Step::UndoRunDirectory,
            StepKind::StateDirectory => Step::UndoStateDirectory,
            StepKind::Unknown => return None,
        };
        Some(step)
    }

    /// Whether it has an entry in the journal.
    pub fn is_journaled(self) -> bool {
        [Step::Begin, Step::Cgroup, Step::WriteLayer, Step::Mountpoint, Step::Released].contains(&self)
    }

    /// The names of its points, in the order in which they are reached.
    pub fn points(self) -> impl Iterator<Item = String> {
        [Moment::Before, Moment::Noted, Moment::After]
            .into_iter()
            .filter(move |moment| *moment != Moment::Noted || self.is_journaled())
            .map(move |moment| self.point(moment))
    }

    fn point(self, moment: Moment) -> String {
        let moment = match moment {
            Moment::Before => "before",
            Moment::Noted => "noted",
            Moment::After => "after",
        };
        format!("{}.{moment}", self.name())
    }
}

/// The step begins.
#[inline]
pub fn before(step: impl Into<Option<Step>>) {
    reached(step.into(), Moment::Before);
}

/// The step's entry is in the journal.
#[inline]
pub fn noted(step: impl Into<Option<Step>>) {
    reached(step.into(), Moment::Noted);
}

/// The step is done.
#[inline]
pub fn after(step: impl Into<Option<Step>>) {
    reached(step.into(), Moment::After);
}

#[cfg(not(feature = "kill-points"))]
pub use self::absent::{VARIABLE, keep_reachable, reached};
#[cfg(feature = "kill-points")]
pub use self::present::{VARIABLE, keep_reachable, reached};

#[cfg(not(feature = "kill-points"))]
mod absent {
    use super::{Moment, Step};

    /// The variable that a supervisor passes on to its shims.
    pub const VARIABLE: Option<&str> = None;

    /// Nothing.
    #[inline]
    pub fn reached(_: Option<Step>, _: Moment) {}

    /// Nothing.
    #[inline]
    pub fn keep_reachable() {}
}

#[cfg(feature = "kill-points")]
mod present {
    use std::{
        env,
        fs::File,
        io::{self, Write},
        os::fd::AsFd,
        sync::OnceLock,
    };

    use nix::{
        fcntl::{self, OFlag},
        sys::{
            signal::{Signal, raise},
            stat::Mode,
        },
    };

    use super::{Moment, Step};

    /// The variable that a supervisor passes on to its shims.
    pub const VARIABLE: Option<&str> = Some("MYSUP_KILL_POINTS");

    static KEPT: OnceLock<Option<File>> = OnceLock::new();

    /// Keeps the directory open, for a process that will leave the file system in which it has a path.
    pub fn keep_reachable() {
        KEPT.get_or_init(open);
    }

    fn open() -> Option<File> {
        File::open(env::var_os(VARIABLE?)?).ok()
    }

    /// Says so, and stops here if this is the place.
    pub fn reached(step: Option<Step>, moment: Moment) {
        let Some(step) = step else { return };
        let opened;
        let directory = match KEPT.get() {
            Some(kept) => kept.as_ref(),
            None => {
                opened = open();
                opened.as_ref()
            }
        };
        if let Some(directory) = directory {
            // Trouble is seen by the test, which waits in vain.
            stop_if_wanted(directory, &step.point(moment)).unwrap_or_default();
        }
    }

    fn stop_if_wanted(directory: &File, point: &str) -> io::Result<()> {
        write(directory, "seen", OFlag::O_APPEND, &format!("{point}\n"))?;
        // Of several at once only one has it.
        let fd = directory.as_fd();
        if fcntl::renameat(fd, point, fd, "taken").is_ok() {
            write(directory, "arrived.tmp", OFlag::O_TRUNC, &std::process::id().to_string())?;
            fcntl::renameat(fd, "arrived.tmp", fd, "arrived")?;
            raise(Signal::SIGSTOP)?;
        }
        Ok(())
    }

    fn write(directory: &File, name: &str, how: OFlag, text: &str) -> io::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC | how;
        let fd = fcntl::openat(directory.as_fd(), name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        File::from(fd).write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plan::Lifetime;

    #[test]
    fn every_point_has_a_name_of_its_own() {
        let names: Vec<String> = Step::ALL.iter().flat_map(|step| step.points()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn what_is_journaled_has_a_point_between_entry_and_effect() {
        let entries = [
            JournalEntry::Begin { boot_id: String::new(), lifetime: Lifetime::Record },
            JournalEntry::Cgroup { path: String::new() },
            JournalEntry::WriteLayer,
            JournalEntry::Mountpoint,
            JournalEntry::Released { init_pid: 1, at: 0, init_start: 0 },
        ];
        let journaled: Vec<Step> = Step::ALL.iter().copied().filter(|step| step.is_journaled()).collect();
        let of_entries: BTreeSet<Step> = entries.iter().filter_map(Step::of_entry).collect();
        assert_eq!(of_entries.into_iter().collect::<Vec<_>>(), journaled);
    }
}
