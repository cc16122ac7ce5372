//! A shim dies and its container lives: another shim goes on with it, and nothing is lost on the way.

use rustix::process::Signal;

use crate::harness::{
    Case, Sandbox, command, inspect, linux_is_at_least, processes, terminal::Terminal, trace, wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        container_of_a_dead_shim_runs_on_and_keeps_its_code,
        no_line_is_lost_when_the_shim_dies_again_and_again,
        foreground_client_attaches_again_and_returns_the_code,
        terminal_goes_on_with_another_shim,
        slow_shim_that_adopts_is_waited_for,
        stop_that_was_under_way_keeps_its_deadline,
        init_of_dead_shim_and_dead_supervisor_is_adopted,
        terminal_in_the_foreground_goes_on_when_shim_and_supervisor_die_together,
        terminal_that_nobody_holds_ends_with_shim_and_supervisor_and_says_so,
        ten_shims_killed_at_once_are_all_replaced,
        terminal_goes_on_with_another_supervisor,
        containers_do_not_notice_a_replaced_supervisor,
        replacement_without_a_shim_is_refused_before_the_old_one_ends,
        shims_are_started_when_the_program_was_replaced_or_removed,
    ]
}

/// Kills the shim of a container and waits for the one that adopts.
pub(crate) fn replace_shim(sandbox: &Sandbox, name: &str) {
    let lock = sandbox.state_directory(name).join("lock");
    let old = sandbox.shim_pid(name);
    processes::signal(old, Signal::KILL);
    wait_until("another shim has adopted the container", || {
        processes::lock_holder(&lock).is_some_and(|pid| pid != old)
    });
}

fn container_of_a_dead_shim_runs_on_and_keeps_its_code(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    sandbox.start_obedient("one", &[], code);
    let init = sandbox.init_pid("one");
    replace_shim(sandbox, "one");
    assert_eq!(sandbox.status("one"), "running");
    assert_eq!(sandbox.init_pid("one"), init);
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), i64::from(code));
}

fn no_line_is_lost_when_the_shim_dies_again_and_again(sandbox: &Sandbox) {
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; usleep 500; done; exit 6";
    sandbox.start("one", &[], script);
    for _ in 0..5 {
        replace_shim(sandbox, "one");
    }
    assert_eq!(sandbox.ok(&["wait", "one"]), "6");
    let lines: Vec<String> = (1..=3000).map(|number: u32| number.to_string()).collect();
    assert_eq!(sandbox.ok(&["logs", "one"]), lines.join("\n"));
}

fn foreground_client_attaches_again_and_returns_the_code(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let directory = sandbox.new_directory("v");
    let script = format!(
        "echo up; until [ -e /v/go ]; do [ -e /v/again ] && echo again; usleep 20000; done; echo last; exit {code}"
    );
    let volume = format!("{directory}:/v");
    let line = sandbox.run_line(&["--name", "one", "-v", &volume], &["sh", "-c", &script]);
    let mut client = sandbox.call(&line).start();
    client.wait_for("up");
    replace_shim(sandbox, "one");
    std::fs::write(sandbox.place("v/again"), "").expect("the sandbox is ours");
    client.wait_for("again");
    std::fs::write(sandbox.place("v/go"), "").expect("the sandbox is ours");
    let output = client.wait().expect_code(code);
    assert!(output.text().ends_with("again\nlast"), "{output}");
}

fn terminal_goes_on_with_another_shim(sandbox: &Sandbox) {
    let line = sandbox.run_line(&["-ti", "--name", "one"], &["sh"]);
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    terminal.type_keys("echo first$((1+1))\n");
    terminal.wait_for("first2");
    replace_shim(sandbox, "one");
    terminal.type_keys("echo second$((1+1))\n");
    terminal.wait_for("second2");
    terminal.type_keys("exit 9\n");
    assert_eq!(terminal.wait(), Some(9));
}

/// On a busy host a new shim may take longer than anybody likes; its program has done nothing to be killed for.
fn slow_shim_that_adopts_is_waited_for(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    sandbox.image();
    sandbox.ok(&["shutdown"]);
    trace::delay_adoption(sandbox, 8);
    sandbox.start_obedient("one", &[], code);
    let init = sandbox.init_pid("one");
    processes::signal(sandbox.shim_pid("one"), Signal::KILL);
    wait_until("it is said that nobody answers", || sandbox.status("one") == "unreachable");
    sandbox.wait_status("one", "running");
    assert_eq!(sandbox.init_pid("one"), init);
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
}

fn stop_that_was_under_way_keeps_its_deadline(sandbox: &Sandbox) {
    sandbox.start("one", &[], "trap '' TERM; echo up; while :; do usleep 20000; done");
    let stop = sandbox.call(&["stop", "-t", "2", "one"]).start();
    wait_until("the stop is under way", || sandbox.ok(&["ps", "-a"]).contains("one"));
    replace_shim(sandbox, "one");
    stop.wait().expect_code(0);
    assert_eq!(sandbox.ok(&["wait", "one"]), "137");
}

fn init_of_dead_shim_and_dead_supervisor_is_adopted(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    sandbox.start_obedient("one", &[], code);
    let (init, shim) = (sandbox.init_pid("one"), sandbox.shim_pid("one"));
    sandbox.kill_supervisor();
    processes::signal(shim, Signal::KILL);
    wait_until("both are dead", || !processes::is_alive(shim));
    sandbox.ok(&["start"]);
    assert_eq!((sandbox.status("one").as_str(), sandbox.init_pid("one")), ("running", init));
    sandbox.ok(&["stop", "one"]);
    if linux_is_at_least(6, 15) {
        assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
    } else {
        // Its only parents are dead, and no pidfd tells the end of what is no child.
        assert_eq!(sandbox.mysup(&["wait", "one"]).expect_code(255).text(), "255");
        assert!(sandbox.ok(&["ps", "-a"]).contains("Exited (unknown)"));
    }
}

/// Kills shim and supervisor so that neither sees the death of the other.
fn kill_both(sandbox: &Sandbox, name: &str) {
    let (shim, supervisor) = (sandbox.shim_pid(name), sandbox.supervisor());
    processes::signal(supervisor, Signal::STOP);
    processes::signal(shim, Signal::KILL);
    processes::signal(supervisor, Signal::KILL);
    wait_until("both are dead", || !processes::is_alive(shim) && !processes::is_alive(supervisor));
}

fn terminal_in_the_foreground_goes_on_when_shim_and_supervisor_die_together(sandbox: &Sandbox) {
    let line = sandbox.run_line(&["-ti", "--name", "one"], &["sh"]);
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    for round in 0..3 {
        terminal.type_keys(&format!("echo round$(({round}+10))\n"));
        terminal.wait_for(&format!("round{}", round + 10));
        let init = sandbox.init_pid("one");
        kill_both(sandbox, "one");
        // Whatever the client has done by now: what is typed is for the program.
        terminal.type_keys(&format!("echo again$(({round}+20))\n"));
        terminal.wait_for(&format!("again{}", round + 20));
        assert_eq!(sandbox.init_pid("one"), init);
        // The new supervisor holds the terminal as the old one did.
        replace_shim(sandbox, "one");
    }
    terminal.resize(31, 99);
    terminal.type_keys("stty size\n");
    terminal.wait_for("31 99");
    terminal.type_keys("exit 9\n");
    assert_eq!(terminal.wait(), Some(9));
    terminal.expect_restored();
    assert!(sandbox.ok(&["logs", "one"]).contains("again22"));
}

fn terminal_that_nobody_holds_ends_with_shim_and_supervisor_and_says_so(sandbox: &Sandbox) {
    let script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.02; done";
    sandbox.start("one", &["-dit", "--init"], script);
    wait_until("it is up", || sandbox.ok(&["logs", "one"]).contains("up"));
    kill_both(sandbox, "one");
    sandbox.ok(&["start"]);
    // Hung up: SIGHUP, and PID 1 says so.
    assert_eq!(sandbox.ok(&["wait", "one"]), "129");
}

fn ten_shims_killed_at_once_are_all_replaced(sandbox: &Sandbox) {
    let names: Vec<String> = (0..10).map(|number| format!("c{number}")).collect();
    let before: Vec<_> = names
        .iter()
        .map(|name| {
            let code = sandbox.exit_code();
            sandbox.start_obedient(name, &[], code);
            (sandbox.init_pid(name), sandbox.shim_pid(name), code)
        })
        .collect();
    for (_, shim, _) in &before {
        processes::signal(*shim, Signal::KILL);
    }
    for (name, (init, shim, code)) in names.iter().zip(before) {
        let lock = sandbox.state_directory(name).join("lock");
        wait_until("another shim has adopted the container", || {
            processes::lock_holder(&lock).is_some_and(|pid| pid != shim)
        });
        assert_eq!((sandbox.status(name).as_str(), sandbox.init_pid(name)), ("running", init), "{name}");
        sandbox.ok(&["stop", name]);
        assert_eq!(sandbox.ok(&["wait", name]), code.to_string(), "{name}");
        assert_eq!(sandbox.ok(&["logs", name]), "up", "{name}");
    }
}

/// A directory with copies of both programs.
fn installation(sandbox: &Sandbox, name: &str) -> std::path::PathBuf {
    let directory = sandbox.new_directory(name);
    let both = [command::program().to_owned(), command::program().with_file_name("mysup-shim")];
    // Not by a write of ours: a fork in another test's thread would keep the file busy for exec.
    let copied = std::process::Command::new("cp").args(both).arg(&directory).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp works");
    std::path::PathBuf::from(directory)
}

fn replacement_without_a_shim_is_refused_before_the_old_one_ends(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 7);
    let supervisor = sandbox.supervisor();
    let broken = installation(sandbox, "broken");
    std::fs::remove_file(broken.join("mysup-shim")).expect("the sandbox is ours");
    sandbox.use_program(broken.join("mysup"));
    sandbox.refused(&["start", "--replace"], 1, &["mysup-shim"]);
    assert_eq!(sandbox.supervisor(), supervisor, "it is still the old one");
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), "7");
}

fn shims_are_started_when_the_program_was_replaced_or_removed(sandbox: &Sandbox) {
    let place = installation(sandbox, "place");
    sandbox.use_program(place.join("mysup"));
    sandbox.start_obedient("one", &["--init"], 7);
    for removed in [false, true] {
        for program in ["mysup", "mysup-shim"] {
            std::fs::remove_file(place.join(program)).expect("the sandbox is ours");
        }
        if !removed {
            // What stands there now must not be run by a supervisor that does not know it.
            for program in ["mysup", "mysup-shim"] {
                std::os::unix::fs::symlink("/bin/false", place.join(program)).expect("the sandbox is ours");
            }
        }
        sandbox.use_program(command::program().to_owned());
        sandbox.run(&["--rm", "--init"], &["sh", "-c", "exit 6"]).expect_code(6);
        replace_shim(sandbox, "one");
        assert_eq!(sandbox.status("one"), "running");
        let shim = processes::stat(sandbox.shim_pid("one")).expect("it runs");
        assert_eq!(shim.program, "mysup-shim");
        assert!(
            processes::link(sandbox.shim_pid("one"), "exe")
                .is_some_and(|exe| exe.ends_with("mysup-shim (deleted)"))
        );
    }
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), "7");
    sandbox.ok(&["doctor"]);
}

fn terminal_goes_on_with_another_supervisor(sandbox: &Sandbox) {
    let line = sandbox.run_line(&["-ti", "--name", "one"], &["sh"]);
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    terminal.type_keys("echo first$((1+1))\n");
    terminal.wait_for("first2");
    let shim = sandbox.shim_pid("one");
    sandbox.ok(&["start", "--replace"]);
    terminal.type_keys("echo second$((1+1))\n");
    terminal.wait_for("second2");
    terminal.resize(31, 99);
    terminal.type_keys("stty size\n");
    terminal.wait_for("31 99");
    assert_eq!(sandbox.shim_pid("one"), shim);
    // The new supervisor holds the terminal too.
    replace_shim(sandbox, "one");
    terminal.type_keys("echo third$((1+1))\n");
    terminal.wait_for("third2");
    terminal.type_keys("exit 9\n");
    assert_eq!(terminal.wait(), Some(9));
    terminal.expect_restored();
}

fn containers_do_not_notice_a_replaced_supervisor(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let script = format!("echo up; read line; echo got $line; exit {code}");
    let line = sandbox.run_line(&["-i", "--name", "one"], &["sh", "-c", &script]);
    let mut client = sandbox.call(&line).open_input().start();
    client.wait_for("up");
    let (old, shim) = (sandbox.supervisor(), sandbox.shim_pid("one"));
    sandbox.ok(&["start", "--replace"]);
    assert_ne!(sandbox.supervisor(), old);
    assert_eq!(sandbox.shim_pid("one"), shim);
    client.write(b"hello\n");
    assert_eq!(client.wait().expect_code(code).text(), "up\ngot hello");
}
