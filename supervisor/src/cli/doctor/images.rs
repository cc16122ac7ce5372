//! The images on disk: records that are damaged, layers that are missing, and what nobody needs. A reader of its own,
//! because the store that the supervisor opens clears up while it reads.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use mysup_ipc::id::Digest;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    disk,
    finding::{Cure, Finding, Kind},
    snapshot::Snapshot,
};
use crate::{cli::error::CliError, config::Config, images::chain_ids};

/// Directories below the state root.
const IMAGES: &str = "images";
const LAYERS: &str = "layers";
/// The files of a layer, in its directory.
const TREE: &str = "tree";
/// Bytes of a record; more cannot be one.
const LONGEST: u64 = 16 << 20;
/// What the store keeps around the inner object, whose checksum is of its bytes as they are.
const BEFORE_CHECKSUM: &[u8] = b"{\"checksum\":\"";
const BEFORE_IMAGE: &[u8] = b"\",\"image\":";
const AFTER_IMAGE: &[u8] = b"}\n";

const RESTART: &str = "mysup doctor --fix; the next start of the supervisor throws it away";

/// What is needed of a record.
#[derive(Debug, Deserialize)]
struct Record {
    id: Digest,
    names: Vec<Name>,
    configuration: String,
}

#[derive(Debug, Deserialize)]
struct Name {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Configuration {
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

/// What is wrong with images and layers.
///
/// # Errors
/// If a directory cannot be read.
pub(super) fn findings(config: &Config, seen: &Snapshot) -> Result<Vec<Finding>, CliError> {
    let mut found = Vec::new();
    let mut needed = BTreeSet::new();
    let mut is_certain = true;
    let layers = config.root.join(LAYERS);
    for (name, path) in disk::entries(&config.root.join(IMAGES))? {
        if name.ends_with(".tmp") {
            found.push(leaving(path, "the record of an image was not written to its end"));
            continue;
        }
        match image(&name, &path) {
            Ok((label, digests)) => {
                let missing = digests.iter().filter(|digest| !layers.join(digest.hex()).join(TREE).is_dir());
                let missing: Vec<String> =
                    missing.map(|digest| layers.join(digest.hex()).display().to_string()).collect();
                if !missing.is_empty() {
                    found.push(incomplete(&label, &name, missing));
                }
                needed.extend(digests.into_iter().map(|digest| digest.hex().to_owned()));
            }
            Err(reason) => {
                is_certain = false;
                found.push(damaged(path, &name, &reason));
            }
        }
    }
    for (name, path) in disk::entries(&layers)? {
        let is_layer = format!("sha256:{name}").parse::<Digest>().is_ok();
        if !is_layer {
            let is_open = seen.processes.iter().any(|process| process.layers.contains(&name));
            if !is_open {
                found.push(leaving(path, "an import was interrupted, and nobody works on it"));
            }
        } else if is_certain && !needed.contains(&name) {
            found.push(leaving(path, "no image needs this layer"));
        }
    }
    Ok(found)
}

fn leaving(path: PathBuf, what: &str) -> Finding {
    Finding {
        kind: Kind::Layer,
        container: None,
        what: what.to_owned(),
        places: vec![path.display().to_string()],
        holders: Vec::new(),
        cure: Cure::Recovery,
        remedy: RESTART.to_owned(),
    }
}

fn incomplete(label: &str, name: &str, missing: Vec<String>) -> Finding {
    Finding {
        kind: Kind::DamagedImage,
        container: None,
        what: format!("image {label} has lost a layer; it is not listed and gives no container"),
        places: missing,
        holders: Vec::new(),
        cure: Cure::Person,
        remedy: remedy(name),
    }
}

fn damaged(path: PathBuf, name: &str, reason: &str) -> Finding {
    Finding {
        kind: Kind::DamagedImage,
        container: None,
        what: format!(
            "the record of an image is damaged ({reason}); its layers are kept as long as it is there"
        ),
        places: vec![path.display().to_string()],
        holders: Vec::new(),
        cure: Cure::Person,
        remedy: remedy(name),
    }
}

/// What helps with an image whose record is called so.
fn remedy(name: &str) -> String {
    let id = name.strip_suffix(".json").and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
    id.map_or_else(
        || "this is no name of a record: look what it is, and move it away".to_owned(),
        |id| format!("import the image again, or mysup rmi {}", id.short()),
    )
}

/// What people call the image, and the names of its layers in the store.
fn image(name: &str, path: &Path) -> Result<(String, Vec<Digest>), String> {
    let id = name.strip_suffix(".json").and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
    let id = id.ok_or("its name is not that of a record")?;
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST).read_to_end(&mut text))
        .map_err(|error| format!("read: {error}"))?;
    parse(&text, &id)
}

fn parse(text: &[u8], id: &Digest) -> Result<(String, Vec<Digest>), String> {
    let inner = text
        .strip_prefix(BEFORE_CHECKSUM)
        .and_then(|text| text.split_at_checked(id.as_str().len()))
        .and_then(|(checksum, rest)| {
            let inner = rest.strip_prefix(BEFORE_IMAGE)?.strip_suffix(AFTER_IMAGE)?;
            (digest_of(inner).as_bytes() == checksum).then_some(inner)
        })
        .ok_or("its checksum is wrong")?;
    let record: Record = serde_json::from_slice(inner).map_err(|error| format!("another form: {error}"))?;
    if record.id != *id || digest_of(record.configuration.as_bytes()) != id.as_str() {
        return Err("it is the record of another image".to_owned());
    }
    let configuration: Configuration =
        serde_json::from_str(&record.configuration).map_err(|error| format!("its configuration: {error}"))?;
    let label = record.names.into_iter().next().map_or_else(|| id.short().to_owned(), |given| given.name);
    Ok((label, chain_ids(&configuration.rootfs.diff_ids)))
}

fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> (Vec<u8>, Digest) {
        let layer = "cd".repeat(32);
        let configuration =
            format!("{{\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"sha256:{layer}\"]}}}}");
        let id = digest_of(configuration.as_bytes());
        let inner = serde_json::json!({"id": id, "names": [{"name": "box:1", "since": 1}], "configuration": configuration});
        let inner = inner.to_string();
        let text = format!("{{\"checksum\":\"{}\",\"image\":{inner}}}\n", digest_of(inner.as_bytes()));
        (text.into_bytes(), id.parse().expect("a digest"))
    }

    #[test]
    fn a_record_of_the_store_is_read() {
        let (text, id) = record();
        let (label, layers) = parse(&text, &id).expect("whole");
        assert_eq!((label.as_str(), layers[0].hex()), ("box:1", "cd".repeat(32).as_str()));
    }

    #[test]
    fn a_record_with_any_flipped_byte_is_damaged() {
        let (text, id) = record();
        for at in 0..text.len() {
            let mut text = text.clone();
            text[at] ^= 1;
            assert!(parse(&text, &id).is_err(), "byte {at}");
            assert!(parse(&text[..at], &id).is_err(), "cut at {at}");
        }
    }
}
