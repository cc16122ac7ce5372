//! What a review has found where supervisors come and go: a request that nobody has read, an operation that had begun.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use mysup_ipc::layout;
use rustix::process::Signal;

use crate::harness::{Case, Sandbox, inspect, processes, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        replacements_at_once_all_succeed_and_what_runs_beside_them_does_not_notice,
        stop_under_way_is_kept_when_shim_and_supervisor_die,
        stop_under_way_is_kept_by_one_shim_after_the_other,
        forced_removal_under_way_goes_on_when_shim_and_supervisor_die,
        forced_removal_that_waits_is_not_forgotten_with_its_supervisor,
        living_shim_without_the_file_of_its_lock_gets_no_second_one,
        container_without_a_run_directory_leaves_no_process_and_no_cgroup,
        init_that_was_moved_out_of_its_cgroups_is_adopted,
    ]
}

fn replacements_at_once_all_succeed_and_what_runs_beside_them_does_not_notice(sandbox: &Sandbox) {
    sandbox.image();
    let over = AtomicBool::new(false);
    let over = &over;
    std::thread::scope(|scope| {
        let replacers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(move || {
                    let mut count = 0;
                    while !over.load(Ordering::Relaxed) {
                        sandbox.ok(&["start", "--replace"]);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let runners: Vec<_> = (0..3)
            .map(|runner| {
                scope.spawn(move || {
                    for round in 0..10 {
                        let word = format!("word-{runner}-{round}");
                        assert_eq!(sandbox.ok(&["run", "--rm", "busybox", "echo", &word]), word);
                        sandbox.ok(&["ps", "-a"]);
                    }
                })
            })
            .collect();
        let ran: Vec<_> = runners.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        for replacer in replacers {
            let count = replacer.join().expect("every replacement succeeds");
            assert!(count > 0);
        }
        for ran in ran {
            ran.expect("every run prints its output once and succeeds");
        }
    });
}

/// A program that is asked to stop, says so, and goes on.
fn start_stubborn(sandbox: &Sandbox) {
    sandbox.start("one", &[], "trap 'echo asked' TERM; echo up; while :; do sleep 0.02; done");
    wait_until("the program is up", || sandbox.ok(&["logs", "one"]).contains("up"));
}

/// Asks it to stop, until it has heard of that.
fn begin_stop(sandbox: &Sandbox, grace: &str) -> crate::harness::command::Client {
    let stop = sandbox.call(&["stop", "-t", grace, "one"]).start();
    wait_until("the program was asked", || sandbox.ok(&["logs", "one"]).contains("asked"));
    stop
}

fn kill_shim(sandbox: &Sandbox) {
    let shim = sandbox.shim_pid("one");
    processes::signal(shim, Signal::KILL);
    wait_until("the shim is dead", || !processes::is_alive(shim));
}

fn stop_under_way_is_kept_when_shim_and_supervisor_die(sandbox: &Sandbox) {
    start_stubborn(sandbox);
    let begun = Instant::now();
    let stop = begin_stop(sandbox, "4");
    let (shim, init) = (sandbox.shim_pid("one"), sandbox.init_pid("one"));
    // It would ask again.
    stop.signal(Signal::KILL);
    processes::signal(shim, Signal::KILL);
    sandbox.kill_supervisor();
    stop.wait();
    wait_until("the shim is dead", || !processes::is_alive(shim));
    assert!(processes::is_alive(init), "not yet");
    sandbox.ok(&["start"]);
    sandbox.wait_status("one", "exited");
    assert!(
        begun.elapsed() >= Duration::from_secs(4),
        "it has its grace, and was killed after {:?}",
        begun.elapsed()
    );
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), 137);
}

fn stop_under_way_is_kept_by_one_shim_after_the_other(sandbox: &Sandbox) {
    start_stubborn(sandbox);
    let begun = Instant::now();
    let stop = begin_stop(sandbox, "4");
    for _ in 0..2 {
        kill_shim(sandbox);
    }
    assert_eq!(stop.wait().code, 0);
    assert!(
        begun.elapsed() >= Duration::from_secs(4),
        "it has its grace, and was killed after {:?}",
        begun.elapsed()
    );
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), 137);
}

fn forced_removal_under_way_goes_on_when_shim_and_supervisor_die(sandbox: &Sandbox) {
    start_stubborn(sandbox);
    let (shim, init) = (sandbox.shim_pid("one"), sandbox.init_pid("one"));
    let note = sandbox.state_directory("one").join(layout::DOOMED);
    // So that it does not come to it.
    processes::signal(shim, Signal::STOP);
    let removal = sandbox.call(&["rm", "-f", "one"]).start();
    wait_until("the removal has begun", || note.exists());
    removal.signal(Signal::KILL);
    sandbox.kill_supervisor();
    processes::signal(shim, Signal::KILL);
    removal.wait();
    wait_until("the shim is dead", || !processes::is_alive(shim));
    sandbox.ok(&["start"]);
    wait_until("it is removed", || sandbox.status("one") == "absent");
    assert!(!processes::is_alive(init));
}

fn forced_removal_that_waits_is_not_forgotten_with_its_supervisor(sandbox: &Sandbox) {
    start_stubborn(sandbox);
    let shim = sandbox.shim_pid("one");
    processes::signal(shim, Signal::STOP);
    sandbox.refused(&["rm", "-f", "one"], 1, &["it is removed when that is over"]);
    sandbox.kill_supervisor();
    sandbox.ok(&["start"]);
    processes::signal(shim, Signal::CONT);
    wait_until("it is removed", || sandbox.status("one") == "absent");
}

fn living_shim_without_the_file_of_its_lock_gets_no_second_one(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    sandbox.start_obedient("one", &[], code);
    let (shim, lock) = (sandbox.shim_pid("one"), sandbox.state_directory("one").join(layout::LOCK));
    std::fs::remove_file(&lock).expect("the sandbox is ours");
    for _ in 0..2 {
        sandbox.kill_supervisor();
        sandbox.ok(&["start"]);
        sandbox.wait_status("one", "running");
        assert!(processes::is_alive(shim));
        assert!(!lock.exists(), "a second shim has taken another lock");
    }
    // When it dies, another one goes on.
    processes::signal(shim, Signal::KILL);
    wait_until("another shim has adopted", || processes::lock_holder(&lock).is_some());
    sandbox.wait_status("one", "running");
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
}

#[expect(clippy::disallowed_methods, reason = "a tree of the sandbox; nothing is mounted in it")]
fn container_without_a_run_directory_leaves_no_process_and_no_cgroup(sandbox: &Sandbox) {
    for with_supervisor in [false, true] {
        let id = sandbox.start_obedient("one", &[], 42);
        let (init, shim) = (sandbox.init_pid("one"), sandbox.shim_pid("one"));
        std::fs::remove_dir_all(sandbox.run_root().join("containers").join(&id))
            .expect("the sandbox is ours");
        if with_supervisor {
            sandbox.kill_supervisor();
        }
        processes::signal(shim, Signal::KILL);
        wait_until("the shim is dead", || !processes::is_alive(shim));
        sandbox.wait_status("one", "exited");
        assert!(!processes::is_alive(init), "nobody can go on with it");
        let left: Vec<_> =
            processes::cgroup_directories().into_iter().filter(|path| path.ends_with(&id)).collect();
        assert!(left.is_empty(), "{left:?}");
        // What nobody saw is not made up.
        let code = if with_supervisor { 255 } else { 137 };
        assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), code);
        sandbox.ok(&["rm", "one"]);
        sandbox.mysup(&["doctor"]).expect_code(0);
    }
}

fn init_that_was_moved_out_of_its_cgroups_is_adopted(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let id = sandbox.start_obedient("one", &[], code);
    let (init, shim) = (sandbox.init_pid("one"), sandbox.shim_pid("one"));
    let own = format!("{}/{id}", layout::CGROUP_PARENT);
    for root in processes::cgroup_roots().iter().filter(|root| root.join(&own).exists()) {
        std::fs::write(root.join("cgroup.procs"), init.to_string()).expect("root may move it");
    }
    sandbox.kill_supervisor();
    processes::signal(shim, Signal::KILL);
    wait_until("the shim is dead", || !processes::is_alive(shim));
    sandbox.ok(&["start"]);
    sandbox.wait_status("one", "running");
    assert_eq!(sandbox.init_pid("one"), init);
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
}
