//! What is wrong with containers. A container is alive while something holds its lock; all that is of a container
//! without a living shim should not be there, and a shim should be where a supervisor finds it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use mysup_ipc::{
    id::ContainerId,
    layout,
    teardown::{Holder, JournalEntry, Outcome, TeardownStep},
};

use super::{
    disk::{RunDirectory, StateDirectory},
    finding::{Cure, Finding, Kind, Subject, people},
    holders,
    mounts::{Mount, Namespace},
    processes::Process,
    snapshot::Snapshot,
    territory::LockPlace,
};
use crate::registry::record;

const FIX: &str = "mysup doctor --fix; a start of the supervisor takes it up";

/// One container, and what was seen of it.
struct Case<'a> {
    seen: &'a Snapshot,
    id: &'a ContainerId,
    state: Option<&'a StateDirectory>,
    run: Option<&'a RunDirectory>,
    keepers: Vec<(&'a Process, LockPlace)>,
    members: Vec<Holder>,
    is_alive: bool,
}

/// Who works on a container whose lock is held.
enum Shim {
    /// A shim.
    Works,
    /// A shim that was stopped.
    Stopped(u32),
    /// Nobody: a program that is no shim has the lock.
    None(u32),
}

/// What is wrong with all containers.
pub(super) fn findings(seen: &Snapshot) -> Vec<Finding> {
    let ids = seen.containers();
    let cases: Vec<Case<'_>> = ids.iter().map(|id| Case::of(seen, id)).collect();
    let wanted: BTreeSet<u64> =
        cases.iter().flat_map(Case::suspicious_mounts).map(|mount| mount.id).collect();
    let busy = holders::of_mounts(&wanted);
    cases.iter().flat_map(|case| case.findings(&busy)).collect()
}

impl<'a> Case<'a> {
    fn of(seen: &'a Snapshot, id: &'a ContainerId) -> Self {
        let keepers = seen.keepers(id);
        let is_alive = !keepers.is_empty() || seen.locked.contains(id);
        let (state, run) = (seen.states.get(id), seen.runs.get(id));
        Self { seen, id, state, run, keepers, members: seen.members(id), is_alive }
    }

    fn findings(&self, busy: &BTreeMap<u64, Vec<Holder>>) -> Vec<Finding> {
        let mut found = self.shims();
        if self.is_alive {
            found.extend(self.has_ended().then(|| self.leftover(busy)));
        } else {
            found.extend(self.program());
            found.extend(self.spaces().map(|space| self.mount(space, busy)));
            found.extend(self.cgroups());
            found.extend(self.run.map(|run| self.run_directory(run)));
            found.extend(self.state.and_then(|state| self.at_rest(state)));
        }
        found.extend(self.records());
        found
    }

    fn finding(&self, kind: Kind, what: impl Into<String>, cure: Cure, remedy: impl Into<String>) -> Finding {
        let record = self.state.and_then(|state| state.record.as_ref().ok());
        let name = record.map(|record| record.name.as_str().to_owned());
        Finding {
            kind,
            container: Some(Subject { id: self.id.clone(), name }),
            what: what.into(),
            places: Vec::new(),
            holders: Vec::new(),
            cure,
            remedy: remedy.into(),
        }
    }

    /// Its program has ended, and its shim is still there.
    fn has_ended(&self) -> bool {
        let has_exit = self.state.is_some_and(|state| matches!(state.exit, Ok(Some(_))));
        self.run.is_some_and(|run| has_exit || (run.was_released() && self.members.is_empty()))
    }

    /// The namespaces with its overlay.
    fn spaces(&self) -> impl Iterator<Item = &'a Namespace> {
        let id = self.id;
        self.seen.namespaces.ours.iter().filter(move |space| space.overlays.iter().any(|(of, _)| of == id))
    }

    /// Mounts of which it matters who holds them: of an ended container all that its shim has mounted for it, of a dead
    /// shim's the root file system.
    fn suspicious_mounts(&self) -> Vec<&'a Mount> {
        if self.is_alive && !self.has_ended() {
            return Vec::new();
        }
        self.own_mounts().into_iter().map(|(_, mount)| mount).collect()
    }

    /// All that is mounted in the namespace of its shim but the root of that, which is the run directory. A dead shim, and
    /// one that takes down for a dead one, has no such namespace; where the root file system is still mounted, that is.
    fn own_mounts(&self) -> Vec<(&'a Namespace, &'a Mount)> {
        let mut found = Vec::new();
        for space in self.spaces() {
            if self.is_private(space) {
                found.extend(
                    space.mounts.iter().filter(|mount| mount.point != "/").map(|mount| (space, mount)),
                );
            } else {
                let roots = space.overlays.iter().filter(|(of, _)| of == self.id);
                found.extend(roots.map(|(_, mount)| (space, mount)));
            }
        }
        found
    }

    /// Whether its shim is in this namespace.
    fn is_private(&self, space: &Namespace) -> bool {
        self.keepers.iter().any(|(shim, _)| shim.namespace == space.name)
    }

    /// The processes in a namespace.
    fn inside(&self, space: &Namespace) -> impl Iterator<Item = Holder> {
        let processes = self.seen.processes.iter().filter(move |process| process.namespace == space.name);
        processes.map(Process::holder)
    }

    fn shims(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for (keeper, place) in &self.keepers {
            let mut push = |finding: Finding| {
                let lock = self.state.map(|state| state.path.join(layout::LOCK).display().to_string());
                found.push(Finding {
                    holders: vec![keeper.holder()],
                    places: lock.into_iter().collect(),
                    ..finding
                });
            };
            if !keeper.is_shim {
                let what = "its lock is held by a program that is no shim; mysup takes it for a living shim";
                let remedy = format!("end pid {} or let it close the lock", keeper.pid);
                push(self.finding(Kind::ForeignLock, what, Cure::Person, remedy));
                continue;
            }
            if keeper.is_stopped {
                let what = "its shim was stopped by a signal: its output is not kept and nobody can stop it";
                let remedy = format!("kill -CONT {}", keeper.pid);
                push(self.finding(Kind::Stopped, what, Cure::Person, remedy));
            }
            found.extend(self.orphan(keeper, *place));
        }
        found
    }

    /// A shim that a supervisor cannot find (no directory), or cannot reach (no socket).
    fn orphan(&self, shim: &Process, place: LockPlace) -> Option<Finding> {
        let (what, cure) = match (place, self.run) {
            (LockPlace::Home, Some(run)) if run.names.contains(layout::SHIM_SOCKET) => return None,
            // It makes its socket after it has taken its lock, and removes it before it ends.
            (LockPlace::Home, Some(_)) => {
                ("a shim works for it and has no socket: nobody can reach it", Cure::Person)
            }
            (LockPlace::Home, None) => {
                ("a shim works for it and its run directory is gone: nobody can reach it", Cure::Person)
            }
            (LockPlace::Trash, run) => {
                ("a shim works for it and its directory is in the trash", self.cure_of(run))
            }
            (LockPlace::Removed, Some(run))
                if self.state.is_some() && run.names.contains(layout::SHIM_SOCKET) =>
            {
                let what = "the file of its shim's lock was removed: only its socket shows that it lives";
                let remedy = "mysup restart it when that suits you".to_owned();
                let holders = vec![shim.holder()];
                return Some(Finding {
                    holders,
                    ..self.finding(Kind::OrphanShim, what, Cure::Person, remedy)
                });
            }
            (LockPlace::Removed, run) => {
                ("a shim works for it and its directory was removed or moved away", self.cure_of(run))
            }
        };
        let remedy = match cure {
            Cure::Recovery => FIX.to_owned(),
            Cure::Patience | Cure::Person => match &self.members[..] {
                [] => format!("end pid {}; then mysup doctor --fix", shim.pid),
                members => {
                    format!("end its program, {}: the shim then takes it down by itself", people(members))
                }
            },
        };
        Some(Finding {
            holders: vec![shim.holder()],
            places: vec![format!("shim pid {}", shim.pid)],
            ..self.finding(Kind::OrphanShim, what, cure, remedy)
        })
    }

    /// What a starting supervisor can take up has a run directory.
    fn cure_of(&self, run: Option<&RunDirectory>) -> Cure {
        if run.is_some() { Cure::Recovery } else { Cure::Person }
    }

    fn leftover(&self, busy: &BTreeMap<u64, Vec<Holder>>) -> Finding {
        let mut holders = self.members.clone();
        let mut places = Vec::new();
        let is_own = |holder: &Holder| self.keepers.iter().any(|(keeper, _)| keeper.pid == holder.pid);
        for (space, mount) in self.own_mounts() {
            let of_mount = busy.get(&mount.id).into_iter().flatten().filter(|holder| !is_own(holder));
            let before = holders.len();
            holders.extend(of_mount.cloned());
            if !self.is_private(space) {
                holders.extend(self.inside(space));
            }
            if holders.len() > before {
                places.push(place(space, mount));
            }
        }
        tidy(&mut holders);
        let report = self.state.and_then(|state| state.teardown.as_ref().ok()?.as_ref());
        let failures: Vec<String> =
            report.into_iter().flat_map(|report| report.failures()).map(failure).collect();
        let mut what = "its program has ended and its teardown is not finished".to_owned();
        if !failures.is_empty() {
            what = format!("{what}: {}", failures.join("; "));
        }
        let (cure, remedy) = match (self.working_shim(), holders.is_empty()) {
            (Shim::Works, true) => {
                (Cure::Patience, "none is needed: its shim goes on by itself as soon as it can".to_owned())
            }
            (Shim::Works, false) => {
                let remedy =
                    format!("end {} or let it leave; the shim then goes on by itself", people(&holders));
                (Cure::Patience, remedy)
            }
            (Shim::Stopped(pid), _) => (Cure::Person, format!("kill -CONT {pid}: its shim then goes on")),
            (Shim::None(pid), _) => {
                let remedy =
                    format!("nobody works on it: let pid {pid} close its lock, then mysup doctor --fix");
                (Cure::Person, remedy)
            }
        };
        Finding { holders, places, ..self.finding(Kind::Leftover, what, cure, remedy) }
    }

    /// Whether anybody goes on with a container whose lock is held. A shim that cannot be seen is taken for one that does.
    fn working_shim(&self) -> Shim {
        let shims = || self.keepers.iter().filter(|(keeper, _)| keeper.is_shim);
        if self.keepers.is_empty() || shims().any(|(shim, _)| !shim.is_stopped) {
            return Shim::Works;
        }
        match (shims().next(), self.keepers.first()) {
            (Some((shim, _)), _) => Shim::Stopped(shim.pid),
            (None, Some((other, _))) => Shim::None(other.pid),
            (None, None) => Shim::Works,
        }
    }

    fn program(&self) -> Option<Finding> {
        if self.members.is_empty() {
            return None;
        }
        let what = "its program runs and its shim is dead: nobody keeps its output and its end";
        let ended = self.is_taken_down_without_journal();
        let cure = if ended { Cure::Recovery } else { self.cure_of(self.run) };
        let remedy = match cure {
            Cure::Recovery if ended => {
                "mysup doctor --fix, or a start of the supervisor, ends it: its run directory is gone, without which nobody \
                 can go on with it"
                    .to_owned()
            }
            Cure::Recovery => FIX.to_owned(),
            Cure::Patience | Cure::Person => {
                format!("end {}; there is no journal by which mysup could do it", people(&self.members))
            }
        };
        let places = self.seen.cgroups_of(self.id).first().map(|path| path.display().to_string());
        let places = places.into_iter().collect();
        Some(Finding {
            holders: self.members.clone(),
            places,
            ..self.finding(Kind::Init, what, cure, remedy)
        })
    }

    /// A starting supervisor takes down by its cgroups what has lost its run directory: if they are empty, or a process in them
    /// has its root file system.
    fn is_taken_down_without_journal(&self) -> bool {
        let is_proven = self.members.is_empty() || self.spaces().next().is_some();
        self.state.is_some() && self.run.is_none() && !self.seen.cgroups_of(self.id).is_empty() && is_proven
    }

    fn mount(&self, space: &Namespace, busy: &BTreeMap<u64, Vec<Holder>>) -> Finding {
        let mut holders: Vec<Holder> = self.inside(space).collect();
        let mut places = Vec::new();
        for (_, mount) in space.overlays.iter().filter(|(of, _)| of == self.id) {
            holders.extend(busy.get(&mount.id).into_iter().flatten().cloned());
            places.push(place(space, mount));
        }
        tidy(&mut holders);
        let what = "its root file system is mounted and its shim is dead";
        let ended = self.is_taken_down_without_journal() && !self.members.is_empty();
        let cure = if ended { Cure::Recovery } else { self.cure_of(self.run) };
        let remedy = match cure {
            Cure::Recovery if self.members.is_empty() => {
                format!("end {}, then mysup doctor --fix: the mount goes with them", people(&holders))
            }
            Cure::Recovery => FIX.to_owned(),
            Cure::Patience | Cure::Person => {
                format!("end {}: the mount goes with them", people(&holders))
            }
        };
        Finding { holders, places, ..self.finding(Kind::Mount, what, cure, remedy) }
    }

    fn cgroups(&self) -> Option<Finding> {
        let paths = self.seen.cgroups_of(self.id);
        if paths.is_empty() {
            return None;
        }
        let journal = self.run.map_or(&[][..], |run| &run.journal);
        let in_journal = |path: &PathBuf| {
            journal.iter().any(|entry| matches!(entry, JournalEntry::Cgroup { path: known } if *known == path.to_string_lossy()))
        };
        let known = paths.iter().all(in_journal) || self.is_taken_down_without_journal();
        let cure = if known { Cure::Recovery } else { Cure::Person };
        let remedy = match cure {
            Cure::Recovery => FIX.to_owned(),
            Cure::Patience | Cure::Person => {
                "no journal names them, so mysup leaves them alone: rmdir them when they are empty".to_owned()
            }
        };
        let what = match self.state {
            Some(_) => "its cgroups are there and its shim is dead",
            None => "its cgroups are there, and it has no directory and no shim any more",
        };
        let places = paths.iter().map(|path| path.display().to_string()).collect();
        Some(Finding {
            holders: self.members.clone(),
            places,
            ..self.finding(Kind::Cgroup, what, cure, remedy)
        })
    }

    fn run_directory(&self, run: &RunDirectory) -> Finding {
        let names: Vec<&str> = run.names.iter().map(String::as_str).collect();
        let what = if names.is_empty() {
            "its run directory is empty: a start that never came to its shim".to_owned()
        } else if run.is_of_another_boot(&self.seen.boot) {
            format!("it ran before the machine was restarted; left: {}", names.join(" "))
        } else {
            format!("its shim is dead and nobody has taken it down; left: {}", names.join(" "))
        };
        Finding {
            places: vec![run.path.display().to_string()],
            ..self.finding(Kind::RunDirectory, what, Cure::Recovery, FIX)
        }
    }

    /// A container without a shim and without anything to undo.
    fn at_rest(&self, state: &StateDirectory) -> Option<Finding> {
        let place = vec![state.path.display().to_string()];
        if state.was_never_told_of() {
            let what = "its creation was broken off: there is no record of it";
            return Some(Finding {
                places: place,
                ..self.finding(Kind::Directory, what, Cure::Recovery, FIX)
            });
        }
        let record = state.record.as_ref().ok()?;
        if self.run.is_some() {
            return None;
        }
        if record.launched && record.config.remove {
            let what = "it was to leave nothing (--rm), and has ended";
            return Some(Finding {
                places: place,
                ..self.finding(Kind::Directory, what, Cure::Recovery, FIX)
            });
        }
        if record.launched && matches!(state.exit, Ok(None)) {
            let what = "it was started, has ended, and nobody has recorded how";
            return Some(Finding {
                places: place,
                ..self.finding(Kind::UnknownEnd, what, Cure::Recovery, FIX)
            });
        }
        let layers = state.layers(record.config.keep);
        if layers.is_empty() {
            return None;
        }
        let places = layers.iter().map(|path| path.display().to_string()).collect();
        let what = "it has ended, and layers that were to go with its end are there";
        Some(Finding { places, ..self.finding(Kind::WriteLayer, what, Cure::Recovery, FIX) })
    }

    fn records(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut damaged = |path: PathBuf, what: String, cure: Cure, remedy: String| {
            let places = vec![path.display().to_string()];
            found.push(Finding { places, ..self.finding(Kind::DamagedRecord, what, cure, remedy) });
        };
        let short = self.id.short();
        if let Some(state) = self.state.filter(|state| !state.was_never_told_of() || self.is_alive) {
            if let Err(reason) = &state.record {
                let what =
                    format!("its record cannot be read ({reason}): it cannot be started, only removed");
                damaged(record::path(&state.path), what, Cure::Person, format!("mysup rm -f {short}"));
            }
            // A supervisor that starts mends the records of an end where there is nothing else to mend.
            let (cure, remedy) = match (&state.record, self.is_alive) {
                (Ok(_), false) => (Cure::Recovery, format!("{FIX}; or mysup rm {short}")),
                (Ok(_), true) => (Cure::Person, format!("mysup restart {short}, or mysup rm -f {short}")),
                (Err(_), _) => (Cure::Person, format!("mysup rm -f {short}")),
            };
            if let Err(reason) = &state.exit {
                let what = format!("how it ended cannot be read ({reason}); it is shown as not known");
                damaged(state.path.join(layout::EXIT), what, cure, remedy.clone());
            }
            if let Err(reason) = &state.teardown {
                let what =
                    format!("the report of its teardown cannot be read ({reason}); nothing depends on it");
                damaged(state.path.join(layout::TEARDOWN), what, cure, remedy);
            }
        }
        if let Some((run, reason)) = self.run.and_then(|run| Some((run, run.plan.as_ref().err()?))) {
            let what =
                format!("its plan cannot be read ({reason}): if its shim dies, no other one can go on");
            damaged(run.path.join(layout::PLAN), what, Cure::Person, format!("mysup restart {short}"));
        }
        found
    }
}

fn failure(step: &TeardownStep) -> String {
    let error = match &step.outcome {
        Outcome::Done => "done",
        Outcome::Failed { error, .. } => error,
    };
    format!("{} {}: {error}", step.kind.name(), step.target)
}

fn place(space: &Namespace, mount: &Mount) -> String {
    format!("{} in {} (as pid {} sees it)", mount.point, space.name, space.seen_by)
}

fn tidy(holders: &mut Vec<Holder>) {
    holders.sort_by_key(|holder| holder.pid);
    holders.dedup_by_key(|holder| holder.pid);
}
