//! What is known about an image, for people.

use mysup_ipc::id::Digest;
use oci_spec::image::ImageConfiguration;

use super::Store;
use crate::images::{config::Image, error::ImageError};

/// All that is known about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Details {
    /// The image.
    pub(crate) image: Image,
    /// Digest of the manifest it came with.
    pub(crate) manifest: Option<Digest>,
    /// A manifest of it, as it came or went out.
    pub(crate) manifest_text: Option<String>,
    /// Its configuration as it came.
    pub(crate) configuration: String,
    /// Where its layers are, top first.
    pub(crate) directories: Vec<String>,
}

/// One line of the history of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryLine {
    /// RFC 3339.
    pub(crate) created: Option<String>,
    /// What made it.
    pub(crate) created_by: String,
    /// What somebody said about it.
    pub(crate) comment: String,
    /// Bytes of files of its layer; 0 if it made none.
    pub(crate) size: u64,
}

impl Store {
    /// An image by name, id or prefix.
    ///
    /// # Errors
    /// As [`Store::resolve`].
    pub(crate) fn details(&self, reference: &str) -> Result<Details, ImageError> {
        let image = self.resolve(reference)?;
        let directories = self.layer_directories(&image);
        let record = self.state().records.get(&image.id).cloned();
        let record = record.ok_or_else(|| ImageError::NotFound { reference: reference.to_owned() })?;
        Ok(Details {
            image,
            manifest: record.manifest,
            manifest_text: record.manifest_text,
            configuration: record.configuration,
            directories: directories.iter().map(|path| path.display().to_string()).collect(),
        })
    }

    /// All images that are shown, newest first, each with its manifest's digest.
    pub(crate) fn list_all(&self) -> Vec<(Image, Option<Digest>)> {
        let mut images: Vec<(Image, Option<Digest>)> = {
            let state = self.state();
            let shown = state.records.values().filter(|record| !record.removed);
            shown.filter_map(|record| Some((record.image().ok()?, record.manifest.clone()))).collect()
        };
        images.sort_by(|(one, _), (other, _)| {
            (other.created_at, &other.names, &other.id).cmp(&(one.created_at, &one.names, &one.id))
        });
        images
    }

    /// How it was made, the newest first. A layer that no line speaks of has one of its own.
    ///
    /// # Errors
    /// As [`Store::resolve`].
    pub(crate) fn history(&self, reference: &str) -> Result<Vec<HistoryLine>, ImageError> {
        let details = self.details(reference)?;
        let form = |error: serde_json::Error| ImageError::system("read", "the configuration", error);
        let parsed: ImageConfiguration = serde_json::from_str(&details.configuration).map_err(form)?;
        let mut sizes = self.layer_sizes(&details.image).into_iter().map(|(_, size)| size);
        let mut lines: Vec<HistoryLine> = Vec::new();
        for step in parsed.history().iter().flatten() {
            let size = if step.empty_layer() == Some(true) { None } else { sizes.next() };
            lines.push(HistoryLine {
                created: step.created().clone(),
                created_by: step.created_by().clone().unwrap_or_default(),
                comment: step.comment().clone().unwrap_or_default(),
                size: size.unwrap_or(0),
            });
        }
        let silent = sizes.map(|size| HistoryLine {
            created: None,
            created_by: String::new(),
            comment: String::new(),
            size,
        });
        lines.extend(silent);
        lines.reverse();
        Ok(lines)
    }
}
