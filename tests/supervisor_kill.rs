//! The supervisor dies at twenty points of a container's life; the truth and the clean end survive.

use std::sync::OnceLock;

use rustix::process::Signal;

use crate::harness::{
    Case, Sandbox, inspect, processes,
    random::Random,
    trace::{self, Point},
    tree::plant_data,
    wait_until,
};

/// Points taken from the trace of a clean life.
const POINTS: usize = 20;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = crate::cases![
        supervisor_killed_while_a_program_ignores_term_ends_with_137,
        supervisor_killed_while_created_keeps_the_container,
        supervisor_killed_right_after_the_signal_keeps_the_code,
        supervisor_killed_during_a_flood_of_output_keeps_the_code,
        supervisor_killed_with_clients_waiting_frees_them,
    ];
    for number in 0..POINTS {
        let name =
            format!("supervisor_kill::supervisor_killed_at_point_{:02}_keeps_truth_and_data", number + 1);
        cases.push(Case::new(name, move |sandbox| at_point(sandbox, number)));
    }
    cases
}

/// The life of one container, from `create` by `run` to `rm`; whatever fails because the supervisor died is ignored.
fn life(sandbox: &Sandbox, code: i32) {
    let volume = format!("{}:/v", sandbox.place("v").display());
    let script =
        format!("trap 'echo {code} > /proof/code; exit {code}' TERM; echo up; while :; do sleep 0.02; done");
    let proof = format!("{}:/proof", sandbox.place("proof").display());
    let flags = ["run", "-d", "--name", "one", "-v", &volume, "-v", &proof, "busybox", "sh", "-c", &script];
    if sandbox.mysup(&flags).code == 0 {
        let up =
            || sandbox.mysup(&["logs", "one"]).text().contains("up") || sandbox.status("one") != "running";
        wait_until("it is up", up);
        // Where the stop was lost with the supervisor, the container goes on and nobody may wait for its end.
        if sandbox.mysup(&["stop", "one"]).code == 0 {
            sandbox.mysup(&["wait", "one"]);
        }
        sandbox.mysup(&["inspect", "one"]);
        sandbox.mysup(&["ps", "-a"]);
    }
}

fn prepare(sandbox: &Sandbox) {
    sandbox.image();
    sandbox.ok(&["shutdown"]);
    sandbox.new_directory("v");
    sandbox.new_directory("proof");
}

fn points() -> &'static [Point] {
    static POINTS_FOUND: OnceLock<Vec<Point>> = OnceLock::new();
    POINTS_FOUND.get_or_init(|| {
        let sandbox = Sandbox::new("the traced life of a supervisor", Random::new(1, "trace"));
        prepare(&sandbox);
        let log = sandbox.place("trace");
        let mut supervisor = trace::supervisor(&sandbox, &[], &log);
        assert!(supervisor.is_running(), "strace cannot run the supervisor: {}", supervisor.stderr());
        sandbox.ok(&["info"]);
        let begin = trace::calls(&log).len();
        life(&sandbox, 7);
        let found = trace::spread(&trace::calls(&log), begin, POINTS);
        drop(supervisor);
        sandbox.sweep(false);
        found
    })
}

fn at_point(sandbox: &Sandbox, number: usize) {
    let point = &points()[number];
    let code = sandbox.exit_code();
    prepare(sandbox);
    let before = plant_data(&sandbox.place("v"), "precious");
    let mut supervisor = trace::supervisor(sandbox, &point.flags(), &sandbox.place("trace"));
    life(sandbox, code);
    if supervisor.is_running() {
        // This life took fewer calls than the traced one: then it dies at its end.
        for (pid, _) in processes::children(supervisor.pid()) {
            processes::signal(pid, Signal::KILL);
        }
    }
    wait_until("the traced supervisor is dead", || !supervisor.is_running());
    expect_truth(sandbox, code, &format!("{point:?}"));
    before.expect_unchanged(&sandbox.place("v"));
}

/// The container is absent, was never started, or ends with its true code.
fn expect_truth(sandbox: &Sandbox, code: i32, point: &str) {
    let settled = ["absent", "created", "running", "exited"];
    wait_until(&format!("the container is in a known state after {point}"), || {
        settled.contains(&sandbox.status("one").as_str())
    });
    let status = sandbox.status("one");
    if status == "running" {
        wait_until("it is up", || sandbox.mysup(&["logs", "one"]).text().contains("up"));
        sandbox.ok(&["stop", "one"]);
        sandbox.wait_status("one", "exited");
    }
    let proof = std::fs::read_to_string(sandbox.place("proof/code")).unwrap_or_default();
    if status == "running" || status == "exited" {
        let shown = inspect::number(&sandbox.inspect("one"), "State.ExitCode");
        assert_eq!(proof.trim(), code.to_string(), "the program was killed, not told, after {point}");
        assert_eq!(shown, i64::from(code), "the code is not the true one after {point}");
        assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
    } else {
        assert_eq!(proof, "", "a container that was told to end is {status} after {point}");
    }
    // The name is usable again, whatever happened to its first owner.
    sandbox.mysup(&["rm", "-f", "one"]).expect_code(0);
    sandbox.run(&["--rm", "--name", "one"], &["true"]).expect_code(0);
}

fn supervisor_killed_while_a_program_ignores_term_ends_with_137(sandbox: &Sandbox) {
    sandbox.start(
        "one",
        &["--stop-timeout", "2"],
        "trap 'echo told' TERM; echo up; while :; do sleep 0.02; done",
    );
    wait_until("it is up", || sandbox.ok(&["logs", "one"]) == "up");
    let init = sandbox.init_pid("one");
    let stopping = sandbox.call(&["stop", "one"]).start();
    wait_until("it was told", || sandbox.ok(&["logs", "one"]).contains("told"));
    sandbox.kill_supervisor();
    stopping.wait();
    // The grace time belongs to the shim: it ends with no supervisor at all.
    wait_until("the shim has killed it", || !processes::is_alive(init));
    assert_eq!(sandbox.ok(&["wait", "one"]), "137");
}

fn supervisor_killed_while_created_keeps_the_container(sandbox: &Sandbox) {
    let image = sandbox.image();
    sandbox.ok(&["create", "--name", "one", image, "sh", "-c", "exit 12"]);
    sandbox.kill_supervisor();
    assert_eq!(sandbox.status("one"), "created");
    sandbox.mysup(&["start", "-a", "one"]).expect_code(12);
}

fn supervisor_killed_right_after_the_signal_keeps_the_code(sandbox: &Sandbox) {
    for _ in 0..10 {
        let code = sandbox.exit_code();
        sandbox.start_obedient("one", &[], code);
        let (init, supervisor) = (sandbox.init_pid("one"), sandbox.supervisor());
        processes::signal(init, Signal::TERM);
        processes::signal(supervisor, Signal::KILL);
        wait_until("both are dead", || !processes::is_alive(init) && !processes::is_alive(supervisor));
        assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
        sandbox.ok(&["rm", "one"]);
    }
}

fn supervisor_killed_during_a_flood_of_output_keeps_the_code(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let script = format!("seq 1 400000; exit {code}");
    let line = sandbox.run_line(&["--name", "one"], &["sh", "-c", &script]);
    let mut client = sandbox.call(&line).start();
    client.wait_for("1000\n");
    sandbox.kill_supervisor();
    let output = client.wait().expect_code(code);
    assert_eq!(output.text().lines().next_back(), Some("400000"));
    assert_eq!(sandbox.ok(&["logs", "-n", "1", "one"]), "400000");
}

fn supervisor_killed_with_clients_waiting_frees_them(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 5);
    let waiting = sandbox.call(&["wait", "one"]).start();
    wait_until("the client is connected", || !processes::descriptors(waiting.pid()).is_empty());
    sandbox.kill_supervisor();
    // It may reconnect or say that the supervisor is gone, but it must not invent a code.
    sandbox.ok(&["stop", "one"]);
    let output = waiting.wait();
    assert!(
        output.code == 0 && output.text() == "5" || output.code == 1 && output.stdout.is_empty(),
        "{output}"
    );
}
