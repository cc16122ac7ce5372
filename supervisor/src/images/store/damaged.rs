//! Images that are damaged: they are not shown and give no container, and a user can be rid of them.

use std::collections::BTreeSet;

use mysup_ipc::id::{ContainerId, Digest};

use super::Store;
use crate::images::{error::ImageError, record, removal};

impl Store {
    /// The damaged image with this id, or the only one whose id begins so.
    pub(super) fn find_damaged(&self, reference: &str) -> Option<Digest> {
        let prefix = reference.strip_prefix("sha256:").unwrap_or(reference);
        let state = self.state();
        let mut fits = state.damaged.iter().filter(|id| !prefix.is_empty() && id.hex().starts_with(prefix));
        match (fits.next(), fits.next()) {
            (Some(only), None) => Some(only.clone()),
            (None | Some(_), _) => None,
        }
    }

    /// Removes the record of a damaged image. Which layers were its own is certain only when no other record is damaged:
    /// then those that no image needs go too. Under the lock of changes.
    ///
    /// # Errors
    /// If a container uses it, or if the file system fails.
    pub(super) fn remove_damaged(
        &self,
        id: &Digest,
        force: bool,
        users: &[(Digest, ContainerId, bool)],
    ) -> Result<Vec<String>, ImageError> {
        removal::decide_damaged(id, force, users)?;
        let fault = |source| ImageError::system("remove", id.as_str(), source);
        record::remove(&self.0.images, id).map_err(fault)?;
        self.state().damaged.remove(id);
        let mut lines = vec![format!("Deleted: {id}")];
        let left = record::read_all(&self.0.images).map_err(fault)?;
        if !left.damaged.is_empty() {
            return Ok(lines);
        }
        let images = left.records.iter().filter_map(|record| record.image().ok());
        let mut needed: BTreeSet<Digest> = images.flat_map(|image| image.chains()).collect();
        needed.extend(self.needed());
        // What is called otherwise than by a digest is being made right now.
        let layers = self.0.layers.names().map_err(fault)?;
        let layers = layers.filter_map(|name| format!("sha256:{name}").parse::<Digest>().ok());
        for layer in layers.filter(|layer| !needed.contains(layer)) {
            self.0.layers.remove(&layer).map_err(fault)?;
            lines.push(format!("Deleted: {layer}"));
        }
        Ok(lines)
    }
}
