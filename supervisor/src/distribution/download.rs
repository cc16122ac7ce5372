//! A blob comes from a registry, whole and with its digest, however often the connection breaks.

use std::{io, time::Duration};

use futures_util::StreamExt;
use mysup_ipc::{id::Digest, progress::ProgressStep};
use oci_client::client::{BlobResponse, LayerDescriptor, SizedStream};
use sha2::{Digest as _, Sha256};

use super::{
    error::{Error, causes, explain},
    manifest::Descriptor,
    peer::Report,
    session::{Session, within},
};

/// Tries one after the other that brought nothing.
const TRIES: u32 = 4;
/// Before the first other one; twice as long before each that follows.
const PAUSE: Duration = Duration::from_millis(200);

/// What has come of a blob.
struct Progress {
    done: u64,
    hasher: Sha256,
}

/// Fetches a blob and gives its bytes to `take`, each with its offset. After a connection that broke it goes on from
/// there; where the registry cannot do that, it begins anew.
///
/// # Errors
/// If the registry refuses, has something else, or is out of reach again and again. What was given to `take` is of no use
/// then.
pub(super) async fn blob(
    session: &Session,
    blob: &Descriptor,
    report: &mut Report,
    take: &mut impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), Error> {
    let mut progress = Progress { done: 0, hasher: Sha256::new() };
    let (mut tries, mut pause) = (0, PAUSE);
    report.tell(ProgressStep::Downloading, 0)?;
    loop {
        let before = progress.done;
        let error = match attempt(session, blob, &mut progress, report, take).await {
            Ok(()) => break,
            Err(error) => error,
        };
        if progress.done > before {
            (tries, pause) = (0, PAUSE);
        }
        tries += 1;
        if !error.may_pass() || tries >= TRIES {
            return Err(error);
        }
        report.tell(ProgressStep::Resuming, progress.done)?;
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    let found = Digest::from_sha256(progress.hasher.finalize().into());
    if found != blob.digest {
        return Err(corrupt(session, blob, found));
    }
    report.tell(ProgressStep::Downloaded, blob.size)
}

/// The bytes of a small blob.
///
/// # Errors
/// As [`blob`].
pub(super) async fn small(
    session: &Session,
    descriptor: &Descriptor,
    report: &mut Report,
) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut take = |offset: u64, more: &[u8]| {
        bytes.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
        bytes.extend_from_slice(more);
        Ok(())
    };
    blob(session, descriptor, report, &mut take).await?;
    Ok(bytes)
}

/// One connection's worth of it.
async fn attempt(
    session: &Session,
    blob: &Descriptor,
    progress: &mut Progress,
    report: &mut Report,
    take: &mut impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), Error> {
    let host = session.host();
    if progress.done == blob.size {
        return Ok(());
    }
    let mut stream = begin(session, blob, progress).await?;
    loop {
        let bytes = match stream.next().await {
            Some(Ok(bytes)) => bytes,
            None if progress.done == blob.size => return Ok(()),
            // The library says so of what has another digest; we have hashed it, too.
            Some(Err(_)) if progress.done == blob.size => return Ok(()),
            None => {
                let reason = format!("the connection ended after {} of {} bytes", progress.done, blob.size);
                return Err(Error::Transport { host: host.to_owned(), reason });
            }
            Some(Err(error)) => return Err(broken(host, &error)),
        };
        let end = progress.done + bytes.len() as u64;
        if end > blob.size {
            let reason = format!("it is longer than the {} bytes that were announced", blob.size);
            let subject = blob.digest.to_string();
            return Err(Error::Document { host: host.to_owned(), subject, reason });
        }
        progress.hasher.update(&bytes);
        take(progress.done, &bytes).map_err(|source| Error::File {
            action: "write",
            path: "what was fetched".to_owned(),
            source,
        })?;
        progress.done = end;
        report.tell(ProgressStep::Downloading, progress.done)?;
    }
}

/// Asks for it, or for what is missing of it.
async fn begin(session: &Session, blob: &Descriptor, progress: &mut Progress) -> Result<SizedStream, Error> {
    let digest = blob.digest.to_string();
    // Other addresses that a manifest has for a layer are a stranger's wish whom we should visit.
    let layer = LayerDescriptor { digest: &digest, urls: &None };
    let fault = |error| explain(session.host(), &digest, None, error);
    if progress.done == 0 {
        let begun = within(session.host(), session.client.pull_blob_stream(&session.image, &layer)).await?;
        return begun.map_err(fault);
    }
    let rest = session.client.pull_blob_stream_partial(&session.image, &layer, progress.done, None);
    match within(session.host(), rest).await?.map_err(fault)? {
        BlobResponse::Partial(stream) => Ok(stream),
        BlobResponse::Full(stream) => {
            *progress = Progress { done: 0, hasher: Sha256::new() };
            Ok(stream)
        }
    }
}

fn broken(host: &str, error: &io::Error) -> Error {
    let is_timeout = causes(error).any(|cause| cause.to_string().contains("timed out"));
    match is_timeout {
        true => Error::Silent(host.to_owned()),
        false => Error::Transport { host: host.to_owned(), reason: super::error::innermost(error) },
    }
}

fn corrupt(session: &Session, blob: &Descriptor, found: Digest) -> Error {
    Error::Digest { host: session.host().to_owned(), expected: blob.digest.clone(), found }
}
