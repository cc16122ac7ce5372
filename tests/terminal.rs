//! `-t` and `-i`: a real terminal, its size, its end, and plain pipes.

use rustix::process::Signal;

use crate::harness::{Case, Sandbox, command::Call, processes, terminal::Terminal, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        program_sees_a_terminal_of_the_right_size,
        resize_is_seen_by_the_program,
        keys_reach_the_program_and_its_code_comes_back,
        interrupt_key_is_a_signal_of_the_programs_terminal,
        terminal_is_restored_after_exit,
        terminal_is_restored_after_term,
        detach_keys_leave_the_container_running,
        output_on_a_terminal_has_carriage_returns,
        flags_of_terminal_combine_in_every_way,
        terminal_of_restarted_container_works,
        hangup_of_the_terminal_leaves_the_container_running_or_told,
        piped_input_ends_at_its_end,
        without_interactive_the_input_is_empty,
        terminal_flag_with_piped_input_and_interactive_is_1,
        terminal_flag_alone_works_without_a_terminal,
        megabytes_through_stdin_and_stdout_are_unchanged,
        closed_stdout_of_the_client_does_not_hang,
        signals_to_the_client_reach_the_program,
        killed_client_leaves_the_container_running,
        input_of_a_detached_container_is_empty,
    ]
}

fn program_sees_a_terminal_of_the_right_size(sandbox: &Sandbox) {
    let line = sandbox.run_line(&["--rm", "-it"], &["sh", "-c", "tty; stty size; echo $TERM; exit 5"]);
    let mut terminal = Terminal::run(sandbox, &line, 33, 111);
    assert_eq!(terminal.wait(), Some(5), "{}", terminal.screen());
    let shown = terminal.screen();
    assert!(shown.contains("/dev/pts/0") || shown.contains("/dev/console"), "{shown}");
    assert!(shown.contains("33 111") && shown.contains("xterm"), "{shown}");
}

fn resize_is_seen_by_the_program(sandbox: &Sandbox) {
    let line = sandbox.run_line(
        &["--rm", "-it"],
        &["sh", "-c", "trap 'stty size; exit 6' WINCH; echo up; while :; do sleep 0.02; done"],
    );
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    terminal.wait_for("up");
    terminal.resize(50, 132);
    terminal.wait_for("50 132");
    assert_eq!(terminal.wait(), Some(6));
}

fn keys_reach_the_program_and_its_code_comes_back(sandbox: &Sandbox) {
    let line = sandbox.run_line(&["--rm", "-i", "-t"], &["sh"]);
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    terminal.wait_for("#");
    terminal.type_keys("echo $((6*7))\n");
    terminal.wait_for("42");
    terminal.type_keys("exit 23\n");
    assert_eq!(terminal.wait(), Some(23));
    terminal.expect_restored();
}

fn interrupt_key_is_a_signal_of_the_programs_terminal(sandbox: &Sandbox) {
    let line = sandbox.run_line(
        &["--rm", "-it"],
        &["sh", "-c", "trap 'exit 8' INT; echo up; while :; do sleep 0.02; done"],
    );
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    terminal.wait_for("up");
    terminal.type_keys("\x03");
    assert_eq!(terminal.wait(), Some(8));
}

fn terminal_is_restored_after_exit(sandbox: &Sandbox) {
    for script in ["exit 0", "stty raw -echo; exit 3", "kill -9 $$"] {
        let line = sandbox.run_line(&["--rm", "-it", "--init"], &["sh", "-c", script]);
        let mut terminal = Terminal::run(sandbox, &line, 24, 80);
        terminal.wait();
        terminal.expect_restored();
    }
    let line = sandbox.run_line(&["--rm", "-it"], &["no-such-program"]);
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    assert_eq!(terminal.wait(), Some(127));
    terminal.expect_restored();
}

fn terminal_is_restored_after_term(sandbox: &Sandbox) {
    let line = sandbox.run_line(
        &["--rm", "-it"],
        &["sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.02; done"],
    );
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    terminal.wait_for("up");
    assert!(terminal.is_raw(), "keys go through unchanged while it runs");
    terminal.signal(Signal::TERM);
    terminal.wait();
    terminal.expect_restored();
}

fn detach_keys_leave_the_container_running(sandbox: &Sandbox) {
    let line = sandbox.run_line(&["--name", "one", "-it"], &["sh"]);
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    terminal.wait_for("#");
    terminal.type_keys("\x10\x11");
    assert_eq!(terminal.wait(), Some(0));
    terminal.expect_restored();
    assert_eq!(sandbox.status("one"), "running");
}

fn output_on_a_terminal_has_carriage_returns(sandbox: &Sandbox) {
    let line = sandbox.run_line(&["--rm", "-it"], &["sh", "-c", "echo out; echo err >&2"]);
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    assert_eq!(terminal.wait(), Some(0));
    wait_until("all is on the screen", || terminal.screen().contains("out\r\nerr\r\n"));
}

fn flags_of_terminal_combine_in_every_way(sandbox: &Sandbox) {
    for flags in [&["-t", "-i"][..], &["-ti"], &["-it"], &["-i", "-t"], &["--tty", "--interactive"]] {
        let line = sandbox.run_line(&[&["--rm"], flags].concat(), &["tty"]);
        let mut terminal = Terminal::run(sandbox, &line, 24, 80);
        assert_eq!(terminal.wait(), Some(0), "{flags:?}: {}", terminal.screen());
    }
    let line = sandbox.run_line(&["-dit", "--name", "one"], &["sh"]);
    sandbox.ok(&line);
    assert_eq!(sandbox.status("one"), "running", "-dit keeps a shell alive");
}

fn terminal_of_restarted_container_works(sandbox: &Sandbox) {
    let image = sandbox.image();
    sandbox.ok(&[
        "create",
        "-it",
        "--name",
        "one",
        image,
        "sh",
        "-c",
        "until [ \"$(stty size)\" = '31 99' ]; do sleep 0.02; done; exit 4",
    ]);
    for _ in 0..2 {
        let mut terminal = Terminal::run(sandbox, &["start", "-a", "-i", "one"], 31, 99);
        assert_eq!(terminal.wait(), Some(4), "{}", terminal.screen());
        terminal.expect_restored();
    }
}

fn hangup_of_the_terminal_leaves_the_container_running_or_told(sandbox: &Sandbox) {
    let line = sandbox.run_line(
        &["--name", "one", "-it"],
        &["sh", "-c", "trap 'exit 12' HUP; echo up; while :; do sleep 0.02; done"],
    );
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    terminal.wait_for("up");
    terminal.signal(Signal::KILL);
    terminal.wait();
    assert_eq!(sandbox.status("one"), "running", "the death of a client is not a hangup");
}

fn piped_input_ends_at_its_end(sandbox: &Sandbox) {
    let line = sandbox.run_line(&["-i"], &["cat"]);
    let output = sandbox.call(&line).input("x\n").run().expect_code(0);
    assert_eq!(output.stdout, b"x\n", "{output}");
    let line = sandbox.run_line(&["--rm", "-i"], &["sh", "-c", "cat | wc -c; exit 3"]);
    assert_eq!(sandbox.call(&line).input("12345").run().expect_code(3).text(), "5");
    assert_eq!(sandbox.call(&line).input("").run().expect_code(3).text(), "0");
}

fn without_interactive_the_input_is_empty(sandbox: &Sandbox) {
    let line = sandbox.run_line(&["--rm"], &["wc", "-c"]);
    assert_eq!(sandbox.call(&line).input("not for you").run().expect_code(0).text(), "0");
}

fn terminal_flag_with_piped_input_and_interactive_is_1(sandbox: &Sandbox) {
    let line = sandbox.run_line(&["--rm", "-it"], &["true"]);
    let output = sandbox.call(&line).input("x").run().expect_refusal(1, &["tty"]);
    assert!(output.errors().contains("TTY"), "{output}");
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
}

fn terminal_flag_alone_works_without_a_terminal(sandbox: &Sandbox) {
    let output = sandbox.run(&["--rm", "-t"], &["sh", "-c", "tty; exit 2"]).expect_code(2);
    assert!(output.text().starts_with("/dev/"), "{output}");
}

fn megabytes_through_stdin_and_stdout_are_unchanged(sandbox: &Sandbox) {
    let bytes: Vec<u8> =
        (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    let line = sandbox.run_line(&["--rm", "-i"], &["cat"]);
    let output = sandbox.call(&line).input(bytes.clone()).run();
    assert!(
        output.code == 0 && output.stdout == bytes,
        "{} of {} bytes came back",
        output.stdout.len(),
        bytes.len()
    );
}

fn closed_stdout_of_the_client_does_not_hang(sandbox: &Sandbox) {
    let image = sandbox.image();
    let program = crate::harness::command::program().display();
    let script = format!("'{program}' run --rm {image} sh -c 'seq 1 100000; exit 0' | head -n 1");
    let mut call = Call::new(std::path::Path::new("bash"), ["-c", &script]);
    for (name, value) in sandbox.environment() {
        call = call.env(name, value);
    }
    assert_eq!(call.ok(), "1");
}

fn signals_to_the_client_reach_the_program(sandbox: &Sandbox) {
    for (signal, name, code) in [
        (Signal::TERM, "TERM", 5),
        (Signal::INT, "INT", 6),
        (Signal::HUP, "HUP", 7),
        (Signal::USR1, "USR1", 8),
        (Signal::QUIT, "QUIT", 9),
    ] {
        let script = format!("trap 'exit {code}' {name}; echo up; while :; do sleep 0.02; done");
        let line = sandbox.run_line(&["--rm"], &["sh", "-c", &script]);
        let mut client = sandbox.call(&line).start();
        client.wait_for("up");
        client.signal(signal);
        client.wait().expect_code(code);
    }
}

fn killed_client_leaves_the_container_running(sandbox: &Sandbox) {
    let line = sandbox.run_line(
        &["--name", "one"],
        &["sh", "-c", "trap 'exit 14' TERM; echo up; while :; do echo x; sleep 0.02; done"],
    );
    let mut client = sandbox.call(&line).start();
    client.wait_for("up");
    client.signal(Signal::KILL);
    let pid = client.pid();
    client.wait();
    wait_until("the client is dead", || !processes::is_alive(pid));
    assert_eq!(sandbox.status("one"), "running");
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), "14");
}

fn input_of_a_detached_container_is_empty(sandbox: &Sandbox) {
    sandbox.start("one", &[], "wc -c; exit 4");
    assert_eq!(sandbox.ok(&["wait", "one"]), "4");
    assert_eq!(sandbox.ok(&["logs", "one"]), "0");
}
