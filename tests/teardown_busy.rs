//! A volume that somebody on the host still uses: nothing is removed below it, the holder is named, and it heals.

use std::{fs, path::Path};

use rustix::process::Signal;

use crate::harness::{
    Case, Sandbox, holds_within, inspect,
    plant::{self, Holder},
    processes,
    tree::{Tree, plant_data},
    wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        busy_volume_is_leftover_with_holder_and_write_layer,
        busy_volume_is_finished_by_rm,
        busy_volume_is_finished_by_a_restarted_supervisor,
        busy_volume_heals_by_itself,
        busy_root_file_system_is_leftover_and_healed,
        busy_inner_volume_keeps_the_outer_one,
        busy_container_does_not_block_others,
        busy_volume_of_rm_container_is_finished_in_the_end,
        busy_volume_is_told_by_foreground_run,
        rm_of_busy_container_is_refused_and_says_why,
        holder_that_leaves_at_once_is_not_noticed,
        exit_code_of_a_busy_container_is_true,
    ]
}

/// A container whose volume `/v` is held by a process of the host.
fn busy(sandbox: &Sandbox, code: i32) -> (String, Tree, Holder) {
    let source = sandbox.new_directory("v");
    let before = plant_data(Path::new(&source), "precious");
    let id = sandbox.start_obedient("one", &["-v", &format!("{source}:/v")], code);
    let holder = Holder::sit_in(&plant::in_shim(sandbox, "one", "/v").join("deep"));
    (id, before, holder)
}

fn expect_leftover(sandbox: &Sandbox, id: &str, holder: &Holder) {
    sandbox.wait_status("one", "leftover");
    let shown = sandbox.ok(&["inspect", "one"]);
    let pid = holder.pid().to_string();
    assert!(shown.contains(&pid) && shown.contains("sleep"), "inspect names the holder {pid}:\n{shown}");
    let failed = inspect::teardown(&sandbox.inspect("one")).into_iter().find(|step| step.text.contains(&pid));
    assert!(failed.is_some_and(|step| step.name == "volume" || step.name == "rootfs"), "{shown}");
    let list = sandbox.ok(&["ps", "-a", "--no-trunc"]);
    assert!(list.contains("Leftover") && list.contains(&pid), "ps -a names reason and holder {pid}:\n{list}");
    let upper = sandbox.root().join("containers").join(id).join("upper");
    assert!(upper.is_dir(), "the write layer stays below a failed unmount");
}

fn busy_volume_is_leftover_with_holder_and_write_layer(sandbox: &Sandbox) {
    let (id, before, holder) = busy(sandbox, 3);
    sandbox.stop_unfinished("one");
    expect_leftover(sandbox, &id, &holder);
    before.expect_unchanged(&sandbox.place("v"));
    holder.leave();
}

fn busy_volume_is_finished_by_rm(sandbox: &Sandbox) {
    let (id, before, holder) = busy(sandbox, 3);
    sandbox.stop_unfinished("one");
    expect_leftover(sandbox, &id, &holder);
    holder.leave();
    sandbox.ok(&["rm", "one"]);
    assert_eq!(sandbox.status("one"), "absent");
    before.expect_unchanged(&sandbox.place("v"));
}

fn busy_volume_is_finished_by_a_restarted_supervisor(sandbox: &Sandbox) {
    let (id, before, holder) = busy(sandbox, 3);
    sandbox.stop_unfinished("one");
    expect_leftover(sandbox, &id, &holder);
    sandbox.ok(&["shutdown"]);
    holder.leave();
    sandbox.ok(&["start"]);
    sandbox.wait_status("one", "exited");
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), 3);
    before.expect_unchanged(&sandbox.place("v"));
}

fn busy_volume_heals_by_itself(sandbox: &Sandbox) {
    let (id, before, holder) = busy(sandbox, 3);
    sandbox.stop_unfinished("one");
    expect_leftover(sandbox, &id, &holder);
    holder.leave();
    let healed = holds_within(std::time::Duration::from_secs(90), || sandbox.status("one") == "exited");
    assert!(healed, "nothing finished it");
    before.expect_unchanged(&sandbox.place("v"));
}

fn busy_root_file_system_is_leftover_and_healed(sandbox: &Sandbox) {
    let id = sandbox.start_obedient("one", &[], 3);
    let holder = Holder::sit_in(&plant::in_shim(sandbox, "one", "").join("etc"));
    sandbox.stop_unfinished("one");
    expect_leftover(sandbox, &id, &holder);
    holder.leave();
    sandbox.ok(&["rm", "one"]);
}

fn busy_inner_volume_keeps_the_outer_one(sandbox: &Sandbox) {
    let (outer, inner) = (sandbox.new_directory("outer"), sandbox.new_directory("inner"));
    sandbox.new_directory("outer/in");
    let before = (plant_data(Path::new(&outer), "outer"), plant_data(Path::new(&inner), "inner"));
    let flags = ["-v", &format!("{outer}:/o"), "-v", &format!("{inner}:/o/in")];
    let id = sandbox.start_obedient("one", &flags, 3);
    let holder = Holder::sit_in(&plant::in_shim(sandbox, "one", "/o/in"));
    sandbox.stop_unfinished("one");
    expect_leftover(sandbox, &id, &holder);
    before.0.expect_unchanged(&sandbox.place("outer"));
    before.1.expect_unchanged(&sandbox.place("inner"));
    holder.leave();
    sandbox.ok(&["rm", "one"]);
    before.0.expect_unchanged(&sandbox.place("outer"));
    before.1.expect_unchanged(&sandbox.place("inner"));
}

fn busy_container_does_not_block_others(sandbox: &Sandbox) {
    let (id, _, holder) = busy(sandbox, 3);
    sandbox.stop_unfinished("one");
    for code in [4, 5] {
        sandbox.run(&["--rm"], &["sh", "-c", &format!("exit {code}")]).expect_code(code);
    }
    sandbox.start_obedient("two", &[], 6);
    sandbox.ok(&["stop", "two"]);
    sandbox.wait_status("two", "exited");
    expect_leftover(sandbox, &id, &holder);
    holder.leave();
}

fn busy_volume_of_rm_container_is_finished_in_the_end(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let before = plant_data(Path::new(&source), "precious");
    let script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.02; done";
    sandbox.start("one", &["--rm", "-v", &format!("{source}:/v")], script);
    wait_until("it is up", || sandbox.mysup(&["logs", "one"]).text() == "up");
    let holder = Holder::sit_in(&plant::in_shim(sandbox, "one", "/v"));
    sandbox.mysup(&["stop", "one"]);
    sandbox.wait_status("one", "leftover");
    holder.leave();
    let healed = holds_within(std::time::Duration::from_secs(90), || sandbox.status("one") == "absent");
    assert!(healed, "nothing finished it");
    before.expect_unchanged(&sandbox.place("v"));
}

fn busy_volume_is_told_by_foreground_run(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let volume = format!("{source}:/v");
    let script = "trap 'exit 17' TERM; echo up; while :; do sleep 0.02; done";
    let line = sandbox.run_line(&["--name", "one", "-v", &volume], &["sh", "-c", script]);
    let mut client = sandbox.call(&line).start();
    client.wait_for("up");
    let holder = Holder::sit_in(&plant::in_shim(sandbox, "one", "/v"));
    client.signal(Signal::TERM);
    client.wait().expect_code(17);
    sandbox.wait_status("one", "leftover");
    holder.leave();
    sandbox.ok(&["rm", "one"]);
}

fn rm_of_busy_container_is_refused_and_says_why(sandbox: &Sandbox) {
    let (id, before, holder) = busy(sandbox, 3);
    sandbox.stop_unfinished("one");
    expect_leftover(sandbox, &id, &holder);
    for flags in [&["rm", "one"][..], &["rm", "-f", "one"]] {
        let output = sandbox.mysup(flags).expect_code(1);
        assert!(output.errors().contains(&holder.pid().to_string()), "it names the holder\n{output}");
    }
    expect_leftover(sandbox, &id, &holder);
    before.expect_unchanged(&sandbox.place("v"));
    holder.leave();
    sandbox.ok(&["rm", "one"]);
}

fn holder_that_leaves_at_once_is_not_noticed(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    sandbox.start_obedient("one", &["-v", &format!("{source}:/v")], 3);
    let file = fs::File::open(plant::in_shim(sandbox, "one", "/v")).expect("the mount is there");
    let stopping = sandbox.call(&["stop", "one"]).start();
    let init = sandbox.inspect("one");
    wait_until("the program has ended", || sandbox.status("one") != "running");
    drop((file, init));
    stopping.wait().expect_code(0);
    sandbox.wait_status("one", "exited");
}

fn exit_code_of_a_busy_container_is_true(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let (_, _, holder) = busy(sandbox, code);
    sandbox.stop_unfinished("one");
    sandbox.wait_status("one", "leftover");
    assert_eq!(inspect::number(&sandbox.inspect("one"), "State.ExitCode"), i64::from(code));
    assert!(
        processes::is_alive(i32::try_from(holder.pid()).expect("pids are small")),
        "a holder is never killed"
    );
    holder.leave();
    sandbox.ok(&["rm", "one"]);
}
