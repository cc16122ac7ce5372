//! Images between mysup and the other tools, in every form, both ways: the id, the digests of all layers, every file and
//! everything about it stay what they were. A tool that is not here, or cannot run here, is a counted skip.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::harness::{
    Case, Sandbox,
    bundle::{self, Packed, Specimen},
    peers::{Docker, Podman, as_docker_exports, tool, unpacked_by_umoci},
    skip,
    tree::Tree,
    wait_until,
};

/// A peer writes, mysup loads.
type In = fn(&Sandbox, &Specimen) -> String;
/// mysup saves in one of these ways, a peer loads.
type Out = fn(&Sandbox, &Specimen, &[&str]);

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = crate::cases![
        union_of_layers_is_what_umoci_unpacks,
        docker_archive_and_oci_layout_are_converted_into_each_other,
        several_images_with_shared_layers_go_to_podman_and_come_back,
    ];
    let comes_in: [(&str, In); 12] = [
        ("docker_archive_of_docker", docker_archive_of_docker),
        ("docker_archive_of_podman", |sandbox, specimen| podman_saves(sandbox, specimen, "docker-archive")),
        ("docker_archive_of_skopeo", |sandbox, specimen| {
            skopeo_copies(sandbox, specimen, "docker-archive", &[])
        }),
        ("oci_archive_of_podman", |sandbox, specimen| podman_saves(sandbox, specimen, "oci-archive")),
        ("oci_archive_of_skopeo", |sandbox, specimen| skopeo_copies(sandbox, specimen, "oci-archive", &[])),
        ("oci_directory_of_podman", |sandbox, specimen| podman_saves(sandbox, specimen, "oci-dir")),
        ("docker_directory_of_podman_is_refused", podman_docker_directory),
        ("oci_directory_of_skopeo", |sandbox, specimen| skopeo_copies(sandbox, specimen, "oci", &[])),
        ("oci_directory_with_zstd_of_skopeo", |sandbox, specimen| {
            skopeo_copies(sandbox, specimen, "oci", &["--dest-compress-format", "zstd"])
        }),
        ("oci_archive_with_zstd_of_skopeo", |sandbox, specimen| {
            skopeo_copies(sandbox, specimen, "oci-archive", &["--dest-compress-format", "zstd"])
        }),
        ("oci_directory_of_umoci", oci_directory_of_umoci),
        ("docker_archive_gzip_of_docker", |sandbox, specimen| {
            let path = docker_archive_of_docker(sandbox, specimen);
            tool("gzip", &[&path]);
            format!("{path}.gz")
        }),
    ];
    for (name, write) in comes_in {
        cases.push(Case::new(format!("images_peers::{name}_comes_in"), move |sandbox| {
            let specimen = Specimen::new(name);
            let input = write(sandbox, &specimen);
            if !input.is_empty() {
                loads(sandbox, &specimen, &input);
            }
        }));
    }
    let goes_out: [(&str, &[&str], Out); 17] = [
        ("docker_archive_to_docker", &[], to_docker),
        ("docker_archive_gzip_to_docker", &["--compress", "gzip"], to_docker),
        ("docker_archive_to_podman", &[], to_podman),
        ("docker_archive_gzip_to_podman", &["--compress", "gzip"], to_podman),
        ("docker_archive_zstd_to_podman", &["--compress", "zstd"], to_podman),
        ("docker_archive_to_skopeo", &[], to_skopeo),
        ("docker_archive_zstd_to_skopeo", &["--compress", "zstd"], to_skopeo),
        ("oci_archive_to_podman", &["--format", "oci-archive"], to_podman),
        ("oci_archive_zstd_to_podman", &["--format", "oci-archive", "--compress", "zstd"], to_podman),
        ("oci_archive_plain_to_podman", &["--format", "oci-archive", "--compress", "none"], to_podman),
        ("oci_archive_to_skopeo", &["--format", "oci-archive"], to_skopeo),
        ("oci_archive_zstd_to_skopeo", &["--format", "oci-archive", "--compress", "zstd"], to_skopeo),
        ("oci_directory_to_podman", &["--format", "oci-dir"], to_podman),
        ("oci_directory_to_skopeo", &["--format", "oci-dir"], to_skopeo),
        ("oci_directory_zstd_to_skopeo", &["--format", "oci-dir", "--compress", "zstd"], to_skopeo),
        ("oci_directory_to_umoci", &["--format", "oci-dir"], to_umoci),
        ("oci_directory_plain_to_umoci", &["--format", "oci-dir", "--compress", "none"], to_umoci),
    ];
    for (name, flags, read) in goes_out {
        cases.push(Case::new(format!("images_peers::{name}_goes_out"), move |sandbox| {
            let specimen = Specimen::new(name);
            bundle::directory(&specimen.oci_files(Some(NAME), Packed::Gzip), &sandbox.place("original"));
            sandbox.ok(&["load", "-q", "-i", &text(&sandbox.place("original"))]);
            read(sandbox, &specimen, flags);
        }));
    }
    cases
}

/// Of the images; whole, so that no tool has to guess a host.
const NAME: &str = "docker.io/library/specimen:1";
/// As mysup and docker show it.
const SHOWN: &str = "specimen:1";

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A layout of the specimen as it was written by hand.
fn original(sandbox: &Sandbox, specimen: &Specimen) -> String {
    let path = sandbox.place("original");
    bundle::directory(&specimen.oci_files(Some(NAME), Packed::Gzip), &path);
    text(&path)
}

/// What umoci makes of it: neither ours nor that of the tool under test.
fn reference(sandbox: &Sandbox, specimen: &Specimen) -> Tree {
    original(sandbox, specimen);
    read_root(&unpacked_by_umoci(&sandbox.place("original"), NAME, &sandbox.place("reference")))
}

/// Without the root itself, which no layer describes.
fn read_root(root: &Path) -> Tree {
    Tree::read_copy(root).without("")
}

#[track_caller]
fn expect_same(expected: &Tree, found: &Tree) {
    let difference = expected.difference(found);
    assert!(difference.is_empty(), "{}", difference.join("\n"));
}

fn inspect(sandbox: &Sandbox, name: &str) -> Value {
    let document: Value = serde_json::from_str(&sandbox.ok(&["image", "inspect", name])).expect("JSON");
    document[0].clone()
}

/// mysup takes it, under its id, with all layers, and every file is what it was.
#[track_caller]
fn loads(sandbox: &Sandbox, specimen: &Specimen, input: &str) {
    let said = sandbox.ok(&["load", "-i", input]);
    let document = inspect(sandbox, &specimen.id());
    assert_eq!(document["RootFS"]["Layers"], Value::from(specimen.diff_ids()), "{said}");
    let config = &document["Config"];
    assert_eq!(
        (&config["User"], &config["Healthcheck"]),
        (&specimen.config["config"]["User"], &specimen.config["config"]["Healthcheck"])
    );
    let verified = sandbox.ok(&["image", "verify"]);
    assert!(verified.ends_with(": whole"), "{verified}");
    expect_same(&reference(sandbox, specimen), &union(sandbox, &document));
}

/// The layers joined by the kernel, as a container gets them.
fn union(sandbox: &Sandbox, document: &Value) -> Tree {
    let place = sandbox.place("union");
    fs::create_dir_all(&place).expect("the sandbox is ours");
    let lower = document["GraphDriver"]["Data"]["LowerDir"].as_str().expect("a text");
    tool("mount", &["-t", "overlay", "none", "-o", &format!("ro,lowerdir={lower}"), &text(&place)]);
    let tree = read_root(&place);
    // Whoever starts meanwhile has a copy of it for a moment.
    wait_until("it can be unmounted", || {
        Command::new("umount").arg("-q").arg(&place).status().is_ok_and(|status| status.success())
    });
    tree
}

fn union_of_layers_is_what_umoci_unpacks(sandbox: &Sandbox) {
    let specimen = Specimen::new("union");
    for packed in [Packed::Plain, Packed::Gzip, Packed::Zstd] {
        let archive = sandbox.place("archive.tar");
        fs::write(&archive, bundle::archive(&specimen.oci_files(Some(NAME), packed))).expect("ours");
        assert_eq!(sandbox.ok(&["load", "-i", &text(&archive)]), format!("Loaded image: {SHOWN}"));
        expect_same(&reference_once(sandbox, &specimen), &union(sandbox, &inspect(sandbox, SHOWN)));
        sandbox.ok(&["rmi", SHOWN]);
    }
}

fn reference_once(sandbox: &Sandbox, specimen: &Specimen) -> Tree {
    match sandbox.place("reference").exists() {
        true => read_root(&sandbox.place("reference/rootfs")),
        false => reference(sandbox, specimen),
    }
}

fn docker_archive_of_docker(sandbox: &Sandbox, specimen: &Specimen) -> String {
    let docker = Docker::start(sandbox);
    let (given, saved) = (sandbox.place("given.tar"), sandbox.place("saved.tar"));
    fs::write(&given, bundle::archive(&specimen.docker_files(&[SHOWN]))).expect("the sandbox is ours");
    docker.call(&["load", "-i", &text(&given)]);
    docker.call(&["save", "-o", &text(&saved), SHOWN]);
    text(&saved)
}

fn podman_saves(sandbox: &Sandbox, specimen: &Specimen, format: &str) -> String {
    let podman = Podman::new(sandbox);
    podman.call(&["load", "-i", &original(sandbox, specimen)]);
    let saved = text(&sandbox.place("saved"));
    podman.call(&["save", "--format", format, "-o", &saved, &specimen.id()]);
    saved
}

/// podman's fourth form is for registries' own use: it has no names and no configuration's digest for a name.
fn podman_docker_directory(sandbox: &Sandbox, specimen: &Specimen) -> String {
    let saved = podman_saves(sandbox, specimen, "docker-dir");
    sandbox.refused(&["load", "-i", &saved], 1, &["manifest.json"]);
    String::new()
}

fn skopeo_copies(sandbox: &Sandbox, specimen: &Specimen, transport: &str, flags: &[&str]) -> String {
    let from = format!("oci:{}:{NAME}", original(sandbox, specimen));
    let saved = text(&sandbox.place("saved"));
    let to = format!("{transport}:{saved}:{NAME}");
    tool("skopeo", &[&["--insecure-policy", "copy", "-q"], flags, &[&from, &to]].concat());
    saved
}

/// umoci adds a layer and changes the configuration; what it makes is another image.
fn oci_directory_of_umoci(sandbox: &Sandbox, specimen: &Specimen) -> String {
    let layout = original(sandbox, specimen);
    let image = format!("{layout}:{NAME}");
    let added = sandbox.new_directory("added");
    fs::write(sandbox.place("added/new"), "new").expect("the sandbox is ours");
    tool("umoci", &["insert", "--image", &image, "--tag", "docker.io/library/more:1", &added, "/added"]);
    let whiteout = format!("{layout}:docker.io/library/more:1");
    tool("umoci", &["insert", "--image", &whiteout, "--whiteout", "/data/word"]);
    tool("umoci", &["config", "--image", &whiteout, "--config.user", "0", "--config.env", "WORD=of umoci"]);
    sandbox.ok(&["load", "-i", &layout]);
    let theirs = unpacked_by_umoci(Path::new(&layout), "docker.io/library/more:1", &sandbox.place("theirs"));
    // umoci's layers have no entry of /data, whose file they remove: it stays what it was.
    expect_same(&read_root(&theirs), &union(sandbox, &inspect(sandbox, "more:1")));
    let script = "cat /added/new; echo $WORD; test -e /data/word || echo gone";
    assert_eq!(sandbox.ok(&["run", "--rm", "more:1", script]), "newof umoci\ngone");
    sandbox.ok(&["rmi", "more:1", SHOWN]);
    layout
}

/// Saves the specimen; gives the path.
fn save(sandbox: &Sandbox, flags: &[&str]) -> String {
    let saved = text(&sandbox.place("saved"));
    sandbox.ok(&[&["save", "-o", &saved], flags, &[SHOWN]].concat());
    saved
}

fn to_docker(sandbox: &Sandbox, specimen: &Specimen, flags: &[&str]) {
    let saved = save(sandbox, flags);
    let docker = Docker::start(sandbox);
    assert_eq!(docker.call(&["load", "-i", &saved]), format!("Loaded image: {SHOWN}"));
    let document: Value = serde_json::from_str(&docker.call(&["image", "inspect", SHOWN])).expect("JSON");
    assert_eq!(document[0]["Id"], specimen.id());
    assert_eq!(document[0]["RootFS"]["Layers"], Value::from(specimen.diff_ids()));
    let container = docker.call(&["create", "--network", "none", SHOWN]);
    let archive = text(&sandbox.place("exported.tar"));
    docker.call(&["export", "-o", &archive, &container]);
    let root = sandbox.new_directory("exported");
    tool(
        "tar",
        &["-x", "--numeric-owner", "-p", "--xattrs", "--xattrs-include=*", "-f", &archive, "-C", &root],
    );
    let added = ["/.dockerenv", "/dev", "/etc", "/proc", "/sys", "/volume"];
    let without = |tree: Tree| added.iter().fold(as_docker_exports(tree), |tree, path| tree.without(path));
    expect_same(&without(reference(sandbox, specimen)), &without(read_root(Path::new(&root))));
}

fn to_podman(sandbox: &Sandbox, specimen: &Specimen, flags: &[&str]) {
    let saved = save(sandbox, flags);
    let podman = Podman::new(sandbox);
    if flags == ["--compress", "gzip"] {
        let theirs = sandbox.place("theirs.tar");
        fs::write(&theirs, bundle::archive(&specimen.docker_files(&[SHOWN]))).expect("the sandbox is ours");
        tool("gzip", &[&text(&theirs)]);
        if !podman.takes(&format!("{}.gz", theirs.display())) {
            skip("this podman takes no docker archive that gzip made");
        }
    }
    podman.call(&["load", "-i", &saved]);
    let id = specimen.id()["sha256:".len()..].to_owned();
    let document: Value = serde_json::from_str(&podman.call(&["image", "inspect", &id])).expect("JSON");
    assert_eq!(document[0]["RootFS"]["Layers"], Value::from(specimen.diff_ids()));
    let names = document[0]["RepoTags"].to_string();
    let is_directory = flags.contains(&"oci-dir");
    // podman gives a directory its own name.
    assert!(is_directory || names.contains("specimen:1"), "{names}");
    let mounted = podman.call(&["image", "mount", &id]);
    let found = read_root(Path::new(&mounted));
    podman.call(&["image", "umount", &id]);
    expect_same(&reference(sandbox, specimen), &found);
}

fn to_skopeo(sandbox: &Sandbox, specimen: &Specimen, flags: &[&str]) {
    let saved = save(sandbox, flags);
    let transport = match flags {
        ["--format", "oci-archive", ..] => "oci-archive",
        ["--format", "oci-dir", ..] => "oci",
        _ => "docker-archive",
    };
    let name = if transport == "docker-archive" { SHOWN } else { NAME };
    let from = format!("{transport}:{saved}:{name}");
    let raw = tool("skopeo", &["inspect", "--config", "--raw", &from]);
    assert_eq!(raw, specimen.text(), "the configuration is what it was, byte for byte");
    let copy = sandbox.place("copy");
    tool("skopeo", &["--insecure-policy", "copy", "-q", &from, &format!("oci:{}:copy", copy.display())]);
    // umoci 0.4 cannot read zstd.
    if flags.contains(&"zstd") && transport != "docker-archive" {
        return;
    }
    let theirs = unpacked_by_umoci(&copy, "copy", &sandbox.place("theirs"));
    expect_same(&reference(sandbox, specimen), &read_root(&theirs));
}

fn to_umoci(sandbox: &Sandbox, specimen: &Specimen, flags: &[&str]) {
    let saved = save(sandbox, flags);
    let theirs = unpacked_by_umoci(Path::new(&saved), NAME, &sandbox.place("theirs"));
    expect_same(&reference(sandbox, specimen), &read_root(&theirs));
    let history = tool("umoci", &["stat", "--json", "--image", &format!("{saved}:{NAME}")]);
    assert!(history.contains("COPY middle"), "{history}");
}

fn docker_archive_and_oci_layout_are_converted_into_each_other(sandbox: &Sandbox) {
    let specimen = Specimen::new("converted");
    let mut input = original(sandbox, &specimen);
    let forms: [&[&str]; 7] = [
        &[],
        &["--format", "oci-archive"],
        &["--compress", "zstd"],
        &["--format", "oci-dir", "--compress", "none"],
        &["--format", "oci-archive", "--compress", "zstd"],
        &["--compress", "gzip"],
        &["--format", "oci-dir", "--compress", "zstd"],
    ];
    for (number, flags) in forms.iter().enumerate() {
        sandbox.ok(&["load", "-q", "-i", &input]);
        let document = inspect(sandbox, SHOWN);
        assert_eq!(document["Id"], specimen.id(), "{flags:?}");
        assert_eq!(document["RootFS"]["Layers"], Value::from(specimen.diff_ids()), "{flags:?}");
        input = text(&sandbox.place(&format!("saved-{number}")));
        sandbox.ok(&[&["save", "-o", &input], *flags, &[SHOWN]].concat());
        let again = text(&sandbox.place(&format!("again-{number}")));
        sandbox.ok(&[&["save", "-o", &again], *flags, &[SHOWN]].concat());
        Tree::read_copy(Path::new(&input))
            .without("")
            .difference(&Tree::read_copy(Path::new(&again)).without(""));
        if Path::new(&input).is_file() {
            assert!(fs::read(&input).expect("ours") == fs::read(&again).expect("ours"), "{flags:?} differs");
        }
        sandbox.ok(&["rmi", SHOWN]);
    }
    sandbox.ok(&["load", "-q", "-i", &input]);
    expect_same(&reference(sandbox, &specimen), &union(sandbox, &inspect(sandbox, SHOWN)));
}

fn several_images_with_shared_layers_go_to_podman_and_come_back(sandbox: &Sandbox) {
    let podman = Podman::new(sandbox);
    let specimens = ["one", "two"].map(Specimen::new);
    for (specimen, name) in specimens.iter().zip(["first:1", "second:1"]) {
        let path = sandbox.place("given.tar");
        fs::write(&path, bundle::archive(&specimen.docker_files(&[name]))).expect("the sandbox is ours");
        sandbox.ok(&["load", "-i", &text(&path)]);
    }
    // The lowest layer is the same.
    assert_eq!(fs::read_dir(sandbox.root().join("layers")).map_or(0, Iterator::count), 5);
    let saved = text(&sandbox.place("both.tar"));
    sandbox.ok(&["save", "-o", &saved, "first", "second"]);
    podman.call(&["load", "-i", &saved]);
    let back = text(&sandbox.place("back.tar"));
    let ids = specimens.each_ref().map(|specimen| specimen.id()["sha256:".len()..].to_owned());
    if podman.call(&["images", "-q", "--no-trunc"]).lines().count() != 2 {
        skip("podman took one image of two");
    }
    let names = ["localhost/first:1", "localhost/second:1"];
    podman.call(&["save", "--multi-image-archive", "-o", &back, names[0], names[1]]);
    sandbox.ok(&["rmi", "first:1", "second:1"]);
    let said = sandbox.ok(&["load", "-i", &back]);
    assert!(names.iter().all(|name| said.contains(name)), "{said}");
    for id in ids {
        sandbox.ok(&["image", "inspect", &id]);
    }
    assert_eq!(sandbox.ok(&["image", "verify"]).lines().filter(|line| line.ends_with(": whole")).count(), 2);
}
