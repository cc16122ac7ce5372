//! Volumes: what the container sees, and that not a byte of them is lost.

use std::{fs, os::unix::fs::MetadataExt};

use crate::harness::{
    Case, Sandbox, inspect,
    plant::Bind,
    tree::{Tree, plant_data},
    wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = crate::cases![
        volume_is_writable_and_what_is_written_stays,
        read_only_volume_refuses_writes_and_remounts,
        unused_volume_keeps_every_byte_mode_owner_time_and_inode,
        volume_keeps_every_byte_when_the_container_is_killed,
        file_can_be_a_volume,
        missing_source_of_v_is_made_as_a_directory,
        missing_destination_is_made_only_in_the_container,
        destination_through_a_link_is_resolved_inside_the_container,
        hostile_destination_links_never_touch_the_host,
        relative_source_with_a_dot_is_expanded_by_the_client,
        source_through_a_link_is_the_links_target,
        same_source_in_many_containers_survives_the_end_of_one,
        same_source_twice_in_one_container_works,
        mount_flag_binds_and_read_only_is_kept,
        rm_with_v_keeps_bind_volumes,
        mounts_below_a_volume_source_are_seen_and_survive,
        mounts_made_inside_below_a_volume_never_reach_the_host,
        tmpfs_is_empty_writable_and_gone_after,
        tmpfs_takes_size_and_mode,
        volume_inside_a_tmpfs_works,
        read_only_root_refuses_writes_but_volumes_do_not,
        source_removed_between_create_and_start_fails_the_start,
        inspect_shows_the_mounts,
    ];
    for order in ["a b c", "a c b", "b a c", "b c a", "c a b", "c b a"] {
        let name = format!("volumes::nested_volumes_given_as_{}_all_work", order.replace(' ', "_"));
        cases.push(Case::new(name, move |sandbox| nested(sandbox, order)));
    }
    cases
}

fn volume_is_writable_and_what_is_written_stays(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    sandbox
        .sh(&["-v", &format!("{source}:/data")], "echo kept > /data/file; mkdir /data/d; ln -s file /data/l");
    assert_eq!(fs::read(sandbox.place("v/file")).expect("the file stays"), b"kept\n");
    assert!(sandbox.place("v/d").is_dir() && sandbox.place("v/l").is_symlink());
}

fn read_only_volume_refuses_writes_and_remounts(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let before = plant_data(&sandbox.place("v"), "frozen");
    let script = "cat /data/data; echo x > /data/new; echo x >> /data/data; rm /data/data; \
        mount -o remount,rw /data; mount -o remount,bind,rw /data; echo x > /data/new; true";
    assert_eq!(
        sandbox.sh(&["--cap-add", "SYS_ADMIN", "-v", &format!("{source}:/data:ro")], "cat /data/data"),
        "frozen"
    );
    assert_eq!(sandbox.sh(&["-v", &format!("{source}:/data:ro")], script), "frozen");
    before.expect_unchanged(&sandbox.place("v"));
}

fn unused_volume_keeps_every_byte_mode_owner_time_and_inode(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let before = plant_data(&sandbox.place("v"), "precious");
    for flags in [&["--rm"][..], &["--name", "one"], &["--keep", "--name", "two"]] {
        let volume = format!("{source}:/data");
        sandbox.run(&[flags, &["-v", &volume]].concat(), &["cat", "/data/data"]).expect_code(0);
    }
    sandbox.ok(&["rm", "one", "two"]);
    before.expect_unchanged(&sandbox.place("v"));
}

fn volume_keeps_every_byte_when_the_container_is_killed(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let before = plant_data(&sandbox.place("v"), "precious");
    sandbox.start(
        "one",
        &["-v", &format!("{source}:/data"), "-v", &format!("{source}:/again:ro")],
        "sleep 1000",
    );
    sandbox.ok(&["rm", "-f", "one"]);
    before.expect_unchanged(&sandbox.place("v"));
}

fn file_can_be_a_volume(sandbox: &Sandbox) {
    let file = sandbox.place("file");
    fs::write(&file, "one\n").expect("the sandbox is ours");
    let inode = fs::metadata(&file).expect("it exists").ino();
    let volume = format!("{}:/etc/some.conf", file.display());
    assert_eq!(sandbox.sh(&["-v", &volume], "cat /etc/some.conf; echo two >> /etc/some.conf"), "one");
    assert_eq!(fs::read(&file).expect("it stays"), b"one\ntwo\n");
    assert_eq!(fs::metadata(&file).expect("it stays").ino(), inode);
}

fn missing_source_of_v_is_made_as_a_directory(sandbox: &Sandbox) {
    let source = sandbox.place("not/yet/there");
    sandbox.sh(&["-v", &format!("{}:/data", source.display())], "echo x > /data/file");
    assert!(source.join("file").is_file());
}

fn missing_destination_is_made_only_in_the_container(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    sandbox.sh(&["-v", &format!("{source}:/brand/new/place")], "echo x > /brand/new/place/file");
    assert_eq!(sandbox.sh(&[], "ls -d /brand 2>&1 || true"), "ls: /brand: No such file or directory");
    let names: Vec<String> = crate::harness::tree::paths(&sandbox.place("v"), &[]);
    assert_eq!(names, ["file"]);
}

fn destination_through_a_link_is_resolved_inside_the_container(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    fs::write(sandbox.place("v/file"), "here\n").expect("the sandbox is ours");
    let tar = sandbox.place("links.tar");
    let mut writer = crate::harness::image::TarWriter::new();
    writer.link(tar::EntryType::Symlink, "way", "/real/place");
    writer.directory("real", 0o755);
    writer.directory("real/place", 0o755);
    fs::write(&tar, merged(writer)).expect("the sandbox is ours");
    let tar = tar.to_string_lossy().into_owned();
    let volume = format!("{source}:/way");
    let output =
        sandbox.mysup(&["run", "--rm", "-v", &volume, &tar, "cat", "/real/place/file"]).expect_code(0);
    assert_eq!(output.text(), "here");
}

/// The busybox image and the entries of another archive after it.
fn merged(writer: crate::harness::image::TarWriter) -> Vec<u8> {
    let mut bytes = crate::harness::image::tar_bytes(&[]);
    while bytes.len() >= 512 && bytes[bytes.len() - 512..].iter().all(|byte| *byte == 0) {
        bytes.truncate(bytes.len() - 512);
    }
    bytes.extend(writer.finish());
    bytes
}

fn hostile_destination_links_never_touch_the_host(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let canary = sandbox.new_directory("canary");
    let before = plant_data(&sandbox.place("canary"), "canary");
    let mut writer = crate::harness::image::TarWriter::new();
    writer.link(tar::EntryType::Symlink, "absolute", &canary);
    writer.link(tar::EntryType::Symlink, "climbing", &format!("../../../../../../../..{canary}"));
    writer.link(tar::EntryType::Symlink, "magic", "/proc/1/root/tmp");
    writer.link(tar::EntryType::Symlink, "self", "/proc/self/cwd");
    let tar = sandbox.place("links.tar");
    fs::write(&tar, merged(writer)).expect("the sandbox is ours");
    let tar = tar.to_string_lossy().into_owned();
    for name in ["absolute", "climbing", "magic", "self", "absolute/deep", "climbing/new/dir", "magic/new"] {
        let volume = format!("{source}:/{name}");
        // Refused or contained, both are right; touching the host is not.
        sandbox.mysup(&[
            "run",
            "--rm",
            "-v",
            &volume,
            "-w",
            &format!("/{name}/work"),
            &tar,
            "sh",
            "-c",
            "echo x > here",
        ]);
        before.expect_unchanged(&sandbox.place("canary"));
    }
}

fn relative_source_with_a_dot_is_expanded_by_the_client(sandbox: &Sandbox) {
    sandbox.new_directory("v");
    fs::write(sandbox.place("v/file"), "dot\n").expect("the sandbox is ours");
    let line = sandbox.run_line(&["--rm", "-v", "./v:/data"], &["cat", "/data/file"]);
    assert_eq!(sandbox.call(&line).directory(sandbox.place("")).ok(), "dot");
}

fn source_through_a_link_is_the_links_target(sandbox: &Sandbox) {
    sandbox.new_directory("v");
    fs::write(sandbox.place("v/file"), "target\n").expect("the sandbox is ours");
    std::os::unix::fs::symlink(sandbox.place("v"), sandbox.place("link")).expect("the sandbox is ours");
    let volume = format!("{}:/data", sandbox.place("link").display());
    assert_eq!(sandbox.sh(&["-v", &volume], "cat /data/file"), "target");
    assert!(sandbox.place("link").is_symlink());
}

fn same_source_in_many_containers_survives_the_end_of_one(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let before = plant_data(&sandbox.place("v"), "shared");
    let volume = format!("{source}:/data");
    let script = "trap 'cat /data/data; exit 0' TERM; echo up; while :; do sleep 0.02; done";
    for name in ["c1", "c2", "c3", "c4", "c5"] {
        sandbox.start(name, &["-v", &volume], script);
        wait_until("it is up", || sandbox.ok(&["logs", name]) == "up");
    }
    sandbox.ok(&["rm", "-f", "c1"]);
    sandbox.ok(&["kill", "c2"]);
    sandbox.ok(&["stop", "c3", "c4", "c5"]);
    for name in ["c3", "c4", "c5"] {
        assert_eq!(sandbox.ok(&["logs", name]), "up\nshared");
    }
    before.expect_unchanged(&sandbox.place("v"));
}

fn same_source_twice_in_one_container_works(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let (rw, ro) = (format!("{source}:/rw"), format!("{source}:/ro:ro"));
    let output = sandbox
        .sh(&["-v", &rw, "-v", &ro], "echo x > /rw/file; cat /ro/file; echo y > /ro/file || echo refused");
    assert_eq!(output, "x\nrefused");
}

fn nested(sandbox: &Sandbox, order: &str) {
    let mut flags = Vec::new();
    let mut before = Vec::new();
    for level in order.split(' ') {
        let source = sandbox.new_directory(level);
        let destination = match level {
            "a" => "/a",
            "b" => "/a/b",
            _ => "/a/b/c",
        };
        flags.extend(["-v".to_owned(), format!("{source}:{destination}")]);
    }
    // The outer sources need the mountpoints of the inner ones: made before, so that nothing of the trees may change.
    for level in ["a", "b", "c"] {
        plant_data(&sandbox.place(level), level);
    }
    fs::create_dir_all(sandbox.place("a/b")).expect("the sandbox is ours");
    fs::create_dir_all(sandbox.place("b/c")).expect("the sandbox is ours");
    for level in ["a", "b", "c"] {
        before.push((level, Tree::read(&sandbox.place(level))));
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let name = ["--name", "one"];
    let script = "cat /a/data /a/b/data /a/b/c/data";
    let output = sandbox.run(&[&name[..], &flags].concat(), &["sh", "-c", script]).expect_code(0);
    assert_eq!(output.text(), "a\nb\nc");
    sandbox.wait_status("one", "exited");
    let targets: Vec<String> = inspect::teardown(&sandbox.inspect("one"))
        .into_iter()
        .filter(|step| step.name == "volume")
        .map(|step| step.target)
        .collect();
    let at = |suffix: &str| targets.iter().position(|target| target.ends_with(suffix));
    assert!(
        at("/a/b/c") < at("/a/b") && at("/a/b") < at("/a") && at("/a/b/c").is_some(),
        "innermost first: {targets:?}"
    );
    for (level, tree) in before {
        tree.expect_unchanged(&sandbox.place(level));
    }
}

fn mount_flag_binds_and_read_only_is_kept(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    fs::write(sandbox.place("v/file"), "x\n").expect("the sandbox is ours");
    for spelling in [
        format!("type=bind,source={source},target=/data,readonly"),
        format!("type=bind,src={source},dst=/data,ro"),
        format!("type=bind,src={source},destination=/data,readonly=true"),
    ] {
        let output =
            sandbox.sh(&["--mount", &spelling], "cat /data/file; echo y > /data/file || echo refused");
        assert_eq!(output, "x\nrefused", "{spelling}");
    }
    sandbox.sh(&["--mount", &format!("type=bind,src={source},dst=/data")], "echo z > /data/file");
    assert_eq!(fs::read(sandbox.place("v/file")).expect("it stays"), b"z\n");
    sandbox.sh(
        &["--mount", "type=tmpfs,dst=/scratch"],
        "echo z > /scratch/file; grep ' /scratch tmpfs' /proc/mounts",
    );
}

fn rm_with_v_keeps_bind_volumes(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let before = plant_data(&sandbox.place("v"), "precious");
    sandbox.run(&["--name", "one", "-v", &format!("{source}:/data")], &["true"]).expect_code(0);
    sandbox.ok(&["rm", "-v", "one"]);
    before.expect_unchanged(&sandbox.place("v"));
}

fn mounts_below_a_volume_source_are_seen_and_survive(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let inner = sandbox.new_directory("inner");
    let before = plant_data(&sandbox.place("inner"), "inner");
    let bind = Bind::new(inner.as_ref(), &sandbox.place("v/sub"));
    assert_eq!(sandbox.sh(&["-v", &format!("{source}:/data")], "cat /data/sub/data"), "inner");
    let script = "echo x > /data/sub/new 2>/dev/null || echo refused";
    assert_eq!(sandbox.sh(&["-v", &format!("{source}:/data:ro")], script), "refused", "read-only goes down");
    before.expect_unchanged(&sandbox.place("inner"));
    bind.remove();
}

fn mounts_made_inside_below_a_volume_never_reach_the_host(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let script = "mkdir -p /data/m; mount -t tmpfs none /data/m && echo mounted; echo x > /data/m/file; kill -9 1; exit 0";
    let flags = ["--cap-add", "SYS_ADMIN", "-v", &format!("{source}:/data")];
    assert!(sandbox.sh(&flags, script).contains("mounted"));
    assert!(!sandbox.place("v/m/file").exists());
    assert!(sandbox.place("v/m").is_dir());
}

fn tmpfs_is_empty_writable_and_gone_after(sandbox: &Sandbox) {
    let script = "ls /etc; echo x > /etc/file; cat /etc/file; grep -c ' /etc tmpfs' /proc/mounts";
    let lines = sandbox.sh(&["--tmpfs", "/etc"], script);
    assert!(lines.ends_with("x\n1") && !lines.contains("passwd"), "{lines}");
    assert!(sandbox.sh(&[], "ls /etc").contains("passwd"));
}

fn tmpfs_takes_size_and_mode(sandbox: &Sandbox) {
    let script = "grep ' /t ' /proc/mounts; stat -c %a /t; dd if=/dev/zero of=/t/f bs=1k count=2000 2>&1 | tail -1; stat -c %s /t/f";
    let output = sandbox.sh(&["--tmpfs", "/t:size=1m,mode=700,noexec"], script);
    assert!(
        output.contains("noexec") && output.contains("\n700\n") && output.ends_with("1048576"),
        "{output}"
    );
}

fn volume_inside_a_tmpfs_works(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    fs::write(sandbox.place("v/file"), "inside\n").expect("the sandbox is ours");
    let volume = format!("{source}:/t/deep/data");
    assert_eq!(sandbox.sh(&["-v", &volume, "--tmpfs", "/t"], "cat /t/deep/data/file"), "inside");
}

fn read_only_root_refuses_writes_but_volumes_do_not(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let script =
        "echo x > /file || echo refused; echo y > /data/file; echo z > /t/file; echo n > /dev/null; echo ok";
    let volume = format!("{source}:/data");
    assert_eq!(sandbox.sh(&["--read-only", "-v", &volume, "--tmpfs", "/t"], script), "refused\nok");
    assert_eq!(fs::read(sandbox.place("v/file")).expect("it stays"), b"y\n");
}

fn source_removed_between_create_and_start_fails_the_start(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let image = sandbox.image();
    sandbox.ok(&[
        "create",
        "--name",
        "one",
        "--mount",
        &format!("type=bind,src={source},dst=/data"),
        image,
        "true",
    ]);
    fs::remove_dir(&source).expect("it is empty");
    let output = sandbox.mysup(&["start", "one"]).expect_code(1);
    assert!(output.errors().contains(&source), "{output}");
    assert!(!sandbox.place("v").exists(), "never made behind the user's back");
}

fn inspect_shows_the_mounts(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    sandbox.start("one", &["-v", &format!("{source}:/data:ro")], "sleep 1000");
    let container = sandbox.inspect("one");
    let mount = &container["Mounts"][0];
    assert_eq!((mount["Type"].as_str(), mount["RW"].as_bool()), (Some("bind"), Some(false)), "{mount}");
    assert_eq!(
        (mount["Source"].as_str(), mount["Destination"].as_str()),
        (Some(source.as_str()), Some("/data"))
    );
}
