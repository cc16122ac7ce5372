//! What this machine offers: storage drivers, cgroups, the kernel.

use std::{collections::BTreeMap, fs};

use mysup_ipc::{
    api::SupervisorInfo,
    error::{ErrorCode, WireError},
    plan::StorageDriver,
};

use super::operations::Operations;
use crate::{config::text, sys};

/// The answer to `info`.
pub(super) async fn collect(operations: &Operations, started_at: u64) -> Result<SupervisorInfo, WireError> {
    let mut states = BTreeMap::new();
    for container in operations.registry.list().await? {
        *states.entry(container.state.word().to_owned()).or_insert(0) += 1;
    }
    let drivers = ["overlay", "aufs"].into_iter().filter(|driver| is_offered(driver));
    Ok(SupervisorInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at,
        root: text(&operations.config.root),
        run_root: text(&operations.config.run_root),
        storage_drivers: drivers.map(str::to_owned).collect(),
        cgroup_version: cgroup_version().to_owned(),
        kernel: sys::kernel_release(),
        containers: states.into_iter().collect(),
        images: u32::try_from(operations.images.list().len()).unwrap_or(u32::MAX),
    })
}

/// Refuses a container whose file system this kernel cannot join.
pub(super) fn check_driver(driver: StorageDriver) -> Result<(), WireError> {
    let name = match driver {
        StorageDriver::Overlay => "overlay",
        StorageDriver::Aufs => "aufs",
    };
    if is_offered(name) {
        return Ok(());
    }
    let message = format!(
        "the kernel has no {name} file system (/proc/filesystems does not list it, and there is no module)"
    );
    Err(WireError::new(ErrorCode::System, message))
}

/// Whether the kernel has a file system, or would load a module for it when it is mounted.
fn is_offered(name: &str) -> bool {
    // Neither file has to be there: then nothing is offered.
    let listed = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if listed.lines().any(|line| line.split_whitespace().last() == Some(name)) {
        return true;
    }
    let modules = format!("/lib/modules/{}/modules.dep", sys::kernel_release());
    let module = format!("/{name}.ko");
    fs::read_to_string(modules)
        .unwrap_or_default()
        .lines()
        .any(|line| line.split(':').next().is_some_and(|path| path.contains(&module)))
}

fn cgroup_version() -> &'static str {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let has = |kind: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => "none",
    }
}
