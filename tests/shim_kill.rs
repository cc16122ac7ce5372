//! The shim dies at twenty points of its life; nothing leaks, no byte of a volume is lost, no code is made up.

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
        shim_killed_while_running_leaves_the_truth,
        shim_killed_while_stopping_ends_with_137,
        shim_killed_during_a_flood_of_output_leaves_the_truth,
        shim_killed_in_the_foreground_returns_and_says_so,
        shim_killed_with_a_terminal_leaves_the_truth,
        shim_killed_with_daemonized_children_leaves_none,
        shim_killed_with_rm_leaves_nothing,
        shims_killed_ten_at_once_are_all_settled,
    ];
    for number in 0..POINTS {
        let name = format!("shim_kill::shim_killed_at_point_{:02}_keeps_truth_and_data", number + 1);
        cases.push(Case::new(name, move |sandbox| at_point(sandbox, number)));
    }
    cases
}

/// From `run` to the end of the teardown; what fails because the shim died is ignored.
fn life(sandbox: &Sandbox, code: i32) {
    let volume = format!("{}:/v", sandbox.place("v").display());
    let proof = format!("{}:/proof", sandbox.place("proof").display());
    let script = format!(
        "trap 'echo {code} > /proof/code; exit {code}' TERM; echo started > /proof/started; echo up; while :; do sleep 0.02; done"
    );
    let line = ["run", "-d", "--name", "one", "-v", &volume, "-v", &proof, "busybox", "sh", "-c", &script];
    if sandbox.mysup(&line).code == 0 {
        wait_until("it is up, or not running", || {
            sandbox.mysup(&["logs", "one"]).text().contains("up") || sandbox.status("one") != "running"
        });
        sandbox.mysup(&["stop", "one"]);
    }
}

fn prepare(sandbox: &Sandbox, flags: &[String]) {
    sandbox.image();
    sandbox.ok(&["shutdown"]);
    sandbox.new_directory("v");
    sandbox.new_directory("proof");
    trace::wrap_shim(sandbox, flags, &sandbox.place("trace"), trace::Traced::First);
}

fn points() -> &'static [Point] {
    static POINTS_FOUND: OnceLock<Vec<Point>> = OnceLock::new();
    POINTS_FOUND.get_or_init(|| {
        let sandbox = Sandbox::new("the traced life of a shim", Random::new(1, "trace"));
        prepare(&sandbox, &[]);
        life(&sandbox, 7);
        sandbox.wait_status("one", "exited");
        let log = sandbox.place("trace");
        wait_until("the trace is whole", || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("+++ exited with"))
        });
        let calls = trace::calls(&log);
        // What comes before its first file or socket of ours is the loading of the program.
        let begin = calls.iter().position(|name| name == "openat").unwrap_or(0);
        let found = trace::spread(&calls, begin, POINTS);
        sandbox.sweep(false);
        found
    })
}

fn at_point(sandbox: &Sandbox, number: usize) {
    let point = &points()[number];
    let code = sandbox.exit_code();
    prepare(sandbox, &point.flags());
    let before = plant_data(&sandbox.place("v"), "precious");
    life(sandbox, code);
    sandbox.use_program(crate::harness::command::program().to_owned());
    expect_truth(sandbox, code, &format!("{point:?}"));
    before.expect_unchanged(&sandbox.place("v"));
}

/// The program's own code only if it proves to have ended so; 137 if it was killed; otherwise unknown, and said so.
fn expect_truth(sandbox: &Sandbox, code: i32, point: &str) {
    let settled = ["absent", "created", "running", "exited"];
    wait_until(&format!("the container is settled after {point}"), || {
        settled.contains(&sandbox.status("one").as_str())
    });
    if sandbox.status("one") == "running" {
        sandbox.ok(&["stop", "one"]);
        sandbox.wait_status("one", "exited");
    }
    let proof = std::fs::read_to_string(sandbox.place("proof/code")).unwrap_or_default();
    let started = sandbox.place("proof/started").exists();
    let status = sandbox.status("one");
    if status == "exited" {
        let container = sandbox.inspect("one");
        let shown = inspect::number(&container, "State.ExitCode");
        let error = inspect::text(&container, "State.Error");
        let true_code = shown == i64::from(code) && proof.trim() == code.to_string();
        let said_unknown = shown == 255 && !error.is_empty() && error != "null";
        let never_began = !started && (125..=128).contains(&shown) && !error.is_empty();
        assert!(
            true_code || shown == 137 || said_unknown || never_began,
            "code {shown} ({error:?}) is made up after {point}; the program was to end with {code}, proof {proof:?}"
        );
        if shown == 137 {
            assert_eq!(proof, "", "it ended by itself, so 137 is made up after {point}");
        }
    } else {
        assert!(!started, "a container that ran is {status} after {point}");
    }
    sandbox.mysup(&["rm", "-f", "one"]).expect_code(0);
    sandbox.run(&["--rm", "--name", "one"], &["true"]).expect_code(0);
}

/// Kills the shim of a container and waits until the supervisor has dealt with it.
fn kill_shim(sandbox: &Sandbox, name: &str) -> i32 {
    let init = sandbox.init_pid(name);
    let shim = sandbox.shim_pid(name);
    processes::signal(shim, Signal::KILL);
    wait_until("the shim is dead", || !processes::is_alive(shim));
    init
}

/// After the death of its shim a program runs on under a new one, or it was killed and is said to be.
fn expect_adopted_or_killed(sandbox: &Sandbox, name: &str, init: i32, code: i32) {
    let settled = ["running", "exited"];
    wait_until("the container is settled", || settled.contains(&sandbox.status(name).as_str()));
    if sandbox.status(name) == "running" && processes::is_alive(init) {
        sandbox.mysup(&["stop", name]);
    }
    sandbox.wait_status(name, "exited");
    assert!(!processes::is_alive(init));
    let shown = inspect::number(&sandbox.inspect(name), "State.ExitCode");
    assert!(
        shown == i64::from(code) || shown == 137,
        "code {shown} of a program that ends with {code} or is killed"
    );
}

fn shim_killed_while_running_leaves_the_truth(sandbox: &Sandbox) {
    let volume = sandbox.new_directory("v");
    let before = plant_data(&sandbox.place("v"), "precious");
    let code = sandbox.exit_code();
    sandbox.start_obedient("one", &["-v", &format!("{volume}:/v")], code);
    let init = kill_shim(sandbox, "one");
    expect_adopted_or_killed(sandbox, "one", init, code);
    before.expect_unchanged(&sandbox.place("v"));
}

fn shim_killed_while_stopping_ends_with_137(sandbox: &Sandbox) {
    sandbox.start(
        "one",
        &["--stop-timeout", "2"],
        "trap 'echo told' TERM; echo up; while :; do sleep 0.02; done",
    );
    wait_until("it is up", || sandbox.ok(&["logs", "one"]) == "up");
    let stopping = sandbox.call(&["stop", "one"]).start();
    wait_until("it was told", || sandbox.ok(&["logs", "one"]).contains("told"));
    kill_shim(sandbox, "one");
    stopping.wait();
    if sandbox.status("one") == "running" {
        sandbox.ok(&["stop", "one"]);
    }
    assert_eq!(sandbox.ok(&["wait", "one"]), "137");
}

fn shim_killed_during_a_flood_of_output_leaves_the_truth(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let proof = sandbox.new_directory("proof");
    let script = format!("echo up; seq 1 2000000; echo {code} > /proof/code; exit {code}");
    sandbox.start("one", &["-v", &format!("{proof}:/proof")], &script);
    wait_until("it writes", || sandbox.mysup(&["logs", "-n", "1", "one"]).text().len() > 3);
    let (init, shim) = (sandbox.init_pid("one"), sandbox.shim_pid("one"));
    processes::signal(shim, Signal::KILL);
    sandbox.wait_status("one", "exited");
    assert!(!processes::is_alive(init));
    let proof = std::fs::read_to_string(sandbox.place("proof/code")).unwrap_or_default();
    let shown = inspect::number(&sandbox.inspect("one"), "State.ExitCode");
    assert!(
        shown == 137 && proof.is_empty() || shown == i64::from(code) && !proof.is_empty(),
        "code {shown}, proof {proof:?}"
    );
}

fn shim_killed_in_the_foreground_returns_and_says_so(sandbox: &Sandbox) {
    let line = sandbox.run_line(
        &["--name", "one"],
        &["sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.02; done"],
    );
    let mut client = sandbox.call(&line).start();
    client.wait_for("up");
    let init = kill_shim(sandbox, "one");
    wait_until("the client knows, or the container runs on", || {
        !client.is_running() || sandbox.status("one") == "running" && processes::is_alive(init)
    });
    if client.is_running() {
        sandbox.ok(&["stop", "one"]);
        let output = client.wait();
        assert!(output.code == 9 || output.code == 137, "{output}");
    } else {
        // It cannot know the code of a program that runs on, and may not make one up.
        let output = client.wait();
        assert!([125, 137].contains(&output.code) && output.errors().lines().count() <= 1, "{output}");
    }
    expect_adopted_or_killed(sandbox, "one", init, 9);
}

fn shim_killed_with_a_terminal_leaves_the_truth(sandbox: &Sandbox) {
    sandbox.start("one", &["-it"], "trap 'exit 9' TERM; echo up; while :; do sleep 0.02; done");
    wait_until("it is up", || sandbox.ok(&["logs", "one"]).contains("up"));
    let init = kill_shim(sandbox, "one");
    expect_adopted_or_killed(sandbox, "one", init, 9);
}

fn shim_killed_with_daemonized_children_leaves_none(sandbox: &Sandbox) {
    let id = sandbox.start(
        "one",
        &[],
        "i=0; while [ $i -lt 30 ]; do setsid sleep 4321 & i=$((i+1)); done; echo up; sleep 1000",
    );
    wait_until("it is up", || sandbox.ok(&["logs", "one"]) == "up");
    kill_shim(sandbox, "one");
    sandbox.ok(&["rm", "-f", "one"]);
    assert!(processes::bearing(&[id]).is_empty());
}

fn shim_killed_with_rm_leaves_nothing(sandbox: &Sandbox) {
    sandbox.start("one", &["--rm"], "sleep 1000");
    let init = kill_shim(sandbox, "one");
    wait_until("it is gone, or runs on", || {
        sandbox.status("one") == "absent" || sandbox.status("one") == "running" && processes::is_alive(init)
    });
    sandbox.mysup(&["rm", "-f", "one"]).expect_code(0);
    wait_until("the program is dead", || !processes::is_alive(init));
}

fn shims_killed_ten_at_once_are_all_settled(sandbox: &Sandbox) {
    let names: Vec<String> = (0..10).map(|number| format!("c{number}")).collect();
    let mut shims = Vec::new();
    for name in &names {
        sandbox.start_obedient(name, &[], 9);
        shims.push((sandbox.init_pid(name), sandbox.shim_pid(name)));
    }
    for (_, shim) in &shims {
        processes::signal(*shim, Signal::KILL);
    }
    for (name, (init, _)) in names.iter().zip(shims) {
        expect_adopted_or_killed(sandbox, name, init, 9);
    }
}
