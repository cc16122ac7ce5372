//! What a reviewer has broken in the way from a program to its log, each as a test of its own: bytes that were on it when
//! somebody was killed.

use std::{fs, path::Path};

use rustix::process::Signal;

use crate::harness::{
    Case, Sandbox, processes,
    trace::{self, Point, Traced},
    wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        terminal_loses_no_line_wherever_its_shim_is_killed,
        terminal_loses_no_line_when_its_shims_are_killed,
        terminal_in_the_foreground_loses_no_line_when_all_but_its_client_are_killed,
        output_that_nobody_took_is_logged_when_shim_and_supervisor_were_killed,
        output_that_nobody_took_of_an_ended_program_is_logged_when_the_supervisor_lives,
    ]
}

/// Writes numbered lines without end, until a file is there.
const FLOOD: &str = "i=1; until [ -e /v/enough ]; do seq $i $((i+4999)); i=$((i+5000)); done; exit 7";

/// All lines are there once and in their order.
fn expect_whole(text: &str) {
    let mut expected = 1_u64;
    for line in text.lines() {
        assert_eq!(line.trim_end_matches('\r'), expected.to_string(), "after {} whole lines", expected - 1);
        expected += 1;
    }
    assert!(expected > 5000 && (expected - 1).is_multiple_of(5000), "{} lines", expected - 1);
}

fn terminal_loses_no_line_wherever_its_shim_is_killed(sandbox: &Sandbox) {
    sandbox.image();
    // All calls between a program's terminal and its log, each in the middle of the flood.
    let points = [("pwrite64", 100), ("splice", 200), ("splice", 201), ("ioctl", 300), ("poll", 100)];
    for (call, nth) in points {
        let (volume, log) = (format!("{}:/v", sandbox.new_directory("v")), sandbox.place("trace"));
        let point = Point { call: call.to_owned(), nth };
        trace::wrap_shim(sandbox, &point.flags(), &log, Traced::First);
        sandbox.ok(&["shutdown"]);
        sandbox.start("one", &["-t", "-v", &volume], FLOOD);
        wait_until("the shim is dead", || {
            fs::read_to_string(&log).is_ok_and(|text| text.contains("SIGKILL"))
        });
        fs::write(sandbox.place("v/enough"), "").expect("the sandbox is ours");
        assert_eq!(sandbox.ok(&["wait", "one"]), "7");
        expect_whole(&sandbox.ok(&["logs", "one"]));
        sandbox.ok(&["rm", "-f", "one"]);
        fs::remove_file(sandbox.place("v/enough")).expect("the sandbox is ours");
        fs::remove_file(log).expect("the sandbox is ours");
    }
}

/// The shim of a container, in the middle of the flood.
fn shim_in_the_flood(state: &Path) -> i32 {
    let length = || fs::metadata(state.join("log")).map_or(0, |metadata| metadata.len());
    let mut found = None;
    let before = length();
    wait_until("the next shim writes the log", || {
        found = processes::lock_holder(&state.join("lock")).filter(|_| length() != before);
        found.is_some()
    });
    found.expect("just found")
}

fn terminal_loses_no_line_when_its_shims_are_killed(sandbox: &Sandbox) {
    let volume = format!("{}:/v", sandbox.new_directory("v"));
    sandbox.start("one", &["-t", "-v", &volume], FLOOD);
    let state = sandbox.state_directory("one");
    for _ in 0..25 {
        let shim = shim_in_the_flood(&state);
        processes::signal(shim, Signal::KILL);
        wait_until("it is dead", || !processes::is_alive(shim));
    }
    fs::write(sandbox.place("v/enough"), "").expect("the sandbox is ours");
    assert_eq!(sandbox.ok(&["wait", "one"]), "7");
    expect_whole(&sandbox.ok(&["logs", "one"]));
}

fn terminal_in_the_foreground_loses_no_line_when_all_but_its_client_are_killed(sandbox: &Sandbox) {
    let volume = format!("{}:/v", sandbox.new_directory("v"));
    let line = sandbox.run_line(&["-t", "--name", "one", "-v", &volume], &["sh", "-c", FLOOD]);
    let client = sandbox.call(&line).start();
    sandbox.wait_status("one", "running");
    let state = sandbox.state_directory("one");
    for _ in 0..8 {
        let supervisor = sandbox.supervisor();
        let shim = shim_in_the_flood(&state);
        processes::signal(supervisor, Signal::STOP);
        processes::signal(shim, Signal::KILL);
        processes::signal(supervisor, Signal::KILL);
        wait_until("both are dead", || !processes::is_alive(shim) && !processes::is_alive(supervisor));
        // The client may have started the next supervisor already.
        sandbox.wait_status("one", "running");
    }
    fs::write(sandbox.place("v/enough"), "").expect("the sandbox is ours");
    let shown = client.wait().expect_code(7).text();
    let logged = sandbox.ok(&["logs", "one"]);
    expect_whole(&logged);
    assert!(shown == logged, "the client has shown {} bytes of {}", shown.len(), logged.len());
}

/// A program writes as much as its FIFO takes while its shim is stopped, and then does as `then` says.
fn with_a_full_fifo(sandbox: &Sandbox, then: &str) -> (i32, String) {
    let volume = format!("{}:/v", sandbox.new_directory("v"));
    let script = format!("until [ -e /v/go ]; do usleep 10000; done; seq 1 10000; : > /v/written; {then}");
    sandbox.start("one", &["-v", &volume], &script);
    let shim = sandbox.shim_pid("one");
    processes::signal(shim, Signal::STOP);
    fs::write(sandbox.place("v/go"), "").expect("the sandbox is ours");
    wait_until("it has written all", || sandbox.place("v/written").exists());
    (shim, (1..=10000).map(|number| number.to_string()).collect::<Vec<_>>().join("\n"))
}

fn output_that_nobody_took_is_logged_when_shim_and_supervisor_were_killed(sandbox: &Sandbox) {
    let (shim, lines) = with_a_full_fifo(sandbox, "until [ -e /v/end ]; do usleep 10000; done; exit 7");
    sandbox.kill_supervisor();
    processes::signal(shim, Signal::KILL);
    wait_until("both are dead", || !processes::is_alive(shim));
    sandbox.ok(&["start"]);
    wait_until("the output is in the log", || sandbox.ok(&["logs", "one"]) == lines);
    fs::write(sandbox.place("v/end"), "").expect("the sandbox is ours");
    sandbox.wait_status("one", "exited");
    assert_eq!(sandbox.ok(&["logs", "one"]), lines);
}

fn output_that_nobody_took_of_an_ended_program_is_logged_when_the_supervisor_lives(sandbox: &Sandbox) {
    let (shim, lines) = with_a_full_fifo(sandbox, "exit 7");
    let supervisor = sandbox.supervisor();
    processes::signal(supervisor, Signal::STOP);
    processes::signal(shim, Signal::KILL);
    wait_until("the shim is dead", || !processes::is_alive(shim));
    processes::signal(supervisor, Signal::CONT);
    assert_eq!(sandbox.ok(&["wait", "one"]), "7");
    sandbox.wait_status("one", "exited");
    assert_eq!(sandbox.ok(&["logs", "one"]), lines);
}
