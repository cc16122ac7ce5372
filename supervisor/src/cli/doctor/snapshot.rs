//! One look at the kernel and the disk. Nothing in it is a judgement yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use mysup_ipc::{id::ContainerId, teardown::Holder};

use super::{
    disk::{self, RunDirectory, StateDirectory},
    mounts::{self, Mount, Namespaces},
    processes::{self, Process},
    territory::{self, LockPlace, Territory},
};
use crate::{cli::error::CliError, config::Config};

/// Everything that was seen at one time.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// All processes but this one.
    pub(super) processes: Vec<Process>,
    /// Mount namespaces with overlays of ours.
    pub(super) namespaces: Namespaces,
    /// The mounts of the host, as this process sees them.
    pub(super) host: Vec<Mount>,
    /// Directories `mysup/<id>` in all hierarchies, of any instance.
    pub(super) cgroups: BTreeMap<ContainerId, Vec<PathBuf>>,
    /// Containers below the state root.
    pub(super) states: BTreeMap<ContainerId, StateDirectory>,
    /// Containers below the run root.
    pub(super) runs: BTreeMap<ContainerId, RunDirectory>,
    /// What lies among the containers' directories and is none.
    pub(super) strangers: Vec<PathBuf>,
    /// What is in the two trashes.
    pub(super) trash: Vec<(String, PathBuf)>,
    /// Containers whose lock somebody holds, as the kernel's own table says; it may be somebody we cannot see.
    pub(super) locked: BTreeSet<ContainerId>,
    /// The boot this machine is in.
    pub(super) boot: String,
}

impl Snapshot {
    /// Looks at everything.
    ///
    /// # Errors
    /// If a directory of ours cannot be read.
    pub(super) fn take(config: &Config, territory: &Territory) -> Result<Self, CliError> {
        // Before and after all else: what starts or ends meanwhile is seen with its lock, or not at all.
        let before = disk::lock_table();
        let mut strangers = Vec::new();
        let (mut states, mut locked) = (BTreeMap::new(), BTreeSet::new());
        for (name, path) in disk::entries(&config.containers())? {
            match disk::container_id(&name, &path) {
                Some(id) => {
                    let state = StateDirectory::read(path, &id);
                    if state.is_in(&before) {
                        locked.insert(id.clone());
                    }
                    states.insert(id, state);
                }
                None => strangers.push(path),
            }
        }
        let mut runs = BTreeMap::new();
        for (name, path) in disk::entries(&config.run_containers())? {
            match disk::container_id(&name, &path) {
                Some(id) => {
                    runs.insert(id, RunDirectory::read(path));
                }
                None => strangers.push(path),
            }
        }
        let mut trash = disk::entries(&config.trash())?;
        trash.extend(disk::entries(&config.run_trash())?);
        let processes = processes::all(territory);
        let namespaces = Namespaces::read(&processes, territory);
        let host = mounts::own();
        let cgroups = mounts::cgroups(&host);
        let boot = disk::boot_id();
        let after = disk::lock_table();
        locked.extend(states.iter().filter(|(_, state)| state.is_in(&after)).map(|(id, _)| id.clone()));
        Ok(Self { locked, processes, namespaces, host, cgroups, states, runs, strangers, trash, boot })
    }

    /// The containers that are proven to be of this instance: by a directory, a name in the trash, a lock file that a
    /// process holds, or the write layer of an overlay.
    pub(super) fn containers(&self) -> BTreeSet<ContainerId> {
        let mut ids: BTreeSet<ContainerId> = self.states.keys().chain(self.runs.keys()).cloned().collect();
        ids.extend(self.trash.iter().filter_map(|(name, _)| territory::id_in(name)));
        ids.extend(self.locks().map(|(_, id, _)| id.clone()));
        let overlays = self.namespaces.ours.iter().flat_map(|namespace| &namespace.overlays);
        ids.extend(overlays.map(|(id, _)| id.clone()));
        ids
    }

    /// All locks that are held, and by whom.
    pub(super) fn locks(&self) -> impl Iterator<Item = (&Process, &ContainerId, LockPlace)> {
        self.processes
            .iter()
            .flat_map(|process| process.locks.iter().map(move |(id, place)| (process, id, *place)))
    }

    /// The living shims of a container: who holds its lock, and a shim that has its root file system mounted although
    /// its lock file cannot be found below our root any more.
    pub(super) fn keepers(&self, id: &ContainerId) -> Vec<(&Process, LockPlace)> {
        let mut found: Vec<(&Process, LockPlace)> =
            self.locks().filter(|(_, of, _)| *of == id).map(|(process, _, place)| (process, place)).collect();
        let spaces: Vec<&str> = self.spaces(id).collect();
        let shims = self.processes.iter().filter(|process| process.is_shim && !process.is_first);
        let inside = shims.filter(|process| spaces.contains(&process.namespace.as_str()));
        let unknown =
            inside.filter(|process| process.locks.is_empty()).map(|process| (process, LockPlace::Removed));
        found.extend(unknown);
        found
    }

    /// The processes of a container: in its cgroup, or the first one of a namespace whose root file system is the
    /// container's.
    pub(super) fn members(&self, id: &ContainerId) -> Vec<Holder> {
        // A copied state root has the ids of the original; what runs there is the original's.
        let by_cgroup = !self.namespaces.foreign.contains(id);
        let spaces: Vec<&str> = self.spaces(id).collect();
        let is_member = |process: &&Process| {
            (by_cgroup && process.cgroups.contains(id))
                || (process.is_first && spaces.contains(&process.namespace.as_str()))
        };
        let keepers = self.keepers(id);
        let is_keeper = |process: &&Process| keepers.iter().any(|(keeper, _)| keeper.pid == process.pid);
        let members = self.processes.iter().filter(is_member);
        members.filter(|process| !is_keeper(process)).map(Process::holder).collect()
    }

    /// The cgroups of a container.
    pub(super) fn cgroups_of(&self, id: &ContainerId) -> &[PathBuf] {
        let is_foreign = self.namespaces.foreign.contains(id);
        let found = self.cgroups.get(id).filter(|_| !is_foreign);
        found.map_or(&[], Vec::as_slice)
    }

    /// The names of the mount namespaces that hold a container's overlay.
    pub(super) fn spaces<'a>(&'a self, id: &'a ContainerId) -> impl Iterator<Item = &'a str> {
        let holds = move |overlays: &[(ContainerId, Mount)]| overlays.iter().any(|(of, _)| of == id);
        let spaces = self.namespaces.ours.iter().filter(move |space| holds(&space.overlays));
        spaces.map(|space| space.name.as_str())
    }

    /// The supervisor of this instance.
    pub(super) fn supervisor(&self) -> Option<&Process> {
        self.processes.iter().find(|process| process.is_supervisor)
    }
}
