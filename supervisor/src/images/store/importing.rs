//! Root file system archives become images with one layer.

use std::os::fd::OwnedFd;

use mysup_ipc::id::Digest;

use super::{Store, now, settling::Unpacked};
use crate::images::{
    cancel::Cancel,
    census,
    change::Change,
    changes::Stack,
    config::{self, Image, digest_of},
    entries::End,
    error::{ArchiveFault, ImageError},
    layer_record::LayerRecord,
    layers::NewLayer,
    memory::Window,
    pipeline,
    record::Record,
    reference,
    source::{Archive, FileMark},
    unpack::{self, Position, Totals},
};

/// Archives whose image is remembered; when there are more, all are forgotten and hashed again when they come.
const REMEMBERED: usize = 1024;

/// A file that was changed less than this before it was read may change again without another time of change
/// (ticks of 10 ms; seconds on some file systems). Nanoseconds.
const SETTLED: i128 = 2_000_000_000;

/// The layer of an archive.
struct Obtained {
    digest: Digest,
    /// If it had to be unpacked.
    unpacked: Option<(NewLayer, LayerRecord)>,
}

/// Where a layer belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Below<'b> {
    /// Chain id of the layer below.
    pub(super) parent: Option<&'b Digest>,
    /// What its tar must be.
    pub(super) diff_id: Option<&'b Digest>,
}

impl Store {
    /// Unpacks a root file system archive (plain, gzip or zstd) and gives it a name, which it takes from another
    /// image if that has it.
    ///
    /// # Errors
    /// If the archive or the name is refused, or the file system fails. Nothing is listed then, and what was unpacked
    /// is in the trash.
    pub(crate) fn import(
        &self,
        archive: OwnedFd,
        name: Option<&str>,
        change: &Change,
        cancel: &Cancel,
    ) -> Result<Image, ImageError> {
        let name = name.map(reference::parse).transpose()?;
        self.take_in(&Archive::new(archive)?.told_to(&self.1, "archive"), name.as_deref(), change, cancel)
    }

    /// The image of an archive, for a container without a name for its image: unpacked the first time only.
    ///
    /// # Errors
    /// As [`Store::import`].
    pub(crate) fn import_once(&self, archive: OwnedFd, cancel: &Cancel) -> Result<Image, ImageError> {
        self.take_in(&Archive::new(archive)?, None, &Change::default(), cancel)
    }

    fn take_in(
        &self,
        archive: &Archive,
        name: Option<&str>,
        change: &Change,
        cancel: &Cancel,
    ) -> Result<Image, ImageError> {
        let mark = archive.mark()?;
        let known =
            mark.filter(|_| change.is_none()).and_then(|mark| self.state().archives.get(&mark).cloned());
        if let Some(id) = known {
            let shown = self.state().records.get(&id).filter(|record| !record.removed).cloned();
            // The usual `run`: nothing is to be changed, so nobody is waited for.
            if name.is_none()
                && let Some(image) = shown.and_then(|record| record.image().ok())
            {
                return Ok(image);
            }
            let _change = self.change();
            if self.state().records.contains_key(&id) {
                return self.name_image(&id, name);
            }
        }
        let read_at = now();
        let mut obtained = self.hash_known(archive, mark, change, cancel)?;
        let image = loop {
            let obtained_now = match obtained.take() {
                Some(obtained) => obtained,
                None => self.unpack(archive, cancel)?,
            };
            // Without an answer the image that it was found to be was removed meanwhile.
            if let Some(image) = self.add(obtained_now, mark.map(|mark| mark.size), name, change)? {
                break image;
            }
        };
        if let Some(mark) = mark
            && change.is_none()
            && archive.mark()? == Some(mark)
            && mark.changed_at() + SETTLED < i128::from(read_at)
        {
            let mut state = self.state();
            if state.archives.len() >= REMEMBERED {
                state.archives.clear();
            }
            state.archives.insert(mark, image.id.clone());
        }
        Ok(image)
    }

    /// If an image came from an archive of this size, this one is hashed before it is unpacked: it may be the same.
    fn hash_known(
        &self,
        archive: &Archive,
        mark: Option<FileMark>,
        change: &Change,
        cancel: &Cancel,
    ) -> Result<Option<Obtained>, ImageError> {
        let Some(mark) = mark else { return Ok(None) };
        if !self.state().records.values().any(|record| record.archive_size == Some(mark.size)) {
            return Ok(None);
        }
        let ((), digest) = pipeline::run(archive, cancel, &self.0.limits, Window::Longest, |_| Ok(()))?;
        let id = digest_of(change.apply(config::of_import(&digest))?.as_bytes());
        let is_known = self.state().records.contains_key(&id);
        Ok(is_known.then_some(Obtained { digest, unpacked: None }))
    }

    /// Unpacks the archive into a new layer, on the disk.
    fn unpack(&self, archive: &Archive, cancel: &Cancel) -> Result<Obtained, ImageError> {
        let below = Below { parent: None, diff_id: None };
        let unpacked = self.unpack_layer(archive, &below, Window::Longest, cancel)?;
        let (layer, record) = self.settle(unpacked, &Stack::default())?;
        match layer
            .sync()
            .and_then(|()| if cancel.is_cancelled() { Err(ImageError::Cancelled) } else { Ok(()) })
        {
            Ok(()) => Ok(Obtained { digest: record.diff_id.clone(), unpacked: Some((layer, record)) }),
            Err(error) => {
                self.0.layers.discard(layer);
                Err(error)
            }
        }
    }

    /// Unpacks one layer, not yet settled.
    pub(super) fn unpack_layer(
        &self,
        archive: &Archive,
        below: &Below<'_>,
        window: Window,
        cancel: &Cancel,
    ) -> Result<Unpacked, ImageError> {
        let layer = self.0.layers.begin()?;
        let limits = &self.0.limits;
        let position = if below.parent.is_some() { Position::Above } else { Position::Lowest };
        let end = if below.diff_id.is_some() { End::Digest } else { End::Mark };
        let unpacked = pipeline::run(archive, cancel, limits, window, |tape| {
            unpack::unpack(tape, &layer, position, end, limits)
        });
        let described = unpacked.and_then(|(totals, diff_id)| {
            let implied = totals.implied;
            describe(&layer, below, totals, diff_id).map(|record| (record, implied))
        });
        match described {
            Ok((record, implied)) => Ok(Unpacked { layer, record, implied }),
            Err(error) => {
                self.0.layers.discard(layer);
                Err(error)
            }
        }
    }

    /// Makes the image of a layer, or finds it; `None` if the layer was to be there and is not.
    fn add(
        &self,
        obtained: Obtained,
        archive_size: Option<u64>,
        name: Option<&str>,
        change: &Change,
    ) -> Result<Option<Image>, ImageError> {
        let Obtained { digest, unpacked } = obtained;
        let configuration = change.apply(config::of_import(&digest));
        let _change = self.change();
        let size = unpacked.as_ref().map_or(0, |(_, record)| record.size);
        let record = configuration.map(|configuration| Record::new(configuration, now(), size));
        let is_known = record.as_ref().is_ok_and(|record| self.state().records.contains_key(&record.id));
        match (unpacked, record) {
            (Some((layer, _)), Err(error)) => {
                self.0.layers.discard(layer);
                Err(error)
            }
            (None, Err(error)) => Err(error),
            (Some((layer, _)), Ok(record)) if is_known => {
                self.0.layers.discard(layer);
                self.name_image(&record.id, name).map(Some)
            }
            (Some((layer, _)), Ok(record)) => {
                self.finish_layer(layer, &digest)?;
                let record = Record { names: self.given(&record, name), archive_size, ..record };
                self.write(&record)?;
                self.name_image(&record.id, name).map(Some)
            }
            (None, Ok(record)) if is_known => self.name_image(&record.id, name).map(Some),
            (None, Ok(_)) => Ok(None),
        }
    }
}

/// The record of a layer that was unpacked.
fn describe(
    layer: &NewLayer,
    below: &Below<'_>,
    totals: Totals,
    diff_id: Digest,
) -> Result<LayerRecord, ImageError> {
    if let Some(expected) = below.diff_id
        && *expected != diff_id
    {
        return Err(ArchiveFault::Digest { expected: expected.clone(), found: diff_id }.into());
    }
    if totals.marks > 0 || totals.attributes_left_out > 0 {
        let Totals { marks, attributes_left_out, .. } = totals;
        tracing::info!(layer = %diff_id, marks, attributes_left_out, "parts of an archive were left out");
    }
    Ok(LayerRecord {
        diff_id,
        parent: below.parent.cloned(),
        size: totals.bytes,
        tar_size: totals.tar_bytes,
        census: census::take(layer.tree())?,
    })
}
