//! The supervisor's own life: one for each root, started when needed, gone without harm.

use std::os::unix::net::UnixDatagram;

use crate::harness::{
    Case, Sandbox,
    command::{self, Call},
    leaks, processes, wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        start_returns_when_it_answers,
        second_start_is_refused_and_names_the_first,
        second_start_in_the_foreground_is_refused_too,
        every_verb_starts_it_when_none_runs,
        fifty_verbs_at_once_start_one,
        foreground_tells_the_service_manager_when_it_is_ready,
        term_ends_it_and_leaves_the_containers,
        shutdown_leaves_the_containers_running,
        shutdown_with_containers_stops_them,
        shutdown_when_none_runs_succeeds,
        two_instances_do_not_see_each_other,
        roots_by_flag_and_by_variable_are_the_same,
        flag_wins_over_variable,
        info_tells_where_it_is,
        version_is_printed_by_both_spellings,
        help_names_every_verb,
        help_of_run_names_every_flag,
        socket_left_by_a_killed_one_is_no_obstacle,
        lock_is_free_after_a_kill,
        shim_is_found_in_libexec,
        missing_shim_is_told_in_one_line,
        shim_is_linked_statically,
        started_supervisor_does_not_hold_the_callers_directory_or_output,
        root_that_cannot_be_made_is_refused_in_one_line,
        root_that_is_too_long_for_a_socket_works_or_is_refused_in_one_line,
        no_overlayfs_is_told_in_one_line,
    ]
}

fn start_returns_when_it_answers(sandbox: &Sandbox) {
    sandbox.ok(&["start"]);
    let pid = sandbox.supervisor_pid().expect("it runs");
    sandbox.ok(&["ps"]);
    assert_eq!(sandbox.supervisor_pid(), Some(pid), "ps used the one that start started");
}

fn second_start_is_refused_and_names_the_first(sandbox: &Sandbox) {
    sandbox.ok(&["start"]);
    let pid = sandbox.supervisor_pid().expect("it runs").to_string();
    sandbox.refused(&["start"], 1, &[&pid]);
    assert_eq!(sandbox.supervisor_pid().map(|pid| pid.to_string()), Some(pid));
}

fn second_start_in_the_foreground_is_refused_too(sandbox: &Sandbox) {
    sandbox.ok(&["start"]);
    let pid = sandbox.supervisor_pid().expect("it runs").to_string();
    let output = sandbox.mysup(&["start", "--foreground"]).expect_code(1);
    assert!(output.errors().contains(&pid), "{output}");
}

fn every_verb_starts_it_when_none_runs(sandbox: &Sandbox) {
    sandbox.image();
    for line in [
        &["ps"][..],
        &["images"],
        &["info"],
        &["run", "--rm", "busybox", "true"],
        &["run", "-d", "--name", "one", "busybox", "true"],
        &["wait", "one"],
        &["logs", "one"],
        &["inspect", "one"],
        &["stop", "one"],
        &["rename", "one", "two"],
        &["start", "two"],
        &["restart", "two"],
        &["rm", "-f", "two"],
        &["create", "--name", "three", "busybox", "true"],
    ] {
        sandbox.ok(&["shutdown"]);
        wait_until(&format!("it is gone before {line:?}"), || sandbox.supervisor_pid().is_none());
        sandbox.ok(line);
    }
}

fn fifty_verbs_at_once_start_one(sandbox: &Sandbox) {
    let clients: Vec<_> = (0..50).map(|_| sandbox.call(&["ps", "-q"]).start()).collect();
    clients.into_iter().for_each(|client| drop(client.wait().expect_code(0)));
    let found: Vec<i32> = processes::bearing(&[sandbox.mark()])
        .into_iter()
        .filter(|pid| processes::link(*pid, "exe").is_some_and(|exe| exe.ends_with("/mysup")))
        .collect();
    assert_eq!(found.len(), 1, "{:?}", found.iter().map(|pid| processes::describe(*pid)).collect::<Vec<_>>());
}

fn foreground_tells_the_service_manager_when_it_is_ready(sandbox: &Sandbox) {
    let path = sandbox.place("notify");
    let socket = UnixDatagram::bind(&path).expect("the sandbox is ours");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("it is a socket");
    let mut daemon = sandbox.call(&["start", "--foreground"]).env("NOTIFY_SOCKET", &path).start();
    let mut buffer = [0; 512];
    let size = socket.recv(&mut buffer).expect("READY=1 arrives");
    let text = String::from_utf8_lossy(&buffer[..size]).into_owned();
    assert!(text.contains("READY=1"), "{text}");
    assert!(daemon.is_running());
    sandbox.ok(&["ps"]);
    sandbox.ok(&["shutdown"]);
    daemon.wait().expect_code(0);
}

fn term_ends_it_and_leaves_the_containers(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    let (supervisor, init) = (sandbox.supervisor(), sandbox.init_pid("one"));
    processes::signal(supervisor, rustix::process::Signal::TERM);
    wait_until("it has ended", || !processes::is_alive(supervisor));
    assert!(processes::is_alive(init));
    assert_eq!(sandbox.status("one"), "running");
}

fn shutdown_leaves_the_containers_running(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    let init = sandbox.init_pid("one");
    let supervisor = sandbox.supervisor();
    sandbox.ok(&["shutdown"]);
    wait_until("the supervisor is gone", || !processes::is_alive(supervisor));
    assert!(processes::is_alive(init));
    assert_eq!(sandbox.ok(&["ps", "-q", "--no-trunc"]), id);
    assert_eq!(sandbox.init_pid("one"), init);
}

fn shutdown_with_containers_stops_them(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 21);
    sandbox.start_obedient("two", &["--rm"], 22);
    let inits = [sandbox.init_pid("one"), sandbox.init_pid("two")];
    sandbox.ok(&["shutdown", "--containers"]);
    assert!(inits.iter().all(|init| !processes::is_alive(*init)));
    wait_until("the supervisor is gone", || sandbox.supervisor_pid().is_none());
    assert_eq!(sandbox.ok(&["wait", "one"]), "21");
    assert_eq!(sandbox.status("two"), "absent");
}

fn shutdown_when_none_runs_succeeds(sandbox: &Sandbox) {
    sandbox.mysup(&["shutdown"]).expect_code(0);
    assert!(sandbox.supervisor_pid().is_none(), "shutdown does not start one");
}

fn two_instances_do_not_see_each_other(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    let (root, run_root) = (sandbox.place("s2"), sandbox.place("r2"));
    let (root, run_root) = (root.to_string_lossy().into_owned(), run_root.to_string_lossy().into_owned());
    let other = |arguments: &[&str]| {
        sandbox.mysup(&[&["--root", &root, "--run-root", &run_root], arguments].concat())
    };
    assert_eq!(other(&["ps", "-a", "-q"]).expect_code(0).text(), "");
    assert_eq!(other(&["images", "-q"]).expect_code(0).text(), "");
    let tar = crate::harness::image::tar_path(crate::harness::sandbox::base()).to_string_lossy().into_owned();
    other(&["run", "-d", "--name", "one", &tar, "sleep", "1000"]).expect_code(0);
    assert_eq!(sandbox.ok(&["ps", "-q"]).lines().count(), 1);
    other(&["rm", "-f", "one"]).expect_code(0);
    assert_eq!(sandbox.status("one"), "running");
    other(&["shutdown", "--containers"]).expect_code(0);
    sandbox.ok(&["ps"]);
    assert_eq!(sandbox.status("one"), "running");
}

fn roots_by_flag_and_by_variable_are_the_same(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    let (root, run_root) = (sandbox.root(), sandbox.run_root());
    let arguments =
        ["--root", &root.to_string_lossy(), "--run-root", &run_root.to_string_lossy(), "ps", "-q"]
            .map(str::to_owned);
    let output = Call::new(command::program(), arguments).run().expect_code(0);
    assert_eq!(output.text(), sandbox.ok(&["ps", "-q"]));
}

fn flag_wins_over_variable(sandbox: &Sandbox) {
    let call = sandbox.call(&[
        "--root",
        &sandbox.root().to_string_lossy(),
        "--run-root",
        &sandbox.run_root().to_string_lossy(),
        "info",
    ]);
    call.env("MYSUP_ROOT", "/proc/no").env("MYSUP_RUN_ROOT", "/proc/no").ok();
}

fn info_tells_where_it_is(sandbox: &Sandbox) {
    let text = sandbox.ok(&["info"]);
    for word in
        [&sandbox.root().to_string_lossy(), &sandbox.run_root().to_string_lossy(), &*"overlay".to_owned()]
    {
        assert!(text.contains(word as &str), "no {word} in {text}");
    }
    let json = sandbox.ok(&["info", "--format", "json"]);
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert!(value.is_object(), "{json}");
}

fn version_is_printed_by_both_spellings(sandbox: &Sandbox) {
    for line in [&["version"][..], &["--version"]] {
        assert!(sandbox.ok(line).contains("0.1.0"), "{line:?}");
    }
}

fn help_names_every_verb(sandbox: &Sandbox) {
    let text = sandbox.ok(&["--help"]);
    for verb in [
        "run", "create", "start", "stop", "kill", "restart", "wait", "rm", "rename", "ps", "logs", "inspect",
        "top", "import", "images", "rmi", "info", "version", "shutdown",
    ] {
        assert!(text.split_whitespace().any(|word| word == verb), "no {verb} in {text}");
    }
}

fn help_of_run_names_every_flag(sandbox: &Sandbox) {
    let text = sandbox.ok(&["run", "--help"]);
    for flag in [
        "--tty",
        "--interactive",
        "--detach",
        "--name",
        "--rm",
        "--keep",
        "--volume",
        "--mount",
        "--tmpfs",
        "--read-only",
        "--env",
        "--env-file",
        "--workdir",
        "--user",
        "--hostname",
        "--entrypoint",
        "--init",
        "--stop-signal",
        "--stop-timeout",
        "--cidfile",
        "--label",
        "--memory",
        "--memory-swap",
        "--cpus",
        "--cpu-shares",
        "--cpuset-cpus",
        "--pids-limit",
        "--ulimit",
        "--cap-add",
        "--cap-drop",
        "--privileged",
        "--security-opt",
        "--network",
        "--storage-driver",
        "--rootfs",
        "--log-opt",
    ] {
        assert!(text.contains(flag), "no {flag} in {text}");
    }
}

fn socket_left_by_a_killed_one_is_no_obstacle(sandbox: &Sandbox) {
    sandbox.ok(&["start"]);
    sandbox.kill_supervisor();
    assert!(sandbox.run_root().join("mysup.sock").exists(), "a killed one leaves it");
    sandbox.ok(&["start"]);
    sandbox.ok(&["shutdown"]);
    let left = leaks::find(sandbox);
    assert!(left.iter().all(|line| line.starts_with("file")), "{left:?}");
}

fn lock_is_free_after_a_kill(sandbox: &Sandbox) {
    for _ in 0..10 {
        sandbox.ok(&["start"]);
        sandbox.kill_supervisor();
    }
}

fn copy_program(sandbox: &Sandbox, name: &str) -> std::path::PathBuf {
    let path = sandbox.place(name);
    std::fs::create_dir_all(path.parent().expect("it is below the sandbox")).expect("the sandbox is ours");
    std::fs::copy(command::program(), &path).expect("mysup is built");
    path
}

fn shim_is_found_in_libexec(sandbox: &Sandbox) {
    let program = copy_program(sandbox, "prefix/bin/mysup");
    std::fs::create_dir_all(sandbox.place("prefix/libexec/mysup")).expect("the sandbox is ours");
    let shim = command::program().with_file_name("mysup-shim");
    std::fs::copy(shim, sandbox.place("prefix/libexec/mysup/mysup-shim")).expect("the shim is built");
    sandbox.use_program(program);
    sandbox.run(&["--rm"], &["sh", "-c", "exit 3"]).expect_code(3);
}

fn missing_shim_is_told_in_one_line(sandbox: &Sandbox) {
    sandbox.use_program(copy_program(sandbox, "alone/bin/mysup"));
    let tar = crate::harness::image::tar_path(crate::harness::sandbox::base()).to_string_lossy().into_owned();
    let output = sandbox.mysup(&["run", "--rm", &tar, "true"]);
    assert!(output.code == 125 && output.errors().contains("mysup-shim"), "{output}");
}

fn shim_is_linked_statically(_: &Sandbox) {
    let shim = std::fs::read(command::program().with_file_name("mysup-shim")).expect("the shim is built");
    let interpreter = b"/lib64/ld-linux-x86-64.so.2";
    assert!(
        !shim.windows(interpreter.len()).any(|window| window == interpreter),
        "it wants a dynamic loader"
    );
}

fn started_supervisor_does_not_hold_the_callers_directory_or_output(sandbox: &Sandbox) {
    let directory = sandbox.new_directory("here");
    sandbox.call(&["ps"]).directory(&directory).run().expect_code(0);
    let pid = sandbox.supervisor();
    assert_eq!(processes::link(pid, "cwd").as_deref(), Some("/"));
    for number in 0..3 {
        let target = processes::link(pid, &format!("fd/{number}")).unwrap_or_default();
        assert!(!target.starts_with("pipe:"), "descriptor {number} is {target}");
    }
}

fn root_that_cannot_be_made_is_refused_in_one_line(sandbox: &Sandbox) {
    std::fs::write(sandbox.place("file"), "").expect("the sandbox is ours");
    let path = sandbox.place("file/root").to_string_lossy().into_owned();
    let run_root = sandbox.run_root().to_string_lossy().into_owned();
    let blocking = sandbox.place("file").to_string_lossy().into_owned();
    let roots = ["--root", &path, "--run-root", &run_root];
    sandbox.refused(&[&roots[..], &["ps"]].concat(), 1, &[&blocking]);
    sandbox.refused(&[&roots[..], &["run", "busybox", "true"]].concat(), 125, &[&blocking]);
}

fn root_that_is_too_long_for_a_socket_works_or_is_refused_in_one_line(sandbox: &Sandbox) {
    let long = sandbox.place(&"x".repeat(120)).to_string_lossy().into_owned();
    let root = format!("{long}/s");
    let run_root = format!("{long}/r");
    let line = ["--root", &root, "--run-root", &run_root];
    let output = sandbox.mysup(&[&line[..], &["ps"]].concat());
    if output.code == 0 {
        sandbox.ok(&[&line[..], &["shutdown", "--containers"]].concat());
    } else {
        output.expect_refusal(1, &["long"]);
    }
}

fn no_overlayfs_is_told_in_one_line(sandbox: &Sandbox) {
    // The kernel has it, so the call that asks for it is made to fail.
    let image = sandbox.image();
    sandbox.ok(&["shutdown"]);
    let flags = ["-e", "trace=fsopen,mount", "-e", "inject=fsopen:error=ENODEV:when=1"].map(str::to_owned);
    crate::harness::trace::wrap_shim(
        sandbox,
        &flags,
        &sandbox.place("trace"),
        crate::harness::trace::Traced::Every,
    );
    let output = sandbox.mysup(&["run", "--rm", image, "true"]);
    assert!(output.code == 125 && output.errors().lines().count() == 1, "{output}");
    assert!(output.errors().to_lowercase().contains("overlay"), "{output}");
    sandbox.ok(&["shutdown"]);
}
