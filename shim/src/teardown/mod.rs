//! The ordered end of a container: processes, volumes, root file system, mountpoint, write layer, cgroups, run directory.
//!
//! Each step is idempotent. A step that fails stops what would lie below it (a failed unmount never leads to a removal
//! below it), not what is independent of it; all failures are collected and told, and [`Teardown::attempt`] may be called
//! again at any time, by this shim or by a later one that only has the journal.

mod holders;
pub(crate) mod journal;
mod layers;
mod owed;
pub(crate) mod sweep;
#[cfg(test)]
mod tests;
mod unmount;
pub(crate) mod unnamed;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use mysup_ipc::{
    layout,
    plan::Lifetime,
    point,
    teardown::{Holder, JournalEntry, Outcome, StepKind, TeardownReport, TeardownStep},
};

pub(crate) use self::owed::OwedRecord;
use self::unmount::{Hanging, LastSign, Progress};
use crate::{
    cgroup::{self, Directory},
    error::{SysError, chain},
    namespace::HostNamespace,
    sys::time::wall_clock,
};

/// How long one attempt waits for killed processes to be gone before it says who is left.
const KILL_PATIENCE: Duration = Duration::from_millis(200);

/// Where a container's things are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Below the state root.
    pub(crate) state_dir: String,
    /// Below the run root.
    pub(crate) run_dir: String,
    /// The trash of the same state root.
    pub(crate) trash_dir: String,
}

/// The teardown of one container, over all its attempts.
#[derive(Debug)]
pub(crate) struct Teardown {
    places: Places,
    lifetime: Lifetime,
    cgroups: Vec<Directory>,
    has_layers: bool,
    has_mountpoint: bool,
    /// A newer shim made something that this one cannot undo.
    has_unknown: bool,
    /// The way back to the host's mounts, while this process is in the container's private ones.
    host: Option<HostNamespace>,
    /// /proc of the host, which cannot be reached by path in the private namespace.
    proc: OwnedFd,
    /// Unmounts that have not returned yet.
    hanging: Vec<Hanging>,
    /// Of the union; none if nobody looks, and of a dead shim's.
    last_sign: Option<LastSign>,
    /// The exit record, if it is to be on disk before the run directory goes.
    owed: OwedRecord,
    report: TeardownReport,
    /// Failures of the attempt before this one: what failed in the same way is not told again.
    failed_before: Vec<TeardownStep>,
}

/// What a step came to: `Err` with what is in the way.
type StepResult = Result<(), Failure>;

struct Failure {
    error: String,
    holders: Vec<Holder>,
}

impl From<SysError> for Failure {
    fn from(error: SysError) -> Self {
        Self { error: chain(&error), holders: Vec::new() }
    }
}

impl Teardown {
    /// Of the effects that stand in the journal. A shim that is in its private mount namespace gives the way back, and
    /// its cgroups, which it cannot reach by path.
    pub(crate) fn new(
        places: Places,
        entries: &[JournalEntry],
        proc: OwnedFd,
        host: Option<HostNamespace>,
        cgroups: Vec<Directory>,
        owed: OwedRecord,
    ) -> Result<Self, SysError> {
        let mut teardown = Self {
            places,
            lifetime: Lifetime::Record,
            cgroups,
            has_layers: false,
            has_mountpoint: false,
            has_unknown: false,
            host,
            proc,
            hanging: Vec::new(),
            last_sign: None,
            owed,
            report: TeardownReport::default(),
            failed_before: Vec::new(),
        };
        for entry in entries {
            teardown.undo_later(entry)?;
        }
        Ok(teardown)
    }

    /// The undo of each kind of effect. A new kind does not compile without one.
    fn undo_later(&mut self, entry: &JournalEntry) -> Result<(), SysError> {
        match entry {
            JournalEntry::Begin { lifetime, .. } => self.lifetime = *lifetime,
            JournalEntry::Cgroup { path } => {
                let path = Path::new(path);
                if !self.cgroups.iter().any(|cgroup| cgroup.path() == path) {
                    self.cgroups.extend(Directory::open(path)?);
                }
            }
            JournalEntry::WriteLayer => self.has_layers = true,
            JournalEntry::Mountpoint => self.has_mountpoint = true,
            // Its processes are found by cgroup, never by pid.
            JournalEntry::Released { .. } => {}
            JournalEntry::Unknown => self.has_unknown = true,
        }
        Ok(())
    }

    /// The last outcome of each step.
    pub(crate) fn report(&self) -> &TeardownReport {
        &self.report
    }

    /// Takes every step that is not done, in order, and says of each that went otherwise than last time how it went.
    /// Returns whether nothing is left.
    pub(crate) fn attempt(&mut self, told: &mut dyn FnMut(&TeardownStep)) -> bool {
        // Failures of the last attempt are tried again: what they say is outdated.
        self.failed_before = self.report.failures().cloned().collect();
        self.report.steps.retain(|step| step.outcome == Outcome::Done);
        let gone = self.step(StepKind::Processes, "", told, Self::kill_processes);
        let unmounted = gone && self.unmount_all(told);
        let layers_gone = unmounted && self.remove_files(told);
        let cgroups_gone = gone && self.step(StepKind::Cgroups, "", told, Self::remove_cgroups);
        if !(layers_gone && cgroups_gone) {
            return false;
        }
        let run_dir = self.places.run_dir.clone();
        let gone = self.step(StepKind::RunDirectory, &run_dir, told, Self::remove_run_directory);
        if self.lifetime != Lifetime::Nothing {
            return gone;
        }
        let state_dir = self.places.state_dir.clone();
        gone && self.step(StepKind::StateDirectory, &state_dir, told, |this| {
            layers::remove_state_directory(&this.places)
        })
    }

    /// Runs one step unless it was done before, and keeps and tells what came of it.
    fn step(
        &mut self,
        kind: StepKind,
        target: &str,
        told: &mut dyn FnMut(&TeardownStep),
        action: impl FnOnce(&mut Self) -> StepResult,
    ) -> bool {
        let same = |step: &TeardownStep| step.kind == kind && step.target == target;
        if self.report.steps.iter().any(|step| same(step) && step.outcome == Outcome::Done) {
            return true;
        }
        let (at, begun) = (wall_clock(), Instant::now());
        point::before(point::Step::of_teardown(kind));
        let outcome = match action(self) {
            Ok(()) => Outcome::Done,
            Err(Failure { error, holders }) => Outcome::Failed { error, holders },
        };
        point::after(point::Step::of_teardown(kind));
        let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let step = TeardownStep { kind, target: target.to_owned(), at, took, outcome };
        if !self.failed_before.iter().any(|before| same(before) && before.outcome == step.outcome) {
            trace(&step);
            told(&step);
        }
        let done = step.outcome == Outcome::Done;
        self.report.steps.push(step);
        done
    }

    fn kill_processes(&mut self) -> StepResult {
        let deadline = Instant::now() + KILL_PATIENCE;
        loop {
            let left = cgroup::kill_all(&self.cgroups)?;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(stay(self.proc.as_fd(), left));
            }
            // Killed processes are on their way out; there is no descriptor that tells when the last one is gone in
            // version 1.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Volumes, then the root file system; then back to the host's mounts.
    fn unmount_all(&mut self, told: &mut dyn FnMut(&TeardownStep)) -> bool {
        if self.host.is_none() {
            return !self.has_mountpoint || self.step(StepKind::Rootfs, "", told, Self::check_foreign);
        }
        let returned = self.look_at_hanging(told);
        // Twice at most: what was stacked below a mount shows only when that is gone.
        let volumes_gone =
            self.unmount_listed(StepKind::Volume, told) && self.unmount_listed(StepKind::Volume, told);
        let gone = returned && volumes_gone && self.unmount_listed(StepKind::Rootfs, told);
        if !gone {
            return false;
        }
        match self.host.take().map(|host| (host.return_to(), host)) {
            Some((Err(error), host)) => {
                self.host = Some(host);
                self.step(StepKind::Rootfs, "leave the mount namespace", told, |_| Err(error.into()))
            }
            // Whoever entered the namespace of the init has its union still.
            Some((Ok(()), _)) | None => {
                !self.has_mountpoint
                    || self.last_sign.as_ref().is_some_and(LastSign::has_come)
                    || self.step(StepKind::Rootfs, "", told, Self::check_foreign)
            }
        }
    }

    fn unmount_listed(&mut self, kind: StepKind, told: &mut dyn FnMut(&TeardownStep)) -> bool {
        let mounts = match unmount::OwnMounts::read(self.proc.as_fd(), &self.places.state_dir) {
            Ok(mounts) => mounts,
            Err(error) => return self.step(kind, "list mounts", told, |_| Err(error.into())),
        };
        let listed: Vec<_> = match kind {
            StepKind::Volume => mounts.volumes().cloned().collect(),
            StepKind::Rootfs
            | StepKind::Processes
            | StepKind::Mountpoint
            | StepKind::WriteLayer
            | StepKind::Cgroups
            | StepKind::RunDirectory
            | StepKind::StateDirectory
            | StepKind::Unknown => mounts.roots().cloned().collect(),
        };
        if kind == StepKind::Rootfs && self.last_sign.is_none() {
            self.last_sign = listed.first().and_then(LastSign::of);
        }
        let mut gone = true;
        for mount in listed {
            if !self.hanging.iter().any(|hanging| hanging.mount().id == mount.id) {
                let point = mount.point.to_string_lossy();
                // It is listed, so it is there, whatever was done before at this path.
                let same = |step: &TeardownStep| step.kind == kind && step.target == point;
                self.report.steps.retain(|step| !(same(step) && step.outcome == Outcome::Done));
                gone &= self.step(kind, &point, told, |this| {
                    this.progress(unmount::unmount(this.proc.as_fd(), &mount))
                });
            }
        }
        gone
    }

    /// Whether all unmounts have returned. What could not be unmounted is listed again, and tried.
    fn look_at_hanging(&mut self, told: &mut dyn FnMut(&TeardownStep)) -> bool {
        for hanging in std::mem::take(&mut self.hanging) {
            let point = hanging.mount().point.to_string_lossy().into_owned();
            let progress = hanging.look(self.proc.as_fd(), Duration::ZERO);
            if !matches!(progress, Progress::Busy(_)) {
                self.step(StepKind::Volume, &point, told, |this| this.progress(progress));
            }
        }
        self.hanging.is_empty()
    }

    fn progress(&mut self, progress: Progress) -> StepResult {
        match progress {
            Progress::Done => Ok(()),
            Progress::Busy(busy) => Err(Failure { error: chain(&busy.error), holders: busy.holders }),
            Progress::Hangs(hanging) => {
                let error = hanging.reason();
                self.hanging.push(hanging);
                Err(Failure { error, holders: Vec::new() })
            }
        }
    }

    /// The mounts went with their namespaces, unless somebody else is in one. Files are removed only below a union that is gone.
    fn check_foreign(&mut self) -> StepResult {
        let holders = unmount::foreign_holders(self.proc.as_fd(), &self.places.state_dir);
        // Who has something of it open without having it mounted is in no list.
        let gone = self.last_sign.as_ref().is_none_or(LastSign::has_come);
        if holders.is_empty() && gone {
            return Ok(());
        }
        let error = if holders.is_empty() {
            "the root file system is still in use, by something that no list of processes shows"
        } else {
            "the root file system is still mounted in another mount namespace"
        };
        let error = error.to_owned();
        Err(Failure { error, holders })
    }

    fn remove_files(&mut self, told: &mut dyn FnMut(&TeardownStep)) -> bool {
        let mountpoint = format!("{}/{}", self.places.run_dir, layout::MOUNTPOINT);
        let gone = !self.has_mountpoint
            || self.step(StepKind::Mountpoint, &mountpoint, told, |this| {
                layers::remove_mountpoint(&this.places)
            });
        if !self.has_layers {
            return gone;
        }
        let write_layer = format!("{}/{}", self.places.state_dir, layout::WRITE_LAYER);
        gone && self.step(StepKind::WriteLayer, &write_layer, told, |this| {
            layers::remove_layers(&this.places, this.lifetime)
        })
    }

    /// The journal goes with it, and must not before everything in it is undone.
    fn remove_run_directory(&mut self) -> StepResult {
        if self.has_unknown {
            let error = "the journal has an effect of a newer version, which only that can undo".to_owned();
            return Err(Failure { error, holders: Vec::new() });
        }
        // Without the journal nothing would say that there is an end to be known.
        self.owed.write()?;
        layers::remove_run_directory(&self.places)
    }

    fn remove_cgroups(&mut self) -> StepResult {
        // Newest first, and all of them: what one of them says does not keep the others.
        let removed: Vec<_> = self.cgroups.iter().rev().map(cgroup::remove).collect();
        Ok(removed.into_iter().collect::<Result<(), SysError>>()?)
    }
}

/// What is said of an init that has ended and that nobody has taken note of: by then it has no cgroup.
pub(crate) fn not_reaped(proc: BorrowedFd<'_>, pidfd: BorrowedFd<'_>) -> Option<TeardownStep> {
    let (init, tracer) = holders::of_zombie(proc, pidfd)?;
    let reason = match &tracer {
        Some(_) => "it is traced",
        None => "its parent has not taken note of it",
    };
    let error = format!("the init has ended and is not reaped yet: {reason}");
    let holders = tracer.into_iter().chain([init]).collect();
    let outcome = Outcome::Failed { error, holders };
    let (kind, target) = (StepKind::Processes, String::new());
    Some(TeardownStep { kind, target, at: wall_clock(), took: 0, outcome })
}

/// What is said of killed processes that stay.
fn stay(proc: BorrowedFd<'_>, left: Vec<u32>) -> Failure {
    let holders = left.into_iter().map(|pid| holders::describe(proc, pid)).collect();
    Failure { error: "processes were killed and are not gone".to_owned(), holders }
}

/// The same as a step, for the time before the teardown.
pub(crate) fn not_gone(proc: BorrowedFd<'_>, left: Vec<u32>) -> TeardownStep {
    let Failure { error, holders } = stay(proc, left);
    let outcome = Outcome::Failed { error, holders };
    TeardownStep { kind: StepKind::Processes, target: String::new(), at: wall_clock(), took: 0, outcome }
}

fn trace(step: &TeardownStep) {
    let (name, target) = (step.kind.name(), step.target.as_str());
    match &step.outcome {
        Outcome::Done => tracing::debug!(step = name, target, took_ns = step.took, "teardown step done"),
        Outcome::Failed { error, .. } => {
            tracing::warn!(step = name, target, error, "teardown step failed, it will be tried again");
        }
    }
}

/// The boot that this machine is in; random(4).
pub(crate) fn boot_id() -> String {
    let text = std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
    text.trim().to_owned()
}
