//! What does not go by itself: each with its answer, and nothing half done.

use std::{
    fs::{self, File},
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
};

use rustix::fs::{XattrFlags, setxattr};
use serde_json::Value;

use super::changing::{self, BASE};
use super::instant::Waiting;
use crate::harness::{Case, Sandbox, holds_within, terminal::Terminal, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        diff_shows_what_docker_shows,
        diff_of_nothing_is_nothing,
        commit_of_no_change_adds_no_layer,
        commit_of_a_created_container_is_its_image,
        commit_moves_a_name_that_is_in_use,
        commit_of_unknown_container_is_refused,
        commit_with_nonsense_is_refused,
        commit_of_what_ended_is_refused,
        commit_of_a_container_with_rm_works_while_it_runs,
        commit_of_a_container_of_a_directory_is_refused_and_export_works,
        commit_of_a_read_only_container_works,
        commit_keeps_what_a_volume_hides,
        files_with_marks_for_names_are_refused,
        sockets_are_left_out,
        marks_of_overlayfs_in_the_container_are_no_marks_of_the_image,
        container_at_rest_is_neither_started_nor_removed_meanwhile,
        removal_in_the_middle_is_safe,
        image_removed_in_the_middle_is_safe,
        export_to_a_terminal_is_refused,
        export_that_fails_leaves_no_file,
        cost_is_of_the_change_not_of_the_image,
    ]
}

fn images(sandbox: &Sandbox) -> usize {
    sandbox.ok(&["images", "-q"]).lines().count()
}

fn inspect(sandbox: &Sandbox, name: &str) -> Value {
    let document: Value = serde_json::from_str(&sandbox.ok(&["image", "inspect", name])).expect("JSON");
    document[0].clone()
}

fn diff_shows_what_docker_shows(sandbox: &Sandbox) {
    changing::import(sandbox);
    let volume = format!("{}:/data/volume", sandbox.new_directory("volume"));
    let root = changing::start(sandbox, "one", BASE, &["-v", &volume]);
    fs::write(root.join("change/content"), "new").expect("write");
    fs::create_dir_all(root.join("added/deep")).expect("mkdir");
    fs::remove_dir_all(root.join("gone")).expect("rm -r");
    fs::remove_file(root.join("emptied/one")).expect("rm");
    fs::remove_dir_all(root.join("replaced")).expect("rm -r");
    fs::create_dir(root.join("replaced")).expect("mkdir");
    fs::write(root.join("replaced/both"), "new").expect("write");
    fs::write(root.join("replaced/new"), "new").expect("write");
    fs::write(root.join("data/volume/inside"), "not shown").expect("write");
    fs::write(root.join("etc/hosts"), "not shown").expect("write");
    fs::write(root.join("odd\nname"), "x").expect("write");
    let expected = "A /added\nA /added/deep\nC /change/content\nC /emptied\nD /emptied/one\nD /gone\nA /odd\nname\n\
         C /replaced\nC /replaced/both\nA /replaced/new\nD /replaced/old\nD /replaced/sub";
    assert_eq!(sandbox.ok(&["diff", "one"]), expected);
}

fn diff_of_nothing_is_nothing(sandbox: &Sandbox) {
    changing::import(sandbox);
    changing::start(sandbox, "one", BASE, &["-w", "/made/for/it", "--tmpfs", "/etc/more/deep"]);
    sandbox.ok(&["create", "--name", "two", BASE]);
    for name in ["one", "two"] {
        assert_eq!(sandbox.ok(&["diff", name]), "");
    }
    sandbox.refused(&["diff", "three"], 1, &["No such container"]);
}

fn commit_of_no_change_adds_no_layer(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    // Its own files are not the image's.
    fs::write(root.join("etc/hosts"), "changed").expect("write");
    File::open(root.join("change/content")).expect("reading changes nothing");
    sandbox.ok(&["commit", "-m", "nothing", "one", "made"]);
    let (base, made) = (inspect(sandbox, BASE), inspect(sandbox, "made"));
    assert_eq!(base["RootFS"]["Layers"], made["RootFS"]["Layers"]);
    assert_eq!(made["History"][1]["empty_layer"], true);
    assert_ne!(base["Id"], made["Id"]);
    assert_eq!(fs::read_dir(sandbox.root().join("layers")).map_or(0, Iterator::count), 1);
}

fn commit_of_a_created_container_is_its_image(sandbox: &Sandbox) {
    changing::import(sandbox);
    sandbox.ok(&["create", "--name", "one", "-e", "A=b", "--entrypoint", "/bin/echo", BASE, "said"]);
    sandbox.ok(&["commit", "one", "made"]);
    assert_eq!(sandbox.ok(&["run", "--rm", "made"]), "said");
    assert_eq!(inspect(sandbox, "made")["Config"]["Env"], serde_json::json!(["WORD=kept", "A=b"]));
    sandbox.ok(&["export", "-o", &sandbox.place("out.tar").to_string_lossy(), "one"]);
}

fn commit_moves_a_name_that_is_in_use(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    fs::write(root.join("new"), "1").expect("write");
    let first = sandbox.ok(&["commit", "one", "made"]);
    fs::write(root.join("new"), "2").expect("write");
    let second = sandbox.ok(&["commit", "one", "made"]);
    assert_eq!(inspect(sandbox, "made")["Id"], Value::from(second));
    assert_eq!(inspect(sandbox, &first)["RepoTags"], serde_json::json!([]));
    // Even the name of its own image.
    sandbox.ok(&["commit", "one", BASE]);
    assert_eq!(sandbox.ok(&["run", "--rm", BASE, "cat", "/new"]), "2");
    let unnamed = sandbox.ok(&["commit", "one"]);
    assert_eq!(sandbox.ok(&["run", "--rm", &unnamed, "cat", "/new"]), "2");
}

fn commit_of_unknown_container_is_refused(sandbox: &Sandbox) {
    sandbox.refused(&["commit", "nobody"], 1, &["No such container: nobody"]);
    sandbox.refused(&["export", "-o", "/dev/null", "nobody"], 1, &["No such container: nobody"]);
    sandbox.refused(&["commit"], 1, &["requires"]);
}

fn commit_with_nonsense_is_refused(sandbox: &Sandbox) {
    changing::import(sandbox);
    changing::start(sandbox, "one", BASE, &[]);
    sandbox.refused(&["commit", "-c", "RUN x", "one", "made"], 1, &["invalid change", "RUN x"]);
    sandbox.refused(&["commit", "one", "Made"], 1, &["invalid image name"]);
    sandbox.refused(&["commit", "-o", "/dev/null", "one", "made"], 1, &["--output"]);
    sandbox.refused(&["commit", "--pause=perhaps", "one"], 125, &["pause", "true or false"]);
    assert_eq!(images(sandbox), 1);
}

fn commit_of_what_ended_is_refused(sandbox: &Sandbox) {
    changing::import(sandbox);
    sandbox.ok(&["run", "--name", "one", BASE, "true"]);
    for verb in ["commit", "diff", "export"] {
        sandbox.refused(&[verb, "one"], 1, &["has ended", "--keep"]);
    }
}

fn commit_of_a_container_with_rm_works_while_it_runs(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &["--rm"]);
    fs::write(root.join("new"), "of one with --rm").expect("write");
    sandbox.ok(&["commit", "one", "made"]);
    sandbox.ok(&["stop", "-t", "0", "one"]);
    assert_eq!(sandbox.ok(&["run", "--rm", "made", "cat", "/new"]), "of one with --rm");
}

fn commit_of_a_container_of_a_directory_is_refused_and_export_works(sandbox: &Sandbox) {
    changing::import(sandbox);
    let directory = sandbox.new_directory("root");
    let archive = sandbox.place("base.tar").to_string_lossy().into_owned();
    crate::harness::peers::tool("tar", &["-xf", &archive, "-C", &directory]);
    sandbox.ok(&["run", "-d", "--name", "one", "--rootfs", &directory, "sleep", "4321"]);
    fs::write(changing::root_of(sandbox, "one").join("new"), "x").expect("write");
    sandbox.refused(&["commit", "one"], 1, &["from a directory", "export"]);
    assert_eq!(sandbox.ok(&["diff", "one"]), "A /new");
    let out = sandbox.place("out.tar").to_string_lossy().into_owned();
    sandbox.ok(&["export", "-o", &out, "one"]);
    sandbox.ok(&["import", &out, "made"]);
    assert_eq!(sandbox.ok(&["run", "--rm", "made", "cat", "/new"]), "x");
}

fn commit_of_a_read_only_container_works(sandbox: &Sandbox) {
    changing::import(sandbox);
    changing::start(sandbox, "one", BASE, &["--read-only", "--tmpfs", "/tmp"]);
    sandbox.ok(&["commit", "one", "made"]);
    assert_eq!(sandbox.ok(&["run", "--rm", "made", "cat", "/change/time"]), "time");
}

fn commit_keeps_what_a_volume_hides(sandbox: &Sandbox) {
    changing::import(sandbox);
    let volume = format!("{}:/change", sandbox.new_directory("volume"));
    let root = changing::start(sandbox, "one", BASE, &["-v", &volume, "--tmpfs", "/emptied"]);
    fs::write(root.join("change/content"), "of the volume").expect("write");
    fs::write(root.join("emptied/one"), "of the tmpfs").expect("write");
    fs::write(root.join("new"), "x").expect("write");
    sandbox.ok(&["commit", "one", "made"]);
    let script = "cat /change/content /emptied/one; ls /change | wc -l";
    assert_eq!(sandbox.ok(&["run", "--rm", "made", "sh", "-c", script]), "old\n16");
    assert_eq!(sandbox.ok(&["diff", "one"]), "A /new");
}

fn files_with_marks_for_names_are_refused(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    fs::write(root.join("change/.wh.content"), "x").expect("write");
    sandbox.refused(&["commit", "one", "made"], 1, &["change/.wh.content", "marks of removed files"]);
    fs::remove_file(root.join("change/.wh.content")).expect("rm");
    fs::create_dir(root.join(".wh..wh..opq")).expect("mkdir");
    sandbox.refused(&["commit", "one", "made"], 1, &[".wh..wh..opq"]);
    assert_eq!(images(sandbox), 1);
}

fn sockets_are_left_out(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    fs::write(root.join("tmp/file"), "x").expect("write");
    // Its path would be too long for an address.
    let short = sandbox.place("s");
    symlink(root.join("tmp"), &short).expect("symlink");
    let _socket = UnixListener::bind(short.join("socket")).expect("bind");
    sandbox.ok(&["commit", "one", "made"]);
    assert_eq!(sandbox.ok(&["run", "--rm", "made", "ls", "/tmp"]), "file");
}

/// To a union in the container they mean something, to the one of the host nothing.
fn marks_of_overlayfs_in_the_container_are_no_marks_of_the_image(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect"] {
        if setxattr(root.join("change"), name, b"y", XattrFlags::empty()).is_err() {
            // Before Linux 6.7 they cannot be set through a union at all.
            break;
        }
    }
    fs::write(root.join("new"), "x").expect("write");
    sandbox.ok(&["commit", "one", "made"]);
    assert_eq!(sandbox.ok(&["run", "--rm", "made", "cat", "/change/content", "/new"]), "old\nx");
}

fn container_at_rest_is_neither_started_nor_removed_meanwhile(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &["--keep"]);
    fs::write(root.join("new"), "x").expect("write");
    sandbox.ok(&["stop", "-t", "0", "one"]);
    let fifo = sandbox.place("slow").to_string_lossy().into_owned();
    crate::harness::peers::tool("mkfifo", &[&fifo]);
    let export = sandbox.call(&["export", "-o", &fifo, "one"]).start();
    let mut reader = File::open(&fifo).expect("the client opens the other end");
    std::io::Read::read_exact(&mut reader, &mut [0; 512]).expect("it has begun");
    let mut start = sandbox.call(&["start", "one"]).start();
    let went = holds_within(std::time::Duration::from_millis(300), || !start.is_running());
    assert!(!went, "a start waits while the write layer is read");
    std::io::copy(&mut reader, &mut std::io::sink()).expect("a pipe can be read");
    export.wait().expect_code(0);
    start.wait().expect_code(0);
    assert_eq!(sandbox.status("one"), "running");
}

fn removal_in_the_middle_is_safe(sandbox: &Sandbox) {
    changing::import(sandbox);
    changing::start(sandbox, "one", BASE, &[]);
    let waiting = Waiting::begin(sandbox, "one");
    sandbox.ok(&["rm", "-f", "one"]);
    waiting.read().expect_refusal(1, &["in the middle"]);
    assert_eq!(images(sandbox), 1);
}

fn image_removed_in_the_middle_is_safe(sandbox: &Sandbox) {
    changing::import(sandbox);
    changing::start(sandbox, "one", BASE, &[]);
    let waiting = Waiting::begin(sandbox, "one");
    let id = sandbox.ok(&["images", "-q", "--no-trunc"]);
    sandbox.refused(&["rmi", "-f", &id], 1, &["running container"]);
    assert_eq!(waiting.read().code, 0);
    // It may go when nothing is made of it any more, and what was made stays.
    sandbox.ok(&["commit", "one", "made"]);
    sandbox.ok(&["rm", "-f", "one"]);
    sandbox.ok(&["rmi", BASE]);
    assert_eq!(sandbox.ok(&["run", "--rm", "made", "cat", "/change/time"]), "time");
    assert!(sandbox.ok(&["image", "verify"]).ends_with(": whole"));
}

fn export_to_a_terminal_is_refused(sandbox: &Sandbox) {
    changing::import(sandbox);
    sandbox.ok(&["create", "--name", "one", BASE]);
    for line in [&["export", "one"][..], &["commit", "-o", "-", "one"]] {
        let mut terminal = Terminal::run(sandbox, line, 24, 200);
        terminal.wait_for("standard output is a terminal");
        assert_ne!(terminal.wait(), Some(0));
    }
}

fn export_that_fails_leaves_no_file(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    let deep = vec!["d"; 600].join("/");
    fs::create_dir_all(root.join(&deep)).expect("mkdir -p");
    let out = sandbox.place("out.tar");
    fs::write(&out, "as before").expect("the sandbox is ours");
    sandbox.refused(&["export", "-o", &out.to_string_lossy(), "one"], 1, &["deeper than 512"]);
    sandbox.refused(&["commit", "one", "made"], 1, &["deeper than 512"]);
    assert_eq!(fs::read_to_string(&out).expect("it is there"), "as before");
    let left = fs::read_dir(sandbox.place("")).expect("ours").flatten();
    let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".out")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(images(sandbox), 1);
    wait_until("nothing of it is in the store", || {
        let mut names = fs::read_dir(sandbox.root().join("layers")).expect("ours").flatten();
        names.all(|entry| !entry.file_name().to_string_lossy().starts_with("import-"))
    });
}

/// Bytes that the file system of the sandbox has of the store: what is written again would be there twice.
fn cost_is_of_the_change_not_of_the_image(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    fs::write(root.join("new"), vec![1; 100_000]).expect("write");
    sandbox.ok(&["commit", "one", "made"]);
    let layers = inspect(sandbox, "made")["GraphDriver"]["Data"]["LowerDir"].clone();
    let top = layers.as_str().and_then(|all| all.split(':').next()).expect("a path").to_owned();
    let names: Vec<_> = fs::read_dir(Path::new(&top)).expect("it is there").flatten().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let size = |name: &str| inspect(sandbox, name)["Size"].as_u64().expect("a number");
    assert_eq!(size("made") - size(BASE), 100_000);
}
