//! Archives and directories of images that are refused, and leave nothing.

use std::fs;

use serde_json::{Value, json};

use super::{
    laboratory::{archive, file, gzip, zstd},
    small::{INDEX, MANIFEST, Small, in_directory, index, layout, load, put, refused, replace, tarred},
    storing::Bench,
};
use crate::images::{
    Cancel, ImageError,
    config::{Configuration, digest_of},
};

#[test]
fn what_does_not_match_its_digest_is_refused() {
    let small = Small::new(&["one", "two"]);
    let blob = |of: &[u8]| format!("blobs/sha256/{}", digest_of(of).hex());
    let other = archive(&[file("file-one", "0ne")]);
    for of in [small.layers[0].clone(), small.config.to_string().into_bytes()] {
        let mut files = small.oci();
        let (_, bytes) = files.iter_mut().find(|(name, _)| *name == blob(&of)).unwrap();
        // Of the same length.
        let last = bytes.len() / 3;
        bytes[last] ^= 1;
        refused(&files, "digest is");
        let mut files = small.oci();
        files.retain(|(name, _)| *name != blob(&of));
        refused(&files, "missing");
    }
    let mut files = small.docker();
    files.iter_mut().find(|(name, _)| name == "0/layer.tar").unwrap().1 = other;
    refused(&files, "digest is");
    // A configuration that is named by a digest which it has not.
    let mut files = small.docker();
    let name = format!("{}.json", "ab".repeat(32));
    files[0].0 = name.clone();
    replace(&mut files, "manifest.json", |text| text.replace("\"config\"", &format!("\"{name}\"")));
    refused(&files, "digest is");
    // The digest of a descriptor is right, and the configuration speaks of another layer.
    let mut foreign = Small::new(&["one", "two"]);
    foreign.layers[1] = archive(&[file("file-two", "2")]);
    refused(&foreign.oci(), "digest is");
    refused(&foreign.docker(), "digest is");
}

/// The configuration is right about the content, so only the blob's own digest tells. A plain layer is hashed once for both.
#[test]
fn a_layer_whose_name_alone_lies_is_refused_however_it_is_compressed() {
    let small = Small::new(&["one"]);
    for pack in [|bytes: &[u8]| bytes.to_vec(), gzip, zstd] {
        let bytes = pack(&small.layers[0]);
        for digest in [digest_of(&bytes), digest_of(b"another layer")] {
            let mut files = layout();
            let mut manifest = small.manifest(&mut files);
            let layer = &mut manifest["layers"][0];
            (layer["digest"], layer["size"]) = (json!(digest), json!(bytes.len()));
            let name = format!("blobs/sha256/{}", digest.hex());
            files.retain(|(known, _)| *known != name);
            files.push((name, bytes.clone()));
            let manifest = put(&mut files, MANIFEST, manifest.to_string().as_bytes());
            files.push(index(&[manifest]));
            match digest == digest_of(&bytes) {
                true => assert_eq!(load(&Bench::new(), &tarred(&files)).unwrap()[0].0, small.id()),
                false => refused(&files, "digest is"),
            }
        }
    }
}

#[test]
fn sizes_and_digests_that_lie_are_refused() {
    let small = Small::new(&["one"]);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut files = layout();
        let mut manifest = small.manifest(&mut files);
        change(&mut manifest);
        let manifest = put(&mut files, MANIFEST, manifest.to_string().as_bytes());
        files.push(index(&[manifest]));
        files
    };
    refused(&with(&|manifest| manifest["layers"][0]["size"] = json!(7)), "expected were 7");
    refused(&with(&|manifest| manifest["config"]["size"] = json!(7)), "expected were 7");
    for digest in ["sha256:../../../etc/passwd", "sha256:abc", "md5:00", ""] {
        let files = with(&|manifest| manifest["layers"][0]["digest"] = json!(digest));
        let bench = Bench::new();
        let message = load(&bench, &tarred(&files)).unwrap_err().to_wire().message;
        assert!(message.contains("digest") || message.contains("form"), "{message}");
    }
    let digest = format!("sha512:{}", "ab".repeat(64));
    refused(&with(&|manifest| manifest["layers"][0]["digest"] = json!(digest)), "not a digest that is known");
    refused(&with(&|manifest| manifest["layers"] = json!([])), "0 layers");
    refused(&with(&|manifest| manifest["layers"][0]["mediaType"] = json!("text/plain")), "media type");
    refused(&with(&|manifest| manifest["config"]["mediaType"] = json!(INDEX)), "media type");
}

/// CVE-2021-41190.
#[test]
fn documents_that_are_two_things_are_refused() {
    let small = Small::new(&["one"]);
    let with = |field: &str, value: Value, announced: &str| {
        let mut files = layout();
        let mut manifest = small.manifest(&mut files);
        manifest[field] = value;
        let manifest = put(&mut files, announced, manifest.to_string().as_bytes());
        files.push(index(&[manifest]));
        files
    };
    refused(&with("manifests", json!([]), MANIFEST), "ambiguous");
    refused(&with("manifests", json!([]), INDEX), "ambiguous");
    refused(&with("fsLayers", json!([]), MANIFEST), "ambiguous");
    refused(&with("mediaType", json!(INDEX), MANIFEST), "ambiguous");
    refused(&with("mediaType", json!("text/plain"), MANIFEST), "ambiguous");
    refused(&with("x", json!(1), "text/plain"), "media type");
    let mut files = small.oci();
    replace(&mut files, "index.json", |text| text.replacen('{', "{\"layers\":[],", 1));
    refused(&files, "ambiguous");
    let mut files = small.oci();
    replace(&mut files, "index.json", |text| text.replacen('{', "{\"manifests\":[],", 1));
    refused(&files, "duplicate");
    // Both forms in one archive are about the same images, or it is refused.
    let other = Small::new(&["two"]);
    let both = |docker: &Small| [small.oci(), docker.docker()].concat();
    refused(&both(&other), "ambiguous");
    let bench = Bench::new();
    let loaded = load(&bench, &tarred(&both(&small))).unwrap();
    assert_eq!(loaded, [(small.id(), vec!["small:1".to_owned()])]);
}

#[test]
fn two_files_of_one_name_are_refused() {
    let small = Small::new(&["one"]);
    for name in ["manifest.json", "config", "./config", "0//layer.tar"] {
        let mut files = small.docker();
        files.push((name.to_owned(), b"{}".to_vec()));
        refused(&files, "twice");
    }
}

#[test]
fn names_in_documents_never_lead_out_of_the_bundle() {
    let small = Small::new(&["one"]);
    for name in ["../secret", "/etc/passwd", "a/../../secret", "", "link"] {
        let mut files = small.docker();
        replace(&mut files, "manifest.json", |text| text.replace("\"config\"", &json!(name).to_string()));
        let bench = Bench::new();
        assert!(load(&bench, &tarred(&files)).is_err(), "{name}");
        let bench = Bench::new();
        fs::write(bench.scratch.path().join("secret"), small.config.to_string()).unwrap();
        let directory = in_directory(&bench, &files);
        std::os::unix::fs::symlink("../secret", bench.scratch.path().join("bundle/link")).unwrap();
        let result = bench.store.load(directory, &Cancel::new().unwrap());
        assert!(matches!(result, Err(ImageError::Bundle { .. })), "{name}: {result:?}");
    }
}

#[test]
fn configurations_that_are_none_are_refused() {
    for (text, told) in [
        ("{", "form"),
        ("[]", "form"),
        ("{\"architecture\":\"amd64\",\"os\":\"linux\"}", "form"),
        (
            "{\"architecture\":\"amd64\",\"os\":\"windows\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}",
            "windows",
        ),
        ("{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"x\",\"diff_ids\":[]}}", "type"),
        (
            "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"../x\"]}}",
            "digest",
        ),
        (
            "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}",
            "1 layers",
        ),
        ("{\"architecture\":7,\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}", "form"),
    ] {
        let mut files = Small::new(&["one"]).docker();
        files[0].1 = text.as_bytes().to_vec();
        refused(&files, told);
    }
    // null is nothing, to Go and so to everybody.
    let text = "{\"architecture\":\"\",\"os\":\"linux\",\"config\":{\"Env\":null,\"Cmd\":null,\"Entrypoint\":null,\"Labels\":null,\
                \"Volumes\":null,\"ExposedPorts\":null,\"Healthcheck\":{\"Test\":[]}},\"rootfs\":{\"type\":\"layers\",\
                \"diff_ids\":[]},\"history\":null}";
    assert_eq!(Configuration::parse(text).unwrap().config, crate::images::ImageConfig::default());
}

/// Random changes of good bundles: taken or refused, but no panic, nothing half, and all that is listed is whole.
#[test]
fn random_changes_leave_nothing_half() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    let small = Small::new(&["one", "two"]);
    let bench = Bench::new();
    for files in [small.docker(), small.oci()] {
        let good = tarred(&files);
        for _ in 0..150 {
            let mut bad = good.clone();
            for _ in 0..=random(3) {
                let at = random(bad.len());
                bad[at] =
                    *[b'"', b'/', b'.', 0, b'0', b'[', 0xff, b'{', b'\n'].get(random(10)).unwrap_or(&b'}');
            }
            if load(&bench, &bad).is_ok() {
                for verdict in bench.store.verify(&[], &Cancel::new().unwrap()).unwrap() {
                    assert!(verdict.faults.is_empty(), "{:?}", verdict.faults);
                    bench.store.remove(verdict.image.id.as_str(), true, &[]).unwrap();
                }
            }
            assert!(bench.names("layers").is_empty() && bench.store.list().is_empty());
        }
    }
}
