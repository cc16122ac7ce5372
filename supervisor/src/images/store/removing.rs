//! Names and images go; layers go when no record needs them.

use mysup_ipc::id::{ContainerId, Digest};

use super::Store;
use crate::images::{
    config::Image,
    error::ImageError,
    record::{self, Record},
    removal::{self, Fate},
};

/// What a prune has thrown away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Pruned {
    /// docker's lines.
    pub(crate) lines: Vec<String>,
    /// Bytes of files of the layers that went.
    pub(crate) reclaimed: u64,
}

impl Store {
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

    /// Throws away images that nobody needs: those without a name, or with `all` those without a container. Gives what went.
    ///
    /// # Errors
    /// If the file system fails; what went until then stays away.
    pub(crate) fn prune(&self, all: bool, users: &[Digest]) -> Result<Pruned, ImageError> {
        let _change = self.change();
        let mut pruned = Pruned::default();
        let waste: Vec<Image> = self
            .shown()
            .into_iter()
            .filter(|image| (all || image.names.is_empty()) && !users.contains(&image.id))
            .collect();
        for image in waste {
            pruned.lines.extend(image.names.iter().map(|name| format!("Untagged: {name}")));
            let before = self.layer_sizes(&image);
            pruned.lines.extend(self.delete(&image)?);
            let gone = before.into_iter().filter(|(chain, _)| !self.0.layers.contains(chain));
            pruned.reclaimed += gone.map(|(_, size)| size).sum::<u64>();
        }
        Ok(pruned)
    }

    /// Its layers by chain id, with the bytes of their files.
    pub(super) fn layer_sizes(&self, image: &Image) -> Vec<(Digest, u64)> {
        let size = |chain: &Digest| self.0.layers.stored(chain).and_then(|layer| layer.record());
        image
            .chains()
            .into_iter()
            .map(|chain| (chain.clone(), size(&chain).map_or(0, |record| record.size)))
            .collect()
    }

    /// Removes record and layers.
    fn delete(&self, image: &Image) -> Result<Vec<String>, ImageError> {
        let fault = |source| ImageError::system("remove", image.id.as_str(), source);
        record::remove(&self.0.images, &image.id).map_err(fault)?;
        let mut lines = vec![format!("Deleted: {}", image.id)];
        {
            let mut state = self.state();
            state.records.remove(&image.id);
            state.archives.retain(|_, id| *id != image.id);
        }
        let needed = self.needed();
        let chains = image.chains();
        for (chain, layer) in chains.iter().zip(&image.layers).rev() {
            if !needed.contains(chain) {
                self.0.layers.remove(chain).map_err(fault)?;
                lines.push(format!("Deleted: {layer}"));
            }
        }
        Ok(lines)
    }
}
