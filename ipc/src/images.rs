//! Requests about images, and the answers: what `Request::Image` and `Response::Image...` carry.

use serde::{Deserialize, Serialize};

use crate::{api::ImageInfo, id::Digest};

crate::growing::growing!(ImageDetails, HistoryLine);

/// To the supervisor. An `image` is what the user typed: name, id, or a unique prefix of an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageRequest {
    /// As `Request::Import`, with changes of the configuration. → `Response::Image`
    Import {
        /// `name[:tag]`.
        name: Option<String>,
        /// Instructions of a Dockerfile.
        changes: Vec<String>,
        /// For the history.
        message: Option<String>,
    },
    /// Load all images of an archive or directory, which rides along. The client's hanging up cancels it. → `Loaded`
    Load,
    /// Write images into a file, a pipe of the client's own, or an empty directory, which rides along. The client's
    /// hanging up cancels it. → `Done`
    Save {
        /// Which.
        images: Vec<String>,
        /// In which form.
        format: ArchiveFormat,
        /// How compressed: the whole of docker's archive, the layers of OCI's.
        compression: ArchiveCompression,
    },
    /// Give an image one more name. → `Done`
    Tag {
        /// Which.
        image: String,
        /// `name[:tag]`.
        name: String,
    },
    /// All images, newest first. → `Images`
    List,
    /// One image. → `Images` with one element, with `configuration` and `directories`
    Inspect {
        /// Which.
        image: String,
    },
    /// How an image was made, newest first. → `History`
    History {
        /// Which.
        image: String,
    },
    /// Remove images that no container uses. → `Pruned`
    Prune {
        /// Also those with a name.
        all: bool,
    },
    /// Verify images; all if none is named. The client's hanging up cancels it. → `Verified`
    Verify {
        /// Which.
        images: Vec<String>,
    },
    /// Load the one image of an OCI archive that was fetched from a registry, in a file that rides along, and give it
    /// names. Layers that the store has may be missing in it. The client's hanging up cancels it. → `Loaded`
    Receive {
        /// `name:tag`, or `name@digest` if that was asked for.
        names: Vec<String>,
    },
    /// A manifest of an image, with which it came or went out. → `Manifest`
    Manifest {
        /// Which.
        image: String,
    },
}

/// From the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageResponse {
    /// The images that came in, each with the names that it was given now.
    Loaded(Vec<(Digest, Vec<String>)>),
    /// Images.
    Images(Vec<ImageDetails>),
    /// How one was made.
    History(Vec<HistoryLine>),
    /// docker's lines, and the bytes that are free now.
    Pruned(Vec<String>, u64),
    /// Each image that was verified, and what is wrong with it, one line each; nothing if it is whole.
    Verified(Vec<(ImageInfo, Vec<String>)>),
    /// A JSON text, if one is known.
    Manifest(Option<String>),
}

/// The form of an archive of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArchiveFormat {
    /// docker's, with `manifest.json`.
    Docker,
    /// An OCI layout in a tar.
    Oci,
    /// An OCI layout as a directory.
    OciDirectory,
}

/// A compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArchiveCompression {
    /// Plain.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// One image of the store, and more about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ImageDetails {
    /// The image.
    pub info: ImageInfo,
    /// Labels of its configuration.
    pub labels: Vec<(String, String)>,
    /// Digest of the manifest it came with.
    pub manifest: Option<Digest>,
    /// Its OCI configuration as it came, a JSON text; empty in lists.
    pub configuration: String,
    /// Directories of its layers, top first; none in lists.
    pub directories: Vec<String>,
}

/// A step in which an image was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct HistoryLine {
    /// RFC 3339.
    pub created: Option<String>,
    /// What made it.
    pub created_by: String,
    /// What somebody said about it.
    pub comment: String,
    /// Bytes of files.
    pub size: u64,
}
