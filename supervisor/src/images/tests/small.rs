//! Small images in every form, and a store that takes or refuses them.

use std::{fs, os::fd::OwnedFd};

use mysup_ipc::id::Digest;
use serde_json::{Value, json};

use super::{
    laboratory::{archive, file},
    storing::Bench,
};
use crate::images::{Cancel, ImageError, config::digest_of};

/// Layers and configuration of a small image.
pub(super) struct Small {
    pub(super) layers: Vec<Vec<u8>>,
    pub(super) config: Value,
}

pub(super) type Files = Vec<(String, Vec<u8>)>;

impl Small {
    pub(super) fn new(words: &[&str]) -> Self {
        let layers: Vec<Vec<u8>> =
            words.iter().map(|word| archive(&[file(&format!("file-{word}"), word)])).collect();
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| digest_of(layer)).collect();
        let config = json!({
            "architecture": crate::images::config::architecture(), "os": "linux",
            "config": { "Cmd": null, "Env": ["A=b"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        Self { layers, config }
    }

    pub(super) fn id(&self) -> Digest {
        digest_of(self.config.to_string().as_bytes())
    }

    pub(super) fn docker(&self) -> Files {
        let mut files = vec![("config".to_owned(), self.config.to_string().into_bytes())];
        let names: Vec<String> = (0..self.layers.len()).map(|at| format!("{at}/layer.tar")).collect();
        files.extend(names.iter().cloned().zip(self.layers.clone()));
        let manifest = json!([{ "Config": "config", "RepoTags": ["small:1"], "Layers": names }]);
        files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
        files
    }

    pub(super) fn manifest(&self, files: &mut Files) -> Value {
        let kind = "application/vnd.oci.image.layer.v1.tar";
        let layers: Vec<Value> = self.layers.iter().map(|layer| put(files, kind, layer)).collect();
        let config =
            put(files, "application/vnd.oci.image.config.v1+json", self.config.to_string().as_bytes());
        json!({ "schemaVersion": 2, "config": config, "layers": layers })
    }

    pub(super) fn oci(&self) -> Files {
        let mut files = layout();
        let manifest = self.manifest(&mut files);
        let manifest = put(&mut files, MANIFEST, manifest.to_string().as_bytes());
        files.push(index(&[manifest]));
        files
    }
}

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(super) fn layout() -> Files {
    vec![("oci-layout".to_owned(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec())]
}

pub(super) fn index(manifests: &[Value]) -> (String, Vec<u8>) {
    ("index.json".to_owned(), json!({ "schemaVersion": 2, "manifests": manifests }).to_string().into_bytes())
}

pub(super) fn put(files: &mut Files, kind: &str, bytes: &[u8]) -> Value {
    let digest = digest_of(bytes);
    files.retain(|(name, _)| *name != format!("blobs/sha256/{}", digest.hex()));
    files.push((format!("blobs/sha256/{}", digest.hex()), bytes.to_vec()));
    json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
}

pub(super) fn tarred(files: &Files) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(super) fn replace(files: &mut Files, name: &str, change: impl Fn(&str) -> String) {
    let (_, bytes) = files.iter_mut().find(|(own, _)| own == name).unwrap();
    *bytes = change(&String::from_utf8(bytes.clone()).unwrap()).into_bytes();
}

pub(super) fn in_directory(bench: &Bench, files: &Files) -> OwnedFd {
    let root = bench.scratch.path().join("bundle");
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    fs::File::open(root).unwrap().into()
}

pub(super) fn load(bench: &Bench, bytes: &[u8]) -> Result<Vec<(Digest, Vec<String>)>, ImageError> {
    let loaded = bench.store.load(bench.archive(bytes), &Cancel::new().unwrap())?;
    Ok(loaded.into_iter().map(|loaded| (loaded.image.id, loaded.names)).collect())
}

/// Refused with this in its message, and nothing stays.
pub(super) fn refused(files: &Files, told: &str) {
    let bench = Bench::new();
    let message = load(&bench, &tarred(files)).expect_err(told).to_wire().message;
    assert!(message.contains(told), "{told}: {message}");
    assert!(!message.contains('\n'), "{message}");
    assert!(bench.store.list().is_empty() && bench.names("layers").is_empty(), "{told}");
}
