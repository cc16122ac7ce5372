//! An image that is about to come in: what was found out about it before any of its layers is unpacked.

use mysup_ipc::id::Digest;

use super::{
    bundle::{Bundle, fault},
    config::Configuration,
    docker_archive,
    error::{BundleFault, ImageError},
    limits::Limits,
    oci_layout::{self, Lacking},
    source::Archive,
};

/// Bytes of a document (manifest, index, configuration) that is read into memory; registries have the same limit.
pub(super) const DOCUMENT: u64 = 4 << 20;
/// Layers of one image: overlayfs joins 500, and one is the container's own.
const LAYERS: usize = 480;

/// The image.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Its configuration as it came.
    pub(super) configuration: String,
    /// Digests of its uncompressed layers, bottom first.
    pub(super) diff_ids: Vec<Digest>,
    /// `name:tag` each.
    pub(super) names: Vec<String>,
    /// Digest of its manifest.
    pub(super) manifest: Option<Digest>,
    /// The manifest, if it is short enough to be kept.
    pub(super) manifest_text: Option<String>,
    /// Its layers, bottom first; of an image from a registry those may be missing that are in the store.
    pub(super) layers: Vec<Option<Archive>>,
}

impl Incoming {
    /// Checks that configuration and layers belong together.
    ///
    /// # Errors
    /// If they do not, or it is no image for a Linux container.
    pub(super) fn checked(
        subject: &str,
        configuration: Vec<u8>,
        layers: Vec<Option<Archive>>,
    ) -> Result<Self, ImageError> {
        let form = |reason: String| fault(subject, BundleFault::Form(reason));
        let configuration = String::from_utf8(configuration).map_err(|error| form(error.to_string()))?;
        let parsed = Configuration::parse(&configuration).map_err(|error| form(error.to_string()))?;
        if parsed.os != "linux" {
            return Err(fault(subject, BundleFault::System(parsed.os)));
        }
        if layers.len() > LAYERS {
            return Err(fault(subject, BundleFault::ManyLayers(LAYERS)));
        }
        if layers.len() != parsed.diff_ids.len() {
            let (layers, diff_ids) = (layers.len(), parsed.diff_ids.len());
            return Err(fault(subject, BundleFault::Layers { layers, diff_ids }));
        }
        let diff_ids = parsed.diff_ids;
        Ok(Self { configuration, diff_ids, names: Vec::new(), manifest: None, manifest_text: None, layers })
    }

    /// The digest of its configuration.
    pub(super) fn id(&self) -> Digest {
        super::config::digest_of(self.configuration.as_bytes())
    }
}

/// All images of an archive or directory, whatever its form. Where it has two forms at once, as docker's archives have
/// since version 25, both must mean the same images.
///
/// # Errors
/// If it has none, or anything about it is damaged or ambiguous.
pub(super) fn all(
    bundle: &Bundle,
    limits: &Limits,
    cancel: &super::Cancel,
) -> Result<Vec<Incoming>, ImageError> {
    let is_oci = bundle.has(oci_layout::INDEX) && bundle.has(oci_layout::LAYOUT);
    let is_docker = bundle.has(docker_archive::MANIFEST);
    let images = match (is_oci, is_docker) {
        (true, false) => oci_layout::images(bundle, Lacking::Nothing)?,
        (false, true) => docker_archive::images(bundle)?,
        (true, true) => {
            let mut images = oci_layout::images(bundle, Lacking::Nothing)?;
            let named = docker_archive::images(bundle)?;
            let ids = |images: &[Incoming]| -> std::collections::BTreeSet<Digest> {
                images.iter().map(Incoming::id).collect()
            };
            if ids(&images) != ids(&named) {
                let reason = "index.json and manifest.json are about different images";
                return Err(fault(docker_archive::MANIFEST, BundleFault::Ambiguous(reason)));
            }
            images.extend(named);
            images
        }
        (false, false) if bundle.has(docker_archive::REPOSITORIES) => {
            docker_archive::legacy_images(bundle, limits, cancel)?
        }
        (false, false) => {
            return Err(ImageError::Bundle { subject: "it".to_owned(), fault: BundleFault::Unknown });
        }
    };
    Ok(merged(images))
}

/// One for each id, with all names.
fn merged(images: Vec<Incoming>) -> Vec<Incoming> {
    let mut distinct: Vec<Incoming> = Vec::new();
    for image in images {
        match distinct.iter_mut().find(|known| known.configuration == image.configuration) {
            Some(known) => {
                let names = image.names.into_iter();
                let new: Vec<String> = names.filter(|name| !known.names.contains(name)).collect();
                known.names.extend(new);
                if known.manifest.is_none() {
                    (known.manifest, known.manifest_text) = (image.manifest, image.manifest_text);
                }
            }
            None => distinct.push(image),
        }
    }
    distinct
}
