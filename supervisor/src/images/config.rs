//! What an image is besides its files. All of it is data of a stranger: defaults for a container, never policy.

use std::collections::BTreeMap;

use mysup_ipc::{api::ImageInfo, id::Digest};
use oci_spec::image::ImageConfiguration;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::chain::chain_ids;

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
    /// When it was made, or came into the store, nanoseconds since 1970.
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

    /// The names of its layers in the store, bottom first.
    pub(crate) fn chains(&self) -> Vec<Digest> {
        chain_ids(&self.layers)
    }
}

/// Defaults for the containers of an image; of the part `config` of an OCI image configuration what is used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ImageConfig {
    /// `K=V` each.
    pub(crate) env: Vec<String>,
    /// Arguments, or the program with its arguments if there is no entrypoint.
    pub(crate) cmd: Vec<String>,
    /// The program with its first arguments.
    pub(crate) entrypoint: Vec<String>,
    /// Working directory; empty is the root.
    pub(crate) workdir: String,
    /// `user[:group]`; empty is root.
    pub(crate) user: String,
    /// Where it wants volumes.
    pub(crate) volumes: Vec<String>,
    /// Name or number of a signal.
    pub(crate) stop_signal: Option<String>,
    /// For people and tools.
    pub(crate) labels: BTreeMap<String, String>,
}

/// Why a text is no configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigFault {
    /// No JSON, or another form.
    #[error("{0}")]
    Form(#[from] serde_json::Error),
    /// A layer without a digest.
    #[error("\"{0}\" is no digest of a layer")]
    Digest(String),
    /// Not what a root file system is made from.
    #[error("its rootfs is of the type \"{0}\", and layers are expected")]
    RootFs(String),
}

/// What is used of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) config: ImageConfig,
    /// Bottom first.
    pub(super) diff_ids: Vec<Digest>,
    /// Operating system, in Go's words.
    pub(super) os: String,
    /// RFC 3339.
    pub(super) created: Option<String>,
}

impl Configuration {
    /// Reads one. What is not known in it is passed over, and kept where it is.
    ///
    /// # Errors
    /// If it is none.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigFault> {
        let parsed: ImageConfiguration = serde_json::from_str(text)?;
        if parsed.rootfs().typ() != "layers" {
            return Err(ConfigFault::RootFs(parsed.rootfs().typ().clone()));
        }
        let digest =
            |text: &String| text.parse::<Digest>().map_err(|_fault| ConfigFault::Digest(text.clone()));
        let diff_ids = parsed.rootfs().diff_ids().iter().map(digest).collect::<Result<_, _>>()?;
        let config = parsed.config().as_ref();
        let list = |of: fn(&oci_spec::image::Config) -> &Option<Vec<String>>| {
            config.and_then(|config| of(config).clone()).unwrap_or_default()
        };
        let word = |of: fn(&oci_spec::image::Config) -> &Option<String>| {
            config.and_then(|config| of(config).clone()).filter(|word| !word.is_empty())
        };
        let labels = config.and_then(|config| config.labels().clone()).unwrap_or_default();
        Ok(Self {
            config: ImageConfig {
                env: list(|config| config.env()),
                cmd: list(|config| config.cmd()),
                entrypoint: list(|config| config.entrypoint()),
                workdir: word(|config| config.working_dir()).unwrap_or_default(),
                user: word(|config| config.user()).unwrap_or_default(),
                volumes: list(|config| config.volumes()),
                stop_signal: word(|config| config.stop_signal()),
                labels: labels.into_iter().collect(),
            },
            diff_ids,
            os: parsed.os().to_string(),
            created: parsed.created().clone(),
        })
    }
}

/// The configuration of an imported root file system, whose digest is the id of the image. There is no time in it: the
/// same archive is the same image, however often it is imported.
#[derive(Debug, Serialize)]
struct Imported<'i> {
    architecture: &'i str,
    os: &'i str,
    config: BTreeMap<(), ()>,
    rootfs: ImportedRootFs<'i>,
}

#[derive(Debug, Serialize)]
struct ImportedRootFs<'i> {
    #[serde(rename = "type")]
    kind: &'i str,
    diff_ids: [&'i Digest; 1],
}

/// The text of such a configuration.
pub(super) fn of_import(layer: &Digest) -> String {
    let imported = Imported {
        architecture: architecture(),
        os: "linux",
        config: BTreeMap::new(),
        rootfs: ImportedRootFs { kind: "layers", diff_ids: [layer] },
    };
    serde_json::to_string(&imported).expect("a struct of strings has a JSON form")
}

/// This machine's, in Go's words.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The digest of some bytes.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}
