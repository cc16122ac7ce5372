//! `create`, `start`, and what `--keep`, `--rm` and the default mean for the write layer.

use crate::harness::{Case, Sandbox, inspect, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        created_container_is_created_and_has_no_process,
        wait_for_what_never_ran_answers_at_once,
        start_runs_what_was_created,
        start_attached_prints_output_and_returns_the_code,
        start_interactive_reads_standard_input,
        start_of_running_container_succeeds,
        start_of_unknown_container_is_refused,
        write_layer_of_created_container_lives_until_rm,
        write_layer_of_kept_run_lives_until_rm,
        write_layer_of_default_run_is_fresh_at_each_start,
        mounts_and_mountpoint_of_kept_container_are_gone_after_exit,
        remove_and_keep_together_are_refused,
    ]
}

fn create<'a>(sandbox: &Sandbox, flags: &[&'a str], command: &[&'a str]) -> String {
    let image = sandbox.image();
    sandbox.ok(&[&["create"], flags, &[image], command].concat())
}

/// docker's and podman's way: it does not run, and `inspect` says 0.
fn wait_for_what_never_ran_answers_at_once(sandbox: &Sandbox) {
    create(sandbox, &["--name", "one"], &["sh", "-c", "exit 6"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), "0");
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), 0);
    assert_eq!(sandbox.status("one"), "created");
    sandbox.kill_supervisor();
    assert_eq!(sandbox.ok(&["wait", "one"]), "0");
    sandbox.ok(&["start", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), "6");
}

fn created_container_is_created_and_has_no_process(sandbox: &Sandbox) {
    let id = create(sandbox, &["--name", "one"], &["sh"]);
    assert!(crate::harness::sandbox::is_id(&id), "create prints the id, not {id:?}");
    assert_eq!(sandbox.status("one"), "created");
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.Pid"), 0);
    assert_eq!(sandbox.ok(&["ps", "-q"]), "");
    sandbox.ok(&["rm", "one"]);
    assert_eq!(sandbox.status("one"), "absent");
}

fn start_runs_what_was_created(sandbox: &Sandbox) {
    create(sandbox, &["--name", "one"], &["sh", "-c", "echo hello; exit 6"]);
    assert_eq!(sandbox.ok(&["start", "one"]), "one");
    assert_eq!(sandbox.ok(&["wait", "one"]), "6");
    assert_eq!(sandbox.ok(&["logs", "one"]), "hello");
}

fn start_attached_prints_output_and_returns_the_code(sandbox: &Sandbox) {
    create(sandbox, &["--name", "one"], &["sh", "-c", "echo hello; echo bad >&2; exit 7"]);
    let output = sandbox.mysup(&["start", "-a", "one"]).expect_code(7);
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"hello\n"[..], &b"bad\n"[..]),
        "{output}"
    );
}

fn start_interactive_reads_standard_input(sandbox: &Sandbox) {
    create(sandbox, &["--name", "one", "-i"], &["cat"]);
    let output = sandbox.call(&["start", "-a", "-i", "one"]).input("through\n").run().expect_code(0);
    assert_eq!(output.stdout, b"through\n", "{output}");
}

fn start_of_running_container_succeeds(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    let pid = sandbox.init_pid("one");
    assert_eq!(sandbox.ok(&["start", "one"]), "one");
    assert_eq!(sandbox.init_pid("one"), pid);
}

fn start_of_unknown_container_is_refused(sandbox: &Sandbox) {
    sandbox.refused(&["start", "nobody"], 1, &["no such container", "nobody"]);
}

const COUNT: &str = "echo x >> /count; wc -l < /count";

fn write_layer_of_created_container_lives_until_rm(sandbox: &Sandbox) {
    create(sandbox, &["--name", "one"], &["sh", "-c", COUNT]);
    for expected in ["1", "2", "3"] {
        assert_eq!(sandbox.ok(&["start", "-a", "one"]), expected);
    }
}

fn write_layer_of_kept_run_lives_until_rm(sandbox: &Sandbox) {
    assert_eq!(sandbox.run(&["--keep", "--name", "one"], &["sh", "-c", COUNT]).expect_code(0).text(), "1");
    assert_eq!(sandbox.ok(&["start", "-a", "one"]), "2");
    sandbox.ok(&["restart", "one"]);
    sandbox.ok(&["wait", "one"]);
    wait_until("the third line is logged", || sandbox.ok(&["logs", "one"]).ends_with('3'));
}

fn write_layer_of_default_run_is_fresh_at_each_start(sandbox: &Sandbox) {
    assert_eq!(sandbox.run(&["--name", "one"], &["sh", "-c", COUNT]).expect_code(0).text(), "1");
    assert_eq!(sandbox.ok(&["start", "-a", "one"]), "1");
}

fn mounts_and_mountpoint_of_kept_container_are_gone_after_exit(sandbox: &Sandbox) {
    sandbox.run(&["--keep", "--name", "one"], &["sh", "-c", "echo x > /file"]).expect_code(0);
    sandbox.wait_status("one", "exited");
    let id = inspect::text(&sandbox.inspect("one"), "Id");
    assert!(!sandbox.run_root().join("containers").join(&id).join("mnt").exists(), "the mountpoint is gone");
    let file = sandbox.root().join("containers").join(&id).join("upper/file");
    assert_eq!(std::fs::read(file).expect("the write layer is kept"), b"x\n");
    let names: Vec<String> =
        inspect::teardown(&sandbox.inspect("one")).into_iter().map(|step| step.name).collect();
    for step in ["processes", "rootfs", "mountpoint", "cgroups"] {
        assert!(names.iter().any(|name| name == step), "no step {step} in {names:?}");
    }
}

fn remove_and_keep_together_are_refused(sandbox: &Sandbox) {
    let image = sandbox.image();
    sandbox.refused(&["run", "--rm", "--keep", image, "true"], 125, &["--rm", "--keep"]);
}
