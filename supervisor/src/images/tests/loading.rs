//! Archives and directories of images that come in.

use std::{fs, thread};

use mysup_ipc::id::Digest;
use serde_json::{Value, json};

use super::{
    laboratory::{gzip, symlink, zstd},
    small::{INDEX, MANIFEST, Small, in_directory, index, layout, load, put, refused, tarred},
    storing::Bench,
};
use crate::images::{Cancel, ImageError, config::digest_of};

#[test]
fn both_forms_come_in_plain_and_compressed_and_from_a_pipe() {
    let small = Small::new(&["one", "two"]);
    for files in [small.docker(), small.oci()] {
        let plain = tarred(&files);
        for bytes in [plain.clone(), gzip(&plain), zstd(&plain)] {
            let mut bench = Bench::new();
            assert_eq!(load(&bench, &bytes).unwrap()[0].0, small.id());
            bench.reopen();
            let image = bench.store.resolve(small.id().as_str()).unwrap();
            let layers = bench.store.layer_directories(&image);
            assert_eq!(fs::read_to_string(layers[0].join("file-two")).unwrap(), "two");
            assert_eq!(fs::read_to_string(layers[1].join("file-one")).unwrap(), "one");
            assert_eq!(image.config.env, ["A=b"]);
            let bench = Bench::new();
            let (reader, mut writer) = std::io::pipe().unwrap();
            thread::scope(|scope| {
                scope.spawn(move || std::io::Write::write_all(&mut writer, &bytes).unwrap());
                let loaded = bench.store.load(reader.into(), &Cancel::new().unwrap()).unwrap();
                assert_eq!(loaded[0].image.id, small.id());
            });
            assert_eq!(bench.names("layers").len(), 2);
        }
        let bench = Bench::new();
        let loaded = bench.store.load(in_directory(&bench, &files), &Cancel::new().unwrap()).unwrap();
        assert_eq!(loaded[0].image.id, small.id());
    }
}

#[test]
fn images_share_layers_and_lose_them_with_the_last_one() {
    let bench = Bench::new();
    let (one, two) = (Small::new(&["base", "one"]), Small::new(&["base", "two"]));
    for small in [&one, &two] {
        load(&bench, &tarred(&small.oci())).unwrap();
    }
    assert_eq!(bench.names("layers").len(), 3);
    bench.store.remove(one.id().as_str(), true, &[]).unwrap();
    assert_eq!(bench.names("layers").len(), 2);
    let image = bench.store.resolve(two.id().as_str()).unwrap();
    assert!(bench.store.layer_directories(&image).iter().all(|layer| layer.is_dir()));
    bench.store.remove(two.id().as_str(), true, &[]).unwrap();
    assert!(bench.names("layers").is_empty());
    // The same layer above another one is another layer of the store: what it hides differs.
    let (low, high) = (Small::new(&["same"]), Small::new(&["other", "same"]));
    load(&bench, &tarred(&low.docker())).unwrap();
    load(&bench, &tarred(&high.docker())).unwrap();
    assert_eq!(bench.names("layers").len(), 3);
}

#[test]
fn loads_at_the_same_time_share_their_work() {
    let bench = Bench::new();
    let words: Vec<String> = (0..6).map(|at| at.to_string()).collect();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ids: Vec<Digest> = (0..6)
        .map(|at| {
            words.truncate(6 - at);
            let small = Small::new(&words);
            fs::write(bench.scratch.path().join(at.to_string()), tarred(&small.docker())).unwrap();
            small.id()
        })
        .collect();
    thread::scope(|scope| {
        for at in (0..6).chain(0..6) {
            let (store, path) = (bench.store.clone(), bench.scratch.path().join(at.to_string()));
            scope.spawn(move || {
                let file = fs::File::open(path).unwrap();
                store.load(file.into(), &Cancel::new().unwrap()).unwrap();
            });
        }
    });
    assert_eq!(bench.names("layers").len(), 6);
    assert!(bench.names("trash").is_empty(), "a layer was unpacked twice: {:?}", bench.names("trash"));
    for id in ids {
        assert!(bench.store.verify(&[id.to_string()], &Cancel::new().unwrap()).unwrap()[0].faults.is_empty());
    }
}

#[test]
fn a_removal_meanwhile_takes_no_layer_from_a_load() {
    let bench = Bench::new();
    let (one, two) = (Small::new(&["base", "one"]), Small::new(&["base", "two"]));
    let (first, second) = (tarred(&one.docker()), tarred(&two.docker()));
    for _ in 0..20 {
        load(&bench, &first).unwrap();
        thread::scope(|scope| {
            let store = bench.store.clone();
            let id = one.id();
            scope.spawn(move || store.remove(id.as_str(), true, &[]).unwrap());
            let path = bench.scratch.path().join("second");
            fs::write(&path, &second).unwrap();
            let file = fs::File::open(path).unwrap();
            bench.store.load(file.into(), &Cancel::new().unwrap()).unwrap();
        });
        let verdict = bench.store.verify(&[two.id().to_string()], &Cancel::new().unwrap()).unwrap().remove(0);
        assert!(verdict.faults.is_empty(), "{:?}", verdict.faults);
        bench.store.remove(two.id().as_str(), true, &[]).unwrap();
        assert!(bench.names("layers").is_empty());
    }
}

#[test]
fn links_in_an_archive_are_followed_inside_it_only() {
    let small = Small::new(&["one"]);
    let layer = &small.layers[0];
    let entries = |target: &str| {
        let mut files = small.docker();
        files.retain(|(name, _)| name != "0/layer.tar");
        let mut bytes = tarred(&files);
        bytes.truncate(bytes.len() - 1024);
        bytes.extend(symlink("0/layer.tar", target));
        let mut real = tarred(&vec![("real/layer.tar".to_owned(), layer.clone())]);
        bytes.append(&mut real);
        bytes
    };
    let bench = Bench::new();
    assert_eq!(load(&bench, &entries("../real/layer.tar")).unwrap()[0].0, small.id());
    for target in ["/etc/passwd", "../../../etc/passwd", "layer.tar", "../0/layer.tar", "/proc/self/fd/0"] {
        let result = load(&Bench::new(), &entries(target));
        assert!(matches!(result, Err(ImageError::Bundle { .. })), "{target}: {result:?}");
    }
}

#[test]
fn of_several_platforms_this_machines_is_taken() {
    let (ours, theirs) = (Small::new(&["ours"]), Small::new(&["theirs"]));
    let platform = |os: &str, architecture: &str| json!({ "os": os, "architecture": architecture });
    let own = platform("linux", crate::images::config::architecture());
    let build = |first: &Value, second: &Value, nested: bool| {
        let mut files = layout();
        let mut manifests = Vec::new();
        for (small, platform) in [(&theirs, first), (&ours, second)] {
            let manifest = small.manifest(&mut files);
            let mut manifest = put(&mut files, MANIFEST, manifest.to_string().as_bytes());
            manifest["platform"] = platform.clone();
            manifests.push(manifest);
        }
        // What buildkit adds.
        let mut attestation = manifests[1].clone();
        attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
        attestation["platform"] = platform("unknown", "unknown");
        manifests.push(attestation);
        if nested {
            let inner = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
            let mut inner = put(&mut files, INDEX, inner.to_string().as_bytes());
            inner["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/many:1" });
            manifests = vec![inner];
        }
        files.push(index(&manifests));
        files
    };
    for nested in [false, true] {
        for foreign in [platform("linux", "s390x"), platform("windows", "amd64")] {
            let bench = Bench::new();
            let names = if nested { vec!["many:1".to_owned()] } else { Vec::new() };
            let loaded = load(&bench, &tarred(&build(&foreign, &own, nested))).unwrap();
            assert_eq!(loaded, [(ours.id(), names)]);
            refused(&build(&foreign, &foreign, nested), "no image for linux/");
        }
    }
}

#[test]
fn several_images_come_in_with_their_names() {
    let (one, two) = (Small::new(&["base", "one"]), Small::new(&["base", "two"]));
    let mut files = layout();
    let mut manifests = Vec::new();
    for (small, name) in [(&one, "host:5/a/b:c"), (&two, "latest"), (&one, "docker.io/library/d:e")] {
        let manifest = small.manifest(&mut files);
        let mut manifest = put(&mut files, MANIFEST, manifest.to_string().as_bytes());
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        manifests.push(manifest);
    }
    files.push(index(&manifests));
    let bench = Bench::new();
    let loaded = load(&bench, &tarred(&files)).unwrap();
    let names = vec!["host:5/a/b:c".to_owned(), "d:e".to_owned()];
    assert_eq!(loaded, [(one.id(), names), (two.id(), vec![])]);
    assert_eq!(bench.store.resolve("docker.io/library/d:e").unwrap().id, one.id());
}

/// docker before version 1.10.
#[test]
fn repositories_without_a_manifest_come_in() {
    let small = Small::new(&["one", "two"]);
    let id = |digit: &str| digit.repeat(64);
    let v1 = |own: &str, parent: Option<String>| {
        json!({ "id": own, "parent": parent, "created": "2014-01-01T00:00:00Z", "os": "linux", "architecture": "amd64",
                "container_config": { "Cmd": ["/bin/sh", "-c", "x"] }, "config": { "Cmd": ["top"] } })
    };
    let repositories = json!({ "old": { "1.0": id("b") } });
    let build = |parent: Option<String>| {
        vec![
            (format!("{}/json", id("a")), v1(&id("a"), parent).to_string().into_bytes()),
            (format!("{}/layer.tar", id("a")), small.layers[0].clone()),
            (format!("{}/json", id("b")), v1(&id("b"), Some(id("a"))).to_string().into_bytes()),
            (format!("{}/layer.tar", id("b")), small.layers[1].clone()),
            ("repositories".to_owned(), repositories.to_string().into_bytes()),
        ]
    };
    let bench = Bench::new();
    let loaded = load(&bench, &tarred(&build(None))).unwrap();
    assert_eq!(loaded[0].1, ["old:1.0"]);
    let image = bench.store.resolve("old:1.0").unwrap();
    assert_eq!(image.layers, small.layers.iter().map(|layer| digest_of(layer)).collect::<Vec<_>>());
    assert_eq!(image.config.cmd, ["top"]);
    assert_eq!(bench.store.history("old:1.0").unwrap().len(), 2);
    refused(&build(Some(id("b"))), "below itself");
    refused(&build(Some("../../x".to_owned())), "no id");
}

/// Go's reader needs no end mark, and some writers leave it out.
#[test]
fn a_layer_with_the_right_digest_needs_no_end_mark() {
    let whole = Small::new(&["one"]);
    let layer = whole.layers[0].clone();
    // The last: umoci 0.4 does not even fill the last block.
    for length in [layer.len() - 512, layer.len() - 1024, 512 + 3, 512 + 100] {
        let mut small = Small::new(&["one"]);
        small.layers[0] = layer[..length].to_vec();
        small.config["rootfs"]["diff_ids"] = json!([digest_of(&small.layers[0])]);
        let bench = Bench::new();
        load(&bench, &tarred(&small.docker())).unwrap();
        assert!(bench.store.verify(&[], &Cancel::new().unwrap()).unwrap()[0].faults.is_empty());
    }
    let mut small = Small::new(&["one"]);
    small.layers[0] = layer[..512 + 2].to_vec();
    small.config["rootfs"]["diff_ids"] = json!([digest_of(&small.layers[0])]);
    refused(&small.docker(), "cut short");
}

#[test]
fn a_cancelled_load_leaves_nothing() {
    let bench = Bench::new();
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    let small = Small::new(&["one"]);
    let result = bench.store.load(bench.archive(&tarred(&small.docker())), &cancel);
    assert!(matches!(result, Err(ImageError::Cancelled)), "{result:?}");
    assert!(bench.names("layers").is_empty());
}
