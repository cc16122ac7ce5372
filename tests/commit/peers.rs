//! A committed and saved image goes to the other tools, and every file is what it was.

use std::path::Path;

use serde_json::Value;

use super::{
    changing::{self, BASE},
    roundtrip::expect_same,
};
use crate::harness::{
    Case, Sandbox,
    peers::{Docker, Podman, as_docker_exports, tool, unpacked_by_umoci},
    tree::Tree,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        committed_image_goes_to_docker,
        committed_image_goes_to_podman,
        committed_image_goes_to_umoci,
        export_is_imported_by_docker,
        committed_docker_image_goes_back_to_docker,
    ]
}

/// What all of them keep.
struct Committed {
    tree: Tree,
    id: String,
    layers: Value,
}

#[track_caller]
fn commit(sandbox: &Sandbox) -> Committed {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    changing::change(&root);
    let tree = changing::read(&root);
    let id = sandbox.ok(&["commit", "-a", "me", "-m", "all", "one", "made:1"]);
    let layers: Value =
        serde_json::from_str(&sandbox.ok(&["image", "inspect", "-f", "{{json .RootFS.Layers}}", "made:1"]))
            .expect("JSON");
    Committed { tree, id, layers }
}

#[track_caller]
fn save(sandbox: &Sandbox, flags: &[&str]) -> String {
    let saved = sandbox.place("saved").to_string_lossy().into_owned();
    sandbox.ok(&[&["save", "-o", &saved], flags, &["made:1"]].concat());
    saved
}

/// podman and umoci have no times before 1970, no names with `=` or `%3D` of attributes, and no empty ones.
fn portable(tree: Tree) -> Tree {
    tree.seen_by(|path, text| {
        let (head, attributes) = text.rsplit_once(' ')?;
        let odd = |one: &&str| one.contains("=equals") || one.contains("%") || one.ends_with('=');
        let kept: Vec<&str> = attributes.split(',').filter(|one| !odd(one)).collect();
        let is_old = ["/added/before-1970", "/added/one"].contains(&path);
        (!is_old).then(|| format!("{head} {}", kept.join(",")))
    })
}

/// What docker exports; the hard links in it are those of files.
fn exportable(tree: Tree) -> Tree {
    let is_linked = |path: &str| ["/links/dangling-too", "/nodes/fifo-too"].contains(&path);
    let tree = tree.seen_by(|path, text| (!is_linked(path)).then(|| text.to_owned()));
    without_own(as_docker_exports(portable(tree)))
}

/// What docker gives its containers, and what no one else's image has.
fn without_own(tree: Tree) -> Tree {
    ["/.dockerenv", "/dev", "/etc", "/proc", "/sys", "/run"]
        .iter()
        .fold(tree, |tree, path| tree.without(path))
}

#[track_caller]
fn exported(sandbox: &Sandbox, docker: &Docker, image: &str) -> Tree {
    let container = docker.call(&["create", "--network", "none", image, "x"]);
    let archive = sandbox.place("exported.tar").to_string_lossy().into_owned();
    docker.call(&["export", "-o", &archive, &container]);
    docker.call(&["rm", &container]);
    let root = sandbox.new_directory("exported");
    let flags = ["-x", "--numeric-owner", "-p", "--xattrs", "--xattrs-include=*"];
    tool("tar", &[&flags[..], &["-f", &archive, "-C", &root]].concat());
    exportable(Tree::read_copy(Path::new(&root)).without(""))
}

fn committed_image_goes_to_docker(sandbox: &Sandbox) {
    let made = commit(sandbox);
    let saved = save(sandbox, &[]);
    let docker = Docker::start(sandbox);
    assert_eq!(docker.call(&["load", "-i", &saved]), "Loaded image: made:1");
    let document: Value = serde_json::from_str(&docker.call(&["image", "inspect", "made:1"])).expect("JSON");
    assert_eq!(
        (&document[0]["Id"], &document[0]["RootFS"]["Layers"]),
        (&made.id.clone().into(), &made.layers)
    );
    assert_eq!((&document[0]["Author"], &document[0]["Comment"]), (&"me".into(), &"all".into()));
    assert_eq!(docker.call(&["history", "-q", "made:1"]).lines().count(), 2);
    expect_same(&exportable(made.tree), &exported(sandbox, &docker, "made:1"));
}

fn committed_image_goes_to_podman(sandbox: &Sandbox) {
    let made = commit(sandbox);
    let podman = Podman::new(sandbox);
    podman.call(&["load", "-i", &save(sandbox, &["--format", "oci-archive"])]);
    let id = made.id["sha256:".len()..].to_owned();
    let document: Value = serde_json::from_str(&podman.call(&["image", "inspect", &id])).expect("JSON");
    assert_eq!(document[0]["RootFS"]["Layers"], made.layers);
    let mounted = podman.call(&["image", "mount", &id]);
    let found = changing::read(Path::new(&mounted));
    podman.call(&["image", "umount", &id]);
    expect_same(&portable(made.tree), &portable(found));
}

fn committed_image_goes_to_umoci(sandbox: &Sandbox) {
    let made = commit(sandbox);
    let saved = save(sandbox, &["--format", "oci-dir"]);
    let index: Value =
        serde_json::from_slice(&std::fs::read(Path::new(&saved).join("index.json")).expect("it is there"))
            .expect("JSON");
    let name = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].clone();
    let name = name.as_str().expect("a name").to_owned();
    let theirs = unpacked_by_umoci(Path::new(&saved), &name, &sandbox.place("theirs"));
    expect_same(&portable(made.tree), &portable(changing::read(&theirs)));
}

fn export_is_imported_by_docker(sandbox: &Sandbox) {
    let made = commit(sandbox);
    let archive = sandbox.place("out.tar").to_string_lossy().into_owned();
    sandbox.ok(&["export", "-o", &archive, "one"]);
    let docker = Docker::start(sandbox);
    docker.call(&["import", &archive, "theirs:1"]);
    expect_same(&exportable(made.tree), &exported(sandbox, &docker, "theirs:1"));
}

/// Its image comes from docker, and what is made of it goes back.
fn committed_docker_image_goes_back_to_docker(sandbox: &Sandbox) {
    let docker = Docker::start(sandbox);
    let (given, back) = (sandbox.place("given.tar"), sandbox.place("back.tar"));
    std::fs::write(&given, crate::harness::image::tar_bytes(&[("of/docker", "x\n")])).expect("ours");
    docker.call(&["import", "-c", "CMD [\"sh\"]", &given.to_string_lossy(), "theirs:1"]);
    let saved = sandbox.place("saved.tar").to_string_lossy().into_owned();
    docker.call(&["save", "-o", &saved, "theirs:1"]);
    sandbox.ok(&["load", "-i", &saved]);
    let root = changing::start(sandbox, "one", "theirs:1", &[]);
    std::fs::write(root.join("of/mysup"), "y\n").expect("write");
    let id = sandbox.ok(&["commit", "-c", "LABEL by=mysup", "one", "ours:1"]);
    sandbox.ok(&["save", "-o", &back.to_string_lossy(), "ours:1"]);
    docker.call(&["load", "-i", &back.to_string_lossy()]);
    let look = |format: &str| docker.call(&["image", "inspect", "-f", format, "ours:1"]);
    assert_eq!((look("{{.Id}}"), look("{{.Config.Labels.by}}")), (id, "mysup".to_owned()));
    assert_eq!(docker.call(&["history", "-q", "ours:1"]).lines().count(), 2);
    let tree = exported(sandbox, &docker, "ours:1");
    assert!(["/of/docker", "/of/mysup"].iter().all(|path| tree.paths().contains(path)), "{:?}", tree.paths());
}
