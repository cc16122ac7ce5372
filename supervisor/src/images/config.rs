//! What an image is besides its files. All of it is data of a stranger: defaults for a container, never policy.

use std::collections::BTreeMap;

use mysup_ipc::{api::ImageInfo, id::Digest};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Digest of its configuration.
    pub(crate) id: Digest,
    /// `name:tag` each.
    pub(crate) names: Vec<String>,
    /// Defaults for its containers.
    pub(crate) config: ImageConfig,
    /// Digests of its uncompressed layers, bottom first.
    pub(crate) layers: Vec<Digest>,
    /// When it came into the store, nanoseconds since 1970.
    pub(crate) created_at: u64,
    /// Bytes of its files.
    pub(crate) size: u64,
}

impl Image {
    /// As it is shown to a client.
    pub(crate) fn info(&self) -> ImageInfo {
        ImageInfo {
            id: self.id.clone(),
            names: self.names.clone(),
            created_at: self.created_at,
            size: self.size,
            layers: self.layers.clone(),
        }
    }
}

/// Defaults for the containers of an image; the part `config` of an OCI image configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ImageConfig {
    /// `K=V` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) env: Vec<String>,
    /// Arguments, or the program with its arguments if there is no entrypoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) cmd: Vec<String>,
    /// The program with its first arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) entrypoint: Vec<String>,
    /// Working directory; empty is the root.
    #[serde(rename = "WorkingDir", skip_serializing_if = "String::is_empty")]
    pub(crate) workdir: String,
    /// `user[:group]`; empty is root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) user: String,
    /// Name or number of a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop_signal: Option<String>,
    /// For people and tools.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// An OCI image configuration, whose digest is the id of the image. There is no time in it: the same archive is the
/// same image, however often it is imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Configuration {
    architecture: String,
    os: String,
    #[serde(default)]
    pub(super) config: ImageConfig,
    pub(super) rootfs: RootFs,
}

/// The layers of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    /// Bottom first.
    pub(super) diff_ids: Vec<Digest>,
}

impl Configuration {
    /// Of an imported root file system.
    pub(super) fn of_import(layer: Digest) -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            config: ImageConfig::default(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![layer] },
        }
    }
}

/// The digest of some bytes.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}
