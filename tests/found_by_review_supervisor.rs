//! What a review has found in the supervisor: each is a container, or its exit status, that was lost for no reason of its
//! own.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;

use crate::harness::{Case, Sandbox, command, holds_within, plant::Bind, processes, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        program_lives_while_no_shim_can_be_started_and_is_adopted_when_one_can,
        program_lives_while_the_supervisor_has_no_descriptor,
        teardown_goes_on_by_itself_when_a_shim_can_be_started_again,
        status_that_was_told_without_a_run_directory_is_still_told_after_a_restart,
        removal_by_force_wins_over_starts,
        living_program_is_adopted_without_the_boot_id_of_the_run_root,
        stopped_supervisor_is_replaced,
        threads_of_the_supervisor_need_no_stack_for_signals,
    ]
}

/// Longer than it took to give up: three tries of a shim that adopts, five of one that takes down, a second each.
const LONG: Duration = Duration::from_millis(7000);

/// A `mysup` with a shim of its own; gives the shim.
fn own_shim(sandbox: &Sandbox) -> PathBuf {
    sandbox.image();
    sandbox.ok(&["shutdown"]);
    let directory = PathBuf::from(sandbox.new_directory("installation"));
    let both = [command::program().to_owned(), command::program().with_file_name("mysup-shim")];
    // Not by a write of ours: a fork in another test's thread would keep the file busy for exec.
    let copied = std::process::Command::new("cp").args(both).arg(&directory).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp works");
    sandbox.use_program(directory.join("mysup"));
    directory.join("mysup-shim")
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("the sandbox is ours");
}

fn program_lives_while_no_shim_can_be_started_and_is_adopted_when_one_can(sandbox: &Sandbox) {
    let program = own_shim(sandbox);
    let code = sandbox.exit_code();
    sandbox.start_obedient("one", &[], code);
    let init = sandbox.init_pid("one");
    set_mode(&program, 0o644);
    processes::signal(sandbox.shim_pid("one"), Signal::KILL);
    sandbox.wait_status("one", "unreachable");
    let died = holds_within(LONG, || !processes::is_alive(init) || sandbox.status("one") != "unreachable");
    assert!(!died, "the program has done nothing: {}", sandbox.mysup(&["inspect", "one"]));
    assert!(sandbox.ok(&["inspect", "one"]).contains("no other one can be started"), "it is said why");
    set_mode(&program, 0o755);
    sandbox.wait_status("one", "running");
    assert_eq!(sandbox.init_pid("one"), init);
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
}

fn limit_files(pid: i32, limit: usize) {
    let set = std::process::Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={limit}:4096")])
        .status();
    assert!(set.is_ok_and(|status| status.success()), "prlimit works");
}

fn program_lives_while_the_supervisor_has_no_descriptor(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    sandbox.start_obedient("one", &[], code);
    let (init, shim, supervisor) = (sandbox.init_pid("one"), sandbox.shim_pid("one"), sandbox.supervisor());
    // For one look at a lock, or a journal, but for no pair of sockets.
    let open = fs::read_dir(format!("/proc/{supervisor}/fd")).expect("it runs").count();
    limit_files(supervisor, open);
    processes::signal(shim, Signal::KILL);
    let died = holds_within(LONG, || !processes::is_alive(init));
    limit_files(supervisor, 4096);
    assert!(!died, "the program has done nothing");
    sandbox.wait_status("one", "running");
    assert_eq!(sandbox.init_pid("one"), init);
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
}

fn teardown_goes_on_by_itself_when_a_shim_can_be_started_again(sandbox: &Sandbox) {
    let program = own_shim(sandbox);
    let decoy = sandbox.new_directory("decoy");
    let code = sandbox.exit_code();
    let id = sandbox.start_obedient("one", &[], code);
    let bind =
        Bind::new(Path::new(&decoy), &sandbox.root().join("containers").join(&id).join("upper/planted"));
    sandbox.stop_unfinished("one");
    sandbox.wait_status("one", "leftover");
    set_mode(&program, 0o644);
    processes::signal(sandbox.shim_pid("one"), Signal::KILL);
    bind.remove_wherever(Path::new(&decoy));
    sandbox.wait_status("one", "unreachable");
    let gave_up = holds_within(LONG, || sandbox.status("one") != "unreachable");
    assert!(!gave_up, "{}", sandbox.mysup(&["inspect", "one"]));
    set_mode(&program, 0o755);
    sandbox.wait_status("one", "exited");
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
}

#[expect(clippy::disallowed_methods, reason = "a tree of the sandbox; nothing is mounted in it")]
fn status_that_was_told_without_a_run_directory_is_still_told_after_a_restart(sandbox: &Sandbox) {
    let id = sandbox.start_obedient("one", &[], 42);
    let shim = sandbox.shim_pid("one");
    fs::remove_dir_all(sandbox.run_root().join("containers").join(&id)).expect("the sandbox is ours");
    processes::signal(shim, Signal::KILL);
    let told = sandbox.mysup(&["wait", "one"]);
    sandbox.kill_supervisor();
    sandbox.ok(&["start"]);
    let again = sandbox.mysup(&["wait", "one"]);
    assert_eq!((told.code, told.text()), (again.code, again.text()), "one end is told, once and for all");
}

fn removal_by_force_wins_over_starts(sandbox: &Sandbox) {
    sandbox.image();
    for _ in 0..25 {
        sandbox.run(&["-d", "--keep", "--name", "one"], &["true"]);
        let id = sandbox.ok(&["inspect", "--format", "{{.Id}}", "one"]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..6 {
                    // One that is gone cannot be started.
                    let _ = sandbox.mysup(&["start", &id]);
                }
            });
            sandbox.ok(&["rm", "-f", &id]);
        });
        assert_eq!(sandbox.status("one"), "absent");
    }
}

fn living_program_is_adopted_without_the_boot_id_of_the_run_root(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 42);
    sandbox.start_obedient("two", &["--rm"], 42);
    let inits = [sandbox.init_pid("one"), sandbox.init_pid("two")];
    let shims = [sandbox.shim_pid("one"), sandbox.shim_pid("two")];
    fs::remove_file(sandbox.run_root().join("boot-id")).expect("the sandbox is ours");
    sandbox.kill_supervisor();
    for shim in shims {
        processes::signal(shim, Signal::KILL);
        wait_until("it is dead", || !processes::is_alive(shim));
    }
    sandbox.ok(&["start"]);
    for (name, init) in ["one", "two"].into_iter().zip(inits) {
        sandbox.wait_status(name, "running");
        assert_eq!(sandbox.init_pid(name), init);
    }
    sandbox.ok(&["stop", "one", "two"]);
    assert_eq!(sandbox.status("two"), "absent");
}

fn stopped_supervisor_is_replaced(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    sandbox.start_obedient("one", &[], code);
    let (old, init) = (sandbox.supervisor(), sandbox.init_pid("one"));
    processes::signal(old, Signal::STOP);
    sandbox.ok(&["start", "--replace"]);
    wait_until("the old one is dead", || !processes::is_alive(old));
    assert_ne!(sandbox.supervisor(), old);
    assert_eq!(sandbox.init_pid("one"), init);
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
}

/// One that has no memory for it would abort the process.
fn threads_of_the_supervisor_need_no_stack_for_signals(sandbox: &Sandbox) {
    let pid = sandbox.supervisor();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let faults = (1_u64 << (Signal::SEGV.as_raw() - 1)) | (1 << (Signal::BUS.as_raw() - 1));
    for kind in ["SigCgt:", "SigIgn:"] {
        let mask = status.lines().find_map(|line| line.strip_prefix(kind)).expect("the kernel tells it");
        let mask = u64::from_str_radix(mask.trim(), 16).expect("hexadecimal");
        assert_eq!(mask & faults, 0, "{kind} has SIGSEGV or SIGBUS: {mask:x}");
    }
}
