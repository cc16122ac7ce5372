//! Volumes of mysup's own: named, anonymous, filled at their first use, removed only when nobody has them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
};

use tar::EntryType;

use crate::harness::{
    Case, Sandbox,
    image::{self, TarWriter},
    plant::Bind,
    tree::{Tree, plant_data},
    wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        volumes_are_made_listed_inspected_and_removed,
        names_are_dockers_and_no_paths,
        named_volume_is_made_on_first_use_and_outlives_its_containers,
        first_use_copies_the_images_content_whole,
        only_an_empty_volume_is_filled_and_only_once,
        nocopy_leaves_a_volume_empty,
        read_only_volume_is_filled_and_refuses_writes,
        directory_through_a_link_is_copied_and_mounted_at_its_target,
        file_in_the_image_is_no_place_for_a_volume,
        links_in_a_volume_are_never_followed_by_mysup,
        anonymous_volumes_go_with_rm_v_and_with_rm_at_exit_only,
        images_volumes_are_anonymous_and_the_users_mounts_win,
        volume_in_use_is_not_removed_and_the_container_is_named,
        unreadable_container_keeps_every_volume,
        damaged_volume_is_served_and_named_and_not_pruned,
        prune_takes_anonymous_ones_or_all,
        nothing_is_removed_through_a_mount_below_a_volume,
        shared_mount_below_a_volume_loses_nothing,
        inspect_and_ps_show_volumes,
        volume_lists_are_filtered_and_formatted,
    ]
}

/// Where a volume's files are.
pub(crate) fn data(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.root().join("volumes").join(name).join("_data")
}

pub(crate) fn names(sandbox: &Sandbox) -> Vec<String> {
    sandbox.ok(&["volume", "ls", "-q"]).lines().map(str::to_owned).collect()
}

/// The busybox image with more entries and these instructions of a Dockerfile.
pub(crate) fn import(sandbox: &Sandbox, name: &str, changes: &[&str], fill: impl FnOnce(&mut TarWriter)) {
    let mut bytes = image::tar_bytes(&[]);
    while bytes.len() >= 512 && bytes[bytes.len() - 512..].iter().all(|byte| *byte == 0) {
        bytes.truncate(bytes.len() - 512);
    }
    let mut writer = TarWriter::new();
    fill(&mut writer);
    bytes.extend(writer.finish());
    let tar = sandbox.place(&format!("{name}.tar"));
    fs::write(&tar, bytes).expect("the sandbox is ours");
    let tar = tar.to_string_lossy().into_owned();
    let changes: Vec<&str> = changes.iter().flat_map(|change| ["-c", change]).collect();
    sandbox.ok(&[&["import"], &changes[..], &[&tar, name]].concat());
}

/// An image with something of everything below /content.
pub(crate) fn rich(sandbox: &Sandbox, changes: &[&str]) {
    import(sandbox, "rich", changes, |writer| {
        writer.directory("content", 0o2751);
        writer.file("content/file", 0o4755, b"bytes\n");
        writer.link(EntryType::Link, "content/again", "content/file");
        writer.link(EntryType::Symlink, "content/link", "../etc/passwd");
        writer.directory("content/deep", 0o1777);
        writer.file("content/deep/.hidden", 0o600, &[7; 5000]);
        writer.device("content/device");
    });
}

fn volumes_are_made_listed_inspected_and_removed(sandbox: &Sandbox) {
    assert_eq!(sandbox.ok(&["volume", "ls"]), "DRIVER    VOLUME NAME");
    assert_eq!(sandbox.ok(&["volume", "create", "--label", "tier=db", "data"]), "data");
    assert_eq!(sandbox.ok(&["volume", "create", "data"]), "data", "one that is there is fine");
    let made_up = sandbox.ok(&["volume", "create"]);
    assert!(made_up.len() == 64 && made_up.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made_up}");
    let mut both = vec!["data".to_owned(), made_up.clone()];
    both.sort();
    assert_eq!(names(sandbox), both);
    let shown = sandbox.ok(&["volume", "inspect", "data"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let place = data(sandbox, "data");
    assert_eq!(shown[0]["Mountpoint"].as_str(), place.to_str());
    assert_eq!(shown[0]["Labels"]["tier"], "db");
    assert_eq!(fs::metadata(&place).expect("it is there").permissions().mode() & 0o7777, 0o755);
    let nothing = sandbox.mysup(&["volume", "inspect", "other"]).expect_code(1);
    assert!(nothing.text() == "[]" && nothing.errors().contains("No such volume: other"), "{nothing}");
    sandbox.refused(&["volume", "rm", "other"], 1, &["No such volume: other"]);
    assert_eq!(sandbox.ok(&["volume", "rm", "-f", "other"]), "other");
    assert_eq!(sandbox.ok(&["volume", "rm", "data", &made_up]), format!("data\n{made_up}"));
    assert!(names(sandbox).is_empty() && !place.exists());
}

fn names_are_dockers_and_no_paths(sandbox: &Sandbox) {
    for name in ["ab", &"x".repeat(65), "A.b-c_d", &"y".repeat(200)] {
        assert_eq!(sandbox.ok(&["volume", "create", name]), name);
    }
    let before = Tree::read(&sandbox.root().join("volumes"));
    for name in ["a", "../x", "a/b", ".hidden", "..", "-x", "a b", "a:b", &"z".repeat(201), "ä1"] {
        sandbox.refused(&["volume", "create", "--", name], 1, &["invalid volume name"]);
        if !name.contains(':') && !name.starts_with('.') {
            let line = sandbox.run_line(&["-v", "x"], &["true"]);
            let volume = format!("{name}:/data");
            let line: Vec<&str> =
                line.iter().map(|word| if *word == "x" { &volume } else { *word }).collect();
            sandbox.refused(&line, 125, &[]);
        }
    }
    sandbox.refused(&["volume", "rm", "--", "../containers"], 1, &["No such volume"]);
    before.expect_unchanged(&sandbox.root().join("volumes"));
}

fn named_volume_is_made_on_first_use_and_outlives_its_containers(sandbox: &Sandbox) {
    sandbox.sh(&["-v", "data:/d"], "echo one > /d/file");
    assert_eq!(
        sandbox.sh(&["--mount", "type=volume,src=data,dst=/e"], "cat /e/file; echo two > /e/file"),
        "one"
    );
    sandbox.run(&["--name", "c1", "-v", "data:/f"], &["cat", "/f/file"]).expect_code(0);
    sandbox.ok(&["rm", "-v", "c1"]);
    assert_eq!(fs::read(data(sandbox, "data").join("file")).expect("it stays"), b"two\n");
    // Made by `create` already.
    let image = sandbox.image();
    sandbox.ok(&["create", "--name", "c2", "-v", "more:/d", image, "true"]);
    assert_eq!(names(sandbox), ["data", "more"]);
}

fn first_use_copies_the_images_content_whole(sandbox: &Sandbox) {
    rich(sandbox, &[]);
    let image = sandbox.ok(&["image", "inspect", "--format", "{{.GraphDriver.Data.LowerDir}}", "rich"]);
    let original = PathBuf::from(&image).join("content");
    // What a tar of the tests cannot hold.
    let name = c"user.mysup";
    let has_attributes =
        rustix::fs::setxattr(original.join("file"), name, b"word", rustix::fs::XattrFlags::empty()).is_ok();
    sandbox.mysup(&["run", "--rm", "-v", "data:/content", "rich", "true"]).expect_code(0);
    let difference = Tree::read_copy(&original).difference(&Tree::read_copy(&data(sandbox, "data")));
    assert!(difference.is_empty(), "not the same:\n{}", difference.join("\n"));
    if !has_attributes {
        crate::harness::skip("this file system has no user attributes");
    }
    let inode = |name: &str| fs::metadata(data(sandbox, "data").join(name)).expect("copied").ino();
    assert_eq!(inode("file"), inode("again"), "one file with two names");
    let left: Vec<String> = crate::harness::tree::paths(&sandbox.root().join("volumes/data"), &["_data"]);
    assert_eq!(left, ["volume.json"], "nothing of the copy stays");
}

fn only_an_empty_volume_is_filled_and_only_once(sandbox: &Sandbox) {
    rich(sandbox, &[]);
    let use_it = |name: &str, script: &str| {
        let volume = format!("{name}:/content");
        sandbox.mysup(&["run", "--rm", "-v", &volume, "rich", "sh", "-c", script]).expect_code(0).text()
    };
    sandbox.ok(&["volume", "create", "full"]);
    fs::write(data(sandbox, "full").join(".mine"), "mine").expect("the sandbox is ours");
    let before = Tree::read(&data(sandbox, "full"));
    assert_eq!(use_it("full", "ls -A /content"), ".mine");
    before.expect_unchanged(&data(sandbox, "full"));
    assert_eq!(use_it("data", "rm -r /content/* /content/.[!.]* 2>/dev/null; ls -A /content"), "");
    assert_eq!(use_it("data", "ls -A /content"), "", "what its user emptied stays empty");
}

fn nocopy_leaves_a_volume_empty(sandbox: &Sandbox) {
    rich(sandbox, &[]);
    for (name, flags) in [
        ("one", ["-v", "one:/content:nocopy"]),
        ("two", ["--mount", "type=volume,src=two,dst=/content,volume-nocopy"]),
    ] {
        let line = [&["run", "--rm"], &flags[..], &["rich", "ls", "-A", "/content"]].concat();
        assert_eq!(sandbox.ok(&line), "");
        assert_eq!(fs::read_dir(data(sandbox, name)).expect("made").count(), 0);
    }
}

fn read_only_volume_is_filled_and_refuses_writes(sandbox: &Sandbox) {
    rich(sandbox, &[]);
    let script = "cat /content/file; echo x > /content/new || echo refused; mount -o remount,rw /content; \
        echo x > /content/new; true";
    let line = ["run", "--rm", "-v", "data:/content:ro", "rich", "sh", "-c", script];
    assert_eq!(sandbox.ok(&line), "bytes\nrefused");
    assert!(!data(sandbox, "data").join("new").exists());
}

fn directory_through_a_link_is_copied_and_mounted_at_its_target(sandbox: &Sandbox) {
    let canary = sandbox.new_directory("canary");
    let before = plant_data(&sandbox.place("canary"), "canary");
    import(sandbox, "linked", &[], |writer| {
        writer.directory("real", 0o755);
        writer.file("real/file", 0o644, b"real\n");
        writer.link(EntryType::Symlink, "way", "/real");
        writer.link(EntryType::Symlink, "out", &format!("../../../../..{canary}"));
    });
    let cat = ["cat", "/real/file"];
    assert_eq!(sandbox.ok(&[&["run", "--rm", "-v", "data:/way", "linked"], &cat[..]].concat()), "real");
    assert_eq!(fs::read(data(sandbox, "data").join("file")).expect("copied"), b"real\n");
    // Refused or made inside: both are right. The host's directory is neither read nor changed.
    sandbox.mysup(&["run", "--rm", "-v", "bad:/out", "linked", "true"]);
    assert!(!data(sandbox, "bad").join("data").exists());
    before.expect_unchanged(&sandbox.place("canary"));
}

fn file_in_the_image_is_no_place_for_a_volume(sandbox: &Sandbox) {
    let line = sandbox.run_line(&["--rm", "-v", "data:/etc/passwd"], &["true"]);
    sandbox.refused(&line, 125, &["/etc/passwd", "data", "directory"]);
    assert_eq!(fs::read_dir(data(sandbox, "data")).expect("made").count(), 0);
}

fn links_in_a_volume_are_never_followed_by_mysup(sandbox: &Sandbox) {
    let canary = sandbox.new_directory("canary");
    let before = plant_data(&sandbox.place("canary"), "canary");
    sandbox.sh(&["-v", "data:/d"], &format!("ln -s {canary} /d/out; ln -s / /d/root; mkdir /d/sub"));
    sandbox.ok(&["system", "df"]);
    sandbox.sh(&["-v", "data:/d", "-v", "inner:/d/sub"], "echo x > /d/sub/file");
    sandbox.ok(&["volume", "rm", "data", "inner"]);
    sandbox.ok(&["volume", "create", "data"]);
    // By whoever may write there: a link in the place of the files is refused, not followed.
    fs::remove_dir(data(sandbox, "data")).expect("the sandbox is ours");
    symlink(&canary, data(sandbox, "data")).expect("the sandbox is ours");
    let line = sandbox.run_line(&["--rm", "-v", "data:/d"], &["rm", "-r", "/d/deep"]);
    sandbox.mysup(&line).expect_code(125);
    sandbox.ok(&["volume", "rm", "data"]);
    before.expect_unchanged(&sandbox.place("canary"));
}

fn anonymous_volumes_go_with_rm_v_and_with_rm_at_exit_only(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&["-v", "/d"], "echo x > /d/file; cat /d/file"), "x");
    assert!(names(sandbox).is_empty(), "--rm takes it along, and is not back before");
    sandbox
        .run(&["--name", "one", "-v", "/d", "-v", "named:/e"], &["sh", "-c", "echo x > /d/file"])
        .expect_code(0);
    let both = names(sandbox);
    assert_eq!(both.len(), 2);
    sandbox.ok(&["rm", "one"]);
    assert_eq!(names(sandbox), both, "plain rm leaves it, as docker's");
    let anonymous = both.iter().find(|name| *name != "named").expect("one of them");
    assert_eq!(fs::read(data(sandbox, anonymous).join("file")).expect("it stays"), b"x\n");
    sandbox.run(&["--name", "two", "-v", "/d", "-v", "named:/e"], &["true"]).expect_code(0);
    sandbox.ok(&["rm", "-v", "two"]);
    assert_eq!(names(sandbox), both);
    sandbox.start("three", &["-v", "/d"], "sleep 1000");
    sandbox.ok(&["rm", "-f", "-v", "three"]);
    assert_eq!(names(sandbox), both);
    // A start that fails leaves none either.
    let line = sandbox.run_line(&["--rm", "-v", "/d"], &["/not/there"]);
    sandbox.mysup(&line).expect_code(127);
    wait_until("it went along", || names(sandbox) == both);
}

fn images_volumes_are_anonymous_and_the_users_mounts_win(sandbox: &Sandbox) {
    rich(sandbox, &["VOLUME /content /other/"]);
    let id = sandbox.ok(&["run", "-d", "--name", "one", "-v", "named:/other", "rich", "sleep", "1000"]);
    assert!(!id.is_empty());
    let mounts = sandbox.inspect("one")["Mounts"].as_array().expect("a list").clone();
    let at = |place: &str| {
        let mount = mounts.iter().find(|mount| mount["Destination"] == place);
        mount.unwrap_or_else(|| panic!("nothing at {place}: {mounts:?}"))["Name"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    };
    assert_eq!((mounts.len(), at("/other")), (2, "named".to_owned()));
    let own = at("/content");
    assert_eq!((own.len(), fs::read(data(sandbox, &own).join("file")).ok()), (64, Some(b"bytes\n".to_vec())));
    // The same one at the next start, whatever is in it.
    fs::write(data(sandbox, &own).join("file"), "changed\n").expect("the sandbox is ours");
    sandbox.ok(&["restart", "-t", "0", "one"]);
    assert_eq!(fs::read(data(sandbox, &own).join("file")).expect("it stays"), b"changed\n");
    sandbox.ok(&["rm", "-f", "-v", "one"]);
    assert_eq!(names(sandbox), ["named"]);
}

fn volume_in_use_is_not_removed_and_the_container_is_named(sandbox: &Sandbox) {
    sandbox.start("user", &["-v", "data:/d"], "echo x > /d/file; sleep 1000");
    for _ in 0..2 {
        sandbox.refused(&["volume", "rm", "data"], 1, &["data", "in use", "user"]);
        sandbox.refused(&["volume", "rm", "-f", "data"], 1, &["data", "in use", "user"]);
        sandbox.ok(&["volume", "prune", "-a", "-f"]);
        assert_eq!(names(sandbox), ["data"]);
        // The same of one that has ended.
        sandbox.ok(&["stop", "-t", "0", "user"]);
    }
    sandbox.ok(&["rm", "user"]);
    sandbox.ok(&["volume", "rm", "data"]);
}

fn unreadable_container_keeps_every_volume(sandbox: &Sandbox) {
    sandbox.ok(&["volume", "create", "data"]);
    sandbox.run(&["--name", "other", "-v", "/d"], &["true"]).expect_code(0);
    let id = sandbox.start("broken", &["-v", "precious:/d"], "true");
    sandbox.wait_status("broken", "exited");
    let record = sandbox.state_directory("broken").join("config.json");
    sandbox.kill_supervisor();
    let mut bytes = fs::read(&record).expect("a record");
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    fs::write(&record, bytes).expect("the sandbox is ours");
    for volume in ["data", "precious"] {
        sandbox.refused(&["volume", "rm", volume], 1, &[&id, "cannot be read"]);
    }
    sandbox.refused(&["volume", "prune", "-a", "-f"], 1, &[&id, "cannot be read"]);
    sandbox.refused(&["rm", "-v", "other"], 1, &[&id, "cannot be read"]);
    assert_eq!(names(sandbox).len(), 3);
    sandbox.ok(&["rm", "-f", &id]);
    sandbox.ok(&["rm", "-v", "other"]);
    assert_eq!(names(sandbox), ["data", "precious"]);
    sandbox.ok(&["volume", "prune", "-a", "-f"]);
    assert!(names(sandbox).is_empty());
}

fn damaged_volume_is_served_and_named_and_not_pruned(sandbox: &Sandbox) {
    sandbox.sh(&["-v", "data:/d"], "echo x > /d/file");
    let record = sandbox.root().join("volumes/data/volume.json");
    fs::write(&record, "nonsense").expect("the sandbox is ours");
    let shown = sandbox.ok(&["volume", "inspect", "--format", "{{.Name}} {{.Error}}", "data"]);
    assert!(shown.starts_with("data it "), "{shown}");
    assert_eq!(sandbox.sh(&["-v", "data:/d"], "cat /d/file"), "x", "its files are whole");
    sandbox.ok(&["volume", "prune", "-a", "-f"]);
    assert_eq!(names(sandbox), ["data"]);
    sandbox.ok(&["volume", "rm", "data"]);
}

fn prune_takes_anonymous_ones_or_all(sandbox: &Sandbox) {
    sandbox.ok(&["volume", "create", "named"]);
    sandbox.ok(&["volume", "create", "--label", "keep", "kept"]);
    let anonymous = sandbox.ok(&["volume", "create"]);
    sandbox.refused(&["volume", "prune"], 1, &["terminal", "-f"]);
    assert_eq!(names(sandbox).len(), 3);
    let said = sandbox.ok(&["volume", "prune", "-f"]);
    assert!(
        said.contains(&format!("Deleted Volumes:\n{anonymous}\n")) && said.contains("reclaimed"),
        "{said}"
    );
    assert_eq!(names(sandbox), ["kept", "named"]);
    sandbox.ok(&["volume", "prune", "-f", "-a", "--filter", "label!=keep"]);
    assert_eq!(names(sandbox), ["kept"]);
    let said = sandbox.ok(&["volume", "prune", "-f"]);
    assert_eq!(said, "Total reclaimed space: 0B");
}

fn nothing_is_removed_through_a_mount_below_a_volume(sandbox: &Sandbox) {
    let precious = sandbox.new_directory("precious");
    let before = plant_data(&sandbox.place("precious"), "precious");
    sandbox.ok(&["volume", "create", "data"]);
    let point = data(sandbox, "data").join("important data");
    fs::create_dir(&point).expect("the sandbox is ours");
    let bind = Bind::new(precious.as_ref(), &point);
    sandbox.refused(&["volume", "rm", "data"], 1, &["data", "mounted", "umount"]);
    sandbox.ok(&["volume", "prune", "-a", "-f"]);
    assert_eq!(names(sandbox), ["data"]);
    sandbox.run(&["--name", "one", "-v", "/d"], &["true"]).expect_code(0);
    let anonymous = names(sandbox).into_iter().find(|name| name != "data").expect("another");
    let point = data(sandbox, &anonymous).join("important");
    fs::create_dir(&point).expect("the sandbox is ours");
    let another = Bind::new(precious.as_ref(), &point);
    sandbox.refused(&["rm", "-v", "one"], 1, &["mounted"]);
    assert_eq!(sandbox.status("one"), "exited", "it is there as before");
    before.expect_unchanged(&sandbox.place("precious"));
    bind.remove();
    another.remove();
    sandbox.ok(&["rm", "-v", "one"]);
    sandbox.ok(&["volume", "rm", "data"]);
    before.expect_unchanged(&sandbox.place("precious"));
}

/// The five lines of moby issue 35323, and the same by somebody in the container.
fn shared_mount_below_a_volume_loses_nothing(sandbox: &Sandbox) {
    let important = sandbox.new_directory("importantdata");
    for name in ["a", "b", "c"] {
        fs::write(sandbox.place("importantdata").join(name), name).expect("the sandbox is ours");
    }
    let before = Tree::read(&sandbox.place("importantdata"));
    let bind = format!("{important}:/myroot/importantdata");
    let shared = format!("{bind}:shared");
    let line = sandbox.run_line(&["--rm", "-v", "myroot:/myroot", "-v", &shared], &["echo", "hello"]);
    sandbox.refused(&line, 125, &["shared"]);
    let script = "mount --make-rshared / 2>/dev/null; mkdir /myroot/more; mount --bind /myroot/importantdata /myroot/more; ls \
        /myroot/importantdata";
    let flags = ["--privileged", "-v", "myroot:/myroot", "-v", &bind];
    assert_eq!(sandbox.sh(&flags, script), "a\nb\nc");
    assert_eq!(fs::read_dir(data(sandbox, "myroot").join("importantdata")).expect("made").count(), 0);
    sandbox.ok(&["volume", "rm", "myroot"]);
    before.expect_unchanged(&sandbox.place("importantdata"));
}

fn inspect_and_ps_show_volumes(sandbox: &Sandbox) {
    sandbox.start("one", &["-v", "data:/d:ro", "-v", "/e"], "sleep 1000");
    sandbox.start("two", &[], "sleep 1000");
    let container = sandbox.inspect("one");
    let mount = &container["Mounts"][0];
    assert_eq!((mount["Type"].as_str(), mount["Name"].as_str()), (Some("volume"), Some("data")), "{mount}");
    assert_eq!((mount["RW"].as_bool(), mount["Driver"].as_str()), (Some(false), Some("local")));
    assert_eq!(mount["Source"].as_str(), data(sandbox, "data").to_str());
    assert_eq!(container["HostConfig"]["Binds"][0].as_str(), Some("data:/d:ro"));
    for filter in ["volume=data", "volume=/d", "volume=/e"] {
        assert_eq!(sandbox.ok(&["ps", "--filter", filter, "--format", "{{.Names}}"]), "one", "{filter}");
    }
    assert_eq!(sandbox.ok(&["ps", "--filter", "volume=data", "--format", "{{.LocalVolumes}}"]), "2");
}

fn volume_lists_are_filtered_and_formatted(sandbox: &Sandbox) {
    sandbox.ok(&["volume", "create", "--label", "tier=db", "free"]);
    sandbox.start("one", &["-v", "taken:/d"], "sleep 1000");
    let list = |filter: &str| sandbox.ok(&["volume", "ls", "-q", "--filter", filter]);
    assert_eq!(list("dangling=true"), "free");
    assert_eq!(list("dangling=false"), "taken");
    assert_eq!(list("label=tier=db"), "free");
    assert_eq!(list("name=ake"), "taken");
    sandbox.refused(&["volume", "ls", "--filter", "colour=red"], 1, &["filter"]);
    let format = "{{.Name}}\t{{.Driver}}\t{{.Scope}}\t{{.Labels}}";
    assert_eq!(
        sandbox.ok(&["volume", "ls", "--format", format]),
        "free\tlocal\tlocal\ttier=db\ntaken\tlocal\tlocal\t"
    );
    assert_eq!(sandbox.ok(&["volume", "ls", "--format", "json"]).lines().count(), 2);
}
