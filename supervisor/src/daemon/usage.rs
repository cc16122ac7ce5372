//! What uses the disk: layers, containers, volumes, each file looked at. On threads that may wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use mysup_ipc::{
    container::ContainerInfo,
    error::WireError,
    id::Digest,
    storage::{ContainerUsage, DiskUsage, ImageUsage, VolumeInfo},
};

use super::{
    operations::Operations,
    storage_requests::{blocking, list},
};
use crate::volumes::usage;

/// Looks at everything.
///
/// # Errors
/// If a directory of ours cannot be read.
pub(super) async fn collect(operations: &Operations) -> Result<DiskUsage, WireError> {
    let containers = operations.registry.list().await?;
    let volumes = list(operations).await?;
    let images = operations.images.look(|store| Ok(store.homes())).await?;
    blocking(operations, move |_| Ok(measure(&images, containers, volumes))).await
}

/// An image, and its layers with their directories.
type Home = (mysup_ipc::api::ImageInfo, Vec<(Digest, std::path::PathBuf)>);

fn measure(images: &[Home], containers: Vec<ContainerInfo>, volumes: Vec<VolumeInfo>) -> DiskUsage {
    let mut layers: BTreeMap<&Digest, (u64, u32)> = BTreeMap::new();
    for (chain, directory) in images.iter().flat_map(|(_, layers)| layers) {
        let known = layers.entry(chain).or_insert_with(|| (bytes(directory), 0));
        known.1 += 1;
    }
    let of = |chain: &Digest| layers.get(chain).copied().unwrap_or_default();
    let mut in_use = BTreeSet::new();
    let mut shown = Vec::new();
    for (info, own) in images {
        let users = containers.iter().filter(|container| container.image.as_ref() == Some(&info.id)).count();
        if users > 0 {
            in_use.extend(own.iter().map(|(chain, _)| chain));
        }
        let shared = own.iter().map(|(chain, _)| of(chain)).filter(|(_, images)| *images > 1);
        shown.push(ImageUsage {
            info: info.clone(),
            size: own.iter().map(|(chain, _)| of(chain).0).sum(),
            shared: shared.map(|(bytes, _)| bytes).sum(),
            containers: u32::try_from(users).unwrap_or(u32::MAX),
        });
    }
    DiskUsage {
        layers: layers.values().map(|(bytes, _)| bytes).sum(),
        layers_in_use: in_use.into_iter().map(|chain| of(chain).0).sum(),
        images: shown,
        containers: containers
            .into_iter()
            .map(|container| ContainerUsage {
                size: bytes(Path::new(&container.state_dir)),
                id: container.id,
            })
            .collect(),
        volumes: volumes
            .into_iter()
            .map(|volume| VolumeInfo { size: Some(bytes(Path::new(&volume.mountpoint))), ..volume })
            .collect(),
    }
}

/// What cannot be looked at, or is gone meanwhile, counts as nothing.
fn bytes(directory: &Path) -> u64 {
    usage(directory).unwrap_or(0)
}
