//! Limits: set where the controller is, felt by the program, told to the user.

use std::{fs, path::PathBuf};

use crate::harness::{Case, Sandbox, inspect, processes, skip};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        memory_limit_kills_and_says_so,
        memory_limit_is_readable_in_every_spelling,
        memory_swap_limit_is_set,
        pids_limit_stops_a_fork_bomb,
        cpus_are_a_quota,
        cpu_shares_are_a_weight,
        cpuset_is_set_in_both_spellings,
        shim_is_in_no_container_cgroup,
        kill_of_a_fork_bomb_ends_it,
        program_without_limit_is_not_oom_killed,
    ]
}

/// The value of the first of these files that exists in the container's cgroup.
fn value(sandbox: &Sandbox, name: &str, files: &[(&str, &str)]) -> String {
    let pid = sandbox.init_pid(name);
    let path: Option<PathBuf> = files
        .iter()
        .filter_map(|(controller, file)| Some(processes::cgroup_of(pid, controller)?.join(file)))
        .find(|path| path.exists());
    let Some(path) = path else { skip(format!("no controller with {files:?} on this host")) };
    assert!(
        path.to_string_lossy().contains("/mysup/"),
        "the container has no cgroup of its own: {}",
        path.display()
    );
    fs::read_to_string(path).expect("it exists").trim().to_owned()
}

const MEMORY: &[(&str, &str)] = &[("memory", "memory.limit_in_bytes"), ("memory", "memory.max")];
const SWAP: &[(&str, &str)] = &[("memory", "memory.memsw.limit_in_bytes"), ("memory", "memory.swap.max")];

fn memory_limit_kills_and_says_so(sandbox: &Sandbox) {
    let line = ["--name", "one", "-m", "16m", "--memory-swap", "16m"];
    sandbox.run(&line, &["sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=64M count=1"]).expect_code(137);
    let container = sandbox.inspect("one");
    assert_eq!(inspect::text(&container, "State.OOMKilled"), "true");
    assert_eq!(inspect::number(&container, "State.ExitCode"), 137);
}

fn memory_limit_is_readable_in_every_spelling(sandbox: &Sandbox) {
    for (flag, amount) in [("-m", "32m"), ("--memory", "33554432"), ("--mem", "32768k"), ("--memory", "32M")]
    {
        sandbox.start("one", &[flag, amount], "sleep 1000");
        assert_eq!(value(sandbox, "one", MEMORY), "33554432", "{flag} {amount}");
        assert_eq!(inspect::number(&sandbox.inspect("one"), "HostConfig.Memory"), 33_554_432);
        sandbox.ok(&["rm", "-f", "one"]);
    }
}

fn memory_swap_limit_is_set(sandbox: &Sandbox) {
    sandbox.start("one", &["-m", "32m", "--memory-swap", "48m"], "sleep 1000");
    let found = value(sandbox, "one", SWAP);
    assert!(found == "50331648" || found == "16777216", "v1 counts memory and swap, v2 swap alone: {found}");
    let line = sandbox.run_line(&["--rm", "-m", "32m", "--memory-swap", "16m"], &["true"]);
    sandbox.refused(&line, 125, &["memory"]);
}

fn pids_limit_stops_a_fork_bomb(sandbox: &Sandbox) {
    sandbox.start(
        "one",
        &["--pids-limit", "20"],
        "(while :; do sleep 1000 & done) 2>/dev/null; exec sleep 1000",
    );
    assert_eq!(value(sandbox, "one", &[("pids", "pids.max")]), "20");
    crate::harness::wait_until("the limit is reached", || {
        let now: usize = value(sandbox, "one", &[("pids", "pids.current")]).parse().unwrap_or(0);
        assert!(now <= 20, "{now} processes with a limit of 20");
        now >= 15 || sandbox.status("one") != "running"
    });
}

fn cpus_are_a_quota(sandbox: &Sandbox) {
    sandbox.start("one", &["--cpus", "0.5"], "sleep 1000");
    let found = value(sandbox, "one", &[("cpu", "cpu.cfs_quota_us"), ("cpu", "cpu.max")]);
    assert!(found == "50000" || found == "50000 100000", "{found}");
    assert_eq!(inspect::number(&sandbox.inspect("one"), "HostConfig.NanoCpus"), 500_000_000);
}

fn cpu_shares_are_a_weight(sandbox: &Sandbox) {
    for flag in ["--cpu-shares", "--cpushare"] {
        sandbox.start("one", &[flag, "512"], "sleep 1000");
        let found = value(sandbox, "one", &[("cpu", "cpu.shares"), ("cpu", "cpu.weight")]);
        let number: u32 = found.parse().expect("a number");
        assert!(number == 512 || (15..=60).contains(&number), "{found}");
        sandbox.ok(&["rm", "-f", "one"]);
    }
}

fn cpuset_is_set_in_both_spellings(sandbox: &Sandbox) {
    for flag in ["--cpuset-cpus", "--cpuset"] {
        sandbox.start("one", &[flag, "0"], "sleep 1000");
        assert_eq!(value(sandbox, "one", &[("cpuset", "cpuset.cpus")]), "0");
        sandbox.ok(&["rm", "-f", "one"]);
    }
    assert!(sandbox.sh(&["--cpuset", "0"], "grep Cpus_allowed_list /proc/self/status").ends_with("\t0"));
}

fn shim_is_in_no_container_cgroup(sandbox: &Sandbox) {
    let id = sandbox.start("one", &["-m", "32m"], "sleep 1000");
    let shim = sandbox.shim_pid("one");
    let text = fs::read_to_string(format!("/proc/{shim}/cgroup")).expect("it runs");
    assert!(!text.contains(&id), "{text}");
}

fn kill_of_a_fork_bomb_ends_it(sandbox: &Sandbox) {
    sandbox.start("one", &["--pids-limit", "200"], "f() { f | f & }; f; trap '' TERM; sleep 1000");
    sandbox.ok(&["rm", "-f", "one"]);
}

fn program_without_limit_is_not_oom_killed(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one"], &["sh", "-c", "kill -9 $$; exit 137"]).expect_code(137);
    assert_eq!(inspect::text(&sandbox.inspect("one"), "State.OOMKilled"), "false");
}
