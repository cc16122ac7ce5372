//! docker's own archives: `manifest.json` (docker 1.10 and later, podman, skopeo), and before that `repositories` with
//! one directory for each layer (docker image specification, version 1.2 and 1.0).

use std::collections::{BTreeMap, BTreeSet};

use mysup_ipc::id::Digest;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Cancel,
    bundle::{Bundle, fault},
    error::{BundleFault, ImageError},
    incoming::{DOCUMENT, Incoming},
    limits::Limits,
    memory::Window,
    pipeline, reference,
};

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const REPOSITORIES: &str = "repositories";

/// Fields of a version 1 layer that are no part of a configuration.
const OF_THE_LAYER: [&str; 7] = ["id", "parent", "layer_id", "parent_id", "Size", "throwaway", "checksum"];

/// One image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// The images of `manifest.json`.
///
/// # Errors
/// If one is damaged or incomplete.
pub(super) fn images(bundle: &Bundle) -> Result<Vec<Incoming>, ImageError> {
    let text = bundle.bytes(MANIFEST, DOCUMENT)?;
    let items: Vec<Item> = serde_json::from_slice(&text)
        .map_err(|error| fault(MANIFEST, BundleFault::Form(error.to_string())))?;
    items.iter().map(|item| image(bundle, item)).collect()
}

fn image(bundle: &Bundle, item: &Item) -> Result<Incoming, ImageError> {
    // A name that is a digest must be the right one: others trust it.
    let stem = item.config.rsplit('/').next().unwrap_or_default();
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    let configuration = match format!("sha256:{stem}").parse::<Digest>() {
        Ok(digest) => bundle.verified(&item.config, &digest, DOCUMENT)?,
        Err(_other_name) => bundle.bytes(&item.config, DOCUMENT)?,
    };
    let layers = item.layers.iter().flatten().map(|name| {
        let digest = blob_digest(name);
        bundle.archive(name, digest)
    });
    let mut image = Incoming::checked(
        &item.config,
        configuration,
        layers.map(|layer| layer.map(Some)).collect::<Result<_, _>>()?,
    )?;
    for name in item.repo_tags.iter().flatten() {
        image.names.push(reference::parse(name)?);
    }
    Ok(image)
}

/// A file of an OCI layout is named by its digest; other names of layers promise nothing.
fn blob_digest(name: &str) -> Option<Digest> {
    format!("sha256:{}", name.strip_prefix("blobs/sha256/")?).parse().ok()
}

/// The images of `repositories`. Their configurations are made here, as docker makes them, from those of the layers.
///
/// # Errors
/// If one is damaged or incomplete.
pub(super) fn legacy_images(
    bundle: &Bundle,
    limits: &Limits,
    cancel: &Cancel,
) -> Result<Vec<Incoming>, ImageError> {
    let text = bundle.bytes(REPOSITORIES, DOCUMENT)?;
    let repositories: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(&text)
        .map_err(|error| fault(REPOSITORIES, BundleFault::Form(error.to_string())))?;
    let mut diff_ids = BTreeMap::new();
    let mut images = Vec::new();
    for (repository, tags) in repositories {
        for (tag, top) in tags {
            let mut image = legacy_image(bundle, &top, &mut diff_ids, (limits, cancel))?;
            image.names.push(reference::parse(&format!("{repository}:{tag}"))?);
            images.push(image);
        }
    }
    Ok(images)
}

fn legacy_image(
    bundle: &Bundle,
    top: &str,
    diff_ids: &mut BTreeMap<String, Digest>,
    (limits, cancel): (&Limits, &Cancel),
) -> Result<Incoming, ImageError> {
    let chain = legacy_chain(bundle, top)?;
    let mut history = Vec::new();
    let mut layers = Vec::new();
    let mut digests = Vec::new();
    for (id, layer) in chain.iter().rev() {
        let name = format!("{id}/layer.tar");
        let archive = bundle.archive(&name, None)?;
        let digest = match diff_ids.get(id) {
            Some(digest) => digest.clone(),
            None => pipeline::run(&archive, cancel, limits, Window::Longest, |tape| tape.drain())?.1,
        };
        diff_ids.insert(id.clone(), digest.clone());
        digests.push(digest);
        layers.push(archive);
        let created_by = &layer["container_config"]["Cmd"];
        let words = created_by.as_array().into_iter().flatten().filter_map(Value::as_str);
        history.push(json!({
            "created": layer["created"],
            "created_by": words.collect::<Vec<_>>().join(" "),
        }));
    }
    let Some((_, Value::Object(mut configuration))) = chain.into_iter().next() else {
        return Err(fault(top, BundleFault::Missing));
    };
    for field in OF_THE_LAYER {
        configuration.remove(field);
    }
    configuration.entry("architecture").or_insert_with(|| json!(super::config::architecture()));
    configuration.entry("os").or_insert_with(|| json!("linux"));
    configuration.insert("history".to_owned(), Value::Array(history));
    configuration.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": digests }));
    let text = Value::Object(configuration).to_string();
    Incoming::checked(top, text.into_bytes(), layers.into_iter().map(Some).collect())
}

/// A layer and all below it, top first.
fn legacy_chain(bundle: &Bundle, top: &str) -> Result<Vec<(String, Value)>, ImageError> {
    let mut chain = Vec::new();
    let mut known = BTreeSet::new();
    let mut next = Some(top.to_owned());
    while let Some(id) = next {
        // It becomes part of a path in the archive.
        if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(fault(&id, BundleFault::Form("it is no id of a layer".to_owned())));
        }
        if !known.insert(id.clone()) {
            return Err(fault(&id, BundleFault::Form("it is a layer below itself".to_owned())));
        }
        let name = format!("{id}/json");
        let text = bundle.bytes(&name, DOCUMENT)?;
        let layer: Value = serde_json::from_slice(&text)
            .map_err(|error| fault(&name, BundleFault::Form(error.to_string())))?;
        next = layer["parent"].as_str().filter(|parent| !parent.is_empty()).map(str::to_owned);
        chain.push((id, layer));
    }
    Ok(chain)
}
