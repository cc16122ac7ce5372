//! What cannot be run, and every other bad input of the issue: one clear line, the documented code, nothing left.

use crate::harness::{Case, Sandbox, leaks};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        missing_program_is_127,
        missing_absolute_program_is_127,
        directory_as_program_is_126,
        file_without_x_bit_is_126,
        file_with_unknown_format_is_126,
        dangling_link_as_program_is_127,
        interpreter_that_is_missing_is_127,
        program_is_looked_up_in_the_path_of_the_container,
        empty_command_is_refused,
        unknown_image_is_125,
        bad_image_names_are_125,
        unknown_flag_is_125_for_every_verb,
        missing_arguments_are_1,
        unknown_verb_is_1,
        missing_program_of_detached_run_is_127_and_leaves_nothing_running,
        stored_code_of_a_failed_start_is_that_of_run,
        bad_values_of_run_are_125,
        failed_run_leaves_nothing,
        run_on_a_full_disk_is_refused_and_leaves_nothing,
        not_root_is_refused_in_one_line,
    ]
}

fn refused_run(sandbox: &Sandbox, flags: &[&str], command: &[&str], code: i32, words: &[&str]) {
    let line = sandbox.run_line(&[&["--rm"], flags].concat(), command);
    sandbox.refused(&line, code, words);
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "", "a refused run leaves no container");
}

fn missing_program_is_127(sandbox: &Sandbox) {
    refused_run(sandbox, &[], &["no-such-program"], 127, &["no-such-program", "not found"]);
}

fn missing_absolute_program_is_127(sandbox: &Sandbox) {
    refused_run(sandbox, &[], &["/no/such/program"], 127, &["/no/such/program"]);
}

fn directory_as_program_is_126(sandbox: &Sandbox) {
    refused_run(sandbox, &[], &["/bin"], 126, &["/bin"]);
    refused_run(sandbox, &[], &["/"], 126, &["/"]);
}

fn file_without_x_bit_is_126(sandbox: &Sandbox) {
    refused_run(sandbox, &[], &["/etc/plain"], 126, &["/etc/plain", "permission denied"]);
}

fn file_with_unknown_format_is_126(sandbox: &Sandbox) {
    let directory = sandbox.new_directory("v");
    let file = sandbox.place("v/noise");
    std::fs::write(&file, b"\x01\x02\x03\x04 no program at all").expect("the sandbox is ours");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("the sandbox is ours");
    refused_run(sandbox, &["-v", &format!("{directory}:/v")], &["/v/noise"], 126, &["/v/noise"]);
}

fn dangling_link_as_program_is_127(sandbox: &Sandbox) {
    let directory = sandbox.new_directory("v");
    std::os::unix::fs::symlink("/nowhere", sandbox.place("v/link")).expect("the sandbox is ours");
    refused_run(sandbox, &["-v", &format!("{directory}:/v")], &["/v/link"], 127, &["/v/link"]);
}

fn interpreter_that_is_missing_is_127(sandbox: &Sandbox) {
    let directory = sandbox.new_directory("v");
    let file = sandbox.place("v/script");
    std::fs::write(&file, "#!/no/interpreter\n").expect("the sandbox is ours");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("the sandbox is ours");
    refused_run(sandbox, &["-v", &format!("{directory}:/v")], &["/v/script"], 127, &["/v/script"]);
}

fn program_is_looked_up_in_the_path_of_the_container(sandbox: &Sandbox) {
    let directory = sandbox.new_directory("v");
    let file = sandbox.place("v/special");
    std::fs::write(&file, "#!/bin/sh\necho from $0\n").expect("the sandbox is ours");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("the sandbox is ours");
    let volume = format!("{directory}:/v");
    let output =
        sandbox.run(&["--rm", "-v", &volume, "-e", "PATH=/nowhere:/v:/bin"], &["special"]).expect_code(0);
    assert_eq!(output.text(), "from /v/special");
    refused_run(sandbox, &["-v", &volume], &["special"], 127, &["special"]);
}

fn empty_command_is_refused(sandbox: &Sandbox) {
    refused_run(sandbox, &[], &[], 125, &["command"]);
    refused_run(sandbox, &[], &[""], 127, &[]);
}

fn unknown_image_is_125(sandbox: &Sandbox) {
    sandbox.refused(&["run", "--rm", "nosuchimage", "true"], 125, &["nosuchimage", "image"]);
    sandbox.refused(&["run", "--rm", "./nosuch.tar", "true"], 125, &["nosuch.tar"]);
}

fn bad_image_names_are_125(sandbox: &Sandbox) {
    for name in ["UPPER CASE", "a b", "", "-x:", "../../etc", "/", "."] {
        let output = sandbox.mysup(&["run", "--rm", "--", name, "true"]);
        assert!(output.code == 125 && !output.stderr.is_empty(), "image {name:?}\n{output}");
    }
}

fn unknown_flag_is_125_for_every_verb(sandbox: &Sandbox) {
    let verbs = [
        "run", "create", "start", "stop", "kill", "restart", "wait", "rm", "rename", "ps", "logs", "inspect",
        "top", "import", "images", "rmi", "info", "version", "shutdown",
    ];
    for verb in verbs {
        let output = sandbox.mysup(&[verb, "--no-such-flag", "x", "y"]).expect_code(125);
        assert!(output.errors().contains("--no-such-flag") && output.stdout.is_empty(), "{output}");
    }
    sandbox.refused(&["run", "--no-such-flag", "x"], 125, &["--no-such-flag"]);
}

fn missing_arguments_are_1(sandbox: &Sandbox) {
    for verb in [
        "run", "create", "stop", "kill", "restart", "wait", "rm", "rename", "logs", "inspect", "top",
        "import", "rmi",
    ] {
        let output = sandbox.mysup(&[verb]);
        let wanted = if verb == "run" || verb == "create" { [1, 125] } else { [1, 1] };
        assert!(wanted.contains(&output.code) && !output.stderr.is_empty(), "expected {wanted:?}\n{output}");
        assert!(output.stdout.is_empty() && !output.errors().contains("panicked"), "{output}");
    }
}

fn unknown_verb_is_1(sandbox: &Sandbox) {
    let output = sandbox.mysup(&["frobnicate"]).expect_code(1);
    assert!(output.errors().contains("frobnicate"), "{output}");
}

fn missing_program_of_detached_run_is_127_and_leaves_nothing_running(sandbox: &Sandbox) {
    let output = sandbox.run(&["-d", "--name", "one"], &["no-such-program"]).expect_code(127);
    assert!(output.errors().contains("no-such-program"), "{output}");
    assert_eq!(sandbox.ok(&["ps", "-q"]), "");
    assert!(["absent", "created"].contains(&sandbox.status("one").as_str()));
}

fn stored_code_of_a_failed_start_is_that_of_run(sandbox: &Sandbox) {
    for (name, program, code) in [("one", "no-such-program", 127), ("two", "/etc", 126)] {
        let image = sandbox.image();
        sandbox.ok(&["create", "--name", name, image, program]);
        let output = sandbox.mysup(&["start", name]).expect_code(1);
        assert!(output.errors().contains(program), "{output}");
        let container = sandbox.inspect(name);
        assert_eq!(crate::harness::inspect::number(&container, "State.ExitCode"), code);
        assert_ne!(crate::harness::inspect::text(&container, "State.Error"), "");
    }
}

fn bad_values_of_run_are_125(sandbox: &Sandbox) {
    let image = sandbox.image();
    let bad = [
        ("-m", "lots"),
        ("-m", "-5"),
        ("-m", "1k"),
        ("--memory-swap", "x"),
        ("--cpus", "none"),
        ("--cpus", "-1"),
        ("--cpu-shares", "x"),
        ("--cpuset-cpus", "4000"),
        ("--cpuset-cpus", "a-b"),
        ("--pids-limit", "x"),
        ("--ulimit", "nofile"),
        ("--ulimit", "nosuch=1"),
        ("--ulimit", "nofile=5:3"),
        ("--cap-add", "FLY"),
        ("--cap-drop", "FLY"),
        ("--security-opt", "nosuch"),
        ("--network", "nosuchnetwork"),
        ("--storage-driver", "floppy"),
        ("--stop-signal", "NOSUCH"),
        ("--stop-timeout", "soon"),
        ("--hostname", "a b"),
        ("--hostname", "-x"),
        ("--name", "x"),
        ("--name", "a/b"),
        ("--name", "../x"),
        ("--tmpfs", "relative"),
        ("--tmpfs", "/a/../b"),
        ("--mount", "type=teleport,src=/tmp,dst=/x"),
        ("--mount", "type=bind,src=/tmp"),
        ("--mount", "type=bind,dst=/x"),
        ("--env-file", "/no/such/file"),
        ("--log-opt", "max-size=x"),
        ("--log-opt", "nosuch=1"),
        ("-w", "relative"),
        ("-u", "nosuchuser"),
        ("-u", "4294967296"),
        ("-u", "-1"),
        ("-u", "tester:nosuchgroup"),
        ("-e", "=value"),
    ];
    let mut wrong = Vec::new();
    for (flag, value) in bad {
        let output = sandbox.mysup(&["run", "--rm", &format!("{flag}={value}"), image, "true"]);
        let output = if flag.starts_with("--") {
            output
        } else {
            sandbox.mysup(&["run", "--rm", flag, value, image, "true"])
        };
        let lines = output.errors().lines().count();
        if output.code != 125 || lines != 1 || !output.stdout.is_empty() {
            wrong.push(format!("{flag} {value:?}\n{output}"));
        }
    }
    assert!(wrong.is_empty(), "expected one line and 125 for each of {}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
}

fn failed_run_leaves_nothing(sandbox: &Sandbox) {
    sandbox.run(&["--rm"], &["true"]).expect_code(0);
    let before = leaks::find(sandbox).len();
    for program in ["no-such-program", "/etc", "/etc/plain"] {
        sandbox.run(&["--rm"], &[program]);
    }
    let after = leaks::find(sandbox);
    assert!(after.len() <= before, "{after:?}");
}

fn not_root_is_refused_in_one_line(sandbox: &Sandbox) {
    let program = crate::harness::command::program().to_string_lossy().into_owned();
    let readable = sandbox.place("mysup");
    std::fs::copy(&program, &readable).expect("mysup is built");
    let arguments = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        readable.to_str().expect("a plain path"),
        "run",
        "x",
        "true",
    ];
    let mut call =
        crate::harness::command::Call::new(std::path::Path::new("setpriv"), arguments).directory("/");
    for (name, value) in sandbox.environment() {
        call = call.env(name, value);
    }
    call.run().expect_refusal(125, &["root"]);
}

fn run_on_a_full_disk_is_refused_and_leaves_nothing(sandbox: &Sandbox) {
    std::fs::create_dir_all(sandbox.root()).expect("the sandbox is ours");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(sandbox.root(), private).expect("it is ours");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", sandbox.root(), "tmpfs", flags, Some(c"size=8m,mode=700"))
        .expect("tmpfs can be mounted");
    sandbox.image();
    sandbox.run(&["--rm"], &["true"]).expect_code(0);
    let filler = sandbox.root().join("filler");
    let mut file = std::fs::File::create(&filler).expect("it is ours");
    while std::io::Write::write(&mut file, &[1; 4096]).is_ok_and(|count| count > 0) {}
    let line = sandbox.run_line(&["--name", "one"], &["true"]);
    sandbox.refused(&line, 125, &["space"]);
    drop(file);
    std::fs::remove_file(&filler).expect("it is ours");
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
    sandbox.run(&["--rm", "--name", "one"], &["true"]).expect_code(0);
    sandbox.ok(&["shutdown"]);
    rustix::mount::unmount(sandbox.root(), rustix::mount::UnmountFlags::empty()).expect("nothing holds it");
}
