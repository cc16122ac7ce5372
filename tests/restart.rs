//! The supervisor dies, stands still, comes back: containers and their clients do not notice.

use rustix::process::Signal;

use crate::harness::{
    Case, Sandbox, inspect, leaks, processes, terminal::Terminal, tree::plant_data, wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        containers_run_on_when_the_supervisor_is_killed,
        foreground_client_returns_the_true_code_after_a_kill,
        foreground_client_returns_while_no_supervisor_runs,
        terminal_goes_on_after_a_kill_and_a_restart,
        detached_container_that_ends_meanwhile_is_torn_down_and_its_code_is_kept,
        many_that_end_meanwhile_keep_their_codes,
        container_with_rm_that_ends_meanwhile_is_gone,
        stopped_supervisor_does_not_stop_the_teardown,
        stopped_supervisor_does_not_hold_a_foreground_client,
        wait_and_logs_follow_work_for_adopted_containers,
        stop_works_for_adopted_containers,
        restart_in_the_middle_of_a_stop_ends_with_the_true_code,
        supervisor_killed_again_and_again_loses_nothing,
        shim_and_supervisor_killed_together_leave_nothing,
        record_of_a_container_with_rm_is_never_written,
        record_is_on_disk_before_anybody_is_told,
        damaged_record_damages_one_container_only,
        records_of_another_boot_are_cleaned_and_nothing_is_killed,
        stopped_shim_does_not_block_others,
    ]
}

fn containers_run_on_when_the_supervisor_is_killed(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let id = sandbox.start_obedient("one", &[], code);
    let (init, shim) = (sandbox.init_pid("one"), sandbox.shim_pid("one"));
    sandbox.kill_supervisor();
    assert!(processes::is_alive(init) && processes::is_alive(shim));
    assert_eq!(sandbox.ok(&["ps", "-q", "--no-trunc"]), id);
    assert_eq!((sandbox.init_pid("one"), sandbox.shim_pid("one")), (init, shim));
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
}

fn foreground_client_returns_the_true_code_after_a_kill(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let script = format!("echo up; read line; echo got $line; exit {code}");
    for flags in [&["-i", "--rm"][..], &["-i", "--name", "one"]] {
        let line = sandbox.run_line(flags, &["sh", "-c", &script]);
        let mut client = sandbox.call(&line).open_input().start();
        client.wait_for("up");
        sandbox.kill_supervisor();
        sandbox.ok(&["ps"]);
        client.write(b"hello\n");
        let output = client.wait().expect_code(code);
        assert_eq!(output.text(), "up\ngot hello");
    }
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), i64::from(code));
}

fn foreground_client_returns_while_no_supervisor_runs(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let script = format!("echo up; read line; exit {code}");
    for flags in [&["-i", "--rm"][..], &["-i", "--name", "one"]] {
        let line = sandbox.run_line(flags, &["sh", "-c", &script]);
        let mut client = sandbox.call(&line).open_input().start();
        client.wait_for("up");
        sandbox.kill_supervisor();
        client.write(b"\n");
        client.wait().expect_code(code);
    }
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), i64::from(code));
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]).lines().count(), 1, "the one with --rm is gone");
}

fn terminal_goes_on_after_a_kill_and_a_restart(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let line = sandbox.run_line(&["-it", "--name", "one"], &["sh"]);
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    terminal.wait_for("#");
    sandbox.kill_supervisor();
    terminal.type_keys("echo $((40+2))\n");
    terminal.wait_for("42");
    sandbox.ok(&["start"]);
    terminal.resize(40, 100);
    terminal.type_keys("stty size\n");
    terminal.wait_for("40 100");
    terminal.type_keys(&format!("exit {code}\n"));
    assert_eq!(terminal.wait(), Some(code));
    terminal.expect_restored();
}

/// Waits, without any supervisor, until nothing but records is left of all containers.
fn wait_torn_down(sandbox: &Sandbox) {
    wait_until("the shims have torn down everything alone", || {
        let left = leaks::find(sandbox);
        let records =
            |line: &String| line.starts_with("file root/containers/") || !line.contains("/containers/");
        left.iter().all(|line| line.starts_with("file ") && records(line))
    });
    assert!(sandbox.supervisor_pid().is_none(), "no supervisor did it");
}

fn detached_container_that_ends_meanwhile_is_torn_down_and_its_code_is_kept(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let volume = sandbox.new_directory("v");
    let before = plant_data(&sandbox.place("v"), "precious");
    sandbox.start_obedient("one", &["-v", &format!("{volume}:/v")], code);
    let init = sandbox.init_pid("one");
    sandbox.kill_supervisor();
    processes::signal(init, Signal::TERM);
    wait_torn_down(sandbox);
    before.expect_unchanged(&sandbox.place("v"));
    let list = sandbox.ok(&["ps", "-a"]);
    assert!(list.contains(&format!("Exited ({code})")), "{list}");
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
    assert_eq!(sandbox.ok(&["logs", "one"]), "up");
    assert!(!inspect::teardown(&sandbox.inspect("one")).is_empty(), "its steps are kept");
}

fn many_that_end_meanwhile_keep_their_codes(sandbox: &Sandbox) {
    let names: Vec<String> = (0..8).map(|number| format!("c{number}")).collect();
    let mut expected = Vec::new();
    for name in &names {
        let code = sandbox.exit_code();
        sandbox.start_obedient(name, &[], code);
        expected.push((name, sandbox.init_pid(name), code));
    }
    sandbox.kill_supervisor();
    for (number, (_, init, code)) in expected.iter_mut().enumerate() {
        let (signal, truth) = if number % 2 == 0 { (Signal::TERM, *code) } else { (Signal::KILL, 137) };
        processes::signal(*init, signal);
        *code = truth;
    }
    wait_torn_down(sandbox);
    for (name, _, code) in expected {
        assert_eq!(inspect::number(&sandbox.inspect(name), "State.ExitCode"), i64::from(code), "{name}");
    }
}

fn container_with_rm_that_ends_meanwhile_is_gone(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &["--rm"], 3);
    let init = sandbox.init_pid("one");
    sandbox.kill_supervisor();
    processes::signal(init, Signal::TERM);
    wait_until("nothing of it is left", || {
        leaks::find(sandbox).iter().all(|line| line.starts_with("file ") && !line.contains("containers/"))
    });
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
}

fn stopped_supervisor_does_not_stop_the_teardown(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let id = sandbox.start_obedient("one", &[], code);
    let init = sandbox.init_pid("one");
    let supervisor = sandbox.supervisor();
    processes::signal(supervisor, Signal::STOP);
    processes::signal(init, Signal::TERM);
    let directory = sandbox.root().join("containers").join(&id);
    wait_until("the write layer is gone", || {
        !directory.join("upper").exists() && directory.join("exit").exists()
    });
    wait_until("the run directory is gone", || !sandbox.run_root().join("containers").join(&id).exists());
    processes::signal(supervisor, Signal::CONT);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
}

fn stopped_supervisor_does_not_hold_a_foreground_client(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let script = format!("echo up; read x; exit {code}");
    let line = sandbox.run_line(&["-i", "--name", "one"], &["sh", "-c", &script]);
    let mut client = sandbox.call(&line).open_input().start();
    client.wait_for("up");
    let supervisor = sandbox.supervisor();
    processes::signal(supervisor, Signal::STOP);
    client.write(b"\n");
    client.wait().expect_code(code);
    processes::signal(supervisor, Signal::CONT);
    sandbox.wait_status("one", "exited");
}

fn wait_and_logs_follow_work_for_adopted_containers(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 41);
    sandbox.kill_supervisor();
    let waiting = sandbox.call(&["wait", "one"]).start();
    let mut following = sandbox.call(&["logs", "-f", "one"]).start();
    following.wait_for("up");
    sandbox.ok(&["stop", "one"]);
    assert_eq!(waiting.wait().expect_code(0).text(), "41");
    following.wait().expect_code(0);
}

fn stop_works_for_adopted_containers(sandbox: &Sandbox) {
    sandbox.start("one", &["--stop-timeout", "1"], "trap '' TERM; while :; do sleep 0.1; done");
    sandbox.kill_supervisor();
    sandbox.ok(&["stop", "one"]);
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), 137);
}

fn restart_in_the_middle_of_a_stop_ends_with_the_true_code(sandbox: &Sandbox) {
    let flags = ["--stop-timeout", "3"];
    sandbox.start("one", &flags, "trap 'echo told' TERM; echo up; while :; do sleep 0.02; done");
    wait_until("it is up", || sandbox.ok(&["logs", "one"]) == "up");
    let stopping = sandbox.call(&["stop", "one"]).start();
    wait_until("it was told", || sandbox.ok(&["logs", "one"]).contains("told"));
    sandbox.kill_supervisor();
    stopping.wait();
    // Whoever finishes the stop, the program that does not obey is killed and said to be so.
    let status = sandbox.status("one");
    if status == "running" {
        sandbox.ok(&["stop", "one"]);
    }
    assert_eq!(sandbox.ok(&["wait", "one"]), "137");
}

fn supervisor_killed_again_and_again_loses_nothing(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let id = sandbox.start_obedient("one", &[], code);
    for _ in 0..10 {
        sandbox.kill_supervisor();
        assert_eq!(sandbox.ok(&["ps", "-q", "--no-trunc"]), id);
    }
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
}

fn shim_and_supervisor_killed_together_leave_nothing(sandbox: &Sandbox) {
    let volume = sandbox.new_directory("v");
    let before = plant_data(&sandbox.place("v"), "precious");
    sandbox.start("one", &["-v", &format!("{volume}:/v")], "setsid sleep 1000 & sleep 1000");
    let (init, shim, supervisor) = (sandbox.init_pid("one"), sandbox.shim_pid("one"), sandbox.supervisor());
    for pid in [shim, supervisor] {
        processes::signal(pid, Signal::KILL);
    }
    wait_until("both are dead", || !processes::is_alive(shim) && !processes::is_alive(supervisor));
    sandbox.ok(&["start"]);
    let known = ["running", "exited"];
    wait_until("it is adopted, or ended", || known.contains(&sandbox.status("one").as_str()));
    if sandbox.status("one") == "exited" {
        assert!(!processes::is_alive(init), "never forgotten: it runs or it has ended");
    }
    sandbox.ok(&["rm", "-f", "one"]);
    assert!(!processes::is_alive(init));
    before.expect_unchanged(&sandbox.place("v"));
}

fn record_of_a_container_with_rm_is_never_written(sandbox: &Sandbox) {
    let id = sandbox.start_obedient("one", &["--rm"], 3);
    assert!(!sandbox.root().join("containers").join(&id).join("exit").exists());
    sandbox.ok(&["stop", "one"]);
    wait_until("its directory is gone", || !sandbox.root().join("containers").join(&id).exists());
}

fn record_is_on_disk_before_anybody_is_told(sandbox: &Sandbox) {
    for _ in 0..10 {
        let code = sandbox.exit_code();
        let script = format!("exit {code}");
        let line = sandbox.run_line(&["--name", "one"], &["sh", "-c", &script]);
        sandbox.mysup(&line).expect_code(code);
        sandbox.kill_supervisor();
        assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), i64::from(code));
        sandbox.ok(&["rm", "one"]);
    }
}

fn damaged_record_damages_one_container_only(sandbox: &Sandbox) {
    for (name, bytes) in
        [("zeros", vec![0_u8; 100]), ("empty", Vec::new()), ("noise", b"{\"id\": 12, noise".to_vec())]
    {
        let id = sandbox.run(&["-d"], &["true"]).expect_code(0).text();
        sandbox.ok(&["wait", &id]);
        sandbox.run(&["--name", "good"], &["sh", "-c", "exit 9"]).expect_code(9);
        sandbox.wait_status(&id, "exited");
        sandbox.ok(&["shutdown"]);
        for file in ["config.json", "exit", "teardown"] {
            std::fs::write(sandbox.root().join("containers").join(&id).join(file), &bytes)
                .expect("it is ours");
        }
        assert_eq!(inspect::number(&sandbox.inspect("good"), "State.ExitCode"), 9, "{name}");
        assert!(sandbox.ok(&["ps", "-a", "-q", "--no-trunc"]).contains(&id), "{name}: it is shown");
        sandbox.ok(&["rm", "-f", &id]);
        sandbox.ok(&["rm", "good"]);
        assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "", "{name}");
    }
}

fn records_of_another_boot_are_cleaned_and_nothing_is_killed(sandbox: &Sandbox) {
    // A power cut as far as one can make it without one: everything of ours is dead, /run is empty, /var/lib is not.
    let id = sandbox.start("one", &[], "echo x > /file; sleep 1000");
    let (init, shim) = (sandbox.init_pid("one"), sandbox.shim_pid("one"));
    sandbox.kill_supervisor();
    processes::signal(shim, Signal::KILL);
    processes::signal(init, Signal::KILL);
    wait_until("all is dead", || !processes::is_alive(shim) && !processes::is_alive(init));
    let gone = sandbox.place("run-of-the-last-boot");
    std::fs::rename(sandbox.run_root(), gone).expect("the sandbox is ours");
    for path in processes::cgroup_directories() {
        if path.to_string_lossy().contains(&id) {
            std::fs::remove_dir(&path).expect("it is empty");
        }
    }
    sandbox.ok(&["start"]);
    sandbox.wait_status("one", "exited");
    assert!(
        !sandbox.root().join("containers").join(&id).join("upper").exists(),
        "the write layer is cleaned"
    );
    let container = sandbox.inspect("one");
    let code = inspect::number(&container, "State.ExitCode");
    assert!(code == 255 || code == 137, "what nobody saw is said to be unknown, not {code}: {container:#}");
}

fn stopped_shim_does_not_block_others(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 3);
    let shim = sandbox.shim_pid("one");
    processes::signal(shim, Signal::STOP);
    sandbox.kill_supervisor();
    sandbox.run(&["--rm"], &["sh", "-c", "exit 6"]).expect_code(6);
    assert!(["unreachable", "running"].contains(&sandbox.status("one").as_str()));
    processes::signal(shim, Signal::CONT);
    sandbox.wait_status("one", "running");
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), "3");
}
