//! Images go out, in docker's form and in OCI's. Layers are written again from their directories and recordings, and
//! have the digest that they had when they came in, or nothing is said to have been saved.

mod docker;
mod oci;

use std::{
    io::{self, BufReader, Read},
    os::fd::OwnedFd,
};

use mysup_ipc::{id::Digest, progress::ProgressStep};
use sha2::{Digest as _, Sha256};

use super::Store;
use crate::images::{
    audience::Meter,
    cancel::Cancel,
    config::Image,
    error::ImageError,
    outlet::Outlet,
    record::Record,
    reference,
    replay::Replay,
    target::{Compression, Target},
};

/// Bytes read at once.
const BUFFER: usize = 128 << 10;

/// The form of what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A tar with `manifest.json`; it is compressed as a whole.
    DockerArchive,
    /// An OCI layout in a tar; its layers are compressed.
    OciArchive,
    /// The same as a directory.
    OciDirectory,
}

/// An image that goes out, with the names that go with it.
struct Outgoing {
    image: Image,
    record: Record,
    names: Vec<String>,
}

/// A layer that goes out.
#[derive(Debug, Clone)]
struct Layer {
    chain: Digest,
    diff_id: Digest,
    /// Bytes of its tar.
    size: u64,
    /// Told of what is read of it.
    meter: Meter,
}

impl Store {
    /// Writes images into a file, a pipe of the client's own, or an empty directory.
    ///
    /// # Errors
    /// If there is no such image, if a layer is not what it was any more, or the file system fails. What was written
    /// until then is left there, and is of no use.
    pub(crate) fn save(
        &self,
        out: OwnedFd,
        references: &[String],
        (format, compression): (Format, Compression),
        cancel: &Cancel,
    ) -> Result<(), ImageError> {
        let images = self.selected(references)?;
        let _pin = self.pin(images.iter().flat_map(|outgoing| outgoing.image.chains()).collect());
        // The pin came after the look: what was removed in between is missed here.
        let images = match self.selected(references)? {
            again if again.len() == images.len() => again,
            _ => return Err(ImageError::NotFound { reference: references.join(" ") }),
        };
        let mut target = match format {
            Format::DockerArchive => Target::tar(Outlet::new(out, cancel)?, compression)?,
            Format::OciArchive => Target::tar(Outlet::new(out, cancel)?, Compression::None)?,
            Format::OciDirectory => Target::Directory(out, Vec::new()),
        };
        let written = match format {
            Format::DockerArchive => docker::save(self, &images, &mut target).map(|()| Vec::new()),
            Format::OciArchive | Format::OciDirectory => {
                oci::save(self, &images, &mut target, compression, cancel)
            }
        };
        let finished = match written {
            Ok(manifests) if !cancel.is_cancelled() => target.finish().map(|()| manifests),
            result => {
                target.abandon();
                result
            }
        };
        let manifests = if cancel.is_cancelled() { Err(ImageError::Cancelled) } else { finished }?;
        // So it will be pushed.
        if (format, compression) == (Format::OciArchive, Compression::Gzip) {
            manifests.into_iter().for_each(|(id, text)| self.keep_manifest(&id, text));
        }
        Ok(())
    }

    /// Keeps how an image has gone out, so that nothing has to be compressed again for whoever has it.
    fn keep_manifest(&self, id: &Digest, text: String) {
        let _change = self.change();
        let is_new = |record: &Record| record.manifest_text.is_none();
        if !self.state().records.get(id).is_some_and(is_new) {
            return;
        }
        if let Err(error) = self.change_record(id, |record| record.manifest_text = Some(text)) {
            tracing::warn!(image = %id, %error, "a manifest is not kept, continuing");
        }
    }

    /// What the references mean, docker's way: a name with a tag is that name; a name without one is all tags of the
    /// repository; an id has no name.
    fn selected(&self, references: &[String]) -> Result<Vec<Outgoing>, ImageError> {
        let mut selected: Vec<Outgoing> = Vec::new();
        for reference in references {
            let (image, by_name) = match self.find(reference) {
                Err(ImageError::NotFound { .. }) if !reference.contains('@') => {
                    let all = self.of_repository(reference);
                    if all.is_empty() {
                        return Err(ImageError::NotFound { reference: reference.clone() });
                    }
                    all.into_iter()
                        .try_for_each(|(image, name)| self.select(&mut selected, &image, Some(name)))?;
                    continue;
                }
                result => result?,
            };
            let is_whole = reference::has_tag(reference);
            match by_name {
                Some(_) if !is_whole => {
                    let all = self.of_repository(reference);
                    all.into_iter()
                        .try_for_each(|(image, name)| self.select(&mut selected, &image, Some(name)))?;
                }
                name => self.select(&mut selected, &image, name)?,
            }
        }
        Ok(selected)
    }

    /// All images with names of a repository.
    fn of_repository(&self, typed: &str) -> Vec<(Image, String)> {
        let Ok(latest) = reference::parse(typed) else { return Vec::new() };
        let Some(start) = latest.strip_suffix("latest").filter(|_| !reference::has_tag(typed)) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for (image, _) in self.list_all() {
            let names = image
                .names
                .iter()
                .filter(|name| name.strip_prefix(start).is_some_and(|tag| !tag.contains('/')));
            found.extend(names.cloned().map(|name| (image.clone(), name)).collect::<Vec<_>>());
        }
        found
    }

    fn select(
        &self,
        selected: &mut Vec<Outgoing>,
        image: &Image,
        name: Option<String>,
    ) -> Result<(), ImageError> {
        // A digest is that of the manifest that it came with, and no name that can be given to another.
        let name = name.filter(|name| !reference::is_digest(name));
        if let Some(known) = selected.iter_mut().find(|known| known.image.id == image.id) {
            let is_new = |name: &String| !known.names.contains(name);
            let name = name.filter(is_new);
            known.names.extend(name);
            return Ok(());
        }
        let record = self.state().records.get(&image.id).cloned();
        let record = record.ok_or_else(|| ImageError::NotFound { reference: image.id.to_string() })?;
        selected.push(Outgoing { image: image.clone(), record, names: name.into_iter().collect() });
        Ok(())
    }

    /// The layers of an image that go out, bottom first.
    fn outgoing_layers(&self, image: &Image) -> Result<Vec<Layer>, ImageError> {
        let mut layers = Vec::new();
        for (chain, diff_id) in image.chains().into_iter().zip(&image.layers) {
            let fault = |source| ImageError::system("read", format!("the record of layer {diff_id}"), source);
            let size = self.0.layers.stored(&chain).and_then(|layer| layer.record()).map_err(fault)?.tar_size;
            let meter = self.1.part(diff_id.short(), ProgressStep::Writing, size);
            layers.push(Layer { chain, diff_id: diff_id.clone(), size, meter });
        }
        Ok(layers)
    }

    /// The bytes of a layer's tar; at their end it is an error if they are not the right ones.
    fn layer_bytes(&self, layer: &Layer) -> Result<BufReader<Verified<Replay>>, ImageError> {
        let fault = |source| ImageError::system("read", format!("layer {}", layer.diff_id), source);
        let replay =
            self.0.layers.stored(&layer.chain).and_then(|stored| Replay::new(&stored)).map_err(fault)?;
        let (expected, meter) = (layer.diff_id.clone(), layer.meter.clone());
        meter.begin();
        let verified = Verified { reader: replay, hasher: Sha256::new(), expected, meter };
        Ok(BufReader::with_capacity(BUFFER, verified))
    }
}

/// Hashes what is read.
#[derive(Debug)]
struct Verified<R> {
    reader: R,
    hasher: Sha256,
    expected: Digest,
    meter: Meter,
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let changed = |how: String| {
            let message =
                format!("layer {} was changed in the store ({how}): see mysup image verify", self.expected);
            io::Error::new(io::ErrorKind::InvalidData, message)
        };
        let count = match self.reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            result => result.map_err(|error| changed(error.to_string()))?,
        };
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.meter.add(count as u64);
        if count == 0 && !buffer.is_empty() {
            let found = Digest::from_sha256(self.hasher.clone().finalize().into());
            if found != self.expected {
                return Err(changed(format!("its digest is {found} now")));
            }
            self.meter.finish(ProgressStep::Written);
        }
        Ok(count)
    }
}
