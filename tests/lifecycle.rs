//! From `run` to `rm`: the states of a container and the verbs that move it.

use crate::harness::{Case, Sandbox, inspect, leaks, processes, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        foreground_run_prints_output_and_leaves_an_exited_container,
        run_with_rm_leaves_no_record,
        detached_run_prints_the_full_id_and_goes_on,
        auto_remove_of_detached_container_happens_by_itself,
        stop_sends_term_and_the_code_of_the_program_is_kept,
        stop_of_a_program_that_ignores_term_kills_after_the_timeout,
        stop_with_timeout_zero_kills_at_once,
        stop_timeout_of_run_is_the_default_of_stop,
        stop_signal_of_run_is_sent_by_stop,
        stop_of_exited_container_succeeds,
        stop_of_several_goes_on_after_an_error,
        kill_sends_kill_by_default,
        kill_takes_signals_by_name_with_and_without_sig_and_by_number,
        kill_with_unknown_signal_is_refused,
        kill_of_exited_container_is_refused,
        restart_of_running_container_makes_a_new_process,
        restart_of_exited_container_starts_it,
        wait_prints_the_code_of_each,
        wait_of_exited_container_returns_at_once,
        rm_of_running_container_is_refused,
        rm_force_of_running_container_kills_it,
        rm_of_unknown_container_is_refused_and_with_force_is_not,
        rm_frees_the_name_at_once,
        top_shows_the_processes_of_the_host,
        top_of_exited_container_is_refused,
        write_layer_of_an_exited_container_is_gone,
        descriptors_of_the_supervisor_stay_flat_over_thirty_containers,
    ]
}

fn foreground_run_prints_output_and_leaves_an_exited_container(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let script = format!("echo out; echo err >&2; exit {code}");
    let output = sandbox.run(&["--name", "one"], &["sh", "-c", &script]).expect_code(code);
    assert_eq!(output.stdout, b"out\n", "{output}");
    assert_eq!(output.stderr, b"err\n", "{output}");
    let container = sandbox.inspect("one");
    assert_eq!(inspect::text(&container, "State.Status"), "exited");
    assert_eq!(inspect::number(&container, "State.ExitCode"), i64::from(code));
    assert_eq!(inspect::text(&container, "State.Running"), "false");
}

fn run_with_rm_leaves_no_record(sandbox: &Sandbox) {
    sandbox.run(&["--rm", "--name", "one"], &["true"]).expect_code(0);
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
    assert_eq!(sandbox.status("one"), "absent");
    let left = leaks::find(sandbox);
    let files: Vec<&String> = left.iter().filter(|line| line.contains("containers/")).collect();
    assert!(files.is_empty(), "when run --rm returns, the container is gone: {files:?}");
}

fn detached_run_prints_the_full_id_and_goes_on(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    assert_eq!(sandbox.ok(&["ps", "-q", "--no-trunc"]), id);
    assert_eq!(sandbox.status("one"), "running");
    assert!(processes::is_alive(sandbox.init_pid("one")));
    assert_eq!(inspect::text(&sandbox.inspect("one"), "Id"), id);
}

fn auto_remove_of_detached_container_happens_by_itself(sandbox: &Sandbox) {
    sandbox.start("one", &["--rm"], "exit 3");
    wait_until("the container is removed", || sandbox.ok(&["ps", "-a", "-q"]).is_empty());
}

fn stop_sends_term_and_the_code_of_the_program_is_kept(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    sandbox.start_obedient("one", &[], code);
    assert_eq!(sandbox.ok(&["stop", "one"]), "one");
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), i64::from(code));
    assert_eq!(sandbox.status("one"), "exited");
}

fn stop_of_a_program_that_ignores_term_kills_after_the_timeout(sandbox: &Sandbox) {
    sandbox.start("one", &[], "trap '' TERM; while :; do sleep 0.1; done");
    sandbox.ok(&["stop", "-t", "1", "one"]);
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), 137);
}

fn stop_with_timeout_zero_kills_at_once(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 5);
    sandbox.ok(&["stop", "-t", "0", "one"]);
    // A program that is told and killed in the same instant may have ended by either.
    let code = inspect::number(&sandbox.inspect("one"), "State.ExitCode");
    assert!(code == 137 || code == 5, "code {code}");
}

fn stop_timeout_of_run_is_the_default_of_stop(sandbox: &Sandbox) {
    sandbox.start("one", &["--stop-timeout", "1"], "trap '' TERM; while :; do sleep 0.1; done");
    sandbox.ok(&["stop", "one"]);
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), 137);
}

fn stop_signal_of_run_is_sent_by_stop(sandbox: &Sandbox) {
    let script = "trap 'exit 21' USR1; trap 'exit 22' TERM; echo up; while :; do sleep 0.02; done";
    sandbox.start("one", &["--stop-signal", "SIGUSR1"], script);
    wait_until("the container is up", || sandbox.ok(&["logs", "one"]) == "up");
    sandbox.ok(&["stop", "one"]);
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), 21);
}

fn stop_of_exited_container_succeeds(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one"], &["true"]).expect_code(0);
    assert_eq!(sandbox.ok(&["stop", "one"]), "one");
}

fn stop_of_several_goes_on_after_an_error(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 3);
    sandbox.start_obedient("two", &[], 4);
    let output = sandbox.mysup(&["stop", "one", "nobody", "two"]).expect_code(1);
    let mut names: Vec<String> = output.text().lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["one", "two"], "{output}");
    assert!(output.errors().contains("nobody"), "{output}");
    assert_eq!(sandbox.status("two"), "exited");
}

fn kill_sends_kill_by_default(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 3);
    assert_eq!(sandbox.ok(&["kill", "one"]), "one");
    assert_eq!(sandbox.ok(&["wait", "one"]), "137");
}

fn kill_takes_signals_by_name_with_and_without_sig_and_by_number(sandbox: &Sandbox) {
    let script = "n=0; trap 'n=$((n+1)); echo got $n' USR1; trap 'exit 9' 37
        echo up; while :; do sleep 0.02; done";
    sandbox.start("one", &[], script);
    wait_until("the container is up", || sandbox.ok(&["logs", "one"]).contains("up"));
    for (count, name) in ["USR1", "SIGUSR1", "10", "usr1"].iter().enumerate() {
        sandbox.ok(&["kill", "-s", name, "one"]);
        let word = format!("got {}", count + 1);
        wait_until("the signal arrived", || sandbox.ok(&["logs", "one"]).contains(&word));
    }
    sandbox.ok(&["kill", "-s", "RTMIN+3", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), "9");
}

fn kill_with_unknown_signal_is_refused(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    for signal in ["NOSUCH", "0", "65", "-1", ""] {
        let output = sandbox.mysup(&["kill", "-s", signal, "one"]);
        assert!(output.code != 0 && !output.stderr.is_empty(), "signal {signal:?} was taken\n{output}");
    }
    assert_eq!(sandbox.status("one"), "running");
}

fn kill_of_exited_container_is_refused(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one"], &["true"]).expect_code(0);
    sandbox.refused(&["kill", "one"], 1, &["one", "not running"]);
}

fn restart_of_running_container_makes_a_new_process(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &["--keep"], 4);
    let before = sandbox.init_pid("one");
    assert_eq!(sandbox.ok(&["restart", "one"]), "one");
    let after = sandbox.init_pid("one");
    assert_ne!(before, after);
    assert!(!processes::is_alive(before));
    assert_eq!(sandbox.status("one"), "running");
}

fn restart_of_exited_container_starts_it(sandbox: &Sandbox) {
    sandbox.run(&["--keep", "--name", "one"], &["sh", "-c", "echo x >> /count"]).expect_code(0);
    sandbox.ok(&["restart", "one"]);
    sandbox.ok(&["wait", "one"]);
    sandbox.wait_status("one", "exited");
}

fn wait_prints_the_code_of_each(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 31);
    sandbox.start_obedient("two", &[], 32);
    let waiting = sandbox.call(&["wait", "one", "two"]).start();
    sandbox.ok(&["stop", "two", "one"]);
    assert_eq!(waiting.wait().expect_code(0).text(), "31\n32");
}

fn wait_of_exited_container_returns_at_once(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one"], &["sh", "-c", "exit 44"]).expect_code(44);
    assert_eq!(sandbox.ok(&["wait", "one"]), "44");
}

fn rm_of_running_container_is_refused(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    sandbox.refused(&["rm", "one"], 1, &["one", "running"]);
    assert_eq!(sandbox.status("one"), "running");
}

fn rm_force_of_running_container_kills_it(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    let pid = sandbox.init_pid("one");
    assert_eq!(sandbox.ok(&["rm", "-f", "one"]), "one");
    assert!(!processes::is_alive(pid));
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
}

fn rm_of_unknown_container_is_refused_and_with_force_is_not(sandbox: &Sandbox) {
    sandbox.refused(&["rm", "nobody"], 1, &["no such container", "nobody"]);
    sandbox.mysup(&["rm", "-f", "nobody"]).expect_code(0);
}

fn rm_frees_the_name_at_once(sandbox: &Sandbox) {
    for _ in 0..5 {
        sandbox.start("one", &[], "sleep 1000");
        sandbox.ok(&["rm", "-f", "one"]);
    }
}

fn top_shows_the_processes_of_the_host(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1234 & sleep 1235");
    wait_until("both sleeps run", || sandbox.ok(&["top", "one"]).matches("sleep 123").count() >= 2);
    let text = sandbox.ok(&["top", "one"]);
    let heading = text.lines().next().unwrap_or("");
    for column in ["UID", "PID", "PPID", "CMD"] {
        assert!(heading.contains(column), "no column {column} in {text}");
    }
    assert!(text.contains(&sandbox.init_pid("one").to_string()), "pids are the host's: {text}");
}

fn top_of_exited_container_is_refused(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one"], &["true"]).expect_code(0);
    sandbox.refused(&["top", "one"], 1, &["not running"]);
}

fn write_layer_of_an_exited_container_is_gone(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one"], &["sh", "-c", "echo x > /file"]).expect_code(0);
    let directory = sandbox.root().join("containers").join(inspect::text(&sandbox.inspect("one"), "Id"));
    wait_until("the teardown is over", || sandbox.status("one") == "exited");
    for name in ["upper", "work", "init", "stage"] {
        assert!(!directory.join(name).exists(), "{name} is still there");
    }
    assert!(directory.join("exit").exists(), "the record is kept");
}

fn descriptors_of_the_supervisor_stay_flat_over_thirty_containers(sandbox: &Sandbox) {
    sandbox.run(&["--rm"], &["true"]).expect_code(0);
    let pid = sandbox.supervisor();
    wait_until("the first shim is gone", || processes::children(pid).is_empty());
    let before = processes::descriptors(pid);
    for _ in 0..10 {
        sandbox.run(&["--rm"], &["true"]).expect_code(0);
        let name = "detached";
        sandbox.start(name, &[], "exit 1");
        sandbox.ok(&["wait", name]);
        sandbox.ok(&["logs", name]);
        sandbox.ok(&["rm", name]);
        sandbox.run(&["--rm"], &["no-such-program"]).expect_code(127);
    }
    // Of the first container something may still have been open.
    wait_until("the supervisor has no more descriptors than before", || {
        let now = processes::descriptors(pid);
        now.iter().all(|(kind, count)| *count <= before.get(kind).copied().unwrap_or(0))
    });
}
