//! Requests about volumes and about what uses the disk, and the answers: what `Request::Storage` and
//! `Response::StorageAnswer` carry.

use serde::{Deserialize, Serialize};

use crate::{
    api::ImageInfo,
    id::{ContainerId, VolumeName},
};

crate::growing::growing!(VolumeInfo, VolumeUser, DiskUsage, ImageUsage, ContainerUsage);

/// To the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageRequest {
    /// Make a volume; one that is there stays as it is. → `Volumes` with one element
    CreateVolume {
        /// One is made up when absent.
        name: Option<String>,
        /// In order.
        labels: Vec<(String, String)>,
    },
    /// All volumes, by name. → `Volumes`
    ListVolumes,
    /// One volume. → `Volumes` with one element
    InspectVolume {
        /// Its name.
        volume: String,
    },
    /// Remove a volume that no container has. → `Response::Done`
    RemoveVolume {
        /// Its name.
        volume: String,
    },
    /// Remove these volumes, as far as no container has them. → `Pruned`
    PruneVolumes {
        /// Their names: what the user was shown.
        volumes: Vec<String>,
    },
    /// What uses the disk. Takes as long as it takes to look at every file. → `DiskUsage`
    DiskUsage,
}

/// From the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageResponse {
    /// Volumes.
    Volumes(Vec<VolumeInfo>),
    /// The names of those that are gone, and the bytes of disk that they had.
    Pruned(Vec<String>, u64),
    /// What uses the disk.
    DiskUsage(Box<DiskUsage>),
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct VolumeInfo {
    /// Its name.
    pub name: VolumeName,
    /// When it was made, nanoseconds since 1970.
    pub created_at: u64,
    /// In order.
    pub labels: Vec<(String, String)>,
    /// It was made for a container, without a name.
    pub anonymous: bool,
    /// Where its files are, absolute.
    pub mountpoint: String,
    /// Containers that have it.
    pub users: Vec<VolumeUser>,
    /// What is wrong with its record; such a volume is never removed by `prune`.
    pub damage: Option<String>,
    /// Bytes of disk; only in `DiskUsage`.
    pub size: Option<u64>,
}

/// A container that has a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct VolumeUser {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
}

/// What uses the disk. Bytes are those of disk blocks; a file with several names counts once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct DiskUsage {
    /// All layers, each once.
    pub layers: u64,
    /// The layers of images that containers are made from, each once.
    pub layers_in_use: u64,
    /// Images, newest first.
    pub images: Vec<ImageUsage>,
    /// Containers.
    pub containers: Vec<ContainerUsage>,
    /// Volumes, by name.
    pub volumes: Vec<VolumeInfo>,
}

/// What one image uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ImageUsage {
    /// The image.
    pub info: ImageInfo,
    /// Bytes of its layers.
    pub size: u64,
    /// Bytes of those of them that other images have, too.
    pub shared: u64,
    /// Containers that are made from it.
    pub containers: u32,
}

/// What one container uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ContainerUsage {
    /// Its id.
    pub id: ContainerId,
    /// Bytes of its write layer, log and records.
    pub size: u64,
}
