//! Samples of what is said about volumes and the disk.

use mysup_ipc::{
    plan::VolumeMount,
    storage::{
        ContainerUsage, DiskUsage, ImageUsage, StorageRequest, StorageResponse, VolumeInfo, VolumeUser,
    },
};

use crate::samples::{id, image, text, texts};

/// A volume in a container.
pub(crate) fn volume_mount() -> VolumeMount {
    VolumeMount {
        name: text("data"),
        anonymous: true,
        no_copy: true,
        ephemeral: true,
        directory: text("/var/lib/mysup/volumes/data"),
    }
}

/// One of each.
pub(crate) fn requests() -> impl Iterator<Item = StorageRequest> {
    [
        StorageRequest::CreateVolume { name: Some(text("data")), labels: vec![(text("k"), text("v"))] },
        StorageRequest::ListVolumes,
        StorageRequest::InspectVolume { volume: text("data") },
        StorageRequest::RemoveVolume { volume: text("data") },
        StorageRequest::PruneVolumes { volumes: texts(&["data", "more"]) },
        StorageRequest::DiskUsage,
    ]
    .into_iter()
}

/// One of each.
pub(crate) fn responses() -> impl Iterator<Item = StorageResponse> {
    let usage = DiskUsage {
        layers: 91,
        layers_in_use: 92,
        images: vec![ImageUsage { info: image(), size: 93, shared: 94, containers: 95 }],
        containers: vec![ContainerUsage { id: id(), size: 96 }],
        volumes: vec![volume()],
    };
    [
        StorageResponse::Volumes(vec![volume()]),
        StorageResponse::Pruned(texts(&["data"]), 97),
        StorageResponse::DiskUsage(Box::new(usage)),
    ]
    .into_iter()
}

fn volume() -> VolumeInfo {
    VolumeInfo {
        name: "data".parse().expect("a name"),
        created_at: 98,
        labels: vec![(text("k"), text("v"))],
        anonymous: true,
        mountpoint: text("/var/lib/mysup/volumes/data/_data"),
        users: vec![VolumeUser { id: id(), name: text("one") }],
        damage: Some(text("why")),
        size: Some(99),
    }
}
