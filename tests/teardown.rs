//! The ordered end: its steps, what it must not touch, and that it needs no supervisor.

use std::{fs, path::Path};

use rustix::process::Signal;

use crate::harness::{
    Case, Sandbox, inspect,
    plant::{self, Bind, Decoys},
    processes,
    tree::{self, plant_data},
    wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        steps_are_shown_in_their_order_with_times,
        steps_are_taken_when_killed_by_rm_force,
        every_daemonized_descendant_is_killed,
        decoys_beside_everything_removed_are_untouched,
        decoys_survive_a_dead_shim_and_a_restart,
        mount_made_inside_the_container_is_taken_down,
        bind_planted_in_the_root_file_system_is_untouched,
        second_copy_of_the_overlay_is_unmounted_too,
        bind_planted_in_the_write_layer_is_untouched_and_shown,
        bind_planted_in_the_write_layer_after_a_dead_shim_is_untouched,
        tmpfs_planted_in_the_write_layer_is_untouched,
        link_in_the_write_layer_is_removed_and_not_followed,
        foreign_file_on_the_mountpoint_is_never_removed_with_it,
        odd_files_in_the_write_layer_are_removed,
        copy_in_another_mount_namespace_does_not_block_the_end,
        trash_that_could_not_be_emptied_is_when_it_can_be,
    ]
}

fn names(sandbox: &Sandbox, name: &str) -> Vec<String> {
    inspect::teardown(&sandbox.inspect(name)).into_iter().map(|step| step.name).collect()
}

fn expect_order(steps: &[String]) {
    let order = ["processes", "volume", "rootfs", "mountpoint", "write-layer", "cgroups", "run-directory"];
    let places: Vec<usize> = steps
        .iter()
        .map(|name| {
            order.iter().position(|known| known == name).unwrap_or_else(|| panic!("unknown step {name}"))
        })
        .collect();
    assert!(places.is_sorted(), "the steps are out of order: {steps:?}");
    for name in order {
        assert!(steps.iter().any(|step| step == name), "step {name} is missing: {steps:?}");
    }
}

fn steps_are_shown_in_their_order_with_times(sandbox: &Sandbox) {
    let (a, b) = (sandbox.new_directory("a"), sandbox.new_directory("b"));
    sandbox
        .run(&["--name", "one", "-v", &format!("{a}:/a"), "-v", &format!("{b}:/a/b")], &["true"])
        .expect_code(0);
    sandbox.wait_status("one", "exited");
    expect_order(&names(sandbox, "one"));
    let steps = inspect::teardown(&sandbox.inspect("one"));
    let times: Vec<&str> = steps.iter().map(|step| step.at.as_str()).collect();
    assert!(times.iter().all(|time| time.len() >= 20) && times.is_sorted(), "{times:?}");
    assert!(steps.iter().all(|step| !step.text.to_lowercase().contains("failed")), "{steps:?}");
}

fn steps_are_taken_when_killed_by_rm_force(sandbox: &Sandbox) {
    let a = sandbox.new_directory("a");
    sandbox.start("one", &["-v", &format!("{a}:/a")], "sleep 1000");
    sandbox.ok(&["kill", "one"]);
    sandbox.wait_status("one", "exited");
    expect_order(&names(sandbox, "one"));
}

fn every_daemonized_descendant_is_killed(sandbox: &Sandbox) {
    let id = sandbox.start(
        "one",
        &[],
        "i=0; while [ $i -lt 50 ]; do setsid sleep 4321 & i=$((i+1)); done; sleep 0.2; exit 6",
    );
    assert_eq!(sandbox.ok(&["wait", "one"]), "6");
    sandbox.wait_status("one", "exited");
    assert!(processes::bearing(&[id]).is_empty());
}

fn decoys_beside_everything_removed_are_untouched(sandbox: &Sandbox) {
    let id = sandbox.start_obedient("one", &[], 3);
    let decoys = Decoys::beside(sandbox, &id);
    sandbox.ok(&["stop", "one"]);
    sandbox.wait_status("one", "exited");
    sandbox.ok(&["rm", "one"]);
    sandbox.run(&["--rm"], &["true"]).expect_code(0);
    decoys.expect_untouched();
}

fn decoys_survive_a_dead_shim_and_a_restart(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    let decoys = Decoys::beside(sandbox, &id);
    processes::signal(sandbox.shim_pid("one"), Signal::KILL);
    sandbox.kill_supervisor();
    sandbox.ok(&["rm", "-f", "one"]);
    decoys.expect_untouched();
}

fn mount_made_inside_the_container_is_taken_down(sandbox: &Sandbox) {
    let v = sandbox.new_directory("v");
    let before = plant_data(Path::new(&v), "precious");
    let script = "for i in 1 2 3; do mkdir -p /m/$i && mount -t tmpfs none /m/$i; done; mount --bind /v /m/1; mount --bind / /m/2; mount --bind /v /tmp; exit 7";
    sandbox
        .run(&["--name", "one", "--cap-add", "SYS_ADMIN", "-v", &format!("{v}:/v")], &["sh", "-c", script])
        .expect_code(7);
    sandbox.wait_status("one", "exited");
    before.expect_unchanged(Path::new(&v));
}

fn bind_planted_in_the_root_file_system_is_untouched(sandbox: &Sandbox) {
    let decoy = sandbox.new_directory("decoy");
    let before = plant_data(Path::new(&decoy), "precious");
    sandbox.start_obedient("one", &[], 3);
    let root = plant::in_shim(sandbox, "one", "");
    let shim = sandbox.shim_pid("one");
    let inside = root.strip_prefix(format!("/proc/{shim}/root")).expect("it is below the shim's root");
    plant::bind_inside(shim, Path::new(&decoy), &Path::new("/").join(inside).join("planted"));
    sandbox.ok(&["stop", "one"]);
    before.expect_unchanged(Path::new(&decoy));
    sandbox.wait_status("one", "exited");
    sandbox.ok(&["rm", "one"]);
    before.expect_unchanged(Path::new(&decoy));
}

fn second_copy_of_the_overlay_is_unmounted_too(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 3);
    let root = plant::in_shim(sandbox, "one", "");
    let shim = sandbox.shim_pid("one");
    let inside = root.strip_prefix(format!("/proc/{shim}/root")).expect("it is below the shim's root");
    let inside = Path::new("/").join(inside);
    plant::copy_inside(shim, &inside, &inside.join("copy"));
    sandbox.ok(&["stop", "one"]);
    sandbox.wait_status("one", "exited");
    expect_order_without_volume(&names(sandbox, "one"));
}

fn expect_order_without_volume(steps: &[String]) {
    let mut steps = steps.to_vec();
    if !steps.contains(&"volume".to_owned()) {
        steps.insert(1, "volume".to_owned());
    }
    expect_order(&steps);
}

/// A bind of the same file system below the write layer, seen from the host: its files are never touched, the container
/// says so, and when it is gone the end is finished.
fn planted_in_write_layer(sandbox: &Sandbox, end: impl FnOnce(&Sandbox)) {
    let decoy = sandbox.new_directory("decoy");
    let before = plant_data(Path::new(&decoy), "precious");
    let id = sandbox.start_obedient("one", &[], 3);
    let upper = sandbox.root().join("containers").join(&id).join("upper");
    let bind = Bind::new(Path::new(&decoy), &upper.join("deep/planted"));
    end(sandbox);
    before.expect_unchanged(Path::new(&decoy));
    sandbox.wait_status("one", "leftover");
    let shown = sandbox.ok(&["inspect", "one"]);
    assert!(shown.contains("planted"), "the report names the mount:\n{shown}");
    assert!(sandbox.ok(&["ps", "-a"]).contains("Leftover"), "ps shows it");
    before.expect_unchanged(Path::new(&decoy));
    bind.remove_wherever(Path::new(&decoy));
    sandbox.ok(&["rm", "one"]);
    before.expect_unchanged(Path::new(&decoy));
}

fn bind_planted_in_the_write_layer_is_untouched_and_shown(sandbox: &Sandbox) {
    planted_in_write_layer(sandbox, |sandbox| {
        sandbox.stop_unfinished("one");
    });
}

fn bind_planted_in_the_write_layer_after_a_dead_shim_is_untouched(sandbox: &Sandbox) {
    planted_in_write_layer(sandbox, |sandbox| {
        processes::signal(sandbox.shim_pid("one"), Signal::KILL);
        // Another shim goes on with it; it, too, is to find the mount.
        wait_until("the container is adopted and killed", || sandbox.mysup(&["kill", "one"]).code == 0);
        wait_until("the container has ended", || sandbox.status("one") != "running");
    });
}

fn tmpfs_planted_in_the_write_layer_is_untouched(sandbox: &Sandbox) {
    let id = sandbox.start_obedient("one", &[], 3);
    let place = sandbox.root().join("containers").join(&id).join("upper/planted");
    fs::create_dir_all(&place).expect("the sandbox is ours");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", &place, "tmpfs", flags, None).expect("tmpfs can be mounted");
    let open = fs::File::open(&place).expect("just mounted");
    fs::write(place.join("precious"), "kept").expect("just mounted");
    sandbox.stop_unfinished("one");
    let through = format!("/proc/self/fd/{}/precious", std::os::fd::AsRawFd::as_raw_fd(&open));
    assert_eq!(fs::read(through).expect("it was removed"), b"kept");
    drop(open);
    Bind::forget_mounts_named(sandbox.directory(), "planted");
    sandbox.ok(&["rm", "-f", "one"]);
}

fn link_in_the_write_layer_is_removed_and_not_followed(sandbox: &Sandbox) {
    let decoy = sandbox.new_directory("decoy");
    let before = plant_data(Path::new(&decoy), "precious");
    sandbox.sh(&[], &format!("ln -s {decoy} /link; ln -s {decoy} /etc/link; mkdir /d; ln -s ../../../../../../../../{decoy} /d/up"));
    before.expect_unchanged(Path::new(&decoy));
}

fn foreign_file_on_the_mountpoint_is_never_removed_with_it(sandbox: &Sandbox) {
    let id = sandbox.start_obedient("one", &[], 3);
    let mountpoint = sandbox.run_root().join("containers").join(&id).join("mnt");
    let file = mountpoint.join("precious");
    fs::write(&file, "not yours").expect("in our namespace nothing is mounted there");
    sandbox.stop_unfinished("one");
    assert_eq!(fs::read(&file).expect("rmdir cannot delete it"), b"not yours");
    sandbox.wait_status("one", "leftover");
    assert!(sandbox.ok(&["inspect", "one"]).contains("mountpoint"));
    fs::remove_file(&file).expect("it is ours");
    sandbox.ok(&["rm", "one"]);
}

fn odd_files_in_the_write_layer_are_removed(sandbox: &Sandbox) {
    let script = "mkfifo /fifo; mkdir -p /a/b/c/d; chmod 000 /a/b; mknod /null c 1 3; ln /bin/busybox /hard; \
        n=$(head -c 200 /dev/zero | tr '\\0' x); mkdir /$n; touch \"/$n/ a\tb\"; rm -rf /home; touch /.wh.x; \
        d=/deep; i=0; mkdir $d; cd $d; while [ $i -lt 300 ]; do mkdir dddddddddddddddddddd; cd dddddddddddddddddddd; i=$((i+1)); done; exit 3";
    sandbox.run(&["--name", "one"], &["sh", "-c", script]).expect_code(3);
    sandbox.wait_status("one", "exited");
}

fn copy_in_another_mount_namespace_does_not_block_the_end(sandbox: &Sandbox) {
    let v = sandbox.new_directory("v");
    let before = plant_data(Path::new(&v), "precious");
    sandbox.start_obedient("one", &["-v", &format!("{v}:/v")], 3);
    // A namespace that copied the host's table while the container ran, as any service manager makes them.
    let mut other = std::process::Command::new("unshare")
        .args(["-m", "--propagation", "private", "sleep", "1000"])
        .spawn()
        .expect("unshare of util-linux is there");
    sandbox.ok(&["stop", "one"]);
    sandbox.wait_status("one", "exited");
    sandbox.ok(&["rm", "one"]);
    other.kill().expect("it runs");
    other.wait().expect("it was killed");
    before.expect_unchanged(Path::new(&v));
}

/// Nobody asks for it: only the supervisor's own tries can do it after the third.
fn trash_that_could_not_be_emptied_is_when_it_can_be(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one"], &["true"]).expect_code(0);
    let (source, trash) = (sandbox.place("theirs"), sandbox.root().join("trash"));
    let before = plant_data(&source, "precious");
    let bind = Bind::new(&source, &trash.join("old/inner"));
    sandbox.ok(&["rm", "one"]);
    let log = sandbox.run_root().join("supervisor.log");
    let refused = || fs::read_to_string(&log).unwrap_or_default().matches("could not be emptied").count();
    wait_until("it was tried three times", || refused() >= 3);
    bind.remove();
    wait_until("the trash is empty", || tree::paths(&trash, &[]).is_empty());
    before.expect_unchanged(&source);
}
