//! `load`, `save` and what can be done with images of several layers.

use std::{fs, path::Path, process::Command};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Case, Sandbox,
    bundle::{self, Packed, Specimen},
    terminal::Terminal,
    tree, wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        images_come_through_pipes_and_go_out_through_them,
        image_config_is_honoured_and_can_be_overridden,
        labels_and_annotations_are_never_policy,
        tag_gives_one_more_name,
        rmi_never_breaks_a_container,
        images_can_be_filtered,
        history_and_inspect_tell_what_is_known,
        prune_asks_and_spares_what_is_used,
        verify_finds_a_changed_file,
        import_with_changes_makes_their_configuration,
        killed_load_leaves_nothing_half,
        interrupted_load_import_and_save_leave_nothing,
        save_replaces_a_file_only_by_a_whole_one,
        reader_that_goes_ends_a_save,
        load_onto_a_full_disk_is_refused_in_one_line,
        load_needs_little_memory_whatever_the_image,
        damaged_bundles_are_refused_in_one_line,
        layer_that_hides_everything_is_joined_alone,
        image_of_thirty_layers_is_joined,
    ]
}

const NAME: &str = "specimen:1";

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Loads the specimen from docker's archive.
fn load(sandbox: &Sandbox, specimen: &Specimen, name: &str) {
    let path = sandbox.place("given.tar");
    fs::write(&path, bundle::archive(&specimen.docker_files(&[name]))).expect("the sandbox is ours");
    assert_eq!(sandbox.ok(&["load", "-i", &text(&path)]), format!("Loaded image: {name}"));
}

fn layers(sandbox: &Sandbox) -> usize {
    fs::read_dir(sandbox.root().join("layers")).map_or(0, Iterator::count)
}

fn images_come_through_pipes_and_go_out_through_them(sandbox: &Sandbox) {
    let specimen = Specimen::new("pipes");
    for packed in [Packed::Plain, Packed::Gzip, Packed::Zstd] {
        for files in [specimen.docker_files(&[NAME]), specimen.oci_files(Some(NAME), packed)] {
            let bytes = bundle::pack(packed, &bundle::archive(&files));
            assert_eq!(sandbox.call(&["load"]).input(bytes).ok(), format!("Loaded image: {NAME}"));
            let saved = sandbox.call(&["save", "--format", "oci-archive", NAME]).run().expect_code(0);
            assert_eq!(sandbox.ok(&["rmi", NAME]).lines().count(), 5, "a name, an image, three layers");
            assert_eq!(sandbox.call(&["load", "-q"]).input(saved.stdout).ok(), "");
            assert_eq!(sandbox.ok(&["images", "-q", "--no-trunc"]), specimen.id());
            sandbox.ok(&["rmi", NAME]);
            assert_eq!(layers(sandbox), 0);
        }
    }
    let nameless = bundle::archive(&specimen.oci_files(None, Packed::Plain));
    let said = sandbox.call(&["load", "-i", "-"]).input(nameless).ok();
    assert_eq!(said, format!("Loaded image ID: {}", specimen.id()));
}

fn image_config_is_honoured_and_can_be_overridden(sandbox: &Sandbox) {
    load(sandbox, &Specimen::new("honoured"), NAME);
    assert_eq!(sandbox.ok(&["run", "--rm", NAME]), "honoured\ntester\n/data");
    assert_eq!(sandbox.ok(&["run", "--rm", "-e", "WORD=mine", NAME]), "mine\ntester\n/data");
    assert_eq!(sandbox.ok(&["run", "--rm", "-u", "0", "-w", "/", NAME]), "honoured\nroot\n/");
    assert_eq!(sandbox.ok(&["run", "--rm", NAME, "echo other"]), "other");
    assert_eq!(sandbox.ok(&["run", "--rm", "--entrypoint", "echo", NAME, "$WORD"]), "$WORD");
    sandbox.ok(&["run", "-d", "--name", "one", NAME, "trap 'exit 7' USR1; while :; do sleep 0.01; done"]);
    let document = sandbox.inspect("one");
    assert_eq!(document["Config"]["Labels"]["a"], "b");
    assert_eq!(sandbox.ok(&["stop", "one"]), "one");
    assert_eq!(sandbox.ok(&["wait", "one"]), "7", "the image's stop signal");
    // What the layers hide is not there, and what they have is.
    let script =
        "cat /etc/replaced /data/big; ls /opt /etc/gone /lib 2>&1; stat -c '%a %u:%g' /data /data/setuid";
    let expected = "new and longersmall honouredls: /etc/gone: No such file or directory\n\
                    ls: /lib: No such file or directory\n/opt:\nvisible\n1777 0:0\n4755 1000:100000";
    assert_eq!(sandbox.ok(&["run", "--rm", "-u", "0", NAME, script]), expected);
}

fn labels_and_annotations_are_never_policy(sandbox: &Sandbox) {
    let mut specimen = Specimen::new("policy");
    let labels = serde_json::json!({
        "io.podman.annotations.privileged": "TRUE",
        "io.podman.annotations.cap-add": "SYS_ADMIN",
        "run.oci.handler": "krun",
        "com.docker.security.privileged": "true",
        "io.kubernetes.cri-o.userns-mode": "host",
        "mysup.privileged": "true",
        "containerd.io/restart.loguri": "binary:///bin/sh",
        "org.systemd.property.ExecStartPre": "[('/bin/sh', ['sh'], true)]"
    });
    specimen.config["config"]["Labels"] = labels.clone();
    specimen.config["annotations"] = labels;
    specimen.config["config"]["User"] = Value::from("0");
    // One more mount would be right, and would hide one that is not.
    specimen.config["config"]["Volumes"] = Value::Null;
    sandbox.image();
    load(sandbox, &specimen, NAME);
    let script = "grep Cap /proc/1/status; grep -c . /proc/mounts; cat /proc/self/cgroup | wc -l";
    let plain = sandbox.sh(&[], script);
    assert_eq!(sandbox.ok(&["run", "--rm", NAME, script]), plain);
}

fn tag_gives_one_more_name(sandbox: &Sandbox) {
    let specimen = Specimen::new("tagged");
    load(sandbox, &specimen, NAME);
    sandbox.ok(&["tag", NAME, "host:5000/a/b:c"]);
    sandbox.ok(&["image", "tag", &specimen.id()[7..19], "other"]);
    let names = sandbox.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["host:5000/a/b:c", "other:latest", NAME]);
    sandbox.refused(&["tag", "nosuch", "x"], 1, &["no such image", "nosuch"]);
    sandbox.refused(&["tag", NAME, "UPPER"], 1, &["UPPER"]);
    assert_eq!(sandbox.ok(&["rmi", "other"]), "Untagged: other:latest");
    sandbox.refused(&["rmi", &specimen.id()], 1, &["multiple"]);
    load(sandbox, &Specimen::new("newer"), NAME);
    assert_eq!(sandbox.ok(&["images", "-q"]).lines().count(), 2, "the name went to the newer image");
    assert_eq!(sandbox.ok(&["image", "inspect", "-f", "{{.Id}}", "host:5000/a/b:c"]), specimen.id());
}

fn rmi_never_breaks_a_container(sandbox: &Sandbox) {
    load(sandbox, &Specimen::new("used"), NAME);
    sandbox.ok(&["run", "-d", "--keep", "--name", "one", "-u", "0", NAME, "sleep 1000"]);
    sandbox.refused(&["rmi", NAME], 1, &["specimen"]);
    sandbox.ok(&["rmi", "-f", NAME]);
    sandbox.ok(&["image", "prune", "-a", "-f"]);
    assert_eq!(layers(sandbox), 3);
    sandbox.ok(&["stop", "-t", "0", "one"]);
    sandbox.kill_supervisor();
    sandbox.ok(&["start", "one"]);
    assert_eq!(layers(sandbox), 3);
    sandbox.ok(&["rm", "-f", "one"]);
    sandbox.ok(&["image", "prune", "-a", "-f"]);
    assert_eq!(layers(sandbox), 0);
}

fn images_can_be_filtered(sandbox: &Sandbox) {
    let (one, two) = (Specimen::new("one"), Specimen::new("two"));
    load(sandbox, &one, "a/first:1");
    let mut later = two.clone();
    later.config["created"] = Value::from("2026-11-25T00:00:00Z");
    later.config["config"]["Labels"] = serde_json::json!({ "colour": "red" });
    load(sandbox, &later, "second:2");
    let dangling = bundle::archive(&two.oci_files(None, Packed::Plain));
    sandbox.call(&["load", "-q"]).input(dangling).ok();
    let list = |flags: &[&str]| {
        let listed = sandbox.ok(&[&["images", "--format", "{{.Repository}}"], flags].concat());
        let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines.join(" ")
    };
    assert_eq!(list(&[]), "<none> a/first second");
    assert_eq!(list(&["-a"]), "<none> a/first second");
    assert_eq!(list(&["-f", "dangling=true"]), "<none>");
    assert_eq!(list(&["-f", "dangling=false", "-f", "label=colour=red"]), "second");
    assert_eq!(list(&["-f", "label=colour"]), "second");
    assert_eq!(list(&["-f", "reference=*/*"]), "a/first");
    assert_eq!(list(&["second"]), "second");
    assert_eq!(list(&["second:1"]), "");
    assert_eq!(list(&["-f", "before=second:2"]), "<none> a/first");
    assert_eq!(list(&["-f", "since=a/first:1"]), "second");
    sandbox.refused(&["images", "-f", "colour=red"], 1, &["colour"]);
    sandbox.refused(&["images", "-f", "since=nosuch"], 1, &["nosuch"]);
    let digests = sandbox.ok(&["images", "--digests"]);
    let head = digests.lines().next().unwrap_or_default();
    assert!(
        head.split_whitespace().eq(["REPOSITORY", "TAG", "DIGEST", "IMAGE", "ID", "CREATED", "SIZE"]),
        "{head}"
    );
    assert_eq!(digests.matches("sha256:").count(), 1, "docker's archives have no manifest: {digests}");
    assert_eq!(sandbox.ok(&["image", "ls", "-q"]).lines().count(), 3);
}

fn history_and_inspect_tell_what_is_known(sandbox: &Sandbox) {
    let specimen = Specimen::new("known");
    load(sandbox, &specimen, NAME);
    let history = sandbox.ok(&["history", "--format", "{{.ID}}|{{.CreatedBy}}|{{.Comment}}", NAME]);
    let expected = ["|RUN top|the last", "|COPY middle|", "|ENV x|", "|ADD base|"];
    assert_eq!(history.lines().count(), 4, "{history}");
    for (line, expected) in history.lines().zip(expected) {
        assert!(line.ends_with(expected), "{line}");
    }
    let sizes = sandbox.ok(&["history", "-H=false", "--format", "{{.Size}}", NAME]);
    assert_eq!(sizes.lines().nth(2), Some("0"), "a step without a layer");
    let documents: Value = serde_json::from_str(&sandbox.ok(&["image", "inspect", NAME])).expect("JSON");
    let document = &documents[0];
    assert_eq!(document["Id"], specimen.id());
    assert_eq!(document["RepoTags"], serde_json::json!([NAME]));
    assert_eq!(document["Created"], specimen.config["created"]);
    assert_eq!(document["Author"], "somebody");
    for key in
        ["User", "Env", "Entrypoint", "Cmd", "WorkingDir", "ExposedPorts", "Volumes", "Labels", "Healthcheck"]
    {
        assert_eq!(document["Config"][key], specimen.config["config"][key], "{key}");
    }
    let format = "{{.Os}}/{{.Architecture}} {{range .RootFS.Layers}}{{.}} {{end}}";
    let shown = sandbox.ok(&["image", "inspect", "-f", format, NAME]);
    assert_eq!(shown.trim(), format!("linux/amd64 {}", specimen.diff_ids().join(" ")));
    let output = sandbox.mysup(&["image", "inspect", "nosuch"]);
    assert!(output.code == 1 && output.text().trim() == "[]", "{output}");
}

fn prune_asks_and_spares_what_is_used(sandbox: &Sandbox) {
    load(sandbox, &Specimen::new("named"), NAME);
    load(sandbox, &Specimen::new("kept"), "kept:1");
    let dangling = bundle::archive(&Specimen::new("dangling").oci_files(None, Packed::Plain));
    sandbox.call(&["load", "-q"]).input(dangling).ok();
    for answer in ["", "n\n", "y\n"] {
        sandbox.call(&["image", "prune"]).input(answer).run().expect_refusal(1, &["no terminal", "-f"]);
    }
    assert_eq!(sandbox.ok(&["images", "-q"]).lines().count(), 3);
    let answered = |answer: &str, last: &str| {
        let mut terminal = Terminal::run(sandbox, &["image", "prune"], 30, 100);
        terminal.wait_for("[y/N]");
        terminal.type_keys(answer);
        terminal.wait_for(last);
        assert_eq!(terminal.wait(), Some(0), "{}", terminal.screen());
        terminal.screen()
    };
    assert!(answered("n\n", "dangling images").contains("WARNING"));
    assert_eq!(sandbox.ok(&["images", "-q"]).lines().count(), 3);
    let said = answered("y\n", "Total reclaimed space: ");
    assert!(said.contains("Deleted Images:") && said.contains("Total reclaimed space: "), "{said}");
    assert!(!said.contains("space: 0B"), "{said}");
    assert_eq!(sandbox.ok(&["images", "-q"]).lines().count(), 2);
    sandbox.ok(&["create", "--name", "one", "kept:1"]);
    let said = sandbox.ok(&["image", "prune", "-a", "-f"]);
    assert!(said.contains(&format!("Untagged: {NAME}")) && !said.contains("kept"), "{said}");
    assert_eq!(sandbox.ok(&["images", "--format", "{{.Repository}}"]), "kept");
    assert_eq!(sandbox.ok(&["image", "prune", "-f"]), "Total reclaimed space: 0B");
}

fn verify_finds_a_changed_file(sandbox: &Sandbox) {
    sandbox.image();
    load(sandbox, &Specimen::new("verified"), NAME);
    assert_eq!(sandbox.ok(&["image", "verify", NAME]), format!("{NAME}: whole"));
    let lower = sandbox.ok(&["image", "inspect", "-f", "{{.GraphDriver.Data.LowerDir}}", NAME]);
    let middle = lower.split(':').nth(1).expect("three layers");
    fs::write(Path::new(middle).join("data/word"), "harmed").expect("it is ours");
    let output = sandbox.mysup(&["image", "verify", "-q"]);
    assert_eq!(output.code, 1, "{output}");
    assert!(output.text().starts_with(&format!("{NAME}: damaged: layer sha256:")), "{output}");
    assert_eq!(output.text().lines().count(), 1, "the other image is whole: {output}");
    sandbox.refused(&["save", "-o", &text(&sandbox.place("out")), NAME], 1, &["changed", "verify"]);
    assert!(!sandbox.place("out").exists());
    sandbox.refused(&["image", "verify", "nosuch"], 1, &["nosuch"]);
}

fn import_with_changes_makes_their_configuration(sandbox: &Sandbox) {
    let tar = text(crate::harness::image::tar_path(crate::harness::sandbox::base()));
    let changes = [
        "CMD [\"sh\", \"-c\", \"echo $A; id -un; pwd\"]",
        "ENV A=\"b c\"",
        "USER tester",
        "WORKDIR /tmp",
        "LABEL k=v",
    ];
    let flags: Vec<&str> = changes.iter().flat_map(|change| ["-c", change]).collect();
    sandbox.ok(&[&["import", "-m", "what I did"], &flags[..], &[&tar, "changed"]].concat());
    assert_eq!(sandbox.ok(&["run", "--rm", "changed"]), "b c\ntester\n/tmp");
    assert_eq!(sandbox.ok(&["images", "-f", "label=k=v", "--format", "{{.Repository}}"]), "changed");
    assert_eq!(sandbox.ok(&["history", "--format", "{{.Comment}}", "changed"]), "what I did");
    // The layer is the same as without changes.
    sandbox.ok(&["import", &tar, "plain"]);
    assert_eq!(layers(sandbox), 1);
    sandbox.refused(&["import", "-c", "RUN x", &tar, "bad"], 1, &["RUN x", "WORKDIR"]);
    assert_eq!(sandbox.ok(&["images", "-q"]).lines().count(), 2);
}

fn killed_load_leaves_nothing_half(sandbox: &Sandbox) {
    let specimen = Specimen::new("killed");
    let whole = bundle::archive(&specimen.docker_files(&[NAME]));
    for part in [1, 2, 3] {
        sandbox.ok(&["info"]);
        let mut client = sandbox.call(&["load"]).open_input().start();
        client.write(&whole[..whole.len() / 4 * part]);
        sandbox.kill_supervisor();
        client.close_input();
        assert_ne!(client.wait().code, 0);
        sandbox.ok(&["info"]);
        assert_eq!(sandbox.ok(&["images", "-q"]), "");
        assert_eq!(layers(sandbox), 0, "{:?}", tree::paths(&sandbox.root(), &[]));
    }
    sandbox.call(&["load"]).input(whole).ok();
    assert!(sandbox.ok(&["image", "verify"]).ends_with("whole"));
}

fn interrupted_load_import_and_save_leave_nothing(sandbox: &Sandbox) {
    let specimen = Specimen::new("interrupted");
    let whole = bundle::archive(&specimen.docker_files(&[NAME]));
    let layer = &specimen.layers[0];
    for (command, bytes) in [(&["load"][..], &whole), (&["import", "-", "interrupted"], layer)] {
        let mut client = sandbox.call(command).open_input().start();
        client.write(&bytes[..bytes.len() / 2]);
        client.signal(Signal::INT);
        client.wait();
        wait_until("nothing of it is left", || layers(sandbox) == 0);
        assert_eq!(sandbox.ok(&["images", "-q"]), "");
    }
    sandbox.call(&["load"]).input(whole).ok();
    let directory = sandbox.new_directory("out");
    for (output, format) in [("file", "docker-archive"), ("file", "oci-archive"), ("directory", "oci-dir")] {
        let path = Path::new(&directory).join(output);
        let client = sandbox.call(&["save", "-o", &text(&path), "--format", format, NAME]).start();
        client.signal(Signal::INT);
        let output = client.wait();
        if output.code == 0 {
            // It was done before the signal came.
            let _ = fs::remove_file(&path);
            continue;
        }
        wait_until("the supervisor has taken away what it made", || {
            tree::paths(Path::new(&directory), &[]).iter().all(|left| left == "directory")
        });
    }
}

fn save_replaces_a_file_only_by_a_whole_one(sandbox: &Sandbox) {
    load(sandbox, &Specimen::new("whole"), NAME);
    let directory = sandbox.new_directory("out");
    let path = text(&Path::new(&directory).join("archive"));
    fs::write(&path, "old").expect("the sandbox is ours");
    sandbox.refused(&["save", "-o", &path, "nosuch"], 1, &["no such image", "nosuch"]);
    assert_eq!(fs::read(&path).expect("it is there"), b"old");
    sandbox.refused(&["save", "-o", &path, "--format", "rar", NAME], 1, &["rar", "oci-dir"]);
    sandbox.refused(&["save", "-o", &path, "--compress", "xz", NAME], 1, &["xz", "zstd"]);
    sandbox.refused(&["save", "-o", "/no/such/directory", NAME], 1, &["/no/such"]);
    sandbox.ok(&["save", "-o", &path, NAME]);
    assert_eq!(fs::read_dir(&directory).map_or(0, Iterator::count), 1);
    sandbox.ok(&["load", "-q", "-i", &path]);
    // A directory must be new or empty.
    sandbox.refused(&["save", "--format", "oci-dir", "-o", &directory, NAME], 1, &["empty"]);
    sandbox.refused(
        &["save", "--format", "oci-dir", "-o", &text(&sandbox.place("d")), "nosuch"],
        1,
        &["nosuch"],
    );
    assert!(!sandbox.place("d").exists());
    // What is no file is written to as it is.
    sandbox.ok(&["save", "-o", "/dev/null", NAME]);
}

fn reader_that_goes_ends_a_save(sandbox: &Sandbox) {
    load(sandbox, &Specimen::new("reader"), NAME);
    let before = threads(sandbox);
    for _ in 0..8 {
        let line =
            format!("{} save {NAME} | head -c 100 | wc -c", crate::harness::command::program().display());
        let output =
            Command::new("sh").args(["-c", &line]).envs(sandbox.environment()).output().expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "100");
    }
    wait_until("no thread of the supervisor waits for a reader", || threads(sandbox) <= before + 2);
}

fn threads(sandbox: &Sandbox) -> usize {
    fs::read_dir(format!("/proc/{}/task", sandbox.supervisor())).map_or(0, Iterator::count)
}

fn load_onto_a_full_disk_is_refused_in_one_line(sandbox: &Sandbox) {
    fs::create_dir_all(sandbox.root()).expect("the sandbox is ours");
    fs::set_permissions(sandbox.root(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("it is ours");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", sandbox.root(), "tmpfs", flags, Some(c"size=1m,mode=700"))
        .expect("tmpfs can be mounted");
    let specimen = Specimen::new("full");
    let path = sandbox.place("given.tar");
    fs::write(&path, bundle::archive(&specimen.docker_files(&[NAME]))).expect("the sandbox is ours");
    sandbox.refused(&["load", "-i", &text(&path)], 1, &["space"]);
    let bytes = fs::read(&path).expect("it is there");
    let output = sandbox.call(&["load"]).input(bytes).run();
    output.expect_refusal(1, &["space"]);
    assert_eq!(sandbox.ok(&["images", "-q"]), "");
    assert_eq!(layers(sandbox), 0);
    sandbox.ok(&["shutdown"]);
    rustix::mount::unmount(sandbox.root(), rustix::mount::UnmountFlags::empty()).expect("nothing holds it");
}

/// Four layers at once, with the longest window that is taken; the kernel tells the most that was ever used.
fn load_needs_little_memory_whatever_the_image(sandbox: &Sandbox) {
    let mut specimen = Specimen::new("memory");
    let mut seed = 1_u64;
    for at in 0..4 {
        let noise: Vec<u8> = (0..1_000_000)
            .flat_map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_le_bytes()
            })
            .collect();
        let mut layer = crate::harness::image::TarWriter::new();
        layer.file(&format!("noise-{at}"), 0o644, &noise);
        specimen.layers.push(layer.finish());
    }
    specimen.config["rootfs"]["diff_ids"] = Value::from(specimen.diff_ids());
    let plain = sandbox.place("plain.tar");
    fs::write(&plain, bundle::archive(&specimen.docker_files(&[NAME]))).expect("the sandbox is ours");
    sandbox.ok(&["info"]);
    let files = specimen.oci_files(Some(NAME), Packed::Zstd);
    let path = sandbox.place("given.tar");
    fs::write(&path, bundle::archive(&files)).expect("the sandbox is ours");
    for input in [&path, &plain] {
        sandbox.ok(&["load", "-i", &text(input)]);
        sandbox.ok(&["save", "-o", "/dev/null", "--format", "oci-archive", "--compress", "zstd", NAME]);
        sandbox.ok(&["rmi", NAME]);
    }
    let peak = peak_kib(sandbox);
    assert!(peak < 64 << 10, "{peak} KiB");
    let long = sandbox.place("long.tar.zst");
    let call = Command::new("zstd").args(["-q", "--long=27", "-3"]).arg(&plain).arg("-o").arg(&long).status();
    if call.is_ok_and(|status| status.success()) {
        sandbox.refused(&["load", "-i", &text(&long)], 1, &["zstd"]);
    }
    let peak = peak_kib(sandbox);
    assert!(peak < 64 << 10, "{peak} KiB");
}

fn peak_kib(sandbox: &Sandbox) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", sandbox.supervisor())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel has it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

fn damaged_bundles_are_refused_in_one_line(sandbox: &Sandbox) {
    sandbox.ok(&["info"]);
    let specimen = Specimen::new("damaged");
    let whole = bundle::archive(&specimen.docker_files(&[NAME]));
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let packed = bundle::pack(Packed::Gzip, &whole);
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("text", b"hello, I am no archive\n".repeat(100)),
        ("root file system", crate::harness::image::tar_bytes(&[])),
        ("cut", whole[..whole.len() - 2000].to_vec()),
        ("cut in the middle", whole[..whole.len() / 2].to_vec()),
        ("flipped", flipped),
        ("cut gzip", packed[..packed.len() / 2].to_vec()),
    ] {
        let path = sandbox.place("bad.tar");
        fs::write(&path, &bytes).expect("the sandbox is ours");
        let output = sandbox.mysup(&["load", "-i", &text(&path)]);
        assert!(output.code == 1 && output.errors().lines().count() == 1, "{name}\n{output}");
        let output = sandbox.call(&["load"]).input(bytes).run();
        assert!(output.code == 1 && output.errors().lines().count() == 1, "{name}\n{output}");
        assert_eq!(sandbox.ok(&["images", "-q"]), "", "{name}");
        assert_eq!(layers(sandbox), 0, "{name} left a layer");
    }
    let empty = sandbox.new_directory("empty");
    sandbox.refused(&["load", "-i", &empty], 1, &["manifest.json"]);
    sandbox.refused(&["load", "-i", "/no/such"], 1, &["/no/such"]);
}

/// overlayfs does not look at the mark of the root directory.
fn layer_that_hides_everything_is_joined_alone(sandbox: &Sandbox) {
    let mut specimen = Specimen::new("hidden");
    let mut top = crate::harness::image::TarWriter::new();
    top.file(".wh..wh..opq", 0o644, b"");
    let mut layer = top.finish();
    layer.truncate(layer.len() - 1024);
    layer.extend(crate::harness::image::tar_bytes(&[("etc/only", "this")]));
    specimen.layers.push(layer);
    specimen.config["rootfs"]["diff_ids"] = Value::from(specimen.diff_ids());
    load(sandbox, &specimen, NAME);
    let script = "cat /etc/only; ls -d /data /opt 2>/dev/null; true";
    assert_eq!(sandbox.ok(&["run", "--rm", "-w", "/", NAME, script]), "this");
    sandbox.kill_supervisor();
    assert_eq!(sandbox.ok(&["run", "--rm", "-w", "/", NAME, script]), "this");
    assert!(sandbox.ok(&["image", "verify"]).ends_with("whole"));
}

/// Before Linux 6.7 their names must fit into 255 bytes.
fn image_of_thirty_layers_is_joined(sandbox: &Sandbox) {
    let mut specimen = Specimen::new("many");
    for at in 0..27 {
        let (own, number) = (format!("many/{at}"), at.to_string());
        specimen.layers.push(crate::harness::image::tar_bytes(&[(&own, &number), ("many/last", &number)]));
    }
    specimen.config["rootfs"]["diff_ids"] = Value::from(specimen.diff_ids());
    load(sandbox, &specimen, NAME);
    let script = "ls /many | wc -l; cat /many/last";
    assert_eq!(sandbox.ok(&["run", "--rm", "-w", "/", NAME, script]), "28\n26");
}
