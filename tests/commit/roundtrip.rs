//! Run, change, commit, save, load elsewhere, run: every file and everything about it is what it was.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use serde_json::Value;

use super::changing::{self, BASE};
use crate::harness::{
    Case, Sandbox,
    peers::tool,
    tree::{Tree, hex},
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        commit_save_load_run_keeps_every_byte_and_all_about_it,
        commit_of_a_kept_container_is_the_same,
        commit_of_a_commit_keeps_everything,
        export_is_the_same_file_system,
        commit_to_a_tar_imports_as_the_same,
        what_is_committed_verifies_and_shares_its_layers,
    ]
}

/// Another instance in the same sandbox.
pub(crate) struct Other<'s>(&'s Sandbox);

impl<'s> Other<'s> {
    pub(crate) fn new(sandbox: &'s Sandbox) -> Self {
        fs::create_dir_all(sandbox.place("other")).expect("the sandbox is ours");
        Other(sandbox)
    }

    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let place = self.0.place("other");
        let call = self.0.call(arguments);
        call.env("MYSUP_ROOT", place.join("s")).env("MYSUP_RUN_ROOT", place.join("r")).ok()
    }

    /// The file system of a container.
    #[track_caller]
    pub(crate) fn root_of(&self, name: &str) -> std::path::PathBuf {
        let pid = self.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
        Path::new("/proc").join(pid).join("root/.")
    }
}

#[track_caller]
pub(crate) fn expect_same(before: &Tree, after: &Tree) {
    let difference = before.difference(after);
    assert!(difference.is_empty(), "{} differ:\n{}", difference.len(), difference.join("\n"));
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[track_caller]
fn expect_holes(root: &Path) {
    for (name, most) in [("some", 200_000), ("all", 8192), ("begin", 8192)] {
        let stored = fs::metadata(root.join("holes").join(name)).expect("it is there").blocks() * 512;
        assert!(stored <= most, "{name} has {stored} bytes on the disk, its holes are gone");
    }
}

fn commit_save_load_run_keeps_every_byte_and_all_about_it(sandbox: &Sandbox) {
    changing::import(sandbox);
    let (volume, file) = (sandbox.new_directory("volume"), sandbox.place("volume/file"));
    fs::write(&file, "of the host").expect("the sandbox is ours");
    let (one, two) = (format!("{volume}:/data/volume"), format!("{}:/stays/file", file.display()));
    let root = changing::start(sandbox, "one", BASE, &["-v", &one, "-v", &two]);
    changing::change(&root);
    fs::write(root.join("data/volume/inside"), "a volume's").expect("write");
    fs::write(root.join("etc/hosts"), "changed").expect("write");
    let before = changing::read(&root).without("/data").without("/stays/file");
    assert!(hex(b"x") == "78" && before.paths().len() > 150, "{} files", before.paths().len());
    let id = sandbox.ok(&["commit", "-a", "me", "-m", "all of it", "-c", "LABEL a=b", "one", "made:1"]);
    // It goes on, and what it does now is in no image.
    fs::write(root.join("later"), "later").expect("it goes on");
    let saved = text(&sandbox.place("saved.tar"));
    sandbox.ok(&["save", "-o", &saved, "made:1"]);
    let other = Other::new(sandbox);
    assert_eq!(other.ok(&["load", "-i", &saved]), "Loaded image: made:1");
    let document: Value = serde_json::from_str(&other.ok(&["image", "inspect", "made:1"])).expect("JSON");
    assert_eq!(document[0]["Id"], Value::from(id));
    assert_eq!(document[0]["Config"]["Env"], serde_json::json!(["WORD=kept"]));
    assert_eq!(document[0]["Config"]["Cmd"], serde_json::json!(["sleep", "4321"]));
    assert_eq!(document[0]["Config"]["Labels"]["a"], "b");
    assert_eq!((&document[0]["Author"], &document[0]["Comment"]), (&"me".into(), &"all of it".into()));
    other.ok(&["run", "-d", "--name", "two", "made:1", "sleep", "4321"]);
    let after = changing::read(&other.root_of("two"));
    expect_same(&before, &after);
    expect_holes(&other.root_of("two"));
    assert!(!other.root_of("two").join("data").exists(), "the mountpoint of a volume is not in the image");
    let verified = other.ok(&["image", "verify"]);
    assert!(verified.ends_with(": whole"), "{verified}");
    other.ok(&["rm", "-f", "two"]);
    other.ok(&["shutdown"]);
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "of the host");
}

fn commit_of_a_kept_container_is_the_same(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &["--keep"]);
    changing::change(&root);
    let before = changing::read(&root);
    let running = sandbox.ok(&["commit", "one", "running"]);
    sandbox.ok(&["stop", "-t", "0", "one"]);
    let stopped = sandbox.ok(&["commit", "one", "stopped"]);
    assert_ne!(running, stopped, "the time is another one");
    let layers = |name: &str| sandbox.ok(&["image", "inspect", "-f", "{{json .RootFS.Layers}}", name]);
    assert_eq!(layers("running"), layers("stopped"), "the same changes are the same layer");
    expect_same(&before, &changing::read(&changing::start(sandbox, "two", "stopped", &[])));
    let diff = sandbox.ok(&["diff", "one"]);
    sandbox.ok(&["start", "one"]);
    assert_eq!(sandbox.ok(&["diff", "one"]), diff, "a start changes nothing");
}

fn commit_of_a_commit_keeps_everything(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    changing::change(&root);
    sandbox.ok(&["commit", "one", "first"]);
    let root = changing::start(sandbox, "two", "first", &[]);
    fs::remove_dir_all(root.join("names")).expect("rm -r");
    fs::remove_dir_all(root.join("replaced")).expect("rm -r");
    fs::create_dir(root.join("replaced")).expect("mkdir");
    fs::write(root.join("gone"), "a file again").expect("write");
    let before = changing::read(&root);
    sandbox.ok(&["commit", "two", "second"]);
    expect_same(&before, &changing::read(&changing::start(sandbox, "three", "second", &[])));
    let history = sandbox.ok(&["history", "-q", "second"]);
    assert_eq!(history.lines().count(), 3, "{history}");
}

/// By GNU tar, not by anything of ours.
fn export_is_the_same_file_system(sandbox: &Sandbox) {
    changing::import(sandbox);
    let volume = format!("{}:/data/volume", sandbox.new_directory("volume"));
    let root = changing::start(sandbox, "one", BASE, &["-v", &volume]);
    changing::change(&root);
    fs::write(root.join("data/volume/inside"), "a volume's").expect("write");
    let before = changing::read(&root).without("/data");
    let (archive, place) = (text(&sandbox.place("out.tar")), sandbox.new_directory("out"));
    sandbox.ok(&["export", "-o", &archive, "one"]);
    tool(
        "tar",
        &["-x", "--numeric-owner", "-p", "--xattrs", "--xattrs-include=*", "-f", &archive, "-C", &place],
    );
    let mut after = changing::read(Path::new(&place));
    after = after.without("/dev").without("/etc/hosts");
    expect_same(&before, &after);
    expect_holes(Path::new(&place));
    let call = sandbox.call(&["export", "one"]).run();
    assert_eq!(call.stdout.len() as u64, fs::metadata(&archive).expect("it is there").len());
}

fn commit_to_a_tar_imports_as_the_same(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    changing::change(&root);
    let before = changing::read(&root);
    let archive = text(&sandbox.place("out.tar"));
    assert_eq!(sandbox.ok(&["commit", "-o", &archive, "one"]), "");
    sandbox.ok(&["import", &archive, "imported"]);
    expect_same(&before, &changing::read(&changing::start(sandbox, "two", "imported", &[])));
}

fn what_is_committed_verifies_and_shares_its_layers(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    changing::change(&root);
    sandbox.ok(&["commit", "one", "made"]);
    let layers = || fs::read_dir(sandbox.root().join("layers")).map_or(0, Iterator::count);
    assert_eq!(layers(), 2, "the image's and the new one");
    let verified = sandbox.ok(&["image", "verify"]);
    assert_eq!(verified.lines().filter(|line| line.ends_with(": whole")).count(), 2, "{verified}");
    sandbox.ok(&["rm", "-f", "one"]);
    sandbox.ok(&["rmi", "made"]);
    assert_eq!(layers(), 1);
}
