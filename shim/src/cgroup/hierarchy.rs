//! Where the cgroup hierarchies of this machine are.

use std::{fs, path::PathBuf};

use crate::mountinfo::Mount;

/// cgroups(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// One hierarchy for one or some controllers.
    V1,
    /// The unified tree.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Which kind.
    pub(crate) version: Version,
    /// Where its root is mounted.
    pub(crate) mount_point: PathBuf,
    /// Controllers in it.
    pub(crate) controllers: Vec<String>,
}

impl Hierarchy {
    /// Whether it has the controller.
    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

const V1_CONTROLLERS: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "net_cls",
    "net_prio",
    "perf_event",
    "hugetlb",
];

/// The hierarchies among `mounts`; of one that is mounted twice only the first.
pub(crate) fn find(mounts: &[Mount]) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.root == "/") {
        let mount_point = PathBuf::from(&mount.point);
        let hierarchy = match mount.kind.as_str() {
            "cgroup2" => {
                let list = fs::read_to_string(mount_point.join("cgroup.controllers")).unwrap_or_default();
                let controllers = list.split_whitespace().map(str::to_owned).collect();
                Hierarchy { version: Version::V2, mount_point, controllers }
            }
            "cgroup" => {
                let options = mount.super_options().filter_map(|option| option.into_string().ok());
                let controllers =
                    options.filter(|option| V1_CONTROLLERS.contains(&option.as_str())).collect();
                Hierarchy { version: Version::V1, mount_point, controllers }
            }
            _ => continue,
        };
        let twice = |other: &Hierarchy| {
            other.version == hierarchy.version && other.controllers == hierarchy.controllers
        };
        if !found.iter().any(twice) {
            found.push(hierarchy);
        }
    }
    found
}
