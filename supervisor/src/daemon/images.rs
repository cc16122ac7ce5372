//! The image store as the daemon uses it: what blocks runs on other threads, and an image that a container is just
//! being made from cannot be removed.

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc};

use mysup_ipc::{
    api::ImageInfo,
    container::ImageSource,
    error::{ErrorCode, WireError},
    id::Digest,
};
use tokio::sync::{OwnedRwLockReadGuard, RwLock, Semaphore};

use crate::{
    error::system_failure,
    images::{Audience, Cancel, Change, Image, ImageConfig, ImageError, Pruned, Store},
    registry::Handle,
    shim_link::sweep::Sweeper,
};

/// Imports at once. Each keeps a few threads and, from a slow pipe, keeps them long; more wait for their turn.
const IMPORTS: usize = 4;

/// The images, and who may change them now.
#[derive(Debug, Clone)]
pub(super) struct Images {
    store: Store,
    /// Read from the look at an image until the registry knows the container that uses it; written by removals. It is
    /// held across awaits on purpose: of memory and of one short record, never of a shim or an import.
    gate: Arc<RwLock<()>>,
    imports: Arc<Semaphore>,
    /// Woken when something may have been put into the trash.
    sweeper: Sweeper,
}

/// An image that cannot go away.
#[derive(Debug)]
pub(super) struct Held {
    /// Its digest; a directory has none.
    pub(super) image: Option<Digest>,
    /// Its defaults.
    pub(super) config: ImageConfig,
    /// Its layers, top first.
    layers: Vec<PathBuf>,
    _gate: OwnedRwLockReadGuard<()>,
}

/// Cancels an import whose client hangs up: it is dropped with the request.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Held {
    /// Its layers; the image may go from here on, unless the registry knows a user of it.
    pub(super) fn into_layers(self) -> Vec<PathBuf> {
        self.layers
    }
}

impl Images {
    /// The images of a store.
    pub(super) fn new(store: Store, sweeper: Sweeper) -> Self {
        Self { store, gate: Arc::new(RwLock::new(())), imports: Arc::new(Semaphore::new(IMPORTS)), sweeper }
    }

    /// All images, newest first.
    pub(super) fn list(&self) -> Vec<ImageInfo> {
        self.store.list()
    }

    /// What a container is to be made from. An archive is unpacked first; dropping this future cancels that.
    pub(super) async fn hold(
        &self,
        source: &ImageSource,
        archive: Option<OwnedFd>,
    ) -> Result<Held, WireError> {
        let imported = match (source, archive) {
            (ImageSource::Archive(_), Some(archive)) => {
                Some(self.unpack(archive, |store, archive, cancel| store.import_once(archive, cancel)).await?)
            }
            (ImageSource::Archive(_), None) => {
                return Err(WireError::new(ErrorCode::Invalid, "the archive's descriptor is missing"));
            }
            (ImageSource::Named(_) | ImageSource::Directory(_), _) => None,
        };
        let gate = Arc::clone(&self.gate).read_owned().await;
        let image = match (source, imported) {
            (ImageSource::Directory(directory), _) => {
                let (config, layers) = (ImageConfig::default(), vec![PathBuf::from(directory)]);
                return Ok(Held { image: None, config, layers, _gate: gate });
            }
            (ImageSource::Named(name), _) => self.store.resolve(name).map_err(|error| error.to_wire())?,
            // It may have been removed since it was unpacked.
            (ImageSource::Archive(_), Some(imported)) => self.image(&imported.id)?,
            (ImageSource::Archive(path), None) => return Err(no_image(path)),
        };
        Ok(self.held(image, gate))
    }

    /// The image of a container that exists.
    pub(super) async fn hold_known(&self, id: &Digest) -> Result<Held, WireError> {
        let gate = Arc::clone(&self.gate).read_owned().await;
        Ok(self.held(self.image(id)?, gate))
    }

    fn image(&self, id: &Digest) -> Result<Image, WireError> {
        self.store.image(id).ok_or_else(|| no_image(id.as_str()))
    }

    fn held(&self, image: Image, gate: OwnedRwLockReadGuard<()>) -> Held {
        let layers = self.store.layer_directories(&image);
        Held { image: Some(image.id), config: image.config, layers, _gate: gate }
    }

    /// Unpacks an archive into an image; dropping this future cancels it.
    pub(super) async fn import(
        &self,
        archive: OwnedFd,
        name: Option<String>,
        change: Change,
        audience: Audience,
    ) -> Result<ImageInfo, WireError> {
        let import = move |store: &Store, archive, cancel: &Cancel| {
            store.telling(audience).import(archive, name.as_deref(), &change, cancel)
        };
        Ok(self.unpack(archive, import).await?.info())
    }

    /// Does something long with the store, when it is its turn; dropping this future cancels it.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store, &Cancel) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, WireError> {
        // Never closed.
        let slot = Arc::clone(&self.imports).acquire_owned().await;
        let cancel = Cancel::new().map_err(|error| system_failure("cannot begin", &error))?;
        let _cancel_on_hangup = CancelOnDrop(cancel.clone());
        let (store, sweeper) = (self.store.clone(), self.sweeper.clone());
        let job = move || {
            let _slot = slot;
            let done = work(&store, &cancel).map_err(|error| error.to_wire());
            // What was refused, cancelled or known already was unpacked into nothing.
            sweeper.wake();
            done
        };
        tokio::task::spawn_blocking(job).await.map_err(|panic| system_failure("cannot go on", &panic))?
    }

    /// Reads records, or writes one.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Store) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, WireError> {
        let store = self.store.clone();
        let job = move || look(&store).map_err(|error| error.to_wire());
        tokio::task::spawn_blocking(job).await.map_err(|panic| system_failure("cannot look", &panic))?
    }

    /// Removes images that no container uses.
    pub(super) async fn prune(&self, all: bool, registry: &Handle) -> Result<Pruned, WireError> {
        let gate = Arc::clone(&self.gate).write_owned().await;
        let users: Vec<Digest> =
            registry.image_users().await?.into_iter().map(|(image, _, _)| image).collect();
        let (store, sweeper) = (self.store.clone(), self.sweeper.clone());
        let job = move || {
            let _gate = gate;
            let pruned = store.prune(all, &users).map_err(|error| error.to_wire());
            sweeper.wake();
            pruned
        };
        tokio::task::spawn_blocking(job).await.map_err(|panic| system_failure("cannot remove", &panic))?
    }

    async fn unpack(
        &self,
        archive: OwnedFd,
        work: impl FnOnce(&Store, OwnedFd, &Cancel) -> Result<Image, ImageError> + Send + 'static,
    ) -> Result<Image, WireError> {
        self.work(move |store, cancel| work(store, archive, cancel)).await
    }

    /// Removes a name, and the image with the last one.
    pub(super) async fn remove(
        &self,
        reference: String,
        force: bool,
        registry: &Handle,
    ) -> Result<Vec<String>, WireError> {
        let gate = Arc::clone(&self.gate).write_owned().await;
        let users = registry.image_users().await?;
        let (store, sweeper) = (self.store.clone(), self.sweeper.clone());
        let job = move || {
            let _gate = gate;
            let removed = store.remove(&reference, force, &users).map_err(|error| error.to_wire());
            sweeper.wake();
            removed
        };
        tokio::task::spawn_blocking(job).await.map_err(|panic| system_failure("cannot remove", &panic))?
    }

    /// Throws away images that were removed while containers needed them and are needed no more.
    pub(super) async fn collect(&self, registry: &Handle) {
        // No gate: no container can be made from an image that was removed.
        let Ok(users) = registry.image_users().await else { return };
        let store = self.store.clone();
        let job = move || {
            let users: Vec<Digest> = users.into_iter().map(|(image, _, _)| image).collect();
            if let Err(error) = store.collect(&users) {
                tracing::warn!(error = %error.to_wire().message, "cannot throw images away, continuing");
            }
        };
        // A panic has been logged; the next removal tries again.
        let _ = tokio::task::spawn_blocking(job).await;
    }
}

fn no_image(reference: &str) -> WireError {
    WireError::new(ErrorCode::NotFound, format!("No such image: {reference}"))
}
