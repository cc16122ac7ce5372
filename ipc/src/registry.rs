//! A client and `mysup-registry`, which speaks with registries for it, over the socket that is that program's standard
//! input. When either end is gone, so is the other's reason to go on.
//!
//! | client | mysup-registry | means |
//! |---|---|---|
//! | `Pull` + file | | fetch an image into the empty file, as an OCI archive |
//! | | `Layers` | what it is made of |
//! | `Present` | | which of that need not be fetched |
//! | | `Progress`... | |
//! | | `Pulled` or `Failed` | the last word |
//! | `Bring` | | bring a manifest to a registry that has all that it names |
//! | | `Lacking`, `Pushed` or `Failed` | |
//! | `Push` + file | | bring the one image of an OCI archive to a registry |
//! | | `Progress`... `Pushed` or `Failed` | |
//! | `Login`, `Logout` | | |
//! | | `Done` or `Failed` | |

use serde::{Deserialize, Serialize};

use crate::{id::Digest, progress::Progress};

crate::growing::growing!(PullOrder, PushOrder, Pulled, Trust);

/// To `mysup-registry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToRegistry {
    /// Fetch an image.
    Pull(PullOrder),
    /// So many of the layers, from the bottom, are there.
    Present(u32),
    /// Bring an image.
    Push(PushOrder),
    /// Try credentials and keep them.
    Login {
        /// Host and port; empty is docker's.
        server: String,
        /// Who.
        user: String,
        /// Password or token.
        secret: String,
        /// Whom to believe.
        trust: Trust,
    },
    /// Forget the credentials of a registry.
    Logout {
        /// Host and port; empty is docker's.
        server: String,
    },
    /// Bring a manifest, if what it names is there.
    Bring {
        /// Where to.
        order: PushOrder,
        /// A JSON text.
        manifest: String,
    },
    /// What a newer peer said and this version does not know. Never sent; new variants go before it.
    #[serde(skip)]
    Unknown,
}

/// From `mysup-registry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromRegistry {
    /// Digests of the uncompressed layers of the image, bottom first.
    Layers(Vec<Digest>),
    /// How far it is.
    Progress(Progress),
    /// The image is in the file.
    Pulled(Pulled),
    /// The registry has the image: the whole name, the manifest's digest and its bytes.
    Pushed {
        /// With the registry.
        name: String,
        /// Of the manifest.
        digest: Digest,
        /// Bytes of the manifest.
        size: u64,
    },
    /// It was done; one line for the user.
    Done(String),
    /// It was not; one line for the user.
    Failed(String),
    /// It has not all that the manifest names.
    Lacking,
    /// What a newer peer said and this version does not know. Never sent; new variants go before it.
    #[serde(skip)]
    Unknown,
}

/// What is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct PullOrder {
    /// `NAME[:TAG][@DIGEST]`, as typed.
    pub reference: String,
    /// `OS/ARCH[/VARIANT]`; this machine's if none.
    pub platform: Option<String>,
    /// Whom to believe.
    pub trust: Trust,
}

/// What is to be brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct PushOrder {
    /// `NAME[:TAG]`, as typed.
    pub reference: String,
    /// Other names of the image: repositories of the same registry that may have its layers.
    pub others: Vec<String>,
    /// Whom to believe.
    pub trust: Trust,
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Pulled {
    /// `NAME:TAG` or `NAME@DIGEST` with the registry.
    pub name: String,
    /// `NAME:TAG`, if it was not asked for by digest.
    pub tag: Option<String>,
    /// Digest of what the name leads to: a manifest, or an index of several.
    pub digest: Digest,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Digest of the configuration.
    pub image: Digest,
}

/// Whom to believe that he is the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Trust {
    /// A directory with the certificates (`*.crt`) of who vouches for this registry, beside the system's.
    pub certificates: Option<String>,
    /// Take any certificate, and plain HTTP.
    pub anybody: bool,
}
