//! The requests about images: each is one call of the store.

use std::{collections::VecDeque, os::fd::OwnedFd};

use mysup_ipc::{
    api::Response,
    error::{ErrorCode, WireError},
    images::{ArchiveCompression, ArchiveFormat, HistoryLine, ImageDetails, ImageRequest, ImageResponse},
};

use super::{api::finished, operations::Operations};
use crate::{
    images::{Audience, Cancel, Change, Compression, Details, Format, Image, Store},
    shim_link::spawn::is_socket,
};

/// The answer.
///
/// # Errors
/// As the store.
pub(super) async fn answer(
    operations: &Operations,
    request: ImageRequest,
    mut descriptors: VecDeque<OwnedFd>,
) -> Result<Response, WireError> {
    let descriptor = descriptors.pop_front();
    // Behind what it is about a client may send a socket on which it wants to be told.
    let audience = Audience::new(descriptors.pop_front().filter(is_socket));
    let images = &operations.images;
    let missing = || WireError::new(ErrorCode::Invalid, "the archive's descriptor is missing");
    let response = match request {
        ImageRequest::Import { name, changes, message } => {
            let archive = descriptor.ok_or_else(missing)?;
            let change = Change::new(&changes, message);
            return images.import(archive, name, change, audience).await.map(Response::Image);
        }
        ImageRequest::Load => {
            let source = descriptor.ok_or_else(missing)?;
            let loaded =
                images.work(move |store, cancel| store.telling(audience).load(source, cancel)).await?;
            ImageResponse::Loaded(loaded.into_iter().map(|loaded| (loaded.image.id, loaded.names)).collect())
        }
        ImageRequest::Save { images: names, format, compression } => {
            let target = descriptor.ok_or_else(missing)?;
            let form = (form(format), compressed(compression));
            let save = move |store: &Store, cancel: &Cancel| {
                store.telling(audience).save(target, &names, form, cancel)
            };
            images.work(save).await?;
            return Ok(Response::Done);
        }
        ImageRequest::Tag { image, name } => {
            let images = images.clone();
            finished(async move { images.look(move |store| store.tag(&image, &name)).await }).await?;
            return Ok(Response::Done);
        }
        ImageRequest::List => {
            let all = images.look(|store| Ok(store.list_all())).await?;
            ImageResponse::Images(all.into_iter().map(|(image, manifest)| listed(image, manifest)).collect())
        }
        ImageRequest::Inspect { image } => {
            ImageResponse::Images(vec![detailed(images.look(move |store| store.details(&image)).await?)])
        }
        ImageRequest::Manifest { image } => {
            let details = images.look(move |store| store.details(&image)).await?;
            ImageResponse::Manifest(details.manifest_text)
        }
        ImageRequest::History { image } => {
            let lines = images.look(move |store| store.history(&image)).await?;
            ImageResponse::History(lines.into_iter().map(history_line).collect())
        }
        ImageRequest::Prune { all } => {
            let operations = operations.clone();
            let pruned =
                finished(async move { operations.images.prune(all, &operations.registry).await }).await?;
            ImageResponse::Pruned(pruned.lines, pruned.reclaimed)
        }
        ImageRequest::Verify { images: names } => {
            let verdicts = images.work(move |store, cancel| store.verify(&names, cancel)).await?;
            let verdicts = verdicts.into_iter().map(|verdict| (verdict.image.info(), verdict.faults));
            ImageResponse::Verified(verdicts.collect())
        }
        ImageRequest::Receive { names } => {
            let source = descriptor.ok_or_else(missing)?;
            let receive =
                move |store: &Store, cancel: &Cancel| store.telling(audience).receive(source, &names, cancel);
            let loaded = images.work(receive).await?;
            ImageResponse::Loaded(vec![(loaded.image.id, loaded.names)])
        }
    };
    Ok(Response::ImageAnswer(response))
}

fn form(format: ArchiveFormat) -> Format {
    match format {
        ArchiveFormat::Docker => Format::DockerArchive,
        ArchiveFormat::Oci => Format::OciArchive,
        ArchiveFormat::OciDirectory => Format::OciDirectory,
    }
}

fn compressed(compression: ArchiveCompression) -> Compression {
    match compression {
        ArchiveCompression::None => Compression::None,
        ArchiveCompression::Gzip => Compression::Gzip,
        ArchiveCompression::Zstd => Compression::Zstd,
    }
}

fn listed(image: Image, manifest: Option<mysup_ipc::id::Digest>) -> ImageDetails {
    ImageDetails {
        info: image.info(),
        labels: image.config.labels.into_iter().collect(),
        manifest,
        configuration: String::new(),
        directories: Vec::new(),
    }
}

fn detailed(details: Details) -> ImageDetails {
    let Details { image, manifest, configuration, directories, .. } = details;
    ImageDetails { configuration, directories, ..listed(image, manifest) }
}

fn history_line(line: crate::images::HistoryLine) -> HistoryLine {
    let crate::images::HistoryLine { created, created_by, comment, size } = line;
    HistoryLine { created, created_by, comment, size }
}
