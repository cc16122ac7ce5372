//! Whether a container has cgroups, for one whose journal is gone. Whether they are this instance's, the shim finds out that
//! is to remove them.

use std::{fs, path::Path};

use mysup_ipc::layout;

/// Whether there is a directory `mysup/<id>` in any hierarchy that is mounted here. Blocks.
pub(crate) fn exist(id: &str) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(hierarchy)
        .any(|root| Path::new(root).join(layout::CGROUP_PARENT).join(id).symlink_metadata().is_ok())
}

/// Where a line's mount is, if it is one of cgroups: proc_pid_mountinfo(5).
fn hierarchy(line: &str) -> Option<&str> {
    let (before, after) = line.split_once(" - ")?;
    after.starts_with("cgroup").then(|| before.split(' ').nth(4))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_cgroups_are_hierarchies() {
        let line = "36 35 0:31 / /sys/fs/cgroup/pids rw shared:9 - cgroup cgroup rw,pids";
        assert_eq!(hierarchy(line), Some("/sys/fs/cgroup/pids"));
        assert_eq!(hierarchy("36 35 8:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw"), None);
        assert!(!exist("no-container"));
    }
}
