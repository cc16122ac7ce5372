//! The requests about volumes and about the disk.

use mysup_ipc::{
    api::Response,
    error::{ErrorCode, WireError},
    id::VolumeName,
    storage::{StorageRequest, StorageResponse, VolumeInfo},
};

use super::{api::finished, operations::Operations, usage};
use crate::{
    config::text,
    error::system_failure,
    registry::{Staying, VolumeUsers},
    sys,
    volumes::{Draft, Leaving, Store, Volume},
};

/// The answer.
///
/// # Errors
/// As the store, and if a volume that is to be removed is in use.
pub(super) async fn answer(operations: &Operations, request: StorageRequest) -> Result<Response, WireError> {
    let operations = operations.clone();
    let response = match request {
        StorageRequest::CreateVolume { name, labels } => {
            let anonymous = name.is_none();
            let draft = Draft { name: named(name)?, labels, anonymous, made_for: None, ephemeral: false };
            let made = finished(async move { create(&operations, draft).await }).await?;
            StorageResponse::Volumes(vec![made])
        }
        StorageRequest::ListVolumes => StorageResponse::Volumes(list(&operations).await?),
        StorageRequest::InspectVolume { volume } => {
            StorageResponse::Volumes(vec![inspect(&operations, volume).await?])
        }
        StorageRequest::RemoveVolume { volume } => {
            finished(async move { remove(&operations, volume).await }).await?;
            return Ok(Response::Done);
        }
        StorageRequest::PruneVolumes { volumes } => {
            let (gone, bytes) = finished(async move { prune(&operations, volumes).await }).await?;
            StorageResponse::Pruned(gone, bytes)
        }
        StorageRequest::DiskUsage => StorageResponse::DiskUsage(Box::new(usage::collect(&operations).await?)),
    };
    Ok(Response::StorageAnswer(response))
}

fn named(name: Option<String>) -> Result<VolumeName, WireError> {
    match name {
        Some(name) => name
            .parse()
            .map_err(|error: mysup_ipc::id::IdError| WireError::new(ErrorCode::Invalid, error.to_string())),
        None => sys::random_bytes()
            .map(VolumeName::from_random)
            .map_err(|error| system_failure("getrandom", &error)),
    }
}

async fn create(operations: &Operations, draft: Draft) -> Result<VolumeInfo, WireError> {
    let name = draft.name.to_string();
    blocking(operations, move |store| store.make(&draft)).await?;
    inspect(operations, name).await
}

/// All volumes.
pub(super) async fn list(operations: &Operations) -> Result<Vec<VolumeInfo>, WireError> {
    let volumes = blocking(operations, Store::list).await?;
    let users = operations.registry.volume_users().await?;
    Ok(volumes.into_iter().map(|volume| info(volume, &users)).collect())
}

async fn inspect(operations: &Operations, volume: String) -> Result<VolumeInfo, WireError> {
    let volume = blocking(operations, move |store| store.find(&volume)).await?;
    Ok(info(volume, &operations.registry.volume_users().await?))
}

fn info(volume: Volume, users: &VolumeUsers) -> VolumeInfo {
    let mountpoint = text(&volume.mountpoint());
    let users = users.of(&volume.name);
    let (created_at, labels, anonymous, damage) = match volume.record {
        Ok(record) => (record.created_at, record.labels, record.anonymous, None),
        Err(reason) => (0, Vec::new(), false, Some(reason)),
    };
    VolumeInfo { name: volume.name, created_at, labels, anonymous, mountpoint, users, damage, size: None }
}

async fn remove(operations: &Operations, volume: String) -> Result<(), WireError> {
    loop {
        let typed = volume.clone();
        let name = blocking(operations, move |store| store.find(&typed)).await?.name;
        let mut asked = operations.registry.leave_volumes(vec![name.clone()]).await?;
        match asked.pop() {
            Some(Ok(leaving)) => {
                return blocking(operations, move |store| store.remove(&leaving)).await.map(drop);
            }
            Some(Err(Staying::Leaving)) => {
                // Somebody else was faster: then there is none of that name, or a new one.
                let wait = move |store: &Store| {
                    store.wait_until_gone(&name);
                    Ok(())
                };
                blocking(operations, wait).await?;
            }
            Some(Err(staying)) => return Err(staying.to_wire(&name)),
            None => return Err(WireError::new(ErrorCode::System, "the registry gave no answer")),
        }
    }
}

/// Those of these volumes that nobody has. One whose record is damaged stays: what it is cannot be known.
async fn prune(operations: &Operations, volumes: Vec<String>) -> Result<(Vec<String>, u64), WireError> {
    let names: Vec<VolumeName> = volumes.iter().filter_map(|name| name.parse().ok()).collect();
    let asked = operations.registry.leave_volumes(names.clone()).await?;
    let mut leaving = Vec::new();
    for (name, asked) in names.iter().zip(asked) {
        match asked {
            Ok(volume) => leaving.push(volume),
            Err(staying @ Staying::Unknown(_)) => return Err(staying.to_wire(name)),
            Err(Staying::Used(_) | Staying::Leaving) => {}
        }
    }
    blocking(operations, move |store| remove_all(store, leaving)).await
}

fn remove_all(store: &Store, leaving: Vec<Leaving>) -> Result<(Vec<String>, u64), WireError> {
    let (mut gone, mut bytes) = (Vec::new(), 0);
    for volume in leaving {
        let Ok(found) = store.find(volume.name().as_str()) else { continue };
        if let Err(reason) = found.record {
            tracing::warn!(volume = %found.name, reason, "a volume with a damaged record is not pruned, continuing");
            continue;
        }
        // What cannot be looked at is not counted.
        let size = crate::volumes::usage(&found.directory).unwrap_or(0);
        match store.remove(&volume) {
            Ok(true) => {
                gone.push(volume.name().to_string());
                bytes += size;
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(volume = %found.name, error = %error.message, "a volume is not pruned, continuing");
            }
        }
    }
    Ok((gone, bytes))
}

/// Removes volumes that were to go with containers that are gone. One that another container has is kept for good.
pub(super) async fn settle(operations: &Operations) {
    if let Err(error) = try_to_settle(operations).await {
        operations.volumes.owe();
        tracing::warn!(error = %error.message, "volumes of ended containers stay for now, continuing");
    }
}

async fn try_to_settle(operations: &Operations) -> Result<(), WireError> {
    let volumes = blocking(operations, Store::ephemeral).await?;
    if volumes.is_empty() {
        return Ok(());
    }
    let names: Vec<VolumeName> = volumes.iter().map(|volume| volume.name.clone()).collect();
    let asked = operations.registry.leave_volumes(names).await?;
    for (volume, asked) in volumes.into_iter().zip(asked) {
        match asked {
            Ok(leaving) => {
                tracing::info!(volume = %volume.name, "its container is gone, removed");
                blocking(operations, move |store| store.remove(&leaving)).await?;
            }
            Err(Staying::Used(users)) => {
                let made_for = volume.record.ok().and_then(|record| record.made_for);
                if !users.iter().any(|user| Some(&user.id) == made_for.as_ref()) {
                    blocking(operations, move |store| store.keep(&volume.name)).await?;
                }
            }
            Err(staying @ Staying::Unknown(_)) => return Err(staying.to_wire(&volume.name)),
            Err(Staying::Leaving) => {}
        }
    }
    Ok(())
}

/// What is done at a start: what was left is tried again, what was broken off is thrown away, what was to go goes.
pub(super) async fn heal(operations: Operations) -> Result<(), WireError> {
    operations.registry.heal().await?;
    let tidied = blocking(&operations, |store| {
        store.tidy().map_err(|error| system_failure("cannot look at volumes", &error))
    });
    tidied.await?;
    settle(&operations).await;
    Ok(())
}

/// Does what may wait for a disk.
pub(super) async fn blocking<T: Send + 'static>(
    operations: &Operations,
    work: impl FnOnce(&Store) -> Result<T, WireError> + Send + 'static,
) -> Result<T, WireError> {
    let store = operations.volumes.clone();
    let job = tokio::task::spawn_blocking(move || work(&store));
    job.await.map_err(|panic| system_failure("cannot go on with volumes", &panic))?
}
