//! Older kernels: calls the shim uses where they exist are made to fail, and everything works as before.

use crate::harness::{Case, Sandbox, inspect, skip, trace, tree::plant_data};

/// Name of the case, strace's flags.
const MISSING: &[(&str, &[&str])] = &[
    ("statmount_and_listmount", &["-e", "trace=457,458", "-e", "inject=457,458:error=ENOSYS"]),
    // The third call for the union: after its source, and after the question whether it is of the older kind.
    ("lowerdir_plus", &["-e", "trace=fsconfig", "-e", "inject=fsconfig:error=EINVAL:when=3"]),
    ("overlayfs_contexts", &["-e", "trace=fsconfig", "-e", "inject=fsconfig:error=EOPNOTSUPP:when=2"]),
    (
        "pidfd_send_signal_once",
        &["-e", "trace=pidfd_send_signal", "-e", "inject=pidfd_send_signal:error=EINTR:when=1"],
    ),
];

/// Passing errors: each is met once, and whatever the shim does about it, nothing may leak and no byte may be lost.
const PASSING: &[(&str, &str)] = &[
    ("umount2", "EBUSY"),
    ("unlinkat", "EBUSY"),
    ("renameat", "EIO"),
    ("renameat2", "EIO"),
    ("fsync", "EIO"),
    ("mkdirat", "ENOSPC"),
    ("write", "ENOSPC"),
    ("write", "EINTR"),
    ("clone3", "EAGAIN"),
    ("move_mount", "EBUSY"),
    ("openat2", "EAGAIN"),
    ("openat", "EMFILE"),
];

pub(crate) fn cases() -> Vec<Case> {
    let missing = MISSING.iter().map(|(name, flags)| {
        Case::new(format!("fallbacks::without_{name}_all_works"), move |sandbox| without(sandbox, flags))
    });
    let passing = PASSING.iter().map(|(call, error)| {
        let name = format!("fallbacks::{call}_that_fails_once_with_{}_leaks_nothing", error.to_lowercase());
        Case::new(name, move |sandbox| failing(sandbox, call, error))
    });
    missing.chain(passing).collect()
}

fn wrap(sandbox: &Sandbox, flags: &[String], traced: trace::Traced) {
    sandbox.image();
    sandbox.ok(&["shutdown"]);
    trace::wrap_shim(sandbox, flags, &sandbox.place("trace"), traced);
}

fn without(sandbox: &Sandbox, flags: &[&str]) {
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let knows = std::process::Command::new("strace").args(&flags).args(["-o", "/dev/null", "true"]).status();
    if !knows.is_ok_and(|status| status.success()) {
        skip("this strace does not know the calls");
    }
    wrap(sandbox, &flags, trace::Traced::Every);
    let (a, b) = (sandbox.new_directory("a"), sandbox.new_directory("b"));
    sandbox.new_directory("a/b");
    let before = (plant_data(&sandbox.place("a"), "a"), plant_data(&sandbox.place("b"), "b"));
    let code = sandbox.exit_code();
    let script = format!("cat /a/data /a/b/data; echo x > /file; exit {code}");
    let flags = ["--name", "one", "-v", &format!("{b}:/a/b"), "-v", &format!("{a}:/a")].map(str::to_owned);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let output = sandbox.run(&flags, &["sh", "-c", &script]).expect_code(code);
    assert_eq!(output.text(), "a\nb");
    sandbox.wait_status("one", "exited");
    assert!(inspect::teardown(&sandbox.inspect("one")).iter().all(|step| !step.text.contains("Failed")));
    before.0.expect_unchanged(&sandbox.place("a"));
    before.1.expect_unchanged(&sandbox.place("b"));
}

/// The call fails once at its first, and in another run at its fifth time.
fn failing(sandbox: &Sandbox, call: &str, error: &str) {
    let a = sandbox.new_directory("a");
    let before = plant_data(&sandbox.place("a"), "precious");
    sandbox.image();
    for when in [1, 5] {
        let flags = [
            "-e".to_owned(),
            format!("trace={call}"),
            "-e".to_owned(),
            format!("inject={call}:error={error}:when={when}"),
        ];
        wrap(sandbox, &flags, trace::Traced::First);
        let output = sandbox.run(&["--rm", "-v", &format!("{a}:/a")], &["sh", "-c", "exit 9"]);
        assert!(output.code == 9 || output.code == 125, "a code that is made up\n{output}");
        assert!(output.code == 9 || output.errors().lines().count() == 1, "{output}");
        before.expect_unchanged(&sandbox.place("a"));
        sandbox.ok(&["shutdown", "--containers"]);
        sandbox.use_program(crate::harness::command::program().to_owned());
        sandbox.ok(&["start"]);
        let all = sandbox.ok(&["ps", "-a", "-q"]);
        if !all.is_empty() {
            sandbox.mysup(&[&["rm", "-f"], &all.lines().collect::<Vec<_>>()[..]].concat());
        }
        assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
        sandbox.ok(&["shutdown"]);
    }
}
