//! New layers take what they need from those below them, come onto the disk and get their names, from the lowest up.
//!
//! Two loads may each unpack some layers that both need. Whoever has to wait for another's layer has given those of his
//! own that lie below it their names before, and gave them back. So of all that are waited for, whoever has the lowest
//! waits for nobody.

use std::{collections::VecDeque, os::fd::OwnedFd};

use mysup_ipc::id::Digest;

use super::{Store, pins::Claim};
use crate::images::{
    cancel::Cancel,
    census,
    changes::Stack,
    error::ImageError,
    implied::{self, Implied},
    layer_record::LayerRecord,
    layers::NewLayer,
};

/// A layer that was unpacked. It has no record, and is not synced.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) layer: NewLayer,
    /// As it will be, but for its census.
    pub(super) record: LayerRecord,
    /// It has directories that are still to take something from the layers below.
    pub(super) implied: Implied,
}

/// One of several that belong to an image.
pub(super) struct Place {
    /// How many layers of the image are below it.
    pub(super) depth: usize,
    pub(super) claim: Claim,
}

impl Store {
    /// Completes a layer. `lower` are the roots of those below it. Not synced.
    ///
    /// # Errors
    /// If the file system fails. The layer is thrown away.
    pub(super) fn settle(
        &self,
        unpacked: Unpacked,
        lower: &Stack,
    ) -> Result<(NewLayer, LayerRecord), ImageError> {
        let Unpacked { layer, mut record, implied } = unpacked;
        let settled = implied::settle(layer.tree(), lower, implied).and_then(|changed| {
            if changed {
                record.census = census::take(layer.tree())?;
            }
            layer.describe(&record)
        });
        match settled {
            Ok(()) => Ok((layer, record)),
            Err(error) => {
                self.0.layers.discard(layer);
                Err(error)
            }
        }
    }

    /// Stores layers of an image, whose chain ids are `chains`. One for which a layer below is missing, and nobody brings
    /// it, is thrown away without an error, and with it those above it.
    ///
    /// # Errors
    /// If the file system fails, or the switch is thrown. Those that have their names by then are whole.
    pub(super) fn settle_all(
        &self,
        mut waiting: VecDeque<(Place, Unpacked)>,
        chains: &[Digest],
        cancel: &Cancel,
    ) -> Result<(), ImageError> {
        let mut done: Vec<(Place, NewLayer)> = Vec::new();
        let result = loop {
            let Some((place, next)) = waiting.front() else { break self.keep(&mut done, cancel) };
            let below = chains.get(..place.depth).unwrap_or_default();
            let lower = match next.implied.is_any() {
                true => self.roots(below, &done),
                false => Ok(Stack::default()),
            };
            match lower {
                Ok(lower) => {
                    let Some((place, next)) = waiting.pop_front() else { break Ok(()) };
                    match self.settle(next, &lower) {
                        Ok((layer, _)) => done.push((place, layer)),
                        Err(error) => break Err(error),
                    }
                }
                Err(missing) => {
                    let waited = self.keep(&mut done, cancel);
                    if let Err(error) = waited.and_then(|()| self.wait_unclaimed(&missing, cancel)) {
                        break Err(error);
                    }
                    if !self.0.layers.contains(&missing) {
                        break Ok(());
                    }
                }
            }
        };
        let layers = done.into_iter().map(|(_, layer)| layer);
        for layer in layers.chain(waiting.into_iter().map(|(_, unpacked)| unpacked.layer)) {
            self.0.layers.discard(layer);
        }
        result
    }

    /// One call puts all of them on the disk; then they get their names, and may be had by others.
    fn keep(&self, done: &mut Vec<(Place, NewLayer)>, cancel: &Cancel) -> Result<(), ImageError> {
        if cancel.is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        if let Some((_, layer)) = done.first() {
            layer.sync()?;
        }
        while !done.is_empty() {
            let (place, layer) = done.remove(0);
            self.finish_layer(layer, &place.claim.chain)?;
        }
        Ok(())
    }

    /// The roots of layers, the lowest last, or the lowest layer that is not there.
    fn roots(&self, chains: &[Digest], done: &[(Place, NewLayer)]) -> Result<Stack, Digest> {
        let root = |chain: &Digest| -> Option<OwnedFd> {
            match done.iter().find(|(place, _)| place.claim.chain == *chain) {
                Some((_, layer)) => layer.tree().try_clone_to_owned().ok(),
                None => self.0.layers.stored(chain).and_then(|layer| layer.tree()).ok(),
            }
        };
        let mut roots = chains
            .iter()
            .map(|chain| root(chain).ok_or_else(|| chain.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        roots.reverse();
        Ok(Stack::of_open(roots))
    }
}
