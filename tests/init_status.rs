//! Supervisor and shim are killed together, and the program ends while nobody watches: with `--init` its PID 1 leaves the
//! code, without it the status is said to be unknown.

use rustix::process::Signal;

use crate::harness::{Case, Sandbox, inspect, processes, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        code_of_an_end_that_nobody_saw_is_true_with_init,
        code_of_an_end_that_nobody_saw_is_unknown_without_init,
        signal_that_ended_the_program_unseen_is_true_with_init,
        killed_init_leaves_no_code_that_was_made_up,
        foreground_client_of_an_end_that_nobody_saw_returns_the_true_code,
        container_can_be_started_again_after_an_end_that_nobody_saw,
        program_cannot_reach_the_file_of_its_init,
    ]
}

/// Kills supervisor and shim, which nobody replaces yet.
fn kill_both(sandbox: &Sandbox, name: &str) -> i32 {
    let (init, shim, supervisor) = (sandbox.init_pid(name), sandbox.shim_pid(name), sandbox.supervisor());
    // Neither may see the death of the other.
    processes::signal(supervisor, Signal::STOP);
    processes::signal(shim, Signal::KILL);
    processes::signal(supervisor, Signal::KILL);
    wait_until("both are dead", || !processes::is_alive(shim) && !processes::is_alive(supervisor));
    init
}

/// Ends the program of a container that nobody watches.
fn end_unseen(sandbox: &Sandbox, name: &str, signal: Signal) {
    let init = kill_both(sandbox, name);
    assert!(processes::is_alive(init), "it does not end with its shim");
    processes::signal(init, signal);
    // As long as it is a zombie its status can be had, and is.
    wait_until("the program has ended and was reaped", || processes::stat(init).is_none());
}

fn expect_ended(sandbox: &Sandbox, name: &str, code: i32) {
    assert_eq!(sandbox.ok(&["wait", name]), code.to_string());
    sandbox.wait_status(name, "exited");
    let container = sandbox.inspect(name);
    assert_eq!(inspect::number(&container, "State.ExitCode"), i64::from(code));
    assert_eq!(inspect::text(&container, "State.Error"), "", "{container:#}");
    let list = sandbox.ok(&["ps", "-a"]);
    assert!(list.contains(&format!("Exited ({code})")), "{list}");
}

fn expect_unknown(sandbox: &Sandbox, name: &str) {
    let output = sandbox.mysup(&["wait", name]).expect_code(255);
    assert_eq!(output.text(), "255");
    assert!(output.errors().contains("is not known"), "{output}");
    sandbox.wait_status(name, "exited");
    let container = sandbox.inspect(name);
    assert_eq!(inspect::number(&container, "State.ExitCode"), 255);
    assert!(inspect::text(&container, "State.Error").contains("survived"), "{container:#}");
    let list = sandbox.ok(&["ps", "-a"]);
    assert!(list.contains("Exited (unknown)"), "{list}");
}

fn code_of_an_end_that_nobody_saw_is_true_with_init(sandbox: &Sandbox) {
    for (name, flags) in [("root", &["--init"][..]), ("user", &["--init", "-u", "1000:1000"])] {
        let code = sandbox.exit_code();
        sandbox.start_obedient(name, flags, code);
        end_unseen(sandbox, name, Signal::TERM);
        sandbox.ok(&["start"]);
        expect_ended(sandbox, name, code);
        assert_eq!(sandbox.ok(&["logs", name]), "up");
    }
}

fn code_of_an_end_that_nobody_saw_is_unknown_without_init(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 7);
    end_unseen(sandbox, "one", Signal::TERM);
    sandbox.ok(&["start"]);
    expect_unknown(sandbox, "one");
}

fn signal_that_ended_the_program_unseen_is_true_with_init(sandbox: &Sandbox) {
    let proof = sandbox.new_directory("v");
    let script = "trap 'kill -SEGV $$' TERM; echo up; while :; do sleep 0.02; done";
    sandbox.start("one", &["--init", "-v", &format!("{proof}:/v")], script);
    wait_until("it is up", || sandbox.ok(&["logs", "one"]) == "up");
    end_unseen(sandbox, "one", Signal::TERM);
    sandbox.ok(&["start"]);
    expect_ended(sandbox, "one", 139);
}

fn killed_init_leaves_no_code_that_was_made_up(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &["--init"], 7);
    end_unseen(sandbox, "one", Signal::KILL);
    sandbox.ok(&["start"]);
    expect_unknown(sandbox, "one");
}

fn foreground_client_of_an_end_that_nobody_saw_returns_the_true_code(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let script = format!("trap 'exit {code}' TERM; echo up; while :; do sleep 0.02; done");
    let line = sandbox.run_line(&["--init", "--name", "one"], &["sh", "-c", &script]);
    let mut client = sandbox.call(&line).start();
    client.wait_for("up");
    // The client itself starts the next supervisor as soon as it has lost the shim.
    processes::signal(client.pid(), Signal::STOP);
    end_unseen(sandbox, "one", Signal::TERM);
    processes::signal(client.pid(), Signal::CONT);
    client.wait().expect_code(code);
    expect_ended(sandbox, "one", code);
}

fn container_can_be_started_again_after_an_end_that_nobody_saw(sandbox: &Sandbox) {
    for flags in [&["--keep", "--init"][..], &["--keep"]] {
        sandbox.start_obedient("one", flags, 7);
        end_unseen(sandbox, "one", Signal::TERM);
        sandbox.ok(&["restart", "one"]);
        assert_eq!(sandbox.status("one"), "running");
        wait_until("it is up again", || sandbox.ok(&["logs", "one"]).matches("up").count() == 2);
        sandbox.ok(&["stop", "one"]);
        expect_ended(sandbox, "one", 7);
        sandbox.ok(&["rm", "one"]);
    }
}

/// The file is in no place that the program sees, and the one descriptor of it is its PID 1's.
fn program_cannot_reach_the_file_of_its_init(sandbox: &Sandbox) {
    let attack = "trap '' USR1; ls /proc/self/fd | grep -v '^[0123]$' && echo inherited; fd=0; \
        while [ $fd -lt 100 ]; do readlink /proc/1/fd/$fd; \
        (printf '\\001\\011' > /proc/1/fd/$fd) 2>/dev/null && echo wrote; fd=$((fd+1)); done; \
        (echo x > /proc/1/mem) 2>/dev/null && echo wrote memory; \
        for s in STOP KILL CHLD USR1; do kill -$s 1; done; \
        trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done";
    for (name, flags) in [
        ("root", &["--init"][..]),
        ("user", &["--init", "-u", "1000"]),
        ("strong", &["--init", "--cap-add", "DAC_OVERRIDE", "--cap-add", "SYS_ADMIN"]),
        // May do anything to its PID 1, by ptrace(2) too; it is here to show that the attack is one.
        ("tracer", &["--init", "--cap-add", "SYS_PTRACE"]),
    ] {
        let id = sandbox.start(name, flags, attack);
        wait_until("the attack is over", || sandbox.ok(&["logs", name]).contains("up"));
        let file = sandbox.run_root().join("containers").join(&id).join("init-status");
        let found = std::fs::read(&file).expect("it is there");
        if name == "tracer" {
            assert_eq!(found, [1, 9], "the attack does not attack");
        } else {
            assert_eq!((found, sandbox.ok(&["logs", name])), (vec![0, 0], "up".to_owned()), "{flags:?}");
        }
        end_unseen(sandbox, name, Signal::TERM);
        assert_eq!(std::fs::read(&file).expect("it is there"), [1, 7]);
        sandbox.ok(&["start"]);
        expect_ended(sandbox, name, 7);
    }
}
