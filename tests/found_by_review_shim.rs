//! What a reviewer has broken in the shim, each as a test of its own: mounts where nobody mounts, namespaces that somebody
//! else is in, programs that are kept from being reaped.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use nix::sys::{ptrace, wait::waitpid};
use rustix::process::Signal;

use crate::harness::{
    Case, Sandbox, holds_within, inspect, linux_is_at_least, plant::Bind, processes, random::Random, skip,
    tree::plant_data, wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        mount_on_the_run_directory_is_untouched_and_healed,
        mount_on_the_trash_is_untouched_and_healed,
        holder_in_the_namespace_of_the_init_keeps_the_files,
        holder_is_found_below_a_root_with_any_name,
        status_is_not_lost_while_nobody_reaps,
        volume_below_a_name_that_is_no_text_is_unmounted,
        volume_that_no_path_leads_to_is_unmounted,
        traced_init_costs_nothing_and_is_named,
    ]
}

/// More than the time after which a shim once gave up.
const LONGER: Duration = Duration::from_secs(7);
const HEALED: Duration = Duration::from_secs(90);

fn expect_healed(sandbox: &Sandbox, status: &str) {
    assert!(holds_within(HEALED, || sandbox.status("one") == status), "it is {}", sandbox.status("one"));
}

fn mount_on_the_run_directory_is_untouched_and_healed(sandbox: &Sandbox) {
    let theirs = sandbox.place("theirs");
    // rmdir(2) is a change, too.
    fs::create_dir_all(theirs.join("mnt")).expect("the sandbox is ours");
    let before = plant_data(&theirs, "precious");
    let id = sandbox.start_obedient("one", &[], 3);
    let bind = Bind::new(&theirs, &sandbox.run_root().join("containers").join(&id));
    sandbox.stop_unfinished("one");
    sandbox.wait_status("one", "leftover");
    assert!(sandbox.ok(&["inspect", "one"]).contains("is a mountpoint"), "it says why");
    bind.remove();
    before.expect_unchanged(&theirs);
    expect_healed(sandbox, "exited");
}

fn mount_on_the_trash_is_untouched_and_healed(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one"], &["true"]).expect_code(0);
    sandbox.wait_status("one", "exited");
    let theirs = sandbox.place("theirs");
    fs::create_dir_all(&theirs).expect("the sandbox is ours");
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).expect("chmod");
    let before = plant_data(&theirs, "precious");
    sandbox.kill_supervisor();
    let bind = Bind::new(&theirs, &sandbox.root().join("trash"));
    sandbox.ok(&["start"]);
    let log = sandbox.run_root().join("supervisor.log");
    wait_until("the trash was swept", || {
        let refused = fs::read_to_string(&log).unwrap_or_default().contains("could not be emptied");
        refused || fs::read_dir(&theirs).is_ok_and(|entries| entries.count() == 0)
    });
    // It has the directory open.
    sandbox.kill_supervisor();
    bind.remove();
    before.expect_unchanged(&theirs);
}

/// Ends with the test.
struct Inside(Child);

impl Drop for Inside {
    fn drop(&mut self) {
        // Errors mean that it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn holder_in_the_namespace_of_the_init_keeps_the_files(sandbox: &Sandbox) {
    let id = sandbox.start_obedient("one", &[], 3);
    let init = sandbox.init_pid("one");
    let mut command = Command::new("nsenter");
    command.args(["-t", &init.to_string(), "-m", "sleep", "1000"]);
    let holder = Inside(command.spawn().expect("nsenter of util-linux is there"));
    let pid = i32::try_from(holder.0.id()).expect("pids are small");
    wait_until("it is inside", || processes::link(pid, "ns/mnt") == processes::link(init, "ns/mnt"));
    sandbox.stop_unfinished("one");
    sandbox.wait_status("one", "leftover");
    assert!(sandbox.ok(&["inspect", "one"]).contains(&pid.to_string()), "the holder is named");
    assert!(sandbox.root().join("containers").join(&id).join("upper").is_dir(), "below a live union");
    drop(holder);
    expect_healed(sandbox, "exited");
}

fn holder_is_found_below_a_root_with_any_name(sandbox: &Sandbox) {
    if !linux_is_at_least(6, 5) {
        skip("before Linux 6.5 no path of an overlay may have a comma");
    }
    for name in ["a b", "a,b", "a:b", "a\\b", "a\\,b"] {
        let odd = Sandbox::at(name, Path::new(&sandbox.new_directory(name)), Random::new(1, name));
        holder_in_the_namespace_of_the_init_keeps_the_files(&odd);
        odd.mysup(&["doctor"]).expect_code(0);
        odd.finish();
    }
}

fn status_is_not_lost_while_nobody_reaps(sandbox: &Sandbox) {
    let v = sandbox.new_directory("v");
    let script = "until [ -e /v/go ]; do sleep 0.02; done; exit 42";
    let id = sandbox.start("one", &["-v", &format!("{v}:/v")], script);
    let (shim, record) = (sandbox.shim_pid("one"), sandbox.root().join("containers").join(&id));
    processes::signal(shim, Signal::KILL);
    wait_until("another shim goes on with it", || {
        processes::lock_holder(&record.join("lock")).is_some_and(|pid| pid != shim)
            && sandbox.status("one") == "running"
    });
    let supervisor = sandbox.supervisor();
    processes::signal(supervisor, Signal::STOP);
    fs::write(Path::new(&v).join("go"), "").expect("the sandbox is ours");
    let invented = holds_within(LONGER, || record.join("exit").exists());
    processes::signal(supervisor, Signal::CONT);
    assert!(!invented, "a status was recorded that nobody could know yet");
    assert_eq!(sandbox.ok(&["wait", "one"]), "42");
    sandbox.wait_status("one", "exited");
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), 42);
}

fn nested(sandbox: &Sandbox, script: &str) {
    let (a, b) = (sandbox.new_directory("a"), sandbox.new_directory("b"));
    let script = format!("{script}; echo up; trap 'exit 3' TERM; while :; do sleep 0.02; done");
    sandbox.start("one", &["-v", &format!("{a}:/a"), "-v", &format!("{b}:/a/sub/b")], &script);
    wait_until("it is up", || sandbox.mysup(&["logs", "one"]).text() == "up");
}

fn volume_below_a_name_that_is_no_text_is_unmounted(sandbox: &Sandbox) {
    let before = plant_data(&sandbox.place("b"), "precious");
    nested(sandbox, "mv /a/sub \"$(printf '/a/\\377\\376')\"");
    sandbox.ok(&["stop", "one"]);
    sandbox.wait_status("one", "exited");
    before.expect_unchanged(&sandbox.place("b"));
}

fn volume_that_no_path_leads_to_is_unmounted(sandbox: &Sandbox) {
    let before = plant_data(&sandbox.place("b"), "precious");
    nested(sandbox, "true");
    fs::rename(sandbox.place("a/sub"), sandbox.place("moved")).expect("the sandbox is ours");
    sandbox.ok(&["stop", "one"]);
    sandbox.wait_status("one", "exited");
    before.expect_unchanged(&sandbox.place("b"));
}

/// Clock ticks of a process.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields = stat.rsplit_once(") ").expect("a name in parentheses").1.split(' ');
    fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[expect(clippy::disallowed_methods, reason = "as its tracer the test is the only one who waits for it")]
fn traced_init_costs_nothing_and_is_named(sandbox: &Sandbox) {
    sandbox.start("one", &[], "exec sleep 1000");
    let (shim, init) = (sandbox.shim_pid("one"), sandbox.init_pid("one"));
    let traced = nix::unistd::Pid::from_raw(init);
    ptrace::seize(traced, ptrace::Options::empty()).expect("nobody else traces it");
    let stop = sandbox.call(&["stop", "-t", "0", "one"]).start();
    wait_until("it is a zombie", || processes::stat(init).is_some_and(|stat| stat.state == 'Z'));
    let before = ticks(shim);
    let own = std::process::id().to_string();
    let named =
        holds_within(Duration::from_secs(20), || sandbox.mysup(&["inspect", "one"]).text().contains(&own));
    let used = ticks(shim) - before;
    waitpid(traced, None).expect("it is dead and ours to take note of");
    stop.wait();
    assert!(named, "nobody says that it is traced by {own}");
    assert!(used < 100, "its shim took {used} ticks of the processor while it waited");
    expect_healed(sandbox, "exited");
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), 137);
}
