//! Images are made of what containers have changed, and whole file systems go out as tars.
//!
//! A new layer goes the way of one that is loaded: its tar is written into a pipe, and unpacked, hashed and recorded at
//! the other end. So it is in the store what it will be wherever it is loaded, and it costs what was changed, not what the
//! image has.

use std::{
    io::{self, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    thread,
};

use mysup_ipc::{id::Digest, progress::ProgressStep};

use super::{Store, importing::Below, now};
use crate::images::{
    cancel::Cancel,
    chain::chained,
    changes::{self, LeftOut, Stack, WriteLayer},
    child_config::{self, Draft},
    config::Image,
    error::{CommitFault, ImageError},
    layer_record::LayerRecord,
    layers::NewLayer,
    memory::Window,
    outlet::Outlet,
    record::Record,
    reference,
    source::Archive,
};

/// Bytes that go into a pipe or out at once.
const BUFFER: usize = 128 << 10;

/// What progress is told of.
const LAYER: &str = "layer";
const WHOLE: &str = "file system";

/// What a container was made from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// An image of the store.
    Image(Digest),
    /// A directory of the host.
    Directory(PathBuf),
}

/// What a container has changed, and how it is known that all of it is of one instant.
pub(crate) struct Changed<'c> {
    pub(crate) origin: &'c Origin,
    pub(crate) layer: &'c WriteLayer,
    /// Called when everything was read: an error means that what was read is not what it should be.
    pub(crate) settled: Box<dyn FnOnce() -> Result<(), CommitFault> + Send + 'c>,
}

impl Store {
    /// Makes an image of a container's image and of what the container has changed.
    ///
    /// # Errors
    /// If something of it cannot be in an image, was not settled, or the file system fails. Nothing is listed then, and
    /// what was made is in the trash.
    pub(crate) fn commit(
        &self,
        changed: Changed<'_>,
        draft: &Draft,
        cancel: &Cancel,
    ) -> Result<Image, ImageError> {
        let name = draft.name.as_deref().map(reference::parse).transpose()?;
        let Origin::Image(id) = changed.origin else {
            return Err(ImageError::Commit(CommitFault::Directory));
        };
        let missing = || ImageError::NotFound { reference: id.to_string() };
        let chains = self.image(id).ok_or_else(missing)?.chains();
        let _pin = self.pin(chains.clone());
        // The pin came after the look: it may have been removed in between.
        let record = self.state().records.get(id).cloned().ok_or_else(missing)?;
        let image = self.image(id).ok_or_else(missing)?;
        // What makes no sense is found before anybody is made to wait.
        child_config::child(&record.configuration, None, draft, "")?;
        let parent = chains.last();
        let (layer, made) = self.layer_of(changed, &image, parent, cancel)?;
        let mut size = self.layer_sizes(&image).iter().map(|(_, size)| size).sum::<u64>();
        let new = match layer {
            Some((layer, made)) => {
                size += made.size;
                let synced = layer.sync().and_then(|()| match cancel.is_cancelled() {
                    true => Err(ImageError::Cancelled),
                    false => Ok(()),
                });
                if let Err(error) = synced {
                    self.0.layers.discard(layer);
                    return Err(error);
                }
                Some((layer, made.diff_id))
            }
            None => None,
        };
        report(made);
        self.list_child(&record, new, size, (name.as_deref(), draft))
    }

    /// Writes the tar of the layer into one end of a pipe and unpacks it at the other; nothing if nothing was changed.
    fn layer_of(
        &self,
        changed: Changed<'_>,
        image: &Image,
        parent: Option<&Digest>,
        cancel: &Cancel,
    ) -> Result<(Option<(NewLayer, LayerRecord)>, LeftOut), ImageError> {
        let stack = self.stack_of(changed.origin, Some(image))?;
        let fault = |source| ImageError::system("make a pipe", "for the new layer", source);
        let (reader, writer) = io::pipe().map_err(fault)?;
        let (layer, settled, limits) = (changed.layer, changed.settled, &self.0.limits);
        let (unpacked, written) = thread::scope(|scope| {
            let write = move || {
                let out = io::BufWriter::with_capacity(BUFFER, writer);
                let settled = || settled().map_err(ImageError::Commit);
                changes::write_layer(layer, &stack, out, (limits, cancel), settled)
            };
            let writing = thread::Builder::new().name("commit-read".to_owned()).spawn_scoped(scope, write);
            let writing =
                writing.map_err(|source| ImageError::system("start a thread", "for the commit", source))?;
            let below = Below { parent, diff_id: None };
            // Nobody knows how long it will be.
            let meter = self.1.part(LAYER, ProgressStep::Writing, 0);
            let unpacked = Archive::new(OwnedFd::from(reader)).and_then(|archive| {
                let archive = archive.metered(meter.clone());
                self.unpack_layer(&archive, &below, Window::Usual, cancel)
            });
            if unpacked.is_ok() {
                meter.finish(ProgressStep::Written);
            }
            let panicked = |_panic| {
                ImageError::system("read", "the write layer", io::Error::other("its thread panicked"))
            };
            Ok::<_, ImageError>((unpacked, writing.join().map_err(panicked).flatten()))
        })?;
        match (unpacked, written) {
            (Ok(unpacked), Ok((0, left_out))) => {
                self.0.layers.discard(unpacked.layer);
                Ok((None, left_out))
            }
            // It has an entry for each directory: nothing is to be taken from below, but its root's.
            (Ok(unpacked), Ok((_, left_out))) => {
                let stack = self.stack_of(changed.origin, Some(image))?;
                Ok((Some(self.settle(unpacked, &stack)?), left_out))
            }
            (Ok(unpacked), Err(error)) => {
                self.0.layers.discard(unpacked.layer);
                Err(error)
            }
            // Without its end the other end has failed, too, or with its reader.
            (Err(error), Ok(_)) => Err(error),
            (Err(error), Err(cause)) => Err(if is_broken_pipe(&cause) { error } else { cause }),
        }
    }

    /// Gives the layer its name and lists the image.
    fn list_child(
        &self,
        parent: &Record,
        layer: Option<(NewLayer, Digest)>,
        size: u64,
        (name, draft): (Option<&str>, &Draft),
    ) -> Result<Image, ImageError> {
        let created_at = now();
        let created = jiff::Timestamp::from_nanosecond(created_at.into())
            .map_or_else(|_out_of_range| String::new(), |time| time.to_string());
        let diff_id = layer.as_ref().map(|(_, diff_id)| diff_id);
        let configuration = child_config::child(&parent.configuration, diff_id, draft, &created);
        let below = parent.image().map(|image| image.chains()).unwrap_or_default();
        let chain = diff_id.map(|diff_id| chained(below.last(), diff_id));
        // If it cannot be listed, the layer goes again; dropped after the lock.
        let _pin = self.pin(chain.iter().cloned().collect());
        let _change = self.change();
        let configuration = match (configuration, layer) {
            (Err(error), Some((layer, _))) => {
                self.0.layers.discard(layer);
                return Err(error);
            }
            (configuration, Some((layer, _))) => {
                if let Some(chain) = &chain {
                    self.finish_layer(layer, chain)?;
                }
                configuration?
            }
            (configuration, None) => configuration?,
        };
        let record = Record::new(configuration, created_at, size);
        let record = Record { names: self.given(&record, name), ..record };
        self.write(&record)?;
        self.name_image(&record.id, name)
    }

    /// Writes the whole file system of a container as a tar into a file or a pipe of the client's own.
    ///
    /// # Errors
    /// If something cannot be read, was not settled, or the output fails. What was written until then is of no use.
    pub(crate) fn export(
        &self,
        changed: Changed<'_>,
        out: OwnedFd,
        cancel: &Cancel,
    ) -> Result<(), ImageError> {
        let (_pin, stack) = self.pinned_stack(changed.origin)?;
        let copy = out.try_clone().map_err(|source| ImageError::system("keep", "the output", source))?;
        let meter = self.1.part(WHOLE, ProgressStep::Writing, 0);
        let out = Outlet::new(out, cancel)?.metered(meter.clone());
        let out = io::BufWriter::with_capacity(BUFFER, out);
        let settled = changed.settled;
        let settled = || settled().map_err(ImageError::Commit);
        let written = changes::write_whole(changed.layer, &stack, out, (&self.0.limits, cancel), settled);
        if cancel.is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        let (mut out, left_out) = written?;
        out.flush().map_err(|source| ImageError::system("write", "the archive", source))?;
        meter.finish(ProgressStep::Written);
        report(left_out);
        match rustix::fs::fsync(&copy) {
            // A pipe has no disk.
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
            Err(errno) => Err(ImageError::system("sync", "the archive", errno)),
        }
    }

    /// Writes what a container has changed, as docker's lines, into a pipe of the client's own.
    ///
    /// # Errors
    /// As [`Store::export`].
    pub(crate) fn diff(&self, changed: Changed<'_>, out: OwnedFd, cancel: &Cancel) -> Result<(), ImageError> {
        let (_pin, stack) = self.pinned_stack(changed.origin)?;
        let out = io::BufWriter::new(Outlet::new(out, cancel)?);
        let settled = changed.settled;
        let settled = || settled().map_err(ImageError::Commit);
        changes::write_lines(changed.layer, &stack, out, (&self.0.limits, cancel), settled)
    }

    /// The layers of an origin, which do not go away meanwhile.
    fn pinned_stack(&self, origin: &Origin) -> Result<(Option<super::pins::Pin>, Stack), ImageError> {
        let Origin::Image(id) = origin else { return Ok((None, self.stack_of(origin, None)?)) };
        let missing = || ImageError::NotFound { reference: id.to_string() };
        let pin = self.pin(self.image(id).ok_or_else(missing)?.chains());
        // The pin came after the look.
        let image = self.image(id).ok_or_else(missing)?;
        Ok((Some(pin), self.stack_of(origin, Some(&image))?))
    }

    fn stack_of(&self, origin: &Origin, image: Option<&Image>) -> Result<Stack, ImageError> {
        let directories = match (origin, image) {
            (_, Some(image)) => self.layer_directories(image),
            (Origin::Directory(directory), None) => vec![directory.clone()],
            (Origin::Image(_), None) => Vec::new(),
        };
        Stack::of_roots(&directories)
            .map_err(|(path, errno)| ImageError::system("open", path.display().to_string(), errno))
    }
}

/// For whoever looks for it.
fn report(left_out: LeftOut) {
    let LeftOut { sockets, acls } = left_out;
    if sockets > 0 || acls > 0 {
        tracing::info!(sockets, acls, "parts of a container's changes were left out");
    }
}

fn is_broken_pipe(error: &ImageError) -> bool {
    matches!(error, ImageError::System { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}
