//! cgroup v1 alone, v2 alone, and both: made in a mount namespace of its own, in which the supervisor is started.

use std::path::Path;

use crate::{
    commit::instant::{Waiting, is_frozen},
    harness::{Case, Sandbox, command::Call, processes, skip, wait_until},
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        with_version_2_alone_containers_run_and_end_clean,
        with_version_1_alone_containers_run_and_end_clean,
        with_version_1_alone_memory_is_limited,
        with_version_1_alone_a_container_is_paused_and_goes_on,
        with_version_2_alone_a_container_is_paused_and_goes_on,
    ]
}

/// What leaves only the unified tree.
const ONLY_2: &str = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup";
/// What leaves only the hierarchies of version 1.
const ONLY_1: &str = "for m in $(awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts); do umount $m; done";

/// Starts the supervisor where `layout` was applied; clients elsewhere then use it.
fn start_in(sandbox: &Sandbox, layout: &str) {
    sandbox.image();
    sandbox.ok(&["shutdown"]);
    let program = crate::harness::command::program().display();
    let script = format!("set -e; mount --make-rprivate /; {layout}; exec '{program}' start");
    let mut call = Call::new(Path::new("unshare"), ["-m", "bash", "-c", &script]);
    for (name, value) in sandbox.environment() {
        call = call.env(name, value);
    }
    call.ok();
}

fn versions() -> (bool, bool) {
    let roots = processes::cgroup_roots();
    let unified = roots.iter().any(|root| root.join("cgroup.controllers").exists());
    let old = roots.iter().any(|root| !root.join("cgroup.controllers").exists());
    (old, unified)
}

fn expect_life(sandbox: &Sandbox) {
    let id = sandbox.start(
        "one",
        &[],
        "i=0; while [ $i -lt 20 ]; do setsid sleep 4321 & i=$((i+1)); done; echo up; sleep 1000",
    );
    wait_until("it is up", || sandbox.ok(&["logs", "one"]) == "up");
    let cgroups =
        std::fs::read_to_string(format!("/proc/{}/cgroup", sandbox.init_pid("one"))).expect("it runs");
    assert!(cgroups.contains(&id), "it has a cgroup of its own: {cgroups}");
    sandbox.ok(&["kill", "one"]);
    sandbox.wait_status("one", "exited");
    assert!(processes::bearing(std::slice::from_ref(&id)).is_empty());
    let left: Vec<_> = processes::cgroup_directories()
        .into_iter()
        .filter(|path| path.to_string_lossy().contains(&id))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    sandbox.run(&["--rm"], &["sh", "-c", "sleep 1000 & exit 6"]).expect_code(6);
}

fn with_version_2_alone_containers_run_and_end_clean(sandbox: &Sandbox) {
    if !versions().1 {
        skip("no unified tree on this host");
    }
    start_in(sandbox, ONLY_2);
    expect_life(sandbox);
}

fn with_version_1_alone_containers_run_and_end_clean(sandbox: &Sandbox) {
    if !versions().0 {
        skip("no hierarchy of version 1 on this host");
    }
    start_in(sandbox, ONLY_1);
    expect_life(sandbox);
}

fn with_version_1_alone_memory_is_limited(sandbox: &Sandbox) {
    if !processes::cgroup_roots().iter().any(|root| root.join("memory.limit_in_bytes").exists()) {
        skip("no memory controller of version 1 on this host");
    }
    start_in(sandbox, ONLY_1);
    sandbox
        .run(
            &["--rm", "-m", "16m", "--memory-swap", "16m"],
            &["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"],
        )
        .expect_code(137);
}

/// For a commit that waits; then its shim is killed, and in another round the container itself.
fn expect_pauses(sandbox: &Sandbox) {
    let script = "while :; do echo x; sleep 0.02; done";
    sandbox.start("one", &[], script);
    let waiting = Waiting::begin(sandbox, "one");
    let lines = || sandbox.ok(&["logs", "one"]).lines().count();
    let id = waiting.id.clone();
    processes::signal(sandbox.shim_pid("one"), rustix::process::Signal::KILL);
    wait_until("the container goes on", || !is_frozen(&id));
    let before = lines();
    wait_until("its program goes on", || lines() > before);
    assert_eq!(waiting.read().code, 1, "what was read is not of one instant");
    let waiting = Waiting::begin(sandbox, "one");
    sandbox.ok(&["rm", "-f", "one"]);
    assert_eq!(waiting.read().code, 1);
}

fn with_version_1_alone_a_container_is_paused_and_goes_on(sandbox: &Sandbox) {
    if !processes::cgroup_roots().iter().any(|root| is_freezer(root)) {
        skip("no freezer of version 1 on this host");
    }
    start_in(sandbox, ONLY_1);
    expect_pauses(sandbox);
}

fn is_freezer(root: &Path) -> bool {
    root.file_name().is_some_and(|name| name.to_string_lossy().contains("freezer"))
}

fn with_version_2_alone_a_container_is_paused_and_goes_on(sandbox: &Sandbox) {
    if !versions().1 {
        skip("no unified tree on this host");
    }
    start_in(sandbox, ONLY_2);
    expect_pauses(sandbox);
}
