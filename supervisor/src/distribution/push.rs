//! An image goes to a registry: of its blobs those that are not there, then its manifest.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use mysup_ipc::{
    id::Digest,
    progress::ProgressStep,
    registry::{FromRegistry, PushOrder},
};
use oci_client::{Reference, errors::OciDistributionError};

use super::{
    error::Error,
    manifest::{self, DOCUMENT, Descriptor, Document, Manifest},
    peer::{Peer, Report},
    session::{self, Purpose, Session, silence, within},
};

/// Blobs at once; docker's five need more than most lines have.
const AT_ONCE: usize = 3;
/// Tries of one blob.
const TRIES: u32 = 3;
/// Bytes at once.
const PIECE: usize = 64 << 10;
/// How long a registry may think about a blob that it has whole: it hashes it, and may move it.
const THINKING: Duration = Duration::from_secs(300);
/// Repositories that are asked for a blob.
const OTHERS: usize = 3;

/// Where the blobs of an archive are: offset and bytes.
type Members = BTreeMap<String, (u64, u64)>;

/// Brings the one image of an OCI archive to a registry.
///
/// # Errors
/// If the registry refuses it, or cannot be reached.
pub(super) async fn push(peer: &Peer, order: &PushOrder, file: File) -> Result<FromRegistry, Error> {
    let reference = target(order)?;
    let members = members(&file).map_err(unreadable)?;
    let (text, manifest) = only_manifest(&file, &members)?;
    let file = Arc::new(file);
    let work = async {
        let session = Session::open(reference.clone(), &order.trust, Purpose::Push).await?;
        let (others, blobs) = (others(order, &reference), blobs(&manifest));
        let (session, others, members, file, manifest) = (&session, &others, &members, &file, &manifest);
        let jobs = blobs.into_iter().map(|blob| async move {
            let place = members.get(&path(&blob.digest)).copied();
            let is_layer = blob.digest != manifest.config.digest;
            let mut report = match is_layer {
                true => Report::new(peer, blob.digest.short(), blob.size),
                false => Report::silent(peer),
            };
            bring(session, blob, (file, place), others, &mut report).await
        });
        stream::iter(jobs).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        put_manifest(session, &text, manifest).await
    };
    peer.unless_gone(work).await?;
    Ok(pushed(&reference, &text))
}

/// Brings a manifest to a registry that has, or can take from another repository of its own, all that it names: nothing
/// is compressed for that, and the manifest stays what it was.
///
/// # Errors
/// If the registry refuses it, or cannot be reached.
pub(super) async fn again(peer: &Peer, order: &PushOrder, text: &str) -> Result<FromRegistry, Error> {
    let reference = target(order)?;
    let text = text.as_bytes();
    // What cannot be brought as it is can be made anew.
    let Ok(Document::Manifest(manifest)) = Document::parse(text) else { return Ok(FromRegistry::Lacking) };
    let work = async {
        let session = Session::open(reference.clone(), &order.trust, Purpose::Push).await?;
        let others = others(order, &reference);
        for blob in blobs(&manifest) {
            if !is_there(&session, &blob.digest.to_string(), &others).await? {
                return Ok(false);
            }
        }
        for layer in &manifest.layers {
            Report::new(peer, layer.digest.short(), layer.size).tell(ProgressStep::KnownThere, layer.size)?;
        }
        put_manifest(&session, text, &manifest).await.map(|()| true)
    };
    match peer.unless_gone(work).await? {
        true => Ok(pushed(&reference, text)),
        false => Ok(FromRegistry::Lacking),
    }
}

fn target(order: &PushOrder) -> Result<Reference, Error> {
    let reference = session::reference(&order.reference)?;
    match reference.digest() {
        None => Ok(reference),
        Some(_) => {
            let reason = "a digest cannot be chosen: push a NAME[:TAG]".to_owned();
            Err(Error::Name { name: order.reference.clone(), reason })
        }
    }
}

/// Other repositories of the same registry that may have the blobs.
fn others(order: &PushOrder, reference: &Reference) -> Vec<Reference> {
    let mut others: Vec<Reference> = order.others.iter().filter_map(|name| name.parse().ok()).collect();
    others.retain(|other| {
        other.registry() == reference.registry() && other.repository() != reference.repository()
    });
    others.truncate(OTHERS);
    others
}

/// What a manifest names, each once.
fn blobs(manifest: &Manifest) -> Vec<&Descriptor> {
    let mut blobs: Vec<&Descriptor> = manifest.layers.iter().collect();
    blobs.push(&manifest.config);
    blobs.sort_by(|one, other| one.digest.cmp(&other.digest));
    blobs.dedup_by(|one, other| one.digest == other.digest);
    blobs
}

fn pushed(reference: &Reference, text: &[u8]) -> FromRegistry {
    let (registry, repository) = (reference.registry(), reference.repository());
    let name = format!("{registry}/{repository}:{}", reference.tag().unwrap_or("latest"));
    FromRegistry::Pushed { name, digest: manifest::digest_of(text), size: text.len() as u64 }
}

/// Whether the registry has a blob in the repository, maybe since now from another one.
async fn is_there(session: &Session, digest: &str, others: &[Reference]) -> Result<bool, Error> {
    let known = within(session.host(), session.client.blob_exists(&session.image, digest)).await?;
    if known.map_err(|error| session.fault(error))? {
        return Ok(true);
    }
    for other in others {
        // A registry that does not mount, or does not let us, gets the bytes.
        let mounted =
            within(session.host(), session.client.mount_blob(&session.image, other, digest)).await?;
        if mounted.is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn put_manifest(session: &Session, text: &[u8], manifest: &Manifest) -> Result<(), Error> {
    let kind = manifest.media_type.parse().map_err(|_| Error::Order)?;
    let put = session.client.push_manifest_raw(&session.image, text.to_vec(), kind);
    within(session.host(), put).await?.map(drop).map_err(|error| session.fault(error))
}

/// One blob: it is there, it is in another repository there, or it goes.
async fn bring(
    session: &Session,
    blob: &Descriptor,
    (file, place): (&Arc<File>, Option<(u64, u64)>),
    others: &[Reference],
    report: &mut Report,
) -> Result<(), Error> {
    let digest = blob.digest.to_string();
    if is_there(session, &digest, others).await? {
        return report.tell(ProgressStep::KnownThere, blob.size);
    }
    let (offset, size) = place.ok_or_else(|| unreadable(io::ErrorKind::NotFound.into()))?;
    let mut tries = 1;
    loop {
        match upload(session, &digest, (file, offset, size), report).await {
            Err(error) if error.may_pass() && tries < TRIES => tries += 1,
            Err(error) => return Err(error),
            Ok(()) => return report.tell(ProgressStep::Uploaded, blob.size),
        }
    }
}

/// The library says nothing while it sends, so we look whether it takes more bytes from us.
async fn upload(
    session: &Session,
    digest: &str,
    (file, offset, size): (&Arc<File>, u64, u64),
    report: &mut Report,
) -> Result<(), Error> {
    let taken = Arc::new(AtomicU64::new(0));
    let bytes = pieces(Arc::clone(file), offset, size, Arc::clone(&taken));
    let sent = session.client.push_blob_stream(&session.image, bytes, digest, Some(size));
    tokio::pin!(sent);
    let (mut last, mut since) = (0, tokio::time::Instant::now());
    report.tell(ProgressStep::Uploading, 0)?;
    loop {
        tokio::select! {
            biased;
            done = &mut sent => return done.map(drop).map_err(|error| session.fault(error)),
            () = tokio::time::sleep(mysup_ipc::progress::PAUSE) => {}
        }
        let now = taken.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, tokio::time::Instant::now());
            report.tell(ProgressStep::Uploading, now)?;
        }
        let patience = if now == size { THINKING.max(silence()) } else { silence() };
        if since.elapsed() > patience {
            return Err(Error::Silent(session.host().to_owned()));
        }
    }
}

fn pieces(
    file: Arc<File>,
    offset: u64,
    size: u64,
    taken: Arc<AtomicU64>,
) -> impl futures_util::Stream<Item = Result<Bytes, OciDistributionError>> + Send + 'static {
    stream::unfold(0_u64, move |done| {
        let (file, taken) = (Arc::clone(&file), Arc::clone(&taken));
        async move {
            let length = usize::try_from(size - done).unwrap_or(PIECE).min(PIECE);
            if length == 0 {
                return None;
            }
            let mut piece = vec![0; length];
            if let Err(error) = file.read_exact_at(&mut piece, offset + done) {
                return Some((Err(OciDistributionError::IoError(error)), size));
            }
            let done = done + length as u64;
            taken.store(done, Ordering::Relaxed);
            Some((Ok(Bytes::from(piece)), done))
        }
    })
    .boxed()
}

/// The archive comes from our own store: what is wrong with it is a matter of the disk.
fn members(file: &File) -> io::Result<Members> {
    let mut found = Members::new();
    // Whoever wrote it has left its offset at the end.
    io::Seek::rewind(&mut &*file)?;
    for entry in tar::Archive::new(file).entries_with_seek()? {
        let entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        found.insert(name, (entry.raw_file_position(), entry.size()));
    }
    Ok(found)
}

fn only_manifest(file: &File, members: &Members) -> Result<(Vec<u8>, Manifest), Error> {
    let odd = |reason: String| unreadable(io::Error::new(io::ErrorKind::InvalidData, reason));
    let Document::Index(all) = Document::parse(&read(file, members, "index.json")?).map_err(odd)? else {
        return Err(odd("it has no index".to_owned()));
    };
    let first = all.first().ok_or_else(|| odd("it has no image".to_owned()))?;
    let text = read(file, members, &path(&first.digest))?;
    match Document::parse(&text).map_err(odd)? {
        Document::Manifest(manifest) => Ok((text, manifest)),
        Document::Index(_) => Err(odd("it has an index in an index".to_owned())),
    }
}

fn read(file: &File, members: &Members, name: &str) -> Result<Vec<u8>, Error> {
    let (offset, size) = *members.get(name).ok_or_else(|| unreadable(io::ErrorKind::NotFound.into()))?;
    let mut bytes = Vec::new();
    let mut reader = file;
    io::Seek::seek(&mut reader, io::SeekFrom::Start(offset)).map_err(unreadable)?;
    reader.take(size.min(DOCUMENT)).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn unreadable(source: io::Error) -> Error {
    Error::File { action: "read", path: "what is to be pushed".to_owned(), source }
}
