//! An image comes from a registry: its manifest, its configuration, and of its layers those that are not here.

use std::{fs::File, os::unix::fs::FileExt};

use futures_util::{StreamExt, TryStreamExt, stream};
use mysup_ipc::{
    id::Digest,
    progress::ProgressStep,
    registry::{FromRegistry, PullOrder, Pulled, ToRegistry},
};
use oci_client::Reference;
use serde_json::json;

use super::{
    archive::Archive,
    download,
    error::Error,
    manifest::{self, ACCEPTED, Configuration, DOCUMENT, Descriptor, Document, Manifest, Platform},
    peer::{Peer, Report},
    session::{self, Purpose, Session, within},
};

/// Layers at once, as docker does.
const AT_ONCE: usize = 3;
/// Indexes in indexes.
const DEPTH: usize = 4;

/// Fetches an image into an empty file, as an OCI archive without the layers that the client has.
///
/// # Errors
/// If there is no such image, it is not what it should be, or the registry cannot be reached.
pub(super) async fn pull(peer: &mut Peer, order: &PullOrder, file: File) -> Result<Pulled, Error> {
    let reference = session::reference(&order.reference)?;
    let wanted = Platform::wanted(order.platform.as_deref())
        .map_err(|reason| Error::Name { name: order.platform.clone().unwrap_or_default(), reason })?;
    let watched = peer.clone();
    let begun = async {
        let session = Session::open(reference, &order.trust, Purpose::Pull).await?;
        let found = find(&session, &wanted).await?;
        let mut report = Report::silent(&watched);
        let configuration = download::small(&session, &found.manifest.config, &mut report).await?;
        Ok((session, found, configuration))
    };
    let (session, found, text) = watched.unless_gone(begun).await?;
    let odd = |subject: &Digest, reason: String| Error::Document {
        host: session.host().to_owned(),
        subject: subject.to_string(),
        reason,
    };
    let image = &found.manifest.config.digest;
    let configuration: Configuration =
        serde_json::from_slice(&text).map_err(|error| odd(image, error.to_string()))?;
    if order.platform.is_some() && !configuration.is_for(&wanted) {
        return Err(Error::Platform {
            name: session.image.whole(),
            wanted: wanted.to_string(),
            found: configuration.platform().to_string(),
        });
    }
    if configuration.rootfs.diff_ids.len() != found.manifest.layers.len() {
        return Err(odd(image, "it has another number of layers than its manifest".to_owned()));
    }
    peer.send(&FromRegistry::Layers(configuration.rootfs.diff_ids))?;
    let ToRegistry::Present(present) = peer.order()? else { return Err(Error::Order) };
    let mut archive = Archive::new(file);
    let written = |source| Error::File { action: "write", path: "what was fetched".to_owned(), source };
    archive.file("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}").map_err(written)?;
    archive.file("index.json", index(&found).to_string().as_bytes()).map_err(written)?;
    archive.blob(&found.digest, &found.text).map_err(written)?;
    archive.blob(image, &text).map_err(written)?;
    let present = usize::try_from(present).unwrap_or(usize::MAX);
    watched.unless_gone(layers(&session, &found.manifest, present, &mut archive, peer)).await?;
    archive.finish().map_err(written)?;
    Ok(pulled(&session.image, found))
}

/// A manifest, and where it was found.
struct Found {
    /// Digest of what the name leads to.
    top: Digest,
    /// Digest of the manifest.
    digest: Digest,
    text: Vec<u8>,
    manifest: Manifest,
}

/// From the name to the manifest for a machine.
async fn find(session: &Session, wanted: &Platform) -> Result<Found, Error> {
    let (mut text, top) = fetch(session, &session.image).await?;
    let mut digest = top.clone();
    for _ in 0..=DEPTH {
        let odd = |reason: String| Error::Document {
            host: session.host().to_owned(),
            subject: digest.to_string(),
            reason,
        };
        match Document::parse(&text).map_err(odd)? {
            Document::Manifest(manifest) => return Ok(Found { top, digest, text, manifest }),
            Document::Index(all) => {
                let Some(chosen) = wanted.choose(&all) else {
                    return Err(Error::Platform {
                        name: session.image.whole(),
                        wanted: wanted.to_string(),
                        found: manifest::platforms(&all),
                    });
                };
                let below = session.image.clone_with_digest(chosen.digest.to_string());
                (text, digest) = fetch(session, &below).await?;
            }
        }
    }
    let reason = "it is an index deep in other indexes".to_owned();
    Err(Error::Document { host: session.host().to_owned(), subject: top.to_string(), reason })
}

/// A manifest or index. What a digest was asked for has it.
async fn fetch(session: &Session, reference: &Reference) -> Result<(Vec<u8>, Digest), Error> {
    let fetched = session.client.pull_manifest_raw(reference, &session.auth, &ACCEPTED);
    let (text, _) = within(session.host(), fetched).await?.map_err(|error| session.fault(error))?;
    let found = manifest::digest_of(&text);
    if let Some(pinned) = reference.digest() {
        let expected: Digest = pinned.parse().map_err(|_| Error::Name {
            name: reference.whole(),
            reason: "only sha256 digests are taken".to_owned(),
        })?;
        if found != expected {
            return Err(Error::Digest { host: session.host().to_owned(), expected, found });
        }
    }
    if text.len() as u64 > DOCUMENT {
        let reason = format!("it is longer than {DOCUMENT} bytes");
        return Err(Error::Document { host: session.host().to_owned(), subject: found.to_string(), reason });
    }
    Ok((text.to_vec(), found))
}

/// Fetches the layers above those that are present, several at once; one that is there twice, once.
async fn layers(
    session: &Session,
    manifest: &Manifest,
    present: usize,
    archive: &mut Archive,
    peer: &Peer,
) -> Result<(), Error> {
    let written = |source| Error::File { action: "write", path: "what was fetched".to_owned(), source };
    let mut jobs: Vec<(&Descriptor, u64)> = Vec::new();
    for (at, layer) in manifest.layers.iter().enumerate() {
        if at < present {
            Report::new(peer, layer.digest.short(), layer.size).tell(ProgressStep::Present, layer.size)?;
        } else if !jobs.iter().any(|(job, _)| job.digest == layer.digest) {
            jobs.push((layer, archive.keep(&layer.digest, layer.size).map_err(written)?));
        }
    }
    let file = archive.writer();
    let work = jobs.into_iter().map(|(layer, place)| async move {
        let mut report = Report::new(peer, layer.digest.short(), layer.size);
        let mut take = |offset: u64, bytes: &[u8]| file.write_all_at(bytes, place + offset);
        download::blob(session, layer, &mut report, &mut take).await
    });
    stream::iter(work).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
}

fn index(found: &Found) -> serde_json::Value {
    json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": found.manifest.media_type,
            "digest": found.digest.as_str(),
            "size": found.text.len(),
        }],
    })
}

fn pulled(image: &Reference, found: Found) -> Pulled {
    let repository = format!("{}/{}", image.registry(), image.repository());
    let tag = match image.digest() {
        None => Some(format!("{repository}:{}", image.tag().unwrap_or("latest"))),
        Some(_) => None,
    };
    Pulled {
        name: tag.clone().unwrap_or_else(|| format!("{repository}@{}", found.top)),
        tag,
        digest: found.top,
        manifest: found.digest,
        image: found.manifest.config.digest,
    }
}
