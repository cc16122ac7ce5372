//! The container's cgroups: one in the unified tree (for killing and for being sure that all are gone), and one in each
//! version 1 hierarchy that has a limit to set. Each directory is in the journal before it is made.
//!
//! Version 1, version 2 and hybrid differ only in `hierarchy.rs` (where they are) and `limits.rs` (file names).

pub(crate) mod devices;
mod directory;
mod freeze;
mod hierarchy;
mod kill;
mod limits;

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use mysup_ipc::{layout, plan::ContainerPlan, point, teardown::JournalEntry};

pub(crate) use self::{
    directory::Directory,
    freeze::{freeze, is_frozen, thaw},
    hierarchy::{Hierarchy, Version, find as find_hierarchies},
    kill::kill_all,
    limits::oom_killed,
};
use crate::{
    error::{Call, StartError, Step, SysError},
    teardown::journal::Journal,
};

/// The cgroups of one container.
#[derive(Debug)]
pub(crate) struct Cgroups {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    hierarchy: Hierarchy,
    directory: Directory,
}

impl Cgroups {
    /// Makes the directories and sets all limits. What was made before an error is in the journal.
    pub(crate) fn create(
        plan: &ContainerPlan,
        hierarchies: &[Hierarchy],
        journal: &mut Journal,
    ) -> Result<Self, StartError> {
        limits::check(plan, hierarchies)?;
        let mut members = Vec::new();
        // The unified tree can pause a container by itself, beside version 1 too.
        let has_unified = hierarchies.iter().any(|hierarchy| hierarchy.version == Version::V2);
        let needs = |hierarchy: &&Hierarchy| {
            limits::needs(plan, hierarchy) || (!has_unified && hierarchy.has("freezer"))
        };
        for hierarchy in hierarchies.iter().filter(needs) {
            let directory = create(hierarchy, plan.id.as_str(), journal).step("make a cgroup")?;
            limits::apply(plan, hierarchy, &directory).step("set a limit")?;
            members.push(Member { hierarchy: hierarchy.clone(), directory });
        }
        let cgroups = Self { members };
        if !plan.privileged {
            cgroups.restrict_devices().step("restrict devices")?;
        }
        Ok(cgroups)
    }

    fn restrict_devices(&self) -> Result<(), SysError> {
        if let Some(member) = self.members.iter().find(|member| member.hierarchy.has("devices")) {
            devices::restrict_v1(&member.directory)?;
        }
        match self.unified() {
            Some(cgroup) => devices::restrict_v2(cgroup),
            None => Ok(()),
        }
    }

    /// The directory in the unified tree, for `CLONE_INTO_CGROUP`.
    pub(crate) fn unified(&self) -> Option<BorrowedFd<'_>> {
        let unified = self.members.iter().find(|member| member.hierarchy.version == Version::V2);
        unified.map(|member| member.directory.as_fd())
    }

    /// Moves a process into all version 1 cgroups (into the unified one it was born).
    pub(crate) fn adopt(&self, pid: u32) -> Result<(), SysError> {
        for member in &self.members {
            if member.hierarchy.version == Version::V1 {
                member.directory.write("cgroup.procs", &pid.to_string())?;
            }
        }
        Ok(())
    }

    /// The hierarchies the container is in, for its own /sys/fs/cgroup.
    pub(crate) fn hierarchies(&self) -> impl Iterator<Item = &Hierarchy> {
        self.members.iter().map(|member| &member.hierarchy)
    }

    /// Copies of the directories, which is all that is needed once the init runs, and to end it.
    pub(crate) fn directories(&self) -> Result<Vec<Directory>, SysError> {
        self.members.iter().map(|member| member.directory.try_clone()).collect()
    }
}

fn create(hierarchy: &Hierarchy, id: &str, journal: &mut Journal) -> Result<Directory, SysError> {
    let parent = hierarchy.mount_point.join(layout::CGROUP_PARENT);
    let path = parent.join(id);
    journal.append(&JournalEntry::Cgroup { path: path.display().to_string() })?;
    // Another container's end may remove the empty parent between our calls.
    for _ in 0..100 {
        prepare_parent(hierarchy, &parent)?;
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result.call(|| format!("mkdir(\"{}\")", path.display()))?,
        }
        point::after(point::Step::Cgroup);
        if let Some(directory) = Directory::open(&path)? {
            if hierarchy.version == Version::V1 && hierarchy.has("cpuset") {
                inherit_cpuset(&parent, &directory)?;
            }
            return Ok(directory);
        }
    }
    Err(SysError::new(format!("mkdir(\"{}\")", path.display()), io::Error::from(io::ErrorKind::NotFound)))
}

fn prepare_parent(hierarchy: &Hierarchy, parent: &Path) -> Result<(), SysError> {
    match fs::create_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result.call(|| format!("mkdir(\"{}\")", parent.display()))?,
    }
    let (Some(directory), Some(root)) = (Directory::open(parent)?, Directory::open(&hierarchy.mount_point)?)
    else {
        return Ok(());
    };
    match hierarchy.version {
        // Always written, not only by the maker: who made it may not have come this far.
        Version::V1 if hierarchy.has("cpuset") => inherit_cpuset(&hierarchy.mount_point, &directory),
        Version::V1 => Ok(()),
        Version::V2 => {
            for directory in [root, directory] {
                let enabled = directory.read("cgroup.subtree_control")?;
                let missing = |name: &&String| !enabled.split_whitespace().any(|word| word == name.as_str());
                for controller in hierarchy.controllers.iter().filter(missing) {
                    // One by one: a controller that cannot be passed on (a process of the host sits beside us) is
                    // missed when its limit is set, not here.
                    let _ = directory.write("cgroup.subtree_control", &format!("+{controller}"));
                }
            }
            Ok(())
        }
    }
}

/// A version 1 cpuset is born empty and admits nobody until it has processors and memory nodes (cgroups(7)).
fn inherit_cpuset(parent: &Path, child: &Directory) -> Result<(), SysError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if child.read(name)?.trim().is_empty() {
            let file = parent.join(name);
            let value = fs::read_to_string(&file).call(|| format!("read(\"{}\")", file.display()))?;
            child.write(name, value.trim())?;
        }
    }
    Ok(())
}

/// Removes a container's cgroup and the ones the container made below it; "not there" is done.
///
/// Only empty directories go: rmdir(2) of a cgroup with processes is EBUSY. By descriptor, so that it works where no path
/// leads to it.
pub(crate) fn remove(directory: &Directory) -> Result<(), SysError> {
    let Some(parent) = directory.remove()? else {
        return Ok(());
    };
    parent.remove_if_empty();
    Ok(())
}
