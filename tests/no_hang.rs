//! What stands still costs its own container and no other: `ps`, `run` and `inspect` of others answer meanwhile, the stuck
//! one is shown as such, and when the cause goes away it heals without a command.

use std::{
    fs,
    io::Write,
    os::unix::net::UnixStream,
    process::Command,
    time::{Duration, Instant},
};

use mysup_ipc::{api::Request, blocking::Connection};
use rustix::process::Signal;

use crate::{
    harness::{
        Case, Sandbox, inspect,
        plant::{self, Holder},
        processes, skip, wait_until,
    },
    no_space::{Disk, Full},
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        nothing_in_the_way_as_a_measure,
        stopped_shim_does_not_hold_others_and_heals,
        stopped_shim_is_shown_and_a_stop_is_done_when_it_goes_on,
        removal_by_force_of_a_stopped_shim_is_done_when_it_goes_on,
        removal_by_force_of_an_unreachable_shim_is_done_when_it_goes_on,
        ten_stopped_shims_do_not_hold_a_start_of_the_supervisor,
        stopped_client_in_the_foreground_holds_its_own_program_only,
        client_that_never_reads_does_not_hold_others,
        full_state_root_does_not_hold_anybody_and_keeps_codes,
        full_state_root_on_ext4_keeps_codes,
        exit_record_that_cannot_be_written_is_waited_for,
        removed_state_directory_holds_no_shim,
        full_log_disk_does_not_hold_the_program,
        read_only_state_root_is_told_and_heals,
    ]
}

/// The bound of one answer: the is 50 ms, but this machine may be shared. The measured median is printed.
const ANSWER: Duration = Duration::from_secs(2);
const LOOKS: usize = 7;

/// `ps`, `inspect` and, where it can be, `run` of another container answer.
#[track_caller]
pub(crate) fn others_answer(sandbox: &Sandbox, meanwhile: &str, other: &str, run: bool) {
    let mut calls = vec![("ps", vec!["ps", "-a"], 0), ("inspect", vec!["inspect", other], 0)];
    if run {
        calls.push(("run", vec!["run", "--rm", sandbox.image(), "sh", "-c", "exit 6"], 6));
    }
    let mut told = Vec::new();
    for (name, line, code) in calls {
        let mut times: Vec<Duration> = (0..LOOKS)
            .map(|_| {
                let began = Instant::now();
                sandbox.mysup(&line).expect_code(code);
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        let median = times[LOOKS / 2];
        assert!(median <= ANSWER, "{name} takes {median:?} with {meanwhile}: {times:?}");
        told.push(format!("{name} {:.1} ms", median.as_secs_f64() * 1e3));
    }
    // A closed standard output must not turn a passing test into a failing one.
    let _ = writeln!(std::io::stdout().lock(), "     with {meanwhile}: {} (medians)", told.join(", "));
}

fn nothing_in_the_way_as_a_measure(sandbox: &Sandbox) {
    sandbox.start_obedient("other", &[], 4);
    others_answer(sandbox, "nothing in the way", "other", true);
}

fn stopped_shim_does_not_hold_others_and_heals(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    sandbox.start_obedient("stuck", &[], code);
    sandbox.start_obedient("other", &[], 4);
    let shim = sandbox.shim_pid("stuck");
    processes::signal(shim, Signal::STOP);
    others_answer(sandbox, "a stopped shim", "other", true);
    sandbox.ok(&["stop", "other"]);
    assert_eq!(sandbox.ok(&["wait", "other"]), "4");
    // Its program goes on, and even ends meanwhile: the end is told when somebody can tell it.
    let init = sandbox.init_pid("stuck");
    processes::signal(init, Signal::TERM);
    wait_until("the program has ended", || !processes::is_alive(init));
    others_answer(sandbox, "a stopped shim whose program has ended", "other", true);
    processes::signal(shim, Signal::CONT);
    sandbox.wait_status("stuck", "exited");
    assert_eq!(sandbox.ok(&["wait", "stuck"]), code.to_string());
}

fn stopped_shim_is_shown_and_a_stop_is_done_when_it_goes_on(sandbox: &Sandbox) {
    sandbox.start("stuck", &["--stop-timeout", "1"], "trap '' TERM; while :; do sleep 0.05; done");
    sandbox.start_obedient("other", &[], 4);
    let shim = sandbox.shim_pid("stuck");
    processes::signal(shim, Signal::STOP);
    sandbox.kill_supervisor();
    sandbox.wait_status("stuck", "unreachable");
    let list = sandbox.ok(&["ps", "-a"]);
    let line = list.lines().find(|line| line.contains("stuck")).unwrap_or("").to_owned();
    assert!(line.to_lowercase().contains("unreachable"), "ps shows it: {line:?}");
    others_answer(sandbox, "an unreachable shim", "other", true);
    processes::signal(shim, Signal::CONT);
    sandbox.wait_status("stuck", "running");
    sandbox.ok(&["stop", "stuck"]);
    assert_eq!(sandbox.ok(&["wait", "stuck"]), "137");
}

/// What cannot be done now is said with its reason, and is done when that is over.
fn expect_removal_later(sandbox: &Sandbox, shim: i32) {
    let reason = format!("is stopped (pid {shim})");
    let output = sandbox.mysup(&["rm", "-f", "stuck"]);
    assert_ne!(output.code, 0, "it is not gone yet\n{output}");
    let errors = output.errors();
    assert!(
        errors.contains(&reason) && errors.contains("removed when"),
        "it says what it waits for\n{output}"
    );
    assert_eq!(errors.lines().count(), 1, "{output}");
    let list = sandbox.ok(&["ps", "-a", "--no-trunc"]);
    assert!(list.contains("Unreachable (") && list.contains(&reason), "ps says it\n{list}");
    let shown = inspect::text(&sandbox.inspect("stuck"), "State.Leftover");
    assert!(shown.contains(&reason), "inspect says it: {shown}");
    processes::signal(shim, Signal::CONT);
    wait_until("it is removed", || sandbox.status("stuck") == "absent");
}

fn removal_by_force_of_a_stopped_shim_is_done_when_it_goes_on(sandbox: &Sandbox) {
    sandbox.start_obedient("stuck", &[], 3);
    let shim = sandbox.shim_pid("stuck");
    processes::signal(shim, Signal::STOP);
    expect_removal_later(sandbox, shim);
}

fn removal_by_force_of_an_unreachable_shim_is_done_when_it_goes_on(sandbox: &Sandbox) {
    sandbox.start_obedient("stuck", &[], 3);
    let shim = sandbox.shim_pid("stuck");
    processes::signal(shim, Signal::STOP);
    sandbox.kill_supervisor();
    sandbox.wait_status("stuck", "unreachable");
    wait_until("it was waited for", || sandbox.ok(&["ps", "-a", "--no-trunc"]).contains("is stopped"));
    expect_removal_later(sandbox, shim);
}

fn ten_stopped_shims_do_not_hold_a_start_of_the_supervisor(sandbox: &Sandbox) {
    let names: Vec<String> = (0..10).map(|number| format!("stuck{number}")).collect();
    for name in &names {
        sandbox.start_obedient(name, &[], 3);
    }
    sandbox.start_obedient("other", &[], 4);
    let shims: Vec<i32> = names.iter().map(|name| sandbox.shim_pid(name)).collect();
    assert!(shims.iter().all(|shim| processes::signal(*shim, Signal::STOP)));
    sandbox.kill_supervisor();
    let began = Instant::now();
    sandbox.ok(&["ps"]);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "the start with ten stopped shims took {took:?}");
    assert_eq!(sandbox.status("other"), "running");
    others_answer(sandbox, "ten stopped shims", "other", true);
    assert!(shims.iter().all(|shim| processes::signal(*shim, Signal::CONT)));
    for name in &names {
        sandbox.wait_status(name, "running");
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    sandbox.ok(&[&["stop"], &names[..]].concat());
    for name in names {
        assert_eq!(sandbox.ok(&["wait", name]), "3");
    }
}

fn stopped_client_in_the_foreground_holds_its_own_program_only(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    sandbox.start_obedient("other", &[], 4);
    let script = format!("seq 1 300000; exit {code}");
    let line = sandbox.run_line(&["--name", "stuck"], &["sh", "-c", &script]);
    let mut client = sandbox.call(&line).start();
    client.wait_for("1\n");
    client.signal(Signal::STOP);
    others_answer(sandbox, "a client that stopped reading", "other", true);
    assert_eq!(sandbox.status("stuck"), "running", "it is part of a pipeline, and waits");
    client.signal(Signal::CONT);
    let output = client.wait().expect_code(code);
    assert_eq!(output.text().lines().count(), 300_000);
    assert_eq!(output.text().lines().next_back(), Some("300000"));
}

fn client_that_never_reads_does_not_hold_others(sandbox: &Sandbox) {
    for number in 0..5 {
        sandbox.start_obedient(&format!("other{number}"), &[], 4);
    }
    let socket = UnixStream::connect(sandbox.run_root().join("mysup.sock")).expect("it runs");
    socket.set_write_timeout(Some(Duration::from_secs(1))).expect("it is a socket");
    let mut connection = Connection::new(socket);
    let mut sent = 0;
    while sent < 100_000 && connection.send(&Request::List).is_ok() {
        sent += 1;
    }
    assert!(sent > 0, "the supervisor takes requests");
    others_answer(sandbox, "a client that asks and never reads", "other0", true);
    sandbox.ok(&["stop", "other0"]);
    assert_eq!(sandbox.ok(&["wait", "other0"]), "4");
    drop(connection);
}

fn full_state_root_does_not_hold_anybody_and_keeps_codes(sandbox: &Sandbox) {
    full_state_root(sandbox, Disk::tmpfs(sandbox));
}

fn full_state_root_on_ext4_keeps_codes(sandbox: &Sandbox) {
    let Some(disk) = Disk::ext4(sandbox) else { skip("no mkfs.ext4, or no loop device can be had") };
    full_state_root(sandbox, disk);
}

/// Whatever keeps it from being written: here the name is taken by a directory.
fn exit_record_that_cannot_be_written_is_waited_for(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    sandbox.start_obedient("one", &[], code);
    let state = sandbox.state_directory("one");
    fs::create_dir(state.join("exit")).expect("the sandbox is ours");
    sandbox.stop_unfinished("one");
    sandbox.wait_status("one", "leftover");
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string(), "it is told all the same");
    let told = sandbox.ok(&["ps", "-a", "--no-trunc"]);
    assert!(told.contains("write the exit record"), "what it waits for is said\n{told}");
    // Who goes on for a shim that could not write it owes it, too.
    let shim = sandbox.shim_pid("one");
    processes::signal(shim, Signal::KILL);
    wait_until("another shim takes it down", || {
        processes::lock_holder(&state.join("lock")).is_some_and(|pid| pid != shim)
    });
    sandbox.wait_status("one", "leftover");
    fs::remove_dir(state.join("exit")).expect("it is ours");
    sandbox.wait_status("one", "exited");
    sandbox.kill_supervisor();
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), i64::from(code));
}

fn removed_state_directory_holds_no_shim(sandbox: &Sandbox) {
    let volume = sandbox.new_directory("v");
    for (name, owed) in [("one", false), ("two", true)] {
        sandbox.start_obedient(name, &["-v", &format!("{volume}:/v")], 3);
        let holder = Holder::sit_in(&plant::in_shim(sandbox, name, "/v"));
        let (shim, state) = (sandbox.shim_pid(name), sandbox.state_directory(name));
        if owed {
            // Its record cannot be written: it is owed until there is no place for it any more.
            fs::create_dir(state.join("exit")).expect("it is ours");
        }
        sandbox.stop_unfinished(name);
        sandbox.wait_status(name, "leftover");
        let removed = Command::new("rm").arg("-rf").arg(&state).status();
        assert!(removed.is_ok_and(|status| status.success()), "an administrator removes it");
        holder.leave();
        wait_until("its shim has ended", || !processes::is_alive(shim));
        wait_until("it is at rest", || ["exited", "created"].contains(&sandbox.status(name).as_str()));
        sandbox.ok(&["rm", name]);
    }
}

fn full_state_root(sandbox: &Sandbox, disk: Disk) {
    let code = sandbox.exit_code();
    sandbox.start_obedient("one", &[], code);
    sandbox.start_obedient("two", &[], 5);
    disk.fill(&[Full::Bytes, Full::Inodes]);
    others_answer(sandbox, "a full state root", "two", false);
    let began = Instant::now();
    let output = sandbox.run(&["--rm"], &["true"]);
    assert_eq!(output.code, 125, "{output}");
    assert!(began.elapsed() < Duration::from_secs(10), "a refusal takes no time: {:?}", began.elapsed());
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string(), "it is told, whatever the disk says");
    disk.free();
    sandbox.wait_status("one", "exited");
    sandbox.run(&["--rm"], &["sh", "-c", "exit 7"]).expect_code(7);
    sandbox.kill_supervisor();
    let shown = sandbox.inspect("one");
    assert_eq!(
        inspect::number(&shown, "State.ExitCode"),
        i64::from(code),
        "what a user was told is on disk once there is room: {shown:#}"
    );
    assert_eq!(sandbox.status("two"), "running");
    disk.remove(sandbox);
}

fn full_log_disk_does_not_hold_the_program(sandbox: &Sandbox) {
    let disk = Disk::tmpfs(sandbox);
    let code = sandbox.exit_code();
    let volume = sandbox.new_directory("v");
    let script = format!(
        "n=0; until [ -e /v/end ]; do n=$((n+1)); echo line $n of many; echo $n > /v/n; usleep 5000; done; echo last; exit {code}"
    );
    sandbox.start("noisy", &["-v", &format!("{volume}:/v")], &script);
    sandbox.start_obedient("other", &[], 5);
    // Between its truncation and its writing the file is empty.
    let count = || loop {
        let text = fs::read_to_string(sandbox.place("v/n")).unwrap_or_default();
        if let Ok(number) = text.trim().parse::<u64>() {
            break number;
        }
    };
    wait_until("it writes", || sandbox.ok(&["logs", "noisy"]).lines().count() > 10);
    disk.fill(&[Full::Bytes]);
    let full_at = count();
    // The log's last block may take some lines more.
    wait_until("it goes on without its log", || count() > full_at + 400);
    others_answer(sandbox, "a full log disk", "other", false);
    disk.free();
    let freed_at = count();
    wait_until("the log goes on", || {
        let text = sandbox.ok(&["logs", "-n", "1", "noisy"]);
        let number = text.split(' ').nth(1).and_then(|number| number.parse::<u64>().ok());
        number.is_some_and(|number| number > freed_at)
    });
    let output = sandbox.mysup(&["logs", "noisy"]);
    assert!(output.errors().contains("bytes of output lost"), "the gap is said\n{}", output.errors());
    fs::write(sandbox.place("v/end"), "").expect("the sandbox is ours");
    assert_eq!(sandbox.ok(&["wait", "noisy"]), code.to_string());
    assert_eq!(sandbox.ok(&["logs", "-n", "1", "noisy"]), "last");
    disk.remove(sandbox);
}

fn read_only_state_root_is_told_and_heals(sandbox: &Sandbox) {
    let disk = Disk::tmpfs(sandbox);
    let image = sandbox.image();
    sandbox.run(&["--name", "ended"], &["sh", "-c", "echo said; exit 8"]).expect_code(8);
    sandbox.ok(&["create", "--name", "made", image, "sh", "-c", "exit 9"]);
    sandbox.wait_status("ended", "exited");
    // A file system with a file open for writing, such as the lock, cannot be made read-only.
    sandbox.ok(&["shutdown"]);
    disk.remount(true);
    for line in [&["ps", "-a"][..], &["run", "--rm", image, "true"], &["start", "made"], &["rm", "ended"]] {
        let began = Instant::now();
        let output = sandbox.mysup(line);
        let told =
            output.errors().to_lowercase().contains("read-only") && output.errors().lines().count() == 1;
        assert!(output.code != 0 && told, "one line says why not\n{output}");
        assert!(began.elapsed() < Duration::from_secs(10), "a refusal takes no time: {output}");
    }
    disk.remount(false);
    assert_eq!(sandbox.ok(&["wait", "ended"]), "8");
    assert_eq!(sandbox.ok(&["logs", "ended"]), "said");
    sandbox.mysup(&["start", "-a", "made"]).expect_code(9);
    sandbox.run(&["--rm"], &["sh", "-c", "exit 7"]).expect_code(7);
    sandbox.ok(&["rm", "ended", "made"]);
    disk.remove(sandbox);
}
