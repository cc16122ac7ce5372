//! Images come in from archives and directories of docker's and OCI's forms.
//!
//! Several layers are unpacked at once. A layer that another load is unpacking is waited for, but only when the own ones
//! are done and given back (settling.rs): so no two loads wait for each other. Then the record is written: what is listed
//! is whole.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use mysup_ipc::{id::Digest, progress::ProgressStep};

use super::{
    Store,
    importing::Below,
    now,
    settling::{Place, Unpacked},
};
use crate::images::{
    bundle::{Bundle, fault},
    cancel::Cancel,
    config::{Configuration, Image},
    error::{ArchiveFault, BundleFault, ImageError},
    incoming::{self, Incoming},
    memory::Window,
    oci_layout::{self, Lacking},
    record::{GivenName, Record},
    reference,
    source::Archive,
};

/// Layers at once; more do not help the disk, and each takes its share of memory.
const AT_ONCE: usize = 4;

/// An image that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadedImage {
    /// The image.
    pub(crate) image: Image,
    /// The names that it was given now.
    pub(crate) names: Vec<String>,
}

/// A layer that is to be unpacked.
struct Job<'j> {
    place: Place,
    parent: Option<&'j Digest>,
    diff_id: &'j Digest,
    archive: &'j Archive,
}

impl Store {
    /// Loads all images of an archive (file or pipe, plain, gzip or zstd) or directory.
    ///
    /// # Errors
    /// If the archive is refused, or the file system fails. Images before the one that failed are loaded and listed; of
    /// that one nothing stays.
    pub(crate) fn load(&self, source: OwnedFd, cancel: &Cancel) -> Result<Vec<LoadedImage>, ImageError> {
        let limits = &self.0.limits;
        let bundle = Bundle::open(source, &self.0.layers, limits, (cancel, &self.1))?;
        let images = incoming::all(&bundle, limits, cancel)?;
        images.into_iter().map(|image| self.load_one(image, cancel)).collect()
    }

    /// Loads the one image of an OCI archive that came from a registry, and gives it these names. Layers that are in the
    /// store may be missing in the archive.
    ///
    /// # Errors
    /// As [`Store::load`], and if a layer is neither here nor there. Nothing stays then.
    pub(crate) fn receive(
        &self,
        source: OwnedFd,
        names: &[String],
        cancel: &Cancel,
    ) -> Result<LoadedImage, ImageError> {
        let names = names.iter().map(|name| reference::parse_any(name)).collect::<Result<Vec<_>, _>>()?;
        let bundle = Bundle::open(source, &self.0.layers, &self.0.limits, (cancel, &self.1))?;
        let mut images = oci_layout::images(&bundle, Lacking::Known)?;
        match (images.pop(), images.is_empty()) {
            (Some(image), true) => self.load_one(Incoming { names, ..image }, cancel),
            _ => {
                let reason = "it has not exactly one image".to_owned();
                Err(fault(oci_layout::INDEX, BundleFault::Form(reason)))
            }
        }
    }

    fn load_one(&self, mut incoming: Incoming, cancel: &Cancel) -> Result<LoadedImage, ImageError> {
        let chains = crate::images::chain::chain_ids(&incoming.diff_ids);
        for (layer, diff_id) in incoming.layers.iter_mut().zip(&incoming.diff_ids) {
            *layer = layer.take().map(|archive| archive.told_to(&self.1, diff_id.short()));
        }
        let _pin = self.pin(chains.clone());
        loop {
            let mut jobs: Vec<Job<'_>> = Vec::new();
            let mut others = Vec::new();
            for (at, chain) in chains.iter().enumerate() {
                if self.0.layers.contains(chain) {
                    continue;
                }
                let (Some(diff_id), Some(archive)) = (incoming.diff_ids.get(at), incoming.layers.get(at))
                else {
                    continue;
                };
                let parent = at.checked_sub(1).and_then(|below| chains.get(below));
                match (self.claim(chain), archive) {
                    (Some(claim), Some(archive)) => {
                        jobs.push(Job { place: Place { depth: at, claim }, parent, diff_id, archive });
                    }
                    // It may have come while the claim was waited for.
                    (Some(_), None) if self.0.layers.contains(chain) => {}
                    (Some(_), None) => return Err(fault(diff_id.as_str(), BundleFault::Missing)),
                    (None, _) => others.push(chain),
                }
            }
            if jobs.is_empty() && others.is_empty() {
                break;
            }
            self.unpack_all(jobs, &chains, cancel)?;
            for chain in others {
                self.wait_unclaimed(chain, cancel)?;
            }
        }
        self.add_loaded(incoming, &chains)
    }

    /// Unpacks layers, several at once, and stores them.
    fn unpack_all(
        &self,
        mut jobs: Vec<Job<'_>>,
        chains: &[Digest],
        cancel: &Cancel,
    ) -> Result<(), ImageError> {
        // It may have come while the claim was waited for.
        jobs.retain(|job| !self.0.layers.contains(&job.place.claim.chain));
        // The longest first, so that none is left alone at the end.
        jobs.sort_by_key(|job| std::cmp::Reverse(job.archive.length()));
        let next = AtomicUsize::new(0);
        let has_failed = AtomicBool::new(false);
        let results = Mutex::new(Vec::new());
        let work = || {
            while !has_failed.load(Ordering::SeqCst)
                && let at = next.fetch_add(1, Ordering::SeqCst)
                && let Some(job) = jobs.get(at)
            {
                let result = self.unpack_job(job, cancel);
                has_failed.fetch_or(result.is_err(), Ordering::SeqCst);
                results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
            }
        };
        let workers = thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE).min(jobs.len());
        thread::scope(|scope| {
            for _ in 1..workers {
                let started = thread::Builder::new().name("load-layer".to_owned()).spawn_scoped(scope, work);
                // With fewer threads it takes longer, and that is all.
                if started.is_err() {
                    break;
                }
            }
            work();
        });
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut unpacked = BTreeMap::new();
        let mut error = None;
        for (at, result) in results {
            match result {
                Ok(layer) => drop(unpacked.insert(at, layer)),
                Err(first) => error = error.or(Some(first)),
            }
        }
        if let Some(error) = error {
            unpacked.into_values().for_each(|unpacked| self.0.layers.discard(unpacked.layer));
            return Err(error);
        }
        let places = jobs.into_iter().enumerate();
        let mut layers: Vec<_> =
            places.filter_map(|(at, job)| Some((job.place, unpacked.remove(&at)?))).collect();
        layers.sort_by_key(|(place, _)| place.depth);
        self.settle_all(layers.into(), chains, cancel)
    }

    /// Unpacks one layer. What needs more memory than usual is found out by trying.
    fn unpack_job(&self, job: &Job<'_>, cancel: &Cancel) -> Result<Unpacked, ImageError> {
        let below = Below { parent: job.parent, diff_id: Some(job.diff_id) };
        let unpack = |window| self.unpack_layer(job.archive, &below, window, cancel);
        let result = match unpack(Window::Usual) {
            Err(ImageError::Archive(ArchiveFault::Compression { format: "zstd", .. })) => {
                unpack(Window::Longest)
            }
            result => result,
        };
        if result.is_ok() {
            job.archive.meter().finish(ProgressStep::Unpacked);
        }
        result.map_err(|fault| match matches!(fault, ImageError::Cancelled) {
            true => fault,
            false => ImageError::Layer { layer: job.diff_id.clone(), fault: Box::new(fault) },
        })
    }

    fn add_loaded(&self, incoming: Incoming, chains: &[Digest]) -> Result<LoadedImage, ImageError> {
        let fault = |source| ImageError::system("read", "the record of a layer", source);
        let mut size = 0;
        for chain in chains {
            size += self.0.layers.stored(chain).and_then(|layer| layer.record()).map_err(fault)?.size;
        }
        let created = Configuration::parse(&incoming.configuration).ok().and_then(|parsed| parsed.created);
        let created_at = created.as_deref().and_then(nanoseconds).unwrap_or_else(now);
        let record = Record::new(incoming.configuration, created_at, size);
        let id = record.id.clone();
        let _change = self.change();
        let known = self.state().records.get(&id).cloned();
        let mut record = known.unwrap_or(record);
        if incoming.manifest.is_some() {
            (record.manifest, record.manifest_text) = (incoming.manifest, incoming.manifest_text);
        }
        record.removed = false;
        // With its first name in one write: what is listed under it is what was loaded.
        for name in &incoming.names {
            if !record.names.iter().any(|given| given.name == *name) {
                record.names.push(GivenName { name: name.clone(), since: now() });
            }
        }
        self.write(&record)?;
        for name in &incoming.names {
            self.name_image(&id, Some(name))?;
        }
        let image = self.image(&id).ok_or_else(|| ImageError::NotFound { reference: id.to_string() })?;
        Ok(LoadedImage { image, names: incoming.names })
    }
}

/// Nanoseconds since 1970 of an RFC 3339 time; docker writes 0001-01-01 for none.
fn nanoseconds(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok()
}
