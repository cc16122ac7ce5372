//! Bundles whose documents attack, lie or are odd: name, files, and what must come of them.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{
    archives::Expect::{self, Refused, Taken},
    configuration, tape,
};
use crate::harness::{
    Sandbox,
    bundle::{Packed, Specimen, put},
};

type Files = Vec<(String, Vec<u8>)>;
pub(super) type Row = (&'static str, Files, Expect);

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// All of them.
pub(super) fn all(decoy: &str) -> Vec<Row> {
    [docker(decoy), configurations(), indexes(), manifests()].concat()
}

fn specimen() -> Specimen {
    let mut specimen = Specimen { layers: vec![tape::tar(&[tape::file("a", "a")])], config: json!(null) };
    specimen.config = configuration(&specimen);
    specimen
}

/// docker's files with its manifest changed.
fn with_manifest(change: impl Fn(&mut Value)) -> Files {
    let mut files = specimen().docker_files(&["x:1"]);
    let (_, text) = files.last_mut().expect("the manifest is the last");
    let mut manifest: Value = serde_json::from_slice(text).expect("it is JSON");
    change(&mut manifest[0]);
    *text = manifest.to_string().into_bytes();
    files
}

fn with_text(name: &str, text: Vec<u8>) -> Files {
    let mut files = specimen().docker_files(&["x:1"]);
    files.retain(|(known, _)| known != name);
    files.push((name.to_owned(), text));
    files
}

fn docker(decoy: &str) -> Vec<Row> {
    let mut twice = specimen().docker_files(&["x:1"]);
    twice.push(("./manifest.json".to_owned(), b"[]".to_vec()));
    let mut same = specimen();
    same.layers.push(same.layers[0].clone());
    same.config = configuration(&same);
    let layers = |names: Value| with_manifest(move |item| item["Layers"] = names.clone());
    vec![
        ("layer_outside", layers(json!(["../../../../etc/passwd"])), Refused("missing")),
        ("layer_absolute", layers(json!([format!("{decoy}/data")])), Refused("missing")),
        ("layer_is_the_manifest", layers(json!(["manifest.json"])), Refused("layer sha256")),
        ("layer_is_empty", layers(json!([""])), Refused("missing")),
        ("layers_too_many", layers(json!(["layer-0/layer.tar", "layer-0/layer.tar"])), Refused("2 layers")),
        ("layers_none", layers(json!([])), Refused("0 layers")),
        ("layers_no_list", layers(json!("layer-0/layer.tar")), Refused("form")),
        ("config_outside", with_manifest(|item| item["Config"] = json!("/etc/passwd")), Refused("missing")),
        (
            "config_is_a_layer",
            with_manifest(|item| item["Config"] = json!("layer-0/layer.tar")),
            Refused("form"),
        ),
        (
            "name_with_a_path",
            with_manifest(|item| item["RepoTags"] = json!(["../x:1"])),
            Refused("invalid image name"),
        ),
        (
            "name_with_a_line",
            with_manifest(|item| item["RepoTags"] = json!(["x\u{1b}[2J\n:1"])),
            Refused("invalid"),
        ),
        ("manifest_twice", twice, Refused("twice")),
        ("manifest_empty", with_text("manifest.json", b"[]".to_vec()), Taken),
        ("manifest_of_5_mib", with_text("manifest.json", vec![b' '; 5 << 20]), Refused("4194304 bytes")),
        ("manifest_deep", with_text("manifest.json", vec![b'['; 1 << 20]), Refused("form")),
        ("manifest_no_json", with_text("manifest.json", b"\0\xff".to_vec()), Refused("form")),
        ("same_layer_twice", same.docker_files(&["x:1"]), Taken),
    ]
}

fn configurations() -> Vec<Row> {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = specimen();
        change(&mut changed.config);
        changed.docker_files(&["x:1"])
    };
    let deep = {
        let name = specimen().docker_files(&["x:1"])[0].0.clone();
        let text = format!("{{\"config\":{}", "{\"a\":".repeat(100_000));
        let mut files = with_text(&name, text.into_bytes());
        let plain = files.pop().expect("it was pushed").1;
        files.push(("config".to_owned(), plain));
        let manifest = json!([{ "Config": "config", "RepoTags": [], "Layers": ["layer-0/layer.tar"] }]);
        files.retain(|(name, _)| name != "manifest.json");
        files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
        files
    };
    let many = |count: usize| {
        let mut all = specimen();
        all.layers = vec![all.layers[0].clone(); count];
        all.config = configuration(&all);
        all.docker_files(&["x:1"])
    };
    vec![
        ("config_deep", deep, Refused("form")),
        (
            "config_of_another_layer",
            with(&|config| config["rootfs"]["diff_ids"] = json!([format!("sha256:{}", "ab".repeat(32))])),
            Refused("digest is"),
        ),
        (
            "config_with_a_path_for_a_digest",
            with(&|config| config["rootfs"]["diff_ids"] = json!(["sha256:../../../etc/passwd"])),
            Refused("digest"),
        ),
        (
            "config_with_sha512",
            with(&|config| config["rootfs"]["diff_ids"] = json!([format!("sha512:{}", "ab".repeat(64))])),
            Refused("digest"),
        ),
        ("config_for_windows", with(&|config| config["os"] = json!("windows")), Refused("windows")),
        ("config_without_rootfs", with(&|config| config["rootfs"] = json!({})), Refused("form")),
        (
            "config_with_a_number_for_a_list",
            with(&|config| config["config"] = json!({ "Env": 7 })),
            Refused("form"),
        ),
        ("481_layers", many(481), Refused("480 layers")),
    ]
}

/// An OCI layout with this index.
fn layout(blobs: Files, index: &Value) -> Files {
    let mut files = vec![("oci-layout".to_owned(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec())];
    files.extend(blobs);
    files.push(("index.json".to_owned(), index.to_string().into_bytes()));
    files
}

fn indexes() -> Vec<Row> {
    let (mut nested, mut blobs) = (json!({ "schemaVersion": 2, "manifests": [] }), Vec::new());
    for _ in 0..10 {
        let below = put(&mut blobs, INDEX, nested.to_string().into_bytes());
        nested = json!({ "schemaVersion": 2, "manifests": [below] });
    }
    // A digest cannot be in what it is of: a circle is only one by a wrong digest.
    let circle = json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": INDEX, "digest": format!("sha256:{}", "00".repeat(32)), "size": 10 }
    ] });
    let circular = vec![(format!("blobs/sha256/{}", "00".repeat(32)), circle.to_string().into_bytes())];
    let whole = specimen().oci_files(Some("x:1"), Packed::Plain);
    let index_of = |change: &dyn Fn(&mut Value)| {
        let mut files = whole.clone();
        let (_, text) = files.last_mut().expect("the index is the last");
        let mut index: Value = serde_json::from_slice(text).expect("it is JSON");
        change(&mut index);
        *text = index.to_string().into_bytes();
        files
    };
    let many = |index: &mut Value| {
        let one = index["manifests"][0].clone();
        index["manifests"] = json!(vec![one; 2000]);
    };
    vec![
        ("indexes_in_indexes", layout(blobs, &nested), Refused("deep in other indexes")),
        ("index_in_itself", layout(circular, &circle), Refused("digest is")),
        ("index_of_2000_images", index_of(&many), Refused("1000 images")),
        ("index_of_nothing", layout(Vec::new(), &json!({ "schemaVersion": 2, "manifests": [] })), Taken),
        ("index_that_is_a_manifest", index_of(&|index| index["layers"] = json!([])), Refused("ambiguous")),
        (
            "index_with_a_wrong_size",
            index_of(&|index| index["manifests"][0]["size"] = json!(1)),
            Refused("expected were 1"),
        ),
        (
            "index_with_a_negative_size",
            index_of(&|index| index["manifests"][0]["size"] = json!(-1)),
            Refused("form"),
        ),
        (
            "index_with_another_type",
            index_of(&|index| index["manifests"][0]["mediaType"] = json!("text/plain")),
            Refused("media type"),
        ),
        (
            "index_of_another_machine",
            index_of(&|index| {
                index["manifests"][0]["platform"] = json!({ "os": "linux", "architecture": "s390x" })
            }),
            Refused("no image for"),
        ),
        (
            "index_with_a_path",
            index_of(&|index| index["manifests"][0]["digest"] = json!("sha256:../../../../etc/passwd")),
            Refused("Invalid encoded value"),
        ),
        (
            "layout_of_version_2",
            layout(Vec::new(), &json!({}))
                .into_iter()
                .map(|(name, text)| match name.as_str() {
                    "oci-layout" => (name, b"{\"imageLayoutVersion\":\"2.0.0\"}".to_vec()),
                    _ => (name, text),
                })
                .collect(),
            Refused("imageLayoutVersion"),
        ),
    ]
}

fn manifests() -> Vec<Row> {
    let with = |change: &dyn Fn(&mut Value)| {
        let specimen = specimen();
        let mut blobs = Vec::new();
        let layer = put(&mut blobs, "application/vnd.oci.image.layer.v1.tar", specimen.layers[0].clone());
        let config =
            put(&mut blobs, "application/vnd.oci.image.config.v1+json", specimen.text().into_bytes());
        let mut manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        change(&mut manifest);
        let manifest = put(&mut blobs, MANIFEST, manifest.to_string().into_bytes());
        layout(blobs, &json!({ "schemaVersion": 2, "manifests": [manifest] }))
    };
    let mut flipped = with(&|_| {});
    // In the content of its file.
    flipped[1].1[512] ^= 1;
    vec![
        ("manifest_that_is_right", with(&|_| {}), Taken),
        ("layer_flipped", flipped, Refused("digest is")),
        (
            "manifest_that_is_an_index",
            with(&|manifest| manifest["manifests"] = json!([])),
            Refused("ambiguous"),
        ),
        (
            "manifest_of_another_type",
            with(&|manifest| manifest["mediaType"] = json!(INDEX)),
            Refused("ambiguous"),
        ),
        (
            "layer_of_another_type",
            with(&|manifest| manifest["layers"][0]["mediaType"] = json!("text/html")),
            Refused("media type"),
        ),
        (
            "layer_said_to_be_gzip",
            with(&|manifest| {
                manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip")
            }),
            Taken,
        ),
        (
            "layer_missing",
            with(&|manifest| manifest["layers"][0]["digest"] = json!(format!("sha256:{}", "cd".repeat(32)))),
            Refused("missing"),
        ),
        (
            "layer_with_a_path",
            with(&|manifest| manifest["layers"][0]["digest"] = json!("sha256:../../../etc/passwd")),
            Refused("Invalid encoded value"),
        ),
        (
            "layer_with_a_wrong_size",
            with(&|manifest| manifest["layers"][0]["size"] = json!(1)),
            Refused("expected were 1"),
        ),
        (
            "config_is_the_layer",
            with(&|manifest| manifest["config"] = manifest["layers"][0].clone()),
            Refused("media type"),
        ),
        (
            "foreign_layer",
            with(&|manifest| manifest["layers"][0]["urls"] = json!(["file:///etc/passwd"])),
            Taken,
        ),
    ]
}

/// A directory of images in which a file is a link to outside.
pub(super) fn link_out_of_a_directory(sandbox: &Sandbox, decoy: &str) {
    for target in [format!("{decoy}/data"), "../decoy/data".to_owned(), "/proc/self/environ".to_owned()] {
        let directory = sandbox.new_directory("linked");
        let place = Path::new(&directory);
        for link in ["config", "layer.tar"] {
            std::os::unix::fs::symlink(&target, place.join(link)).expect("the sandbox is ours");
        }
        let manifest = json!([{ "Config": "config", "RepoTags": [], "Layers": ["layer.tar"] }]);
        fs::write(place.join("manifest.json"), manifest.to_string()).expect("the sandbox is ours");
        sandbox.refused(&["load", "-i", &directory], 1, &["\"config\"", "no regular file"]);
        #[expect(
            clippy::disallowed_methods,
            reason = "the sandbox's own directory, in which nothing is mounted"
        )]
        fs::remove_dir_all(&directory).expect("the sandbox is ours");
    }
}
