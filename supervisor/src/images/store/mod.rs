//! The store of images: one for each state root, opened by the one supervisor that has its lock.
//!
//! What is in memory is what is on the disk: a change is first made there, durably, and shown after. Changes wait for
//! each other (`changes`); reading does not wait for a disk.
//!
//! `importing.rs` and `loading.rs` take images in, `committing.rs` makes them of containers, `settling.rs` completes layers, `removing.rs` throws them away, `pins.rs` keeps layers that no
//! record names yet, `looking.rs` and `verifying.rs` read.

mod committing;
mod damaged;
mod importing;
mod loading;
mod looking;
mod pins;
mod removing;
mod saving;
mod settling;
mod verifying;

pub(crate) use committing::{Changed, Origin};
pub(crate) use looking::{Details, HistoryLine};
pub(crate) use removing::Pruned;
pub(crate) use saving::Format;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use mysup_ipc::{api::ImageInfo, id::Digest};

use super::{
    audience::Audience,
    config::Image,
    error::ImageError,
    layers::{LAYERS, Layers, NewLayer, TREE, open_private, open_root},
    limits::Limits,
    marks,
    record::{self, GivenName, Record},
    reference,
    source::FileMark,
};
use crate::shim_link::sweep::Sweeper;

/// Directory below the state root.
const IMAGES: &str = "images";

/// The images of a state root. Clones are the same store; each has an audience that is told of what takes long.
#[derive(Debug, Clone)]
pub(crate) struct Store(Arc<Shared>, Audience);

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    images: OwnedFd,
    layers: Layers,
    limits: Limits,
    /// Held while records or layers come or go.
    changes: Mutex<()>,
    state: Mutex<State>,
    /// Told when a layer that was being unpacked is there, or is not going to be.
    unclaimed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<Digest, Record>,
    /// Images that are not shown: their record is damaged, or a layer is lost.
    damaged: BTreeSet<Digest>,
    /// Image of an archive that has not changed.
    archives: HashMap<FileMark, Digest>,
    /// Layers (by chain id) below which nothing is seen.
    opaque: BTreeSet<Digest>,
    /// Layers (by chain id) that somebody needs before a record does, and how many need them.
    pins: BTreeMap<Digest, usize>,
    /// Layers that somebody is unpacking.
    claims: BTreeSet<Digest>,
}

impl Store {
    /// Opens the store below `root`, making its directories if need be. What interrupted imports and removals have
    /// left is thrown into the trash. A damaged record is reported and costs its image only.
    ///
    /// # Errors
    /// If the directories cannot be made or read.
    pub(crate) fn open(root: &Path, sweeper: Sweeper, limits: Limits) -> Result<Self, ImageError> {
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
        let (mut needed, mut opaque) = (BTreeSet::new(), BTreeSet::new());
        let mut records = BTreeMap::new();
        for record in found.records {
            let image = record.image().map_err(|error| fault(io::Error::other(error)))?;
            let chains = image.chains();
            needed.extend(chains.iter().map(|layer| layer.hex().to_owned()));
            if let Some(layer) = chains.iter().find(|layer| !layers.contains(layer)) {
                tracing::warn!(image = %image.id, %layer, "an image has lost a layer and is left out, continuing");
                damaged.insert(image.id);
                continue;
            }
            let is_opaque = |chain: &&Digest| {
                layers.stored(chain).and_then(|layer| layer.tree()).is_ok_and(marks::is_opaque)
            };
            opaque.extend(chains.iter().filter(is_opaque).cloned());
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
        let state = Mutex::new(State { records, damaged, opaque, ..State::default() });
        let root = std::path::absolute(root).map_err(fault)?;
        let changes = Mutex::new(());
        let shared = Shared { root, images, layers, limits, changes, state, unclaimed: Condvar::new() };
        Ok(Self(Arc::new(shared), Audience::default()))
    }

    /// The same store, which tells somebody how far it has come.
    pub(crate) fn telling(&self, audience: Audience) -> Self {
        Self(Arc::clone(&self.0), audience)
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

    /// Gives an image one more name.
    ///
    /// # Errors
    /// If there is no such image, the name is none, or the file system fails.
    pub(crate) fn tag(&self, reference: &str, name: &str) -> Result<(), ImageError> {
        let name = reference::parse(name)?;
        let _change = self.change();
        let image = self.resolve(reference)?;
        self.name_image(&image.id, Some(&name)).map(drop)
    }

    /// Where its layers are, absolute, top first. What is below a layer whose root is opaque is never seen, and overlayfs
    /// does not look at that mark of a root: so those are left out.
    pub(crate) fn layer_directories(&self, image: &Image) -> Vec<PathBuf> {
        let mut directories = Vec::new();
        let state = self.state();
        for chain in image.chains().iter().rev() {
            directories.push(self.0.root.join(LAYERS).join(chain.hex()).join(TREE));
            if state.opaque.contains(chain) {
                break;
            }
        }
        directories
    }

    /// All images, newest first, each with its layers by chain id and the directories of these.
    pub(crate) fn homes(&self) -> Vec<(ImageInfo, Vec<(Digest, PathBuf)>)> {
        let home = |chain: Digest| (chain.clone(), self.0.root.join(LAYERS).join(chain.hex()));
        let homes = |image: Image| (image.info(), image.chains().into_iter().map(home).collect());
        let mut images = self.shown();
        images.sort_by_key(|image| std::cmp::Reverse(image.created_at));
        images.into_iter().map(homes).collect()
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

    /// Gives a new layer its name, and keeps in memory what every start of a container asks about it.
    fn finish_layer(&self, layer: NewLayer, chain: &Digest) -> Result<(), ImageError> {
        let is_opaque = marks::is_opaque(layer.tree());
        self.0.layers.finish(layer, chain)?;
        if is_opaque {
            self.state().opaque.insert(chain.clone());
        }
        Ok(())
    }

    /// The layers, by chain id, that records and pins need.
    fn needed(&self) -> BTreeSet<Digest> {
        let state = self.state();
        let images = state.records.values().filter_map(|record| record.image().ok());
        images.flat_map(|image| image.chains()).chain(state.pins.keys().cloned()).collect()
    }

    /// The image, and its name if it was called by one.
    fn find(&self, reference: &str) -> Result<(Image, Option<String>), ImageError> {
        let images = self.shown();
        if let Some(image) =
            images.iter().find(|image| [image.id.as_str(), image.id.hex()].contains(&reference))
        {
            return Ok((image.clone(), None));
        }
        let name = reference::parse_any(reference).ok();
        let has_name = |image: &&Image| name.as_ref().is_some_and(|name| image.names.contains(name));
        if let Some(image) = images.iter().find(has_name) {
            return Ok((image.clone(), name));
        }
        if let Some(image) = self.find_by_manifest(name.as_deref()) {
            return Ok((image, None));
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

    /// `name@digest`: the image that came with that manifest, and has a name of that repository.
    fn find_by_manifest(&self, name: Option<&str>) -> Option<Image> {
        let (repository, digest) = name?.split_once('@')?;
        let is_of = |given: &GivenName| {
            given
                .name
                .strip_prefix(repository)
                .is_some_and(|rest| rest.starts_with(':') && !rest.contains('/'))
        };
        let state = self.state();
        let came_so = |record: &&Record| {
            !record.removed
                && record.manifest.as_ref().is_some_and(|manifest| manifest.as_str() == digest)
                && record.names.iter().any(is_of)
        };
        state.records.values().find(came_so).and_then(|record| record.image().ok())
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
