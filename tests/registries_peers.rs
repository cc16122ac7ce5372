//! Images between mysup and the other tools by way of a registry: the digests are those of the same bytes.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::harness::{
    Case, Sandbox,
    bundle::{self, Packed, Specimen},
    peers::{Docker, Podman, tool},
    registry::{Door, Registry, Wire},
};
use crate::registries::{digest_of, load};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        skopeo_brings_and_mysup_gets,
        mysup_brings_and_others_get,
        docker_and_podman_bring_and_mysup_gets,
        what_was_pulled_goes_back_as_it_came,
    ]
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn skopeo_brings_and_mysup_gets(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let ways: [(&str, &[&str]); 5] = [
        ("oci-gzip", &["--format", "oci", "--dest-compress-format", "gzip"]),
        ("oci-zstd", &["--format", "oci", "--dest-compress-format", "zstd"]),
        ("schema2", &["--format", "v2s2"]),
        ("plain", &["--dest-decompress", "--format", "oci"]),
        ("twice", &["--format", "v2s2"]),
    ];
    for (way, flags) in ways {
        let mut specimen = Specimen::new(way);
        if way == "twice" {
            let below = specimen.layers[1].clone();
            specimen.layers.push(below);
            specimen.config["rootfs"]["diff_ids"] = Value::from(specimen.diff_ids());
            specimen.config["history"] = json!([]);
        }
        let archive = text(&sandbox.place(&format!("{way}.tar")));
        let packed = if way == "oci-zstd" { Packed::Zstd } else { Packed::Plain };
        fs::write(&archive, bundle::archive(&specimen.oci_files(Some("x:1"), packed)))
            .expect("the sandbox is ours");
        let name = format!("{}/by-skopeo:{way}", registry.host);
        let (from, to) = (format!("oci-archive:{archive}"), format!("docker://{name}"));
        tool("skopeo", &[&["copy", "-q", "--dest-tls-verify=false"], flags, &[&from, &to]].concat());
        let said = sandbox.ok(&["pull", &name]);
        let raw = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &to]);
        let manifest: Value = serde_json::from_str(&raw).expect("JSON");
        let found = sandbox.ok(&["image", "inspect", "-f", "{{.Id}} {{index .RepoDigests 0}}", &name]);
        let digest = digest_of(said.lines().find(|line| line.starts_with("Digest: ")).expect("a digest"));
        let id = manifest["config"]["digest"].as_str().expect("a digest");
        assert_eq!(found, format!("{id} {}/by-skopeo@{digest}", registry.host), "{raw}");
        let layers = sandbox.ok(&["image", "inspect", "-f", "{{json .RootFS.Layers}}", &name]);
        assert_eq!(layers, Value::from(specimen.diff_ids()).to_string(), "{way}");
        assert!(sandbox.ok(&["image", "verify", &name]).ends_with("whole"));
        // In all forms but docker's the configuration is the one that was written by hand.
        assert!(way.contains("schema2") || way == "twice" || id == specimen.id(), "{way}");
    }
}

fn mysup_brings_and_others_get(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let specimen = Specimen::new("brought");
    let name = format!("{}/by-mysup:1", registry.host);
    load(sandbox, &specimen, &name);
    let digest = digest_of(&sandbox.ok(&["push", &name]));
    let seen = tool("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{name}")]);
    let seen: Value = serde_json::from_str(&seen).expect("JSON");
    assert_eq!(seen["Digest"], json!(digest));
    let copy = sandbox.place("copy");
    let from = format!("docker://{name}");
    tool("skopeo", &["copy", "-q", "--src-tls-verify=false", &from, &format!("oci:{}:1", copy.display())]);
    sandbox.ok(&["rmi", &name]);
    sandbox.ok(&["load", "-q", "-i", &text(&copy)]);
    assert_eq!(sandbox.ok(&["images", "-q", "--no-trunc"]), specimen.id());
    let podman = Podman::new(sandbox);
    podman.call(&["pull", "-q", "--tls-verify=false", &name]);
    let id = podman.call(&["image", "inspect", "-f", "{{.Id}} {{.Digest}}", &name]);
    assert_eq!(format!("sha256:{id}"), format!("{} {digest}", specimen.id()));
    let docker = Docker::start(sandbox);
    docker.call(&["pull", "-q", &name]);
    let id = docker.call(&["image", "inspect", "-f", "{{.Id}} {{index .RepoDigests 0}}", &name]);
    assert_eq!(id, format!("{} {}/by-mysup@{digest}", specimen.id(), registry.host));
}

fn docker_and_podman_bring_and_mysup_gets(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let specimen = Specimen::new("theirs");
    let archive = text(&sandbox.place("theirs.tar"));
    let name = |tag: &str| format!("{}/theirs:{tag}", registry.host);
    fs::write(&archive, bundle::archive(&specimen.docker_files(&[&name("docker")]))).expect("ours");
    let docker = Docker::start(sandbox);
    docker.call(&["load", "-i", &archive]);
    docker.call(&["push", "-q", &name("docker")]);
    let podman = Podman::new(sandbox);
    podman.call(&["load", "-i", &archive]);
    podman.call(&["push", "-q", "--tls-verify=false", &name("docker"), &name("podman")]);
    for tag in ["docker", "podman"] {
        sandbox.ok(&["pull", "-q", &name(tag)]);
        assert_eq!(sandbox.ok(&["images", "-q", "--no-trunc"]), specimen.id(), "{tag}");
        assert!(sandbox.ok(&["image", "verify", &name(tag)]).ends_with("whole"), "{tag}");
        sandbox.ok(&["rmi", &name(tag)]);
    }
}

/// Nobody compresses like another: what a registry has is brought to it as it came, whoever made it, and nothing travels.
fn what_was_pulled_goes_back_as_it_came(sandbox: &Sandbox) {
    let registry = Registry::start(sandbox, Door::Open);
    let wire = Wire::to(&registry);
    let specimen = Specimen::new("back");
    let archive = text(&sandbox.place("back.tar"));
    fs::write(&archive, bundle::archive(&specimen.oci_files(Some("x:1"), Packed::Zstd)))
        .expect("the sandbox is ours");
    let name = |tag: &str| format!("{}/{tag}", wire.host());
    let to = format!("docker://{}/theirs:1", registry.host);
    tool("skopeo", &["copy", "-q", "--dest-tls-verify=false", &format!("oci-archive:{archive}"), &to]);
    let said = sandbox.ok(&["pull", &name("theirs:1")]);
    let digest = digest_of(said.lines().find(|line| line.starts_with("Digest: ")).expect("a digest"));
    let uploads =
        || wire.lines().iter().filter(|line| line.starts_with("PATCH") || line.starts_with("PUT")).count();
    // In the same repository, and in another one that takes the blobs from it.
    for tag in ["theirs:2", "others:1"] {
        let before = uploads();
        sandbox.ok(&["tag", &name("theirs:1"), &name(tag)]);
        let said = sandbox.ok(&["push", &name(tag)]);
        assert_eq!(digest_of(&said), digest, "{said}");
        assert_eq!(said.matches("Layer already exists").count(), 3, "{said}");
        assert_eq!(uploads() - before, 1, "the manifest is all that travels: {:?}", wire.lines());
    }
    // A registry that has none of it gets it as mysup compresses it, and once only.
    let other = Registry::start_at(sandbox, Door::Open, "other");
    let new = format!("{}/new:1", other.host);
    sandbox.ok(&["tag", &name("theirs:1"), &new]);
    let made = digest_of(&sandbox.ok(&["push", &new]));
    assert_ne!(made, digest);
    sandbox.ok(&["rmi", "-f", &specimen.id()]);
    sandbox.ok(&["pull", "-q", &new]);
    assert_eq!(digest_of(&sandbox.ok(&["push", &new])), made);
    // Of an image of one's own, the second push makes nothing anew.
    let own = format!("{}/own:1", wire.host());
    load(sandbox, &Specimen::new("own"), &own);
    let first = digest_of(&sandbox.ok(&["push", &own]));
    let before = uploads();
    assert_eq!(digest_of(&sandbox.ok(&["push", &own])), first);
    assert_eq!(uploads() - before, 1);
}
