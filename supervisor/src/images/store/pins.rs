//! Layers that are needed before a record names them, and layers that one of several is unpacking.

use std::time::Duration;

use mysup_ipc::id::Digest;

use super::Store;
use crate::images::{cancel::Cancel, error::ImageError};

/// Between two looks at the switch.
const LOOK: Duration = Duration::from_millis(50);

/// Keeps layers. When it is dropped, those that nobody needs are thrown away.
#[derive(Debug)]
pub(super) struct Pin {
    store: Store,
    chains: Vec<Digest>,
}

/// The right to unpack a layer: nobody else does meanwhile.
#[derive(Debug)]
pub(super) struct Claim {
    store: Store,
    pub(super) chain: Digest,
}

impl Store {
    /// Keeps these layers, whether they are there already or not.
    pub(super) fn pin(&self, chains: Vec<Digest>) -> Pin {
        // With the other changes: a removal that is under way does not see the pin.
        let _change = self.change();
        let mut state = self.state();
        for chain in &chains {
            *state.pins.entry(chain.clone()).or_default() += 1;
        }
        drop(state);
        Pin { store: self.clone(), chains }
    }

    /// The right to unpack a layer, if nobody else has it.
    pub(super) fn claim(&self, chain: &Digest) -> Option<Claim> {
        let is_new = self.state().claims.insert(chain.clone());
        is_new.then(|| Claim { store: self.clone(), chain: chain.clone() })
    }

    /// Waits until nobody unpacks the layer.
    ///
    /// # Errors
    /// If the switch is thrown before.
    pub(super) fn wait_unclaimed(&self, chain: &Digest, cancel: &Cancel) -> Result<(), ImageError> {
        let mut state = self.state();
        while state.claims.contains(chain) {
            if cancel.is_cancelled() {
                return Err(ImageError::Cancelled);
            }
            let woken = self.0.unclaimed.wait_timeout(state, LOOK);
            (state, _) = woken.unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.store.state().claims.remove(&self.chain);
        self.store.0.unclaimed.notify_all();
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let _change = self.store.change();
        let mut state = self.store.state();
        for chain in &self.chains {
            if let Some(count) = state.pins.get_mut(chain) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(chain);
                }
            }
        }
        drop(state);
        let needed = self.store.needed();
        for chain in self.chains.iter().filter(|chain| !needed.contains(chain)) {
            if let Err(error) = self.store.0.layers.remove(chain) {
                tracing::warn!(layer = %chain, %error, "a layer stays until the next start, continuing");
            }
        }
    }
}
