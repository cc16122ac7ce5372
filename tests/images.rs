//! Images: taken by content, used by digest, and no archive writes outside its layer.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tar::EntryType;

use crate::harness::{
    Case, Sandbox, holds_within,
    image::{self, TarWriter},
    leaks, skip,
    tree::{self, plant_data},
    wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = crate::cases![
        plain_tar_is_imported_and_listed,
        gzip_tar_is_known_by_its_content,
        zstd_tar_is_known_by_its_content,
        tar_from_standard_input_is_imported,
        same_tar_twice_is_one_layer,
        path_to_a_tar_is_unpacked_once_and_reused,
        image_is_found_by_id_and_unique_prefix,
        image_keeps_modes_owners_and_links,
        changes_in_a_container_never_reach_the_image,
        rootfs_directory_is_used_read_only,
        rmi_removes_the_image_and_its_layer,
        rmi_of_unknown_image_is_refused,
        rmi_of_used_image_is_refused,
        damaged_archives_are_refused_and_leave_nothing,
        import_without_file_is_refused,
        lying_size_is_refused,
        import_onto_a_full_disk_is_refused_in_one_line,
        image_name_that_exists_moves_to_the_new_image,
        killed_import_leaves_no_half_layer,
    ];
    for (name, build) in hostile() {
        cases.push(Case::new(format!("images::hostile_{name}_never_writes_outside"), move |sandbox| {
            hostile_import(sandbox, build);
        }));
    }
    cases
}

fn import(sandbox: &Sandbox, bytes: &[u8], file: &str, name: &str) -> String {
    let path = sandbox.place(file);
    fs::write(&path, bytes).expect("the sandbox is ours");
    sandbox.ok(&["import", &path.to_string_lossy(), name])
}

fn compress(program: &str, bytes: &[u8]) -> Vec<u8> {
    let started = Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = started else { skip(format!("no {program} here")) };
    let mut input = child.stdin.take().expect("stdin is a pipe");
    let copy = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&copy));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it does not panic").expect("the compressor reads all");
    output.stdout
}

fn runs(sandbox: &Sandbox, name: &str) {
    assert_eq!(sandbox.ok(&["run", "--rm", name, "echo", "works"]), "works");
}

fn plain_tar_is_imported_and_listed(sandbox: &Sandbox) {
    let id = import(sandbox, &image::tar_bytes(&[]), "a.tar", "mine");
    assert!(id.contains(|letter: char| letter.is_ascii_hexdigit()), "import prints the id, not {id:?}");
    let list = sandbox.ok(&["images"]);
    for column in ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "mine", "latest"] {
        assert!(list.contains(column), "no {column} in {list}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&sandbox.ok(&["images", "--format", "json"])).expect("one JSON object a line");
    assert_eq!(json["Repository"], "mine");
    runs(sandbox, "mine");
    runs(sandbox, "mine:latest");
}

fn gzip_tar_is_known_by_its_content(sandbox: &Sandbox) {
    import(sandbox, &compress("gzip", &image::tar_bytes(&[])), "misleading.zst", "mine");
    runs(sandbox, "mine");
}

fn zstd_tar_is_known_by_its_content(sandbox: &Sandbox) {
    import(sandbox, &compress("zstd", &image::tar_bytes(&[])), "misleading.tar", "mine");
    runs(sandbox, "mine");
}

fn tar_from_standard_input_is_imported(sandbox: &Sandbox) {
    sandbox.call(&["import", "-", "mine"]).input(image::tar_bytes(&[])).ok();
    runs(sandbox, "mine");
    sandbox.call(&["import", "-"]).input(image::tar_bytes(&[("etc/other", "x")])).ok();
}

fn layers(sandbox: &Sandbox) -> usize {
    fs::read_dir(sandbox.root().join("layers")).map_or(0, Iterator::count)
}

fn same_tar_twice_is_one_layer(sandbox: &Sandbox) {
    let first = import(sandbox, &image::tar_bytes(&[]), "a.tar", "one");
    let second = import(sandbox, &image::tar_bytes(&[]), "b.tar", "two");
    assert_eq!(first, second, "the id is the digest");
    assert_eq!(layers(sandbox), 1);
    runs(sandbox, "one");
    runs(sandbox, "two");
}

fn path_to_a_tar_is_unpacked_once_and_reused(sandbox: &Sandbox) {
    fs::write(sandbox.place("b.tar"), image::tar_bytes(&[])).expect("the sandbox is ours");
    for path in ["./b.tar", "../w/b.tar"] {
        let call = sandbox.call(&["run", "--rm", path, "echo", "works"]).directory(sandbox.place(""));
        assert_eq!(call.ok(), "works");
    }
    let absolute = sandbox.place("b.tar").to_string_lossy().into_owned();
    runs(sandbox, &absolute);
    assert_eq!(layers(sandbox), 1);
    fs::write(sandbox.place("b.tar"), image::tar_bytes(&[("etc/new", "x")])).expect("the sandbox is ours");
    assert_eq!(
        sandbox.ok(&["run", "--rm", &absolute, "cat", "/etc/new"]),
        "x",
        "another content, another layer"
    );
}

fn image_is_found_by_id_and_unique_prefix(sandbox: &Sandbox) {
    sandbox.image();
    let id = sandbox.ok(&["images", "-q"]);
    assert_eq!(id.len(), 12, "images -q prints short ids, not {id:?}");
    runs(sandbox, &id);
    runs(sandbox, &id[..5]);
    let full = sandbox.ok(&["images", "-q", "--no-trunc"]);
    assert!(full.starts_with("sha256:"), "{full}");
    runs(sandbox, &full);
}

fn image_keeps_modes_owners_and_links(sandbox: &Sandbox) {
    let script = "stat -c '%a %u:%g %F' /tmp /root /bin/busybox; readlink /bin/sh";
    let expected = "1777 0:0 directory\n700 0:0 directory\n755 0:0 regular file\nbusybox";
    assert_eq!(sandbox.sh(&[], script), expected);
}

fn changes_in_a_container_never_reach_the_image(sandbox: &Sandbox) {
    sandbox.image();
    let layers = sandbox.root().join("layers");
    let before = tree::Tree::read(&layers);
    let script = "echo x > /etc/passwd; rm -rf /home /bin/vi; chmod 700 /bin/busybox; mkdir /new; echo h > /etc/hostname; \
        echo 1.2.3.4 x > /etc/hosts; echo r > /etc/resolv.conf; chown 5:5 /etc/group; touch -d @5 /etc/plain";
    sandbox.sh(&[], script);
    let difference = before.difference(&tree::Tree::read(&layers));
    assert!(difference.is_empty(), "{difference:?}");
    assert!(sandbox.sh(&[], "cat /etc/passwd; ls /").contains("tester"));
    assert!(!sandbox.sh(&[], "cat /etc/hosts").contains("1.2.3.4"));
}

fn rootfs_directory_is_used_read_only(sandbox: &Sandbox) {
    sandbox.new_directory("root/bin");
    fs::copy("/bin/busybox", sandbox.place("root/bin/busybox")).expect("busybox is there");
    std::os::unix::fs::symlink("busybox", sandbox.place("root/bin/sh")).expect("the sandbox is ours");
    let before = tree::Tree::read(&sandbox.place("root"));
    let root = sandbox.place("root").to_string_lossy().into_owned();
    let line = [
        "run",
        "--rm",
        "--rootfs",
        &root,
        "sh",
        "-c",
        "echo x > /file; busybox cat /file; busybox rm /bin/sh",
    ];
    assert_eq!(sandbox.ok(&line), "x");
    before.expect_unchanged(&sandbox.place("root"));
}

fn rmi_removes_the_image_and_its_layer(sandbox: &Sandbox) {
    sandbox.image();
    sandbox.ok(&["rmi", "busybox"]);
    assert_eq!(sandbox.ok(&["images", "-q"]), "");
    assert_eq!(layers(sandbox), 0);
    wait_until("no file of it is left", || {
        !tree::paths(&sandbox.root(), &[]).iter().any(|path| path.contains("busybox"))
    });
}

fn rmi_of_unknown_image_is_refused(sandbox: &Sandbox) {
    sandbox.refused(&["rmi", "nosuch"], 1, &["no such image", "nosuch"]);
}

fn rmi_of_used_image_is_refused(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    sandbox.refused(&["rmi", "busybox"], 1, &["busybox", &id[..12]]);
    sandbox.ok(&["rm", "-f", "one"]);
    sandbox.run(&["--name", "two"], &["true"]).expect_code(0);
    sandbox.refused(&["rmi", "busybox"], 1, &["busybox"]);
    sandbox.ok(&["rm", "two"]);
    sandbox.ok(&["rmi", "busybox"]);
}

fn damaged_archives_are_refused_and_leave_nothing(sandbox: &Sandbox) {
    sandbox.ok(&["info"]);
    let whole = image::tar_bytes(&[]);
    let gzip = compress("gzip", &whole);
    let mut flipped = whole.clone();
    flipped[700] ^= 0xff;
    let noise: Vec<u8> =
        (0..4096_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect();
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("noise", noise),
        ("text", b"hello, I am not an archive\n".repeat(100)),
        ("cut", whole[..whole.len() / 2 + 100].to_vec()),
        ("cut-gzip", gzip[..gzip.len() / 2].to_vec()),
        ("flipped", flipped),
    ] {
        fs::write(sandbox.place("bad.tar"), bytes).expect("the sandbox is ours");
        let path = sandbox.place("bad.tar").to_string_lossy().into_owned();
        let output = sandbox.mysup(&["import", &path, "bad"]);
        assert!(output.code == 1 && output.errors().lines().count() == 1, "{name}\n{output}");
        let output = sandbox.mysup(&["run", "--rm", &path, "true"]);
        assert!(output.code == 125 && output.errors().lines().count() == 1, "{name}\n{output}");
        assert_eq!(sandbox.ok(&["images", "-q"]), "", "{name}");
        assert_eq!(layers(sandbox), 0, "{name} left a layer");
    }
}

fn import_without_file_is_refused(sandbox: &Sandbox) {
    sandbox.refused(&["import", "/no/such.tar", "x"], 1, &["/no/such.tar"]);
    let directory = sandbox.new_directory("d");
    sandbox.refused(&["import", &directory, "x"], 1, &[]);
}

fn lying_size_is_refused(sandbox: &Sandbox) {
    sandbox.ok(&["info"]);
    for promised in [1_000_000, 8_000_000_000] {
        let mut writer = TarWriter::new();
        writer.lying_file("file", promised, b"short");
        fs::write(sandbox.place("lie.tar"), writer.cut()).expect("the sandbox is ours");
        let path = sandbox.place("lie.tar").to_string_lossy().into_owned();
        let output = sandbox.mysup(&["import", &path, "x"]);
        assert!(output.code == 1 && output.errors().lines().count() == 1, "{output}");
        assert_eq!(layers(sandbox), 0);
    }
}

fn import_onto_a_full_disk_is_refused_in_one_line(sandbox: &Sandbox) {
    fs::create_dir_all(sandbox.root()).expect("the sandbox is ours");
    fs::set_permissions(sandbox.root(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("it is ours");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", sandbox.root(), "tmpfs", flags, Some(c"size=1m,mode=700"))
        .expect("tmpfs can be mounted");
    let tar = image::tar_path(crate::harness::sandbox::base()).to_string_lossy().into_owned();
    sandbox.refused(&["import", &tar, "big"], 1, &["space"]);
    sandbox.refused(&["run", "--rm", &tar, "true"], 125, &["space"]);
    assert_eq!(sandbox.ok(&["images", "-q"]), "");
    assert_eq!(layers(sandbox), 0);
    sandbox.ok(&["shutdown"]);
    rustix::mount::unmount(sandbox.root(), rustix::mount::UnmountFlags::empty()).expect("nothing holds it");
}

fn image_name_that_exists_moves_to_the_new_image(sandbox: &Sandbox) {
    import(sandbox, &image::tar_bytes(&[("etc/version", "1")]), "a.tar", "app");
    import(sandbox, &image::tar_bytes(&[("etc/version", "2")]), "b.tar", "app");
    assert_eq!(sandbox.ok(&["run", "--rm", "app", "cat", "/etc/version"]), "2");
}

fn killed_import_leaves_no_half_layer(sandbox: &Sandbox) {
    sandbox.ok(&["info"]);
    let bytes = image::tar_bytes(&[]);
    let mut client = sandbox.call(&["import", "-", "half"]).open_input().start();
    client.write(&bytes[..bytes.len() / 2]);
    sandbox.kill_supervisor();
    client.close_input();
    assert_ne!(client.wait().code, 0);
    sandbox.ok(&["info"]);
    assert_eq!(sandbox.ok(&["images", "-q"]), "");
    assert_eq!(layers(sandbox), 0, "{:?}", tree::paths(&sandbox.root(), &[]));
    runs(sandbox, sandbox.image());
}

type Build = fn(&mut TarWriter, &str);

/// Archives that try to get out; the text is the absolute path of a directory outside that must stay as it is.
fn hostile() -> Vec<(&'static str, Build)> {
    vec![
        ("absolute_name", |tar, out| tar.file(&format!("{out}/planted"), 0o644, b"x")),
        ("absolute_overwrite", |tar, out| tar.file(&format!("{out}/data"), 0o644, b"x")),
        ("dot_dot_name", |tar, out| tar.file(&format!("../../../../../../../..{out}/planted"), 0o644, b"x")),
        ("dot_dot_in_the_middle", |tar, out| {
            tar.file(&format!("a/../../../../../../..{out}/planted"), 0o644, b"x")
        }),
        ("link_then_file_below", |tar, out| {
            tar.link(EntryType::Symlink, "way", out);
            tar.file("way/planted", 0o644, b"x");
        }),
        ("climbing_link_then_file_below", |tar, out| {
            tar.link(EntryType::Symlink, "way", &format!("../../../../../../../..{out}"));
            tar.file("way/planted", 0o644, b"x");
        }),
        ("link_then_same_name_as_file", |tar, out| {
            tar.link(EntryType::Symlink, "way", &format!("{out}/data"));
            tar.file("way", 0o644, b"overwritten");
        }),
        ("link_then_same_name_as_directory", |tar, out| {
            tar.link(EntryType::Symlink, "way", out);
            tar.directory("way", 0o777);
        }),
        ("hard_link_to_absolute", |tar, out| {
            tar.link(EntryType::Link, "way", &format!("{out}/data"));
            tar.file("way", 0o644, b"overwritten");
        }),
        ("hard_link_to_dot_dot", |tar, out| {
            tar.link(EntryType::Link, "way", &format!("../../../../../../../..{out}/data"));
            tar.file("way", 0o600, b"overwritten");
        }),
        ("hard_link_through_a_link", |tar, out| {
            tar.link(EntryType::Symlink, "way", out);
            tar.link(EntryType::Link, "stolen", "way/data");
            tar.file("stolen", 0o600, b"overwritten");
        }),
        ("chain_of_links", |tar, out| {
            tar.link(EntryType::Symlink, "one", "two");
            tar.link(EntryType::Symlink, "two", out);
            tar.file("one/planted", 0o644, b"x");
        }),
        ("device_in_an_odd_place", |tar, out| {
            tar.device(&format!("../../../../../../../..{out}/device"));
            tar.device("etc/device");
        }),
        ("whiteout_through_a_link", |tar, out| {
            tar.link(EntryType::Symlink, "way", out);
            tar.file("way/.wh.data", 0o644, b"");
            tar.file("way/.wh..wh..opq", 0o644, b"");
        }),
        ("whiteout_of_dot_dot", |tar, _| {
            tar.file(".wh...", 0o644, b"");
            tar.file(".wh..", 0o644, b"");
            tar.file(".wh.", 0o644, b"");
        }),
        ("root_as_a_link", |tar, out| {
            tar.link(EntryType::Symlink, ".", out);
            tar.file("planted", 0o644, b"x");
        }),
    ]
}

/// Refused or contained, both are right. The directory outside and everything beside the layer stays as it was.
fn hostile_import(sandbox: &Sandbox, build: Build) {
    sandbox.ok(&["info"]);
    let out = sandbox.new_directory("out");
    let before = plant_data(Path::new(&out), "canary");
    let skeleton = tree::paths(&sandbox.root(), &["images", "layers"]);
    let mut writer = TarWriter::new();
    build(&mut writer, &out);
    fs::write(sandbox.place("evil.tar"), writer.finish()).expect("the sandbox is ours");
    let path = sandbox.place("evil.tar").to_string_lossy().into_owned();
    let output = sandbox.mysup(&["import", &path, "evil"]);
    assert!(output.code == 0 || output.code == 1 && output.errors().lines().count() == 1, "{output}");
    sandbox.mysup(&["run", "--rm", &path, "true"]);
    before.expect_unchanged(Path::new(&out));
    let mut outside = Vec::new();
    holds_within(Duration::from_secs(5), || {
        let now = tree::paths(&sandbox.root(), &["images", "layers"]);
        outside = now.into_iter().filter(|path| !skeleton.contains(path)).collect();
        outside.is_empty()
    });
    assert!(outside.is_empty(), "written outside of the layers: {outside:?}");
    if output.code == 0 {
        sandbox.ok(&["rmi", "evil"]);
    }
    assert_eq!(layers(sandbox), 0, "a refused import leaves no layer: {:?}", leaks::find(sandbox));
}
