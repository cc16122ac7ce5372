//! An OCI image layout, in a tar or as a directory.
//!
//! A blob is named by its digest, which is known when it is compressed: layers are compressed into files without a
//! name, several at once, before anything of them is written.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Seek, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use mysup_ipc::id::Digest;
use oci_spec::{
    OciSpecError,
    image::{
        Descriptor, DescriptorBuilder, ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder,
        SCHEMA_VERSION,
    },
};
use sha2::{Digest as _, Sha256};

use super::{Layer, Outgoing, Store};
use crate::images::{
    cancel::Cancel,
    config::digest_of,
    error::ImageError,
    oci_layout::{CONTAINERD_NAME, INDEX, LAYOUT, REF_NAME},
    reference,
    target::{Compression, Compressor, Target, failed},
};

/// Layers at once: each keeps a processor busy, and about 10 MiB.
const AT_ONCE: usize = 4;

/// A layer as it goes out.
#[derive(Debug)]
struct Blob {
    digest: Digest,
    size: u64,
    /// If it is compressed.
    file: Option<File>,
}

/// Writes the layout; gives the manifest of each image.
///
/// # Errors
/// As [`Store::save`].
pub(super) fn save(
    store: &Store,
    images: &[Outgoing],
    target: &mut Target<'_>,
    compression: Compression,
    cancel: &Cancel,
) -> Result<Vec<(Digest, String)>, ImageError> {
    let mut layers: BTreeMap<Digest, Layer> = BTreeMap::new();
    for outgoing in images {
        let all = store.outgoing_layers(&outgoing.image)?;
        layers.extend(all.into_iter().map(|layer| (layer.diff_id.clone(), layer)));
    }
    let layers: Vec<Layer> = layers.into_values().collect();
    let blobs = compress_all(store, &layers, compression, cancel)?;
    let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build().map_err(odd)?;
    put(target, LAYOUT, &json(&layout)?)?;
    target.directory("blobs")?;
    target.directory("blobs/sha256")?;
    let mut described = HashMap::new();
    for layer in &layers {
        let Some(blob) = blobs.get(&layer.diff_id) else { continue };
        write_blob(store, target, layer, blob)?;
        described
            .insert(layer.diff_id.clone(), descriptor(layer_type(compression), &blob.digest, blob.size)?);
    }
    let (mut manifests, mut texts) = (Vec::new(), Vec::new());
    for outgoing in images {
        let (described, text) = write_image(target, outgoing, &described)?;
        manifests.extend(described);
        texts.push((outgoing.image.id.clone(), text));
    }
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()
        .map_err(odd)?;
    put(target, INDEX, &json(&index)?)?;
    Ok(texts)
}

/// Configuration and manifest; gives one descriptor for each name, and the manifest.
fn write_image(
    target: &mut Target<'_>,
    outgoing: &Outgoing,
    layers: &HashMap<Digest, Descriptor>,
) -> Result<(Vec<Descriptor>, String), ImageError> {
    let text = outgoing.record.configuration.as_bytes();
    put(target, &path(&outgoing.image.id), text)?;
    let config = descriptor(MediaType::ImageConfig, &outgoing.image.id, text.len() as u64)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(
            outgoing.image.layers.iter().filter_map(|layer| layers.get(layer).cloned()).collect::<Vec<_>>(),
        )
        .build()
        .map_err(odd)?;
    let text = json(&manifest)?;
    let digest = digest_of(&text);
    put(target, &path(&digest), &text)?;
    let plain = descriptor(MediaType::ImageManifest, &digest, text.len() as u64)?;
    let text = String::from_utf8(text).map_err(|error| failed(io::Error::other(error)))?;
    if outgoing.names.is_empty() {
        return Ok((vec![plain], text));
    }
    let named = outgoing.names.iter().map(|name| {
        let whole = reference::with_host(name);
        let annotations =
            HashMap::from([CONTAINERD_NAME, REF_NAME].map(|key| (key.to_owned(), whole.clone())));
        let mut named = plain.clone();
        named.set_annotations(Some(annotations));
        named
    });
    Ok((named.collect(), text))
}

fn write_blob(store: &Store, target: &mut Target<'_>, layer: &Layer, blob: &Blob) -> Result<(), ImageError> {
    let path = path(&blob.digest);
    match &blob.file {
        Some(file) => target.file(&path, blob.size, file),
        None => target.file(&path, blob.size, store.layer_bytes(layer)?),
    }
}

fn compress_all(
    store: &Store,
    layers: &[Layer],
    compression: Compression,
    cancel: &Cancel,
) -> Result<BTreeMap<Digest, Blob>, ImageError> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let work = || {
        while !cancel.is_cancelled()
            && let Some(layer) = layers.get(next.fetch_add(1, Ordering::SeqCst))
        {
            let blob = compress(store, layer, compression, cancel).map(|blob| (layer.diff_id.clone(), blob));
            results.lock().unwrap_or_else(PoisonError::into_inner).push(blob);
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE).min(layers.len());
    thread::scope(|scope| {
        for _ in 1..workers {
            if thread::Builder::new().name("save-layer".to_owned()).spawn_scoped(scope, work).is_err() {
                // With fewer threads it takes longer, and that is all.
                break;
            }
        }
        work();
    });
    if cancel.is_cancelled() {
        return Err(ImageError::Cancelled);
    }
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
}

fn compress(
    store: &Store,
    layer: &Layer,
    compression: Compression,
    cancel: &Cancel,
) -> Result<Blob, ImageError> {
    if compression == Compression::None {
        return Ok(Blob { digest: layer.diff_id.clone(), size: layer.size, file: None });
    }
    let scratch = store.0.layers.scratch().map_err(failed)?;
    let hashing = Hashing { file: scratch, hasher: Sha256::new(), size: 0, cancel };
    let mut compressor = Compressor::new(compression, hashing).map_err(failed)?;
    let mut bytes = store.layer_bytes(layer)?;
    io::copy(&mut bytes, &mut compressor).map_err(failed)?;
    let Hashing { mut file, hasher, size, .. } = compressor.finish().map_err(failed)?;
    file.rewind().map_err(failed)?;
    Ok(Blob { digest: Digest::from_sha256(hasher.finalize().into()), size, file: Some(file) })
}

/// Hashes and counts on the way into a file.
struct Hashing<'h> {
    file: File,
    hasher: Sha256,
    size: u64,
    cancel: &'h Cancel,
}

impl Write for Hashing<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let count = self.file.write(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn put(target: &mut Target<'_>, path: &str, text: &[u8]) -> Result<(), ImageError> {
    target.file(path, text.len() as u64, text)
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn layer_type(compression: Compression) -> MediaType {
    match compression {
        Compression::None => MediaType::ImageLayer,
        Compression::Gzip => MediaType::ImageLayerGzip,
        Compression::Zstd => MediaType::ImageLayerZstd,
    }
}

fn descriptor(kind: MediaType, digest: &Digest, size: u64) -> Result<Descriptor, ImageError> {
    let digest: oci_spec::image::Digest = digest.as_str().parse().map_err(odd)?;
    DescriptorBuilder::default().media_type(kind).digest(digest).size(size).build().map_err(odd)
}

/// With its keys in order: the maps of the crate have none, and the same image is the same archive.
fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, ImageError> {
    let ordered = serde_json::to_value(value).map_err(|error| failed(error.into()))?;
    Ok(ordered.to_string().into_bytes())
}

fn odd(error: OciSpecError) -> ImageError {
    failed(io::Error::other(error))
}
