//! The command line: its flags in every spelling, its files, its exit codes.

use std::fs;

use crate::harness::{Case, Sandbox, inspect, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        flags_stop_at_the_image,
        boolean_flags_take_false,
        h_is_hostname_in_run,
        entrypoint_replaces_and_clears,
        cidfile_has_the_id_without_newline,
        cidfile_that_exists_is_refused,
        cidfile_of_a_refused_run_is_not_left,
        labels_are_kept_and_shown,
        detached_run_prints_nothing_else,
        run_of_a_missing_image_leaves_no_cidfile_and_no_volume,
        foreground_run_prints_nothing_of_ours,
        storage_driver_overlay_works,
        storage_driver_aufs_works_or_is_refused,
        init_reaps_orphans_and_forwards_signals,
        stop_works_at_once_with_init,
        stop_timeout_minus_one_waits,
        read_only_root_can_be_started,
        two_containers_do_not_share_a_write_layer,
        output_to_a_full_device_is_an_error,
        data_goes_to_stdout_and_messages_to_stderr,
    ]
}

fn flags_stop_at_the_image(sandbox: &Sandbox) {
    let output = sandbox.run(&["--rm"], &["echo", "--rm", "-it", "--no-such-flag"]).expect_code(0);
    assert_eq!(output.text(), "--rm -it --no-such-flag");
}

fn boolean_flags_take_false(sandbox: &Sandbox) {
    sandbox.run(&["--rm=false", "--tty=false", "--init=false", "--name", "one"], &["true"]).expect_code(0);
    assert_eq!(sandbox.status("one"), "exited");
    sandbox.run(&["--rm=true", "--name", "two"], &["true"]).expect_code(0);
    assert_eq!(sandbox.status("two"), "absent");
}

fn h_is_hostname_in_run(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&["-h", "box"], "hostname"), "box");
    let output = sandbox.mysup(&["run", "--help"]).expect_code(0);
    assert!(output.text().contains("Usage"), "{output}");
}

fn entrypoint_replaces_and_clears(sandbox: &Sandbox) {
    let output = sandbox.run(&["--rm", "--entrypoint", "echo"], &["a", "b"]).expect_code(0);
    assert_eq!(output.text(), "a b");
    let output = sandbox.run(&["--rm", "--entrypoint", ""], &["echo", "c"]).expect_code(0);
    assert_eq!(output.text(), "c");
    sandbox.run(&["--name", "one", "--entrypoint", "/bin/echo"], &["x"]).expect_code(0);
    let container = sandbox.inspect("one");
    assert_eq!(container["Path"], "/bin/echo");
    assert_eq!(container["Args"][0], "x");
}

fn cidfile_has_the_id_without_newline(sandbox: &Sandbox) {
    let file = sandbox.place("id").to_string_lossy().into_owned();
    let id = sandbox.run(&["-d", "--cidfile", &file], &["sleep", "1000"]).expect_code(0).text();
    assert_eq!(fs::read_to_string(&file).expect("it was written"), id);
}

fn cidfile_that_exists_is_refused(sandbox: &Sandbox) {
    let file = sandbox.place("id");
    fs::write(&file, "mine").expect("the sandbox is ours");
    let text = file.to_string_lossy().into_owned();
    let line = sandbox.run_line(&["--rm", "--cidfile", &text], &["true"]);
    sandbox.refused(&line, 125, &["id file", &text]);
    assert_eq!(fs::read(&file).expect("it is there"), b"mine");
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
}

fn cidfile_of_a_refused_run_is_not_left(sandbox: &Sandbox) {
    let file = sandbox.place("id").to_string_lossy().into_owned();
    let line = sandbox.run_line(&["--rm", "--cidfile", &file, "-v", "/tmp:relative"], &["true"]);
    sandbox.refused(&line, 125, &[]);
    let left = fs::read(&file).unwrap_or_default();
    assert!(left.is_empty(), "it names a container that never was");
}

fn labels_are_kept_and_shown(sandbox: &Sandbox) {
    sandbox.start("one", &["--label", "a=1", "-l", "b", "--label", "c=x=y"], "sleep 1000");
    let container = sandbox.inspect("one");
    let labels = &container["Config"]["Labels"];
    assert_eq!(
        (labels["a"].as_str(), labels["b"].as_str(), labels["c"].as_str()),
        (Some("1"), Some(""), Some("x=y"))
    );
    sandbox.start("two", &["--label", "a=2"], "sleep 1000");
    assert_eq!(sandbox.ok(&["ps", "--filter", "label=a=1", "--format", "{{.Names}}"]), "one");
    assert_eq!(sandbox.ok(&["ps", "--filter", "label=a", "-q"]).lines().count(), 2);
    assert_eq!(sandbox.ok(&["ps", "--filter", "label=b", "--format", "{{.Names}}"]), "one");
}

fn detached_run_prints_nothing_else(sandbox: &Sandbox) {
    let output = sandbox.run(&["-d"], &["echo", "hello"]).expect_code(0);
    assert!(output.stderr.is_empty() && output.stdout.len() == 65, "{output}");
}

fn run_of_a_missing_image_leaves_no_cidfile_and_no_volume(sandbox: &Sandbox) {
    let (file, volume) = (sandbox.place("id"), sandbox.place("v"));
    let (id, v) = (file.to_string_lossy().into_owned(), format!("{}:/v", volume.display()));
    sandbox.refused(&["run", "--cidfile", &id, "-v", &v, "nosuchimage", "true"], 125, &["nosuchimage"]);
    assert!(fs::read(&file).unwrap_or_default().is_empty());
    assert!(!volume.exists());
}

fn foreground_run_prints_nothing_of_ours(sandbox: &Sandbox) {
    for code in [0, 1, 125, 126, 127] {
        let output = sandbox.run(&["--rm"], &["sh", "-c", &format!("exit {code}")]).expect_code(code);
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output}");
    }
}

fn storage_driver_overlay_works(sandbox: &Sandbox) {
    let output = sandbox.sh(&["--storage-driver", "overlay"], "grep ' / ' /proc/mounts");
    assert!(output.contains(" overlay "), "{output}");
}

fn storage_driver_aufs_works_or_is_refused(sandbox: &Sandbox) {
    let known = fs::read_to_string("/proc/filesystems").expect("Linux").contains("aufs");
    let line = sandbox.run_line(&["--rm", "--storage-driver", "aufs"], &["true"]);
    if known {
        sandbox.ok(&line);
    } else {
        sandbox.refused(&line, 125, &["aufs"]);
    }
}

fn init_reaps_orphans_and_forwards_signals(sandbox: &Sandbox) {
    let script = "trap 'exit 31' TERM; i=0; while [ $i -lt 20 ]; do (sleep 0.01 &) ; i=$((i+1)); done; \
        echo up; while :; do sleep 0.02; done";
    sandbox.start("one", &["--init"], script);
    wait_until("it is up", || sandbox.ok(&["logs", "one"]) == "up");
    let init = sandbox.init_pid("one");
    wait_until("no zombie is left inside", || {
        let zombies = crate::harness::processes::children(init);
        zombies.iter().all(|(_, stat)| stat.state != 'Z')
    });
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), "31");
}

fn stop_works_at_once_with_init(sandbox: &Sandbox) {
    sandbox.start("one", &["--init"], "exec sleep 1000");
    wait_until("it sleeps", || sandbox.ok(&["top", "one"]).contains("sleep 1000"));
    sandbox.ok(&["stop", "-t", "30", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), "143");
}

fn stop_timeout_minus_one_waits(sandbox: &Sandbox) {
    let gate = sandbox.new_directory("gate");
    let script = "trap 'until [ -e /gate/open ]; do sleep 0.02; done; exit 6' TERM; echo up; while :; do sleep 0.02; done";
    sandbox.start("one", &["-v", &format!("{gate}:/gate")], script);
    wait_until("it is up", || sandbox.ok(&["logs", "one"]) == "up");
    let stopping = sandbox.call(&["stop", "-t", "-1", "one"]).start();
    fs::write(sandbox.place("gate/open"), "").expect("the sandbox is ours");
    stopping.wait().expect_code(0);
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), 6);
}

fn read_only_root_can_be_started(sandbox: &Sandbox) {
    let script = "(echo x > /file) 2>/dev/null || echo refused; grep ' / ' /proc/mounts";
    let output = sandbox.sh(&["--read-only"], script);
    assert!(output.starts_with("refused") && output.contains(" ro"), "{output}");
}

fn two_containers_do_not_share_a_write_layer(sandbox: &Sandbox) {
    sandbox.start("one", &[], "echo one > /file; echo up; sleep 1000");
    sandbox.start("two", &[], "echo two > /file; echo up; sleep 1000");
    for name in ["one", "two"] {
        wait_until("it is up", || sandbox.ok(&["logs", name]) == "up");
        let root = format!("/proc/{}/root/file", sandbox.init_pid(name));
        assert_eq!(fs::read_to_string(root).expect("it was written"), format!("{name}\n"));
    }
    assert_eq!(sandbox.sh(&[], "ls /file 2>/dev/null; true"), "");
}

fn output_to_a_full_device_is_an_error(sandbox: &Sandbox) {
    let program = crate::harness::command::program().display();
    let script = format!("'{program}' images > /dev/full");
    let mut call = crate::harness::command::Call::new(std::path::Path::new("bash"), ["-c", &script]);
    for (name, value) in sandbox.environment() {
        call = call.env(name, value);
    }
    sandbox.image();
    let output = call.run();
    assert!(output.code != 0 && !output.errors().contains("panicked"), "{output}");
}

fn data_goes_to_stdout_and_messages_to_stderr(sandbox: &Sandbox) {
    let output = sandbox.mysup(&["inspect", "nobody"]).expect_code(1);
    assert_eq!(output.text(), "[]");
    assert!(output.errors().contains("nobody"), "{output}");
    let output = sandbox.mysup(&["wait", "nobody"]).expect_code(1);
    assert!(
        output.stdout.is_empty() && output.errors().to_lowercase().contains("no such container"),
        "{output}"
    );
}
