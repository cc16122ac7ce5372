//! OCI image layouts, as a directory or in a tar: `oci-layout`, `index.json`, `blobs/sha256/`.
//!
//! Whatever is read is named by its digest and length, and has them. A document that could be read as a manifest and
//! as an index is refused (CVE-2021-41190), and so is one that calls itself something else than its descriptor does.

use mysup_ipc::id::Digest;
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, MediaType, OciLayout, Os};
use serde_json::{Map, Value};

use super::{
    bundle::{Bundle, fault},
    error::{BundleFault, ImageError},
    incoming::{DOCUMENT, Incoming},
    reference,
    source::Archive,
};

pub(super) const INDEX: &str = "index.json";
pub(super) const LAYOUT: &str = "oci-layout";

/// The whole name, as containerd and docker write it.
pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The whole name (podman) or a tag (docker, umoci, skopeo).
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What buildkit adds about an image, which is no image.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// Bytes of a manifest that is kept; those of images with hundreds of layers have less.
const MANIFEST_KEPT: usize = 256 << 10;
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYERS: [MediaType; 6] = [
    MediaType::ImageLayer,
    MediaType::ImageLayerGzip,
    MediaType::ImageLayerZstd,
    MediaType::ImageLayerNonDistributable,
    MediaType::ImageLayerNonDistributableGzip,
    MediaType::ImageLayerNonDistributableZstd,
];
const DOCKER_LAYERS: [&str; 3] = [
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// Indexes in indexes.
const DEPTH: usize = 4;
/// Images of one layout.
const IMAGES: usize = 1000;

/// Which layers a layout may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lacking {
    /// None: it is whole.
    Nothing,
    /// Those that are in the store.
    Known,
}

/// What a descriptor leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Manifest,
    Index,
}

/// The images of a layout: of those for several platforms this machine's.
///
/// # Errors
/// If one is damaged, incomplete or ambiguous, or none is for this machine.
pub(super) fn images(bundle: &Bundle, lacking: Lacking) -> Result<Vec<Incoming>, ImageError> {
    let layout = bundle.bytes(LAYOUT, DOCUMENT)?;
    let layout: OciLayout = parsed(LAYOUT, &layout)?;
    if !layout.image_layout_version().starts_with("1.") {
        let reason = format!("imageLayoutVersion is {}", layout.image_layout_version());
        return Err(fault(LAYOUT, BundleFault::Form(reason)));
    }
    let text = bundle.bytes(INDEX, DOCUMENT)?;
    let index: ImageIndex = document(INDEX, &text, Target::Index, None)?;
    let mut found = Vec::new();
    let mut others = Vec::new();
    collect((bundle, lacking), &index, &Names::default(), &mut found, &mut others, DEPTH)?;
    match (found.is_empty(), others.is_empty()) {
        (true, false) => {
            let platform = format!("linux/{}", super::config::architecture());
            Err(fault(INDEX, BundleFault::Platform(platform)))
        }
        _ => Ok(found),
    }
}

/// Names that a descriptor gives to what is below it.
#[derive(Debug, Clone, Default)]
struct Names(Vec<String>);

fn collect(
    (bundle, lacking): (&Bundle, Lacking),
    index: &ImageIndex,
    names: &Names,
    found: &mut Vec<Incoming>,
    others: &mut Vec<Digest>,
    depth: usize,
) -> Result<(), ImageError> {
    for descriptor in index.manifests() {
        let digest = digest(descriptor)?;
        let annotation = |key: &str| descriptor.annotations().as_ref().and_then(|all| all.get(key));
        if annotation(ATTESTATION).is_some() {
            continue;
        }
        let own = names_of(annotation(CONTAINERD_NAME), annotation(REF_NAME))?;
        let names = if own.is_empty() { names.clone() } else { Names(own) };
        let is_ours = descriptor.platform().as_ref().is_none_or(|platform| {
            *platform.os() == Os::Linux
                && *platform.architecture() == Arch::from(super::config::architecture())
        });
        if !is_ours {
            others.push(digest);
            continue;
        }
        match target(descriptor)? {
            Target::Manifest => {
                if found.len() >= IMAGES {
                    return Err(fault(INDEX, BundleFault::ManyImages(IMAGES)));
                }
                found.push(Incoming { names: names.0, ..image((bundle, lacking), descriptor, digest)? });
                // An index in an index is one image for several machines: the first one that fits is the one.
                if depth < DEPTH {
                    return Ok(());
                }
            }
            Target::Index if depth == 0 => {
                let reason = "it is an index deep in other indexes".to_owned();
                return Err(fault(digest.as_str(), BundleFault::Form(reason)));
            }
            Target::Index => {
                let text = blob(bundle, descriptor)?;
                let below: ImageIndex =
                    document(digest.as_str(), &text, Target::Index, Some(descriptor.media_type()))?;
                collect((bundle, lacking), &below, &names, found, others, depth - 1)?;
            }
        }
    }
    Ok(())
}

/// A name that says which repository it means. A bare tag does not: such an image comes in without a name.
fn names_of(containerd: Option<&String>, reference: Option<&String>) -> Result<Vec<String>, ImageError> {
    let whole = reference.filter(|name| name.contains(['/', ':']));
    containerd.or(whole).map(|name| reference::parse(name)).transpose().map(Vec::from_iter)
}

fn target(descriptor: &Descriptor) -> Result<Target, ImageError> {
    let kind = descriptor.media_type().as_ref();
    if [MediaType::ImageManifest.as_ref(), DOCKER_MANIFEST].contains(&kind) {
        Ok(Target::Manifest)
    } else if [MediaType::ImageIndex.as_ref(), DOCKER_INDEX].contains(&kind) {
        Ok(Target::Index)
    } else {
        Err(fault(descriptor.digest().as_ref(), BundleFault::MediaType(kind.to_owned())))
    }
}

fn image(
    (bundle, lacking): (&Bundle, Lacking),
    descriptor: &Descriptor,
    digest: Digest,
) -> Result<Incoming, ImageError> {
    let text = blob(bundle, descriptor)?;
    let manifest: ImageManifest =
        document(digest.as_str(), &text, Target::Manifest, Some(descriptor.media_type()))?;
    let kind = manifest.config().media_type();
    if *kind != MediaType::ImageConfig && kind.as_ref() != DOCKER_CONFIG {
        return Err(fault(digest.as_str(), BundleFault::MediaType(kind.to_string())));
    }
    let configuration = blob(bundle, manifest.config())?;
    let layers = manifest.layers().iter().map(|layer| match lacking {
        Lacking::Known if !bundle.has(&path(&self::digest(layer)?)) => Ok(None),
        Lacking::Known | Lacking::Nothing => self::layer(bundle, layer).map(Some),
    });
    let subject = manifest.config().digest().to_string();
    let image = Incoming::checked(&subject, configuration, layers.collect::<Result<_, _>>()?)?;
    let manifest_text = String::from_utf8(text).ok().filter(|text| text.len() <= MANIFEST_KEPT);
    Ok(Incoming { manifest: Some(digest), manifest_text, ..image })
}

/// How a layer is compressed its bytes say: its digest and that of its content are checked, so nothing depends on
/// whether the media type is right about it.
fn layer(bundle: &Bundle, descriptor: &Descriptor) -> Result<Archive, ImageError> {
    let kind = descriptor.media_type();
    let is_layer = LAYERS.contains(kind) || DOCKER_LAYERS.contains(&kind.as_ref());
    if !is_layer {
        return Err(fault(descriptor.digest().as_ref(), BundleFault::MediaType(kind.to_string())));
    }
    let digest = digest(descriptor)?;
    let archive = bundle.archive(&path(&digest), Some(digest.clone()))?;
    check_size(descriptor, archive.length().unwrap_or_default())?;
    Ok(archive)
}

/// The bytes of a small blob.
fn blob(bundle: &Bundle, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    let digest = digest(descriptor)?;
    let bytes = bundle.verified(&path(&digest), &digest, DOCUMENT)?;
    check_size(descriptor, bytes.len() as u64)?;
    Ok(bytes)
}

fn check_size(descriptor: &Descriptor, found: u64) -> Result<(), ImageError> {
    let expected = descriptor.size();
    match found == expected {
        true => Ok(()),
        false => Err(fault(descriptor.digest().as_ref(), BundleFault::Size { expected, found })),
    }
}

fn digest(descriptor: &Descriptor) -> Result<Digest, ImageError> {
    let text = descriptor.digest().to_string();
    text.parse().map_err(|_fault| fault(INDEX, BundleFault::UnknownDigest(text)))
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A manifest or an index that cannot be taken for the other.
fn document<T: serde::de::DeserializeOwned>(
    name: &str,
    text: &[u8],
    target: Target,
    announced: Option<&MediaType>,
) -> Result<T, ImageError> {
    let fields: Map<String, Value> = parsed(name, text)?;
    let has = |field: &str| fields.contains_key(field);
    let foreign = match target {
        Target::Manifest => has("manifests"),
        Target::Index => has("layers") || has("config"),
    };
    if foreign || has("fsLayers") {
        return Err(fault(name, BundleFault::Ambiguous("it is a manifest and an index at once")));
    }
    if let (Some(own), Some(announced)) = (fields.get("mediaType"), announced)
        && own.as_str() != Some(announced.to_string().as_str())
    {
        return Err(fault(name, BundleFault::Ambiguous("its own media type is not that of its descriptor")));
    }
    parsed(name, text)
}

fn parsed<T: serde::de::DeserializeOwned>(name: &str, text: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(text).map_err(|error| fault(name, BundleFault::Form(error.to_string())))
}
