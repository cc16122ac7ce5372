//! The exit status is the true one: every code, every deadly signal, in the foreground and detached.

use crate::harness::{Case, Sandbox, inspect, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        every_code_is_returned_by_foreground_run,
        every_code_is_kept_by_detached_run,
        every_deadly_signal_from_inside_is_128_and_n,
        every_deadly_signal_by_kill_is_128_and_n,
        every_realtime_signal_is_128_and_n,
        pid_1_without_handler_survives_what_only_init_survives,
        pid_1_that_crashes_is_139,
        child_that_crashes_does_not_end_the_container,
        grandchild_that_keeps_stdout_does_not_delay_the_code,
        code_of_a_program_with_many_orphans_is_its_own,
    ]
}

/// Signals whose default action ends a process, except KILL; 32 and 33 belong to the C library.
const DEADLY: &[i32] = &[1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30, 31];

fn every_code_is_returned_by_foreground_run(sandbox: &Sandbox) {
    for code in 0..=255 {
        sandbox.run(&["--rm"], &["sh", "-c", &format!("exit {code}")]).expect_code(code);
    }
}

fn every_code_is_kept_by_detached_run(sandbox: &Sandbox) {
    for code in 0..=255 {
        sandbox.start("one", &[], &format!("exit {code}"));
        assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
        assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), i64::from(code));
        sandbox.ok(&["rm", "one"]);
    }
}

/// The program is killed from inside: `timeout` of busybox becomes the program and leaves a child that kills it.
fn dies_of(sandbox: &Sandbox, signal: i32) {
    let number = signal.to_string();
    let output = sandbox.run(&["--rm", "--init"], &["timeout", "-s", &number, "0.05", "sleep", "1000"]);
    output.expect_code(128 + signal);
}

fn every_deadly_signal_from_inside_is_128_and_n(sandbox: &Sandbox) {
    for signal in DEADLY.iter().chain(&[9]) {
        dies_of(sandbox, *signal);
    }
}

fn every_deadly_signal_by_kill_is_128_and_n(sandbox: &Sandbox) {
    for signal in DEADLY.iter().chain(&[9]) {
        // The reaper hands on what it gets; with KILL it is killed itself.
        sandbox.start("one", &["--init"], "echo up; exec sleep 1000");
        wait_until("the program is up", || sandbox.ok(&["logs", "one"]) == "up");
        sandbox.ok(&["kill", "-s", &signal.to_string(), "one"]);
        assert_eq!(sandbox.ok(&["wait", "one"]), (128 + signal).to_string(), "signal {signal}");
        sandbox.ok(&["rm", "one"]);
    }
}

fn every_realtime_signal_is_128_and_n(sandbox: &Sandbox) {
    for signal in 34..=64 {
        dies_of(sandbox, signal);
    }
}

fn pid_1_without_handler_survives_what_only_init_survives(sandbox: &Sandbox) {
    sandbox.start("one", &[], "exec sleep 1000");
    for signal in DEADLY {
        sandbox.ok(&["kill", "-s", &signal.to_string(), "one"]);
    }
    assert_eq!(sandbox.status("one"), "running");
    sandbox.ok(&["kill", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), "137");
}

fn pid_1_that_crashes_is_139(sandbox: &Sandbox) {
    // Endless recursion: the kernel's own SIGSEGV is not held back from PID 1.
    sandbox.run(&["--rm"], &["sh", "-c", "f() { f; }; f"]).expect_code(139);
}

fn child_that_crashes_does_not_end_the_container(sandbox: &Sandbox) {
    let output =
        sandbox.run(&["--rm"], &["sh", "-c", "sh -c 'kill -SEGV $$'; echo $?; exit 8"]).expect_code(8);
    assert_eq!(output.text().lines().next_back(), Some("139"), "{output}");
}

fn grandchild_that_keeps_stdout_does_not_delay_the_code(sandbox: &Sandbox) {
    sandbox.run(&["--rm"], &["sh", "-c", "sleep 1000 & exit 7"]).expect_code(7);
    sandbox.run(&["--rm", "--init"], &["sh", "-c", "setsid sleep 1000 & exit 8"]).expect_code(8);
}

fn code_of_a_program_with_many_orphans_is_its_own(sandbox: &Sandbox) {
    let script = "i=0; while [ $i -lt 100 ]; do (exit $i) & i=$((i+1)); done; (sleep 0.05; exit 3) & exit 77";
    for flags in [&["--rm"][..], &["--rm", "--init"]] {
        sandbox.run(flags, &["sh", "-c", script]).expect_code(77);
    }
}
