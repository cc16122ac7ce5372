//! The store of images: one for each state root, opened by the one supervisor that has its lock.
//!
//! What is in memory is what is on the disk: a change is first made there, durably, and shown after. Changes wait for
//! each other (`changes`); reading does not wait for a disk.

mod damaged;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use mysup_ipc::{
    api::ImageInfo,
    id::{ContainerId, Digest},
};

use super::{
    cancel::Cancel,
    config::Image,
    error::ImageError,
    layers::{LAYERS, Layers, NewLayer, open_private, open_root},
    limits::Limits,
    pipeline,
    record::{self, GivenName, Record},
    reference,
    removal::{self, Fate},
    source::{Archive, FileMark},
    unpack::{self, Totals},
};
use crate::shim_link::sweep::Sweeper;

/// Directory below the state root.
const IMAGES: &str = "images";

/// Archives whose image is remembered; when there are more, all are forgotten and hashed again when they come.
const REMEMBERED: usize = 1024;

/// A file that was changed less than this before it was read may change again without another time of change
/// (ticks of 10 ms; seconds on some file systems). Nanoseconds.
const SETTLED: i128 = 2_000_000_000;

/// The images of a state root. Clones are the same store.
#[derive(Debug, Clone)]
pub(crate) struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    images: OwnedFd,
    layers: Layers,
    limits: Limits,
    /// Held while records or layers come or go.
    changes: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<Digest, Record>,
    /// Images that are not shown: their record is damaged, or a layer is lost.
    damaged: BTreeSet<Digest>,
    /// Image of an archive that has not changed.
    archives: HashMap<FileMark, Digest>,
}

/// The layer of an archive.
struct Obtained {
    digest: Digest,
    /// If it had to be unpacked.
    unpacked: Option<(NewLayer, Totals)>,
}

impl Store {
    /// Opens the store below `root`, making its directories if need be. What interrupted imports and removals have
    /// left is thrown into the trash. A damaged record is reported and costs its image only.
    ///
    /// # Errors
    /// If the directories cannot be made or read.
    pub(crate) fn open(root: &Path, sweeper: Sweeper) -> Result<Self, ImageError> {
        let limits = Limits::default();
        let fault = |source: io::Error| ImageError::system("open", root.display().to_string(), source);
        let directory = open_root(root).map_err(fault)?;
        let images = open_private(directory.as_fd(), IMAGES).map_err(fault)?;
        let layers = Layers::open(directory.as_fd(), sweeper).map_err(fault)?;
        let found = record::read_all(&images).map_err(fault)?;
        let mut damaged = BTreeSet::new();
        for (name, fault) in &found.damaged {
            let fault: &dyn std::error::Error = fault;
            tracing::warn!(record = name, fault, "an image is damaged and left out, continuing");
            damaged.extend(record::id_of(name));
        }
        let mut needed = BTreeSet::new();
        let mut records = BTreeMap::new();
        for record in found.records {
            let image = record.image().map_err(|error| fault(error.into()))?;
            needed.extend(image.layers.iter().map(|layer| layer.hex().to_owned()));
            if let Some(layer) = image.layers.iter().find(|layer| !layers.contains(layer)) {
                tracing::warn!(image = %image.id, %layer, "an image has lost a layer and is left out, continuing");
                damaged.insert(image.id);
                continue;
            }
            records.insert(image.id, record);
        }
        settle_names(&mut records);
        for name in layers.names().map_err(fault)? {
            let is_layer = format!("sha256:{name}").parse::<Digest>().is_ok();
            // A damaged record may be all that knows of a layer, and a container may be running on it.
            let is_leftover = !is_layer || (found.damaged.is_empty() && !needed.contains(&name));
            if is_leftover && let Err(error) = layers.throw_away(&name) {
                tracing::warn!(layer = name, %error, "a layer that nobody needs stays until the next start, continuing");
            }
        }
        let state = Mutex::new(State { records, damaged, archives: HashMap::new() });
        let root = std::path::absolute(root).map_err(fault)?;
        Ok(Self(Arc::new(Shared { root, images, layers, limits, changes: Mutex::new(()), state })))
    }

    /// All images, newest first.
    pub(crate) fn list(&self) -> Vec<ImageInfo> {
        let mut images: Vec<ImageInfo> = self.shown().iter().map(Image::info).collect();
        images.sort_by(|one, other| {
            (other.created_at, &other.names, &other.id).cmp(&(one.created_at, &one.names, &one.id))
        });
        images
    }

    /// The image that is called so: an id, `name[:tag]`, or a prefix of one id only.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub(crate) fn resolve(&self, reference: &str) -> Result<Image, ImageError> {
        self.find(reference).map(|(image, _)| image)
    }

    /// The image of exactly this id, also when it was removed with force and a container still needs it.
    pub(crate) fn image(&self, id: &Digest) -> Option<Image> {
        self.state().records.get(id).and_then(|record| record.image().ok())
    }

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
        cancel: &Cancel,
    ) -> Result<Image, ImageError> {
        let name = name.map(reference::parse).transpose()?;
        self.take_in(&Archive::new(archive)?, name.as_deref(), cancel)
    }

    /// The image of an archive, for a container without a name for its image: unpacked the first time only.
    ///
    /// # Errors
    /// As [`Store::import`].
    pub(crate) fn import_once(&self, archive: OwnedFd, cancel: &Cancel) -> Result<Image, ImageError> {
        self.take_in(&Archive::new(archive)?, None, cancel)
    }

    /// Takes a name away, and the image with the last one. `users` are the containers with their images and whether
    /// they run. Gives docker's lines.
    ///
    /// # Errors
    /// If there is no such image, if a container needs it (unless `force` outweighs that), or if the file system
    /// fails.
    pub(crate) fn remove(
        &self,
        reference: &str,
        force: bool,
        users: &[(Digest, ContainerId, bool)],
    ) -> Result<Vec<String>, ImageError> {
        let _change = self.change();
        let (image, by_name) = match self.find(reference) {
            Err(not_found) => {
                let damaged = self.find_damaged(reference).ok_or(not_found)?;
                return self.remove_damaged(&damaged, force, users);
            }
            Ok(found) => found,
        };
        let removal = removal::decide(&image, reference, by_name.as_deref(), force, users)?;
        let mut lines: Vec<String> = removal.names.iter().map(|name| format!("Untagged: {name}")).collect();
        match removal.image {
            Fate::Stays => self.change_record(&image.id, |record| {
                record.names.retain(|given| !removal.names.contains(&given.name));
            })?,
            Fate::Hidden => self.change_record(&image.id, |record| {
                record.names.clear();
                record.removed = true;
            })?,
            Fate::Goes => lines.extend(self.delete(&image)?),
        }
        if removal.image == Fate::Hidden {
            lines.push(format!("Deleted: {}", image.id));
        }
        Ok(lines)
    }

    /// Throws away what was removed with force while containers needed it, as far as no container in `users` does
    /// any more. To be called when a container was removed, and at start.
    ///
    /// # Errors
    /// If the file system fails.
    pub(crate) fn collect(&self, users: &[Digest]) -> Result<(), ImageError> {
        let _change = self.change();
        let is_waste = |record: &&Record| record.removed && !users.contains(&record.id);
        let waste: Vec<Image> =
            self.state().records.values().filter(is_waste).filter_map(|record| record.image().ok()).collect();
        waste.iter().try_for_each(|image| self.delete(image).map(|_| ()))
    }

    /// Where its layers are, absolute, top first.
    pub(crate) fn layer_directories(&self, image: &Image) -> Vec<PathBuf> {
        image.layers.iter().rev().map(|layer| self.0.root.join(LAYERS).join(layer.hex())).collect()
    }

    fn take_in(&self, archive: &Archive, name: Option<&str>, cancel: &Cancel) -> Result<Image, ImageError> {
        let mark = archive.mark()?;
        let known = mark.and_then(|mark| self.state().archives.get(&mark).cloned());
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
        let mut obtained = self.hash_known(archive, mark, cancel)?;
        let image = loop {
            let obtained_now = match obtained.take() {
                Some(obtained) => obtained,
                None => self.unpack(archive, cancel)?,
            };
            // Without an answer the image that it was found to be was removed meanwhile.
            if let Some(image) = self.add(obtained_now, mark.map(|mark| mark.size), name)? {
                break image;
            }
        };
        if let Some(mark) = mark
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
        cancel: &Cancel,
    ) -> Result<Option<Obtained>, ImageError> {
        let Some(mark) = mark else { return Ok(None) };
        if !self.state().records.values().any(|record| record.archive_size == Some(mark.size)) {
            return Ok(None);
        }
        let ((), digest) = pipeline::run(archive, cancel, &self.0.limits, |_| Ok(()))?;
        let id = Record::of_import(digest.clone(), 0, 0, None).id;
        let is_known = self.state().records.contains_key(&id);
        Ok(is_known.then_some(Obtained { digest, unpacked: None }))
    }

    /// Unpacks the archive into a new layer, on the disk.
    fn unpack(&self, archive: &Archive, cancel: &Cancel) -> Result<Obtained, ImageError> {
        let layer = self.0.layers.begin()?;
        let limits = &self.0.limits;
        let result =
            pipeline::run(archive, cancel, limits, |tape| unpack::unpack(tape, layer.directory(), limits))
                .and_then(|unpacked| {
                    layer.sync()?;
                    if cancel.is_cancelled() { Err(ImageError::Cancelled) } else { Ok(unpacked) }
                });
        match result {
            Ok((totals, digest)) => {
                if totals.marks > 0 || totals.attributes_left_out > 0 {
                    let Totals { marks, attributes_left_out, .. } = totals;
                    tracing::info!(layer = %digest, marks, attributes_left_out, "parts of an archive were left out");
                }
                Ok(Obtained { digest, unpacked: Some((layer, totals)) })
            }
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
    ) -> Result<Option<Image>, ImageError> {
        let Obtained { digest, unpacked } = obtained;
        let _change = self.change();
        let size = unpacked.as_ref().map_or(0, |(_, totals)| totals.bytes);
        let record = Record::of_import(digest.clone(), now(), size, archive_size);
        let id = record.id.clone();
        let is_known = self.state().records.contains_key(&id);
        match unpacked {
            Some((layer, _)) if is_known => self.0.layers.discard(layer),
            Some((layer, _)) => {
                self.0.layers.finish(layer, &digest)?;
                let record = Record { names: self.given(&record, name), ..record };
                self.write(&record)?;
            }
            None if is_known => {}
            None => return Ok(None),
        }
        self.name_image(&id, name).map(Some)
    }

    /// Gives an image a name and takes it from the one that has it; an image that was removed is shown again.
    fn name_image(&self, id: &Digest, name: Option<&str>) -> Result<Image, ImageError> {
        let record = self.state().records.get(id).cloned();
        let record = record.ok_or_else(|| ImageError::NotFound { reference: id.to_string() })?;
        let names = self.given(&record, name);
        if record.removed || names != record.names {
            self.write(&Record { names, removed: false, ..record })?;
        }
        let has_name = |record: &Record| record.names.iter().any(|given| Some(given.name.as_str()) == name);
        let others: Vec<Digest> = self
            .state()
            .records
            .values()
            .filter(|record| record.id != *id && has_name(record))
            .map(|record| record.id.clone())
            .collect();
        for other in others {
            self.change_record(&other, |record| {
                record.names.retain(|given| Some(given.name.as_str()) != name);
            })?;
        }
        self.image(id).ok_or_else(|| ImageError::NotFound { reference: id.to_string() })
    }

    /// The names of a record with one more.
    fn given(&self, record: &Record, name: Option<&str>) -> Vec<GivenName> {
        let mut names = record.names.clone();
        if let Some(name) = name
            && !names.iter().any(|given| given.name == name)
        {
            names.push(GivenName { name: name.to_owned(), since: now() });
        }
        names
    }

    /// Removes record and layers.
    fn delete(&self, image: &Image) -> Result<Vec<String>, ImageError> {
        let fault = |source| ImageError::system("remove", image.id.as_str(), source);
        record::remove(&self.0.images, &image.id).map_err(fault)?;
        let mut lines = vec![format!("Deleted: {}", image.id)];
        let needed: BTreeSet<Digest> = {
            let mut state = self.state();
            state.records.remove(&image.id);
            state.archives.retain(|_, id| *id != image.id);
            state
                .records
                .values()
                .filter_map(|record| record.image().ok())
                .flat_map(|image| image.layers)
                .collect()
        };
        for layer in image.layers.iter().rev().filter(|layer| !needed.contains(layer)) {
            self.0.layers.remove(layer).map_err(fault)?;
            lines.push(format!("Deleted: {layer}"));
        }
        Ok(lines)
    }

    /// The image, and its name if it was called by one.
    fn find(&self, reference: &str) -> Result<(Image, Option<String>), ImageError> {
        let images = self.shown();
        if let Some(image) =
            images.iter().find(|image| [image.id.as_str(), image.id.hex()].contains(&reference))
        {
            return Ok((image.clone(), None));
        }
        let name = reference::parse(reference).ok();
        let has_name = |image: &&Image| name.as_ref().is_some_and(|name| image.names.contains(name));
        if let Some(image) = images.iter().find(has_name) {
            return Ok((image.clone(), name));
        }
        let prefix = reference.strip_prefix("sha256:").unwrap_or(reference);
        let has_prefix = |image: &&Image| !prefix.is_empty() && image.id.hex().starts_with(prefix);
        let fits: Vec<&Image> = images.iter().filter(has_prefix).collect();
        match fits.as_slice() {
            [] => Err(ImageError::NotFound { reference: name.unwrap_or_else(|| reference.to_owned()) }),
            [image] => Ok(((*image).clone(), None)),
            more => Err(ImageError::Ambiguous { prefix: reference.to_owned(), count: more.len() }),
        }
    }

    fn shown(&self) -> Vec<Image> {
        let state = self.state();
        state
            .records
            .values()
            .filter(|record| !record.removed)
            .filter_map(|record| record.image().ok())
            .collect()
    }

    fn change_record(&self, id: &Digest, change: impl FnOnce(&mut Record)) -> Result<(), ImageError> {
        let record = self.state().records.get(id).cloned();
        let mut record = record.ok_or_else(|| ImageError::NotFound { reference: id.to_string() })?;
        change(&mut record);
        self.write(&record)
    }

    /// On the disk first.
    fn write(&self, record: &Record) -> Result<(), ImageError> {
        record
            .write(self.0.images.as_fd())
            .map_err(|source| ImageError::system("write the record of", record.id.as_str(), source))?;
        let mut state = self.state();
        state.damaged.remove(&record.id);
        state.records.insert(record.id.clone(), record.clone());
        Ok(())
    }

    /// Whoever panicked while he had it left it as it was or as it should be: one step changes one record.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.0.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that a power cut left with two images belongs to the one that got it last.
fn settle_names(records: &mut BTreeMap<Digest, Record>) {
    let mut owners: HashMap<String, (u64, Digest)> = HashMap::new();
    for record in records.values() {
        for given in &record.names {
            let claim = (given.since, record.id.clone());
            let owner = owners.entry(given.name.clone()).or_insert_with(|| claim.clone());
            if *owner < claim {
                *owner = claim;
            }
        }
    }
    for record in records.values_mut() {
        let id = &record.id;
        record.names.retain(|given| owners.get(&given.name).is_some_and(|(_, owner)| owner == id));
    }
}

/// Nanoseconds since 1970; 0 with a clock before that.
fn now() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
