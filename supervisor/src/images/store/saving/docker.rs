//! docker's archive: `manifest.json`, one file for each configuration and each layer.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Outgoing, Store};
use crate::images::{docker_archive::MANIFEST, error::ImageError, target::Target};

/// Writes the archive. A layer that several images have is in it once.
///
/// # Errors
/// As [`Store::save`].
pub(super) fn save(store: &Store, images: &[Outgoing], target: &mut Target<'_>) -> Result<(), ImageError> {
    let mut written = BTreeSet::new();
    let mut items = Vec::new();
    for outgoing in images {
        let mut names = Vec::new();
        for layer in store.outgoing_layers(&outgoing.image)? {
            let name = format!("{}.tar", layer.diff_id.hex());
            if written.insert(layer.diff_id.clone()) {
                target.file(&name, layer.size, store.layer_bytes(&layer)?)?;
            }
            names.push(name);
        }
        let text = outgoing.record.configuration.as_bytes();
        let config = format!("{}.json", outgoing.image.id.hex());
        target.file(&config, text.len() as u64, text)?;
        items.push(json!({ "Config": config, "RepoTags": outgoing.names, "Layers": names }));
    }
    let manifest = json!(items).to_string();
    target.file(MANIFEST, manifest.len() as u64, manifest.as_bytes())
}
