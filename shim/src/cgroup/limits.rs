//! Limits as files of version 1 and version 2.

use mysup_ipc::plan::{ContainerPlan, Limits};

use super::{Directory, Hierarchy, Version};
use crate::error::{StartError, SysError};

/// The period of processor time in microseconds, as the kernel's default and docker's.
const CPU_PERIOD: u64 = 100_000;

/// Options and the controller that each needs.
fn wanted(limits: &Limits) -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        (limits.memory.is_some() || limits.memory_swap.is_some(), "memory", "memory"),
        (limits.nano_cpus.is_some(), "cpus", "cpu"),
        (limits.cpu_shares.is_some(), "cpu shares", "cpu"),
        (limits.cpuset_cpus.is_some(), "cpuset", "cpuset"),
        (limits.pids.is_some(), "pids", "pids"),
    ]
    .into_iter()
    .filter(|(asked, _, _)| *asked)
    .map(|(_, option, controller)| (option, controller))
}

/// Every limit that was asked for can be set somewhere.
pub(super) fn check(plan: &ContainerPlan, hierarchies: &[Hierarchy]) -> Result<(), StartError> {
    for (what, controller) in wanted(&plan.limits) {
        if !hierarchies.iter().any(|hierarchy| hierarchy.has(controller)) {
            return Err(StartError::NoController { what, controller });
        }
    }
    Ok(())
}

/// Whether the container needs a cgroup in this hierarchy.
pub(super) fn needs(plan: &ContainerPlan, hierarchy: &Hierarchy) -> bool {
    match hierarchy.version {
        // Always: processes are killed and counted there.
        Version::V2 => true,
        Version::V1 => {
            (hierarchy.has("devices") && !plan.privileged)
                // Where no unified tree is mounted, this one tells which processes are the container's.
                || hierarchy.has("pids")
                || wanted(&plan.limits).any(|(_, controller)| hierarchy.has(controller))
        }
    }
}

/// Writes the limits that this hierarchy can set.
pub(super) fn apply(plan: &ContainerPlan, hierarchy: &Hierarchy, cgroup: &Directory) -> Result<(), SysError> {
    let limits = &plan.limits;
    let set = |name: &str, value: String| cgroup.write(name, &value);
    let v2 = hierarchy.version == Version::V2;
    if hierarchy.has("memory") {
        if v2 { memory_v2(limits, cgroup)? } else { memory_v1(limits, cgroup)? }
    }
    if hierarchy.has("cpu") {
        if let Some(nano) = limits.nano_cpus {
            let quota = nano.saturating_mul(CPU_PERIOD) / 1_000_000_000;
            if v2 {
                set("cpu.max", format!("{quota} {CPU_PERIOD}"))?;
            } else {
                set("cpu.cfs_period_us", CPU_PERIOD.to_string())?;
                set("cpu.cfs_quota_us", quota.to_string())?;
            }
        }
        if let Some(shares) = limits.cpu_shares {
            if v2 {
                set("cpu.weight", weight(shares).to_string())?;
            } else {
                set("cpu.shares", shares.to_string())?;
            }
        }
    }
    if let Some(cpus) = limits.cpuset_cpus.as_ref().filter(|_| hierarchy.has("cpuset")) {
        set("cpuset.cpus", cpus.clone())?;
    }
    if let Some(pids) = limits.pids.filter(|_| hierarchy.has("pids")) {
        set("pids.max", pids.to_string())?;
    }
    Ok(())
}

fn memory_v1(limits: &Limits, cgroup: &Directory) -> Result<(), SysError> {
    let Some(memory) = limits.memory else {
        return Ok(());
    };
    cgroup.write("memory.limit_in_bytes", &memory.to_string())?;
    // Missing when the kernel does not account swap; the memory limit then holds alone.
    if cgroup.has("memory.memsw.limit_in_bytes") {
        let total = limits.memory_swap.unwrap_or_else(|| default_swap(memory));
        cgroup.write("memory.memsw.limit_in_bytes", &total.to_string())?;
    }
    Ok(())
}

fn memory_v2(limits: &Limits, cgroup: &Directory) -> Result<(), SysError> {
    let Some(memory) = limits.memory else {
        return Ok(());
    };
    cgroup.write("memory.max", &memory.to_string())?;
    if cgroup.has("memory.swap.max") {
        let total = limits.memory_swap.unwrap_or_else(|| default_swap(memory));
        // docker's number is memory and swap together, version 2 counts swap alone.
        let swap = match u64::try_from(total) {
            Ok(total) => total.saturating_sub(memory).to_string(),
            Err(_) => "max".to_owned(),
        };
        cgroup.write("memory.swap.max", &swap)?;
    }
    Ok(())
}

/// docker: as much swap as memory when only memory is given.
fn default_swap(memory: u64) -> i64 {
    i64::try_from(memory.saturating_mul(2)).unwrap_or(i64::MAX)
}

/// Shares 2..=262144 to weight 1..=10000, as the OCI runtimes do.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// Whether the kernel killed a process in this cgroup for lack of memory; to be read before its removal.
pub(crate) fn oom_killed(cgroup: &Directory) -> bool {
    // Version 1 and version 2; a cgroup without the memory controller has neither.
    ["memory.oom_control", "memory.events"].iter().any(|name| {
        // One that cannot be read says nothing of it.
        let text = cgroup.read(name).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.is_some_and(|count| count.trim() != "0")
    })
}

#[cfg(test)]
mod tests {
    use super::weight;

    #[test]
    fn shares_map_onto_the_whole_range_of_weights() {
        assert_eq!(weight(2), 1);
        assert_eq!(weight(1024), 39);
        assert_eq!(weight(262_144), 10_000);
    }
}
