//! An image of several layers, written by hand in every form in which images are handed around.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::{image, skip, tree};

/// How a layer or archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packed {
    Plain,
    Gzip,
    Zstd,
}

/// Layers and configuration.
#[derive(Debug, Clone)]
pub(crate) struct Specimen {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) config: Value,
}

impl Specimen {
    /// busybox; above it a layer with everything a file can be, and marks that hide files of the first; above that
    /// one that replaces and hides some of the second. `word` makes its digests those of no other.
    pub(crate) fn new(word: &str) -> Specimen {
        let layers = vec![base(), middle(word), top(word)];
        let mut specimen = Specimen { layers, config: Value::Null };
        specimen.config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-11-24T01:02:03.5Z",
            "author": "somebody",
            "config": {
                "User": "tester",
                "Env": ["PATH=/bin:/usr/bin", format!("WORD={word}")],
                "Entrypoint": ["/bin/sh", "-c"],
                "Cmd": ["echo $WORD; id -un; pwd"],
                "WorkingDir": "/data",
                "ExposedPorts": { "80/tcp": {} },
                "Volumes": { "/volume": {} },
                "Labels": { "a": "b", "unknown.policy/privileged": "true" },
                "StopSignal": "SIGUSR1",
                "Healthcheck": { "Test": ["CMD", "true"], "Interval": 1_000_000_000 },
                "ArgsEscaped": true
            },
            "rootfs": { "type": "layers", "diff_ids": specimen.diff_ids() },
            "history": [
                { "created": "2026-11-24T01:02:03.5Z", "created_by": "ADD base" },
                { "created": "2026-11-24T01:02:03.5Z", "created_by": "ENV x", "empty_layer": true },
                { "created": "2026-11-24T01:02:03.5Z", "created_by": "COPY middle" },
                { "created": "2026-11-24T01:02:03.5Z", "created_by": "RUN top", "comment": "the last" }
            ],
            "x-unknown": { "kept": true }
        });
        specimen
    }

    pub(crate) fn diff_ids(&self) -> Vec<String> {
        self.layers.iter().map(|layer| format!("sha256:{}", tree::sha256(layer))).collect()
    }

    /// The text of its configuration.
    pub(crate) fn text(&self) -> String {
        self.config.to_string()
    }

    /// The id of the image.
    pub(crate) fn id(&self) -> String {
        format!("sha256:{}", tree::sha256(self.text().as_bytes()))
    }

    /// docker's archive, as a list of files: a test may change them before [`archive`].
    pub(crate) fn docker_files(&self, names: &[&str]) -> Vec<(String, Vec<u8>)> {
        let config = format!("{}.json", &self.id()["sha256:".len()..]);
        let mut files = vec![(config.clone(), self.text().into_bytes())];
        let mut layers = Vec::new();
        for (at, layer) in self.layers.iter().enumerate() {
            let name = format!("layer-{at}/layer.tar");
            files.push((name.clone(), layer.clone()));
            layers.push(name);
        }
        let manifest = json!([{ "Config": config, "RepoTags": names, "Layers": layers }]);
        files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
        files
    }

    /// An OCI layout, as a list of files.
    pub(crate) fn oci_files(&self, name: Option<&str>, packed: Packed) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![("oci-layout".to_owned(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec())];
        let suffix = match packed {
            Packed::Plain => "",
            Packed::Gzip => "+gzip",
            Packed::Zstd => "+zstd",
        };
        let mut layers = Vec::new();
        for layer in &self.layers {
            let bytes = pack(packed, layer);
            let kind = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
            layers.push(put(&mut files, &kind, bytes));
        }
        let kind = "application/vnd.oci.image.config.v1+json";
        let config = put(&mut files, kind, self.text().into_bytes());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
        let mut manifest = put(&mut files, kind, manifest.to_string().into_bytes());
        if let Some(name) = name {
            manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        }
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        files
    }
}

/// Adds a blob and gives its descriptor.
pub(crate) fn put(files: &mut Vec<(String, Vec<u8>)>, kind: &str, bytes: Vec<u8>) -> Value {
    let digest = tree::sha256(&bytes);
    let descriptor = json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() });
    files.push((format!("blobs/sha256/{digest}"), bytes));
    descriptor
}

/// The files in a tar.
pub(crate) fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = header(EntryType::Regular, 0o644, bytes.len());
        tar.append_data(&mut header, name, bytes.as_slice()).expect("writing to memory");
    }
    tar.into_inner().expect("writing to memory")
}

/// The files in a directory.
pub(crate) fn directory(files: &[(String, Vec<u8>)], root: &Path) {
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("the sandbox is ours");
        fs::write(path, bytes).expect("the sandbox is ours");
    }
}

/// Compresses with the system's own program.
pub(crate) fn pack(packed: Packed, bytes: &[u8]) -> Vec<u8> {
    let program = match packed {
        Packed::Plain => return bytes.to_vec(),
        Packed::Gzip => "gzip",
        Packed::Zstd => "zstd",
    };
    let started = Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = started else { skip(format!("no {program} here")) };
    let mut input = child.stdin.take().expect("stdin is a pipe");
    let copy = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&copy));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it does not panic").expect("the compressor reads all");
    output.stdout
}

fn base() -> Vec<u8> {
    let directories: Vec<String> =
        ["opt", "opt/below", "data", "lib", "usr/share"].iter().map(|path| (*path).to_owned()).collect();
    let mut bytes = image::tar_bytes(&[("etc/gone", "gone"), ("etc/replaced", "old")]);
    // Without the end mark, so that it can go on.
    bytes.truncate(bytes.len() - 1024);
    let mut layer = LayerWriter::new();
    for path in directories {
        layer.add(EntryType::Directory, &path, 0o755, "", b"", &[]);
    }
    for (path, text) in
        [("opt/hidden", "h"), ("opt/below/hidden", "h"), ("lib/whole", "w"), ("data/kept", "k")]
    {
        layer.add(EntryType::Regular, path, 0o644, "", text.as_bytes(), &[]);
    }
    [bytes, layer.finish()].concat()
}

/// Everything a file can be.
fn middle(word: &str) -> Vec<u8> {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = format!("data/{}", "long-name-".repeat(15));
    let mut layer = LayerWriter::new();
    layer.add(EntryType::Directory, "etc", 0o755, "", b"", &[]);
    layer.add(EntryType::Regular, "etc/.wh.gone", 0, "", b"", &[]);
    layer.add(EntryType::Regular, "etc/replaced", 0o600, "", b"new and longer", &[]);
    layer.add(EntryType::Directory, "opt", 0o750, "", b"", &[]);
    layer.add(EntryType::Regular, "opt/.wh..wh..opq", 0, "", b"", &[]);
    layer.add(EntryType::Regular, "opt/visible", 0o644, "", b"v", &[]);
    layer.add(EntryType::Directory, "data", 0o1777, "", b"", &[("mtime", b"1700000000.123456789")]);
    layer.add(
        EntryType::Regular,
        "data/word",
        0o644,
        "",
        word.as_bytes(),
        &[("mtime", b"1700000001.000000001")],
    );
    layer.add(EntryType::Regular, "data/setuid", 0o4755, "", b"s", &[("uid", b"1000"), ("gid", b"100000")]);
    layer.add(
        EntryType::Regular,
        "data/capable",
        0o755,
        "",
        b"c",
        &[("SCHILY.xattr.security.capability", &capability)],
    );
    layer.add(EntryType::Regular, "data/marked", 0o644, "", b"m", &[("SCHILY.xattr.user.note", b"a\nb=c")]);
    layer.add(EntryType::Regular, &long, 0o644, "", b"l", &[("path", long.as_bytes())]);
    // Some take the time of the last entry of a file.
    let time: &[(&str, &[u8])] = &[("mtime", b"1700000001.000000001")];
    layer.add(EntryType::Link, "data/other", 0o644, "data/word", b"", time);
    layer.add(EntryType::Symlink, "data/link", 0o777, "../etc/passwd", b"", &[]);
    layer.add(EntryType::Fifo, "data/fifo", 0o640, "", b"", &[]);
    layer.add(EntryType::Char, "data/null", 0o666, "", b"", &[]);
    layer.add(EntryType::Regular, "data/removed", 0o644, "", b"r", &[]);
    layer.add(EntryType::Regular, "data/big", 0o644, "", &word.repeat(30_000).into_bytes(), &[]);
    layer.finish()
}

fn top(word: &str) -> Vec<u8> {
    let mut layer = LayerWriter::new();
    layer.add(EntryType::Directory, "data", 0o1777, "", b"", &[]);
    layer.add(EntryType::Regular, "data/.wh.removed", 0, "", b"", &[]);
    layer.add(EntryType::Regular, "data/big", 0o644, "", format!("small {word}").as_bytes(), &[]);
    layer.add(EntryType::Regular, ".wh.lib", 0, "", b"", &[]);
    layer.finish()
}

/// A layer entry by entry.
struct LayerWriter(Vec<u8>);

impl LayerWriter {
    fn new() -> LayerWriter {
        LayerWriter(Vec::new())
    }

    fn add(
        &mut self,
        kind: EntryType,
        name: &str,
        mode: u32,
        target: &str,
        data: &[u8],
        records: &[(&str, &[u8])],
    ) {
        let mut tar = Builder::new(Vec::new());
        tar.append_pax_extensions(records.iter().copied()).expect("writing to memory");
        let mut header = header(kind, mode, data.len());
        let short: String = name.chars().take(99).collect();
        header.as_old_mut().name[..short.len()].copy_from_slice(short.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        if kind == EntryType::Char {
            header.set_device_major(1).expect("a ustar header has devices");
            header.set_device_minor(3).expect("a ustar header has devices");
        }
        header.set_cksum();
        tar.append(&header, data).expect("writing to memory");
        let mut bytes = tar.into_inner().expect("writing to memory");
        bytes.truncate(bytes.len() - 1024);
        self.0.extend(bytes);
    }

    /// With the end mark.
    fn finish(self) -> Vec<u8> {
        [self.0, vec![0; 1024]].concat()
    }
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(u64::try_from(size).unwrap_or(0));
    header
}
