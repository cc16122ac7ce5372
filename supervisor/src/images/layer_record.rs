//! What is known about a stored layer, `layers/<chain id>/layer.json`.

use mysup_ipc::id::Digest;
use serde::{Deserialize, Serialize};

use super::chain::chained;

/// The record. It needs no checksum: digest and parent give the chain id, which is its name, and the rest is compared
/// with what is there by `image verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    /// Digest of the uncompressed tar.
    pub(super) diff_id: Digest,
    /// Chain id of the layer below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<Digest>,
    /// Bytes of its files.
    pub(super) size: u64,
    /// Bytes of the uncompressed tar.
    pub(super) tar_size: u64,
    /// What the directory looked like when it was unpacked (census.rs).
    pub(super) census: Digest,
}

impl LayerRecord {
    /// The chain id of the layer it describes.
    pub(super) fn chain(&self) -> Digest {
        chained(self.parent.as_ref(), &self.diff_id)
    }
}
