//! Three threads in a line: read and decompress, hash, and the caller's own, which unpacks.
//!
//! Each costs about as much as the other two, so two processors are kept busy. Between them go `BUFFERS` buffers in
//! a circle: that is all the memory a layer takes, besides the decompressor's own (memory.rs).

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use mysup_ipc::id::Digest;
use sha2::{Digest as _, Sha256};

use super::{
    cancel::Cancel,
    error::{ArchiveFault, ImageError},
    limits::{Cap, Limits},
    memory::{Share, Window},
    source::{Archive, Uncompressed},
    tape::Tape,
};

/// Bytes of a buffer: a multiple of tar's 512, small enough that it stays in a processor's cache on its way.
pub(super) const BUFFER: usize = 128 << 10;
/// Buffers in the circle.
const BUFFERS: usize = 16;

/// A full buffer, or why there is none.
pub(super) type Chunk = Result<Vec<u8>, ImageError>;

/// Runs `consume` over the uncompressed archive and gives its result and the sha256 of the whole, also of what
/// `consume` left unread.
///
/// # Errors
/// If the archive cannot be read to its end, was over a limit, was cancelled, or if `consume` fails.
pub(super) fn run<T>(
    archive: &Archive,
    cancel: &Cancel,
    limits: &Limits,
    window: Window,
    consume: impl FnOnce(&mut Tape) -> Result<T, ImageError>,
) -> Result<(T, Digest), ImageError> {
    let Some(_share) = Share::take(window, cancel) else { return Err(ImageError::Cancelled) };
    let thread_failed = |source| ImageError::system("start a thread", "for the import", source);
    // Thrown when the unpacking has ended early: the reader may be waiting for a pipe.
    let stop =
        &Cancel::new().map_err(|source| ImageError::system("make a pipe", "for the import", source))?;
    thread::scope(|scope| {
        let stop_at_end = StopAtEnd(stop);
        let (read, to_hash) = sync_channel::<Chunk>(BUFFERS);
        let (hashed, to_unpack) = sync_channel::<Chunk>(BUFFERS);
        let (used, free) = sync_channel::<Vec<u8>>(BUFFERS);
        for _ in 0..BUFFERS {
            // Cannot fail: there is room, and the receiver is right here.
            let _ = used.send(Vec::new());
        }
        let mut tape = Tape::new(to_unpack, used);
        let reader = thread::Builder::new()
            .name("import-read".to_owned())
            .spawn_scoped(scope, move || {
                let result = read_all(archive, (cancel, stop), (limits, window), &free, &read);
                result.unwrap_or_else(|error| {
                    // Nobody listens any more: then there is an earlier error.
                    let _ = read.send(Err(error));
                    Check::Done
                })
            })
            .map_err(thread_failed)?;
        let hasher = thread::Builder::new()
            .name("import-hash".to_owned())
            .spawn_scoped(scope, move || hash_all(&to_hash, &hashed))
            .map_err(thread_failed)?;
        let result = consume(&mut tape).and_then(|value| tape.drain().map(|()| value));
        drop((tape, stop_at_end));
        let (check, digest) = (reader.join(), hasher.join());
        match (result, check, digest) {
            // What happened after the switch was thrown is its consequence.
            (Err(_), _, _) if cancel.is_cancelled() => Err(ImageError::Cancelled),
            (Ok(value), Ok(Check::Done), Ok(digest)) => Ok((value, digest)),
            (Ok(value), Ok(Check::Left), Ok(digest)) => archive.verify(&digest).map(|()| (value, digest)),
            (Err(error), _, _) => Err(error),
            (Ok(_), _, _) => {
                Err(ImageError::system("hash", "the archive", std::io::Error::other("a thread panicked")))
            }
        }
    })
}

/// What the reader leaves to be compared with the digest that was announced.
#[derive(Debug, Clone, Copy)]
enum Check {
    /// Nothing: the compressed bytes were compared.
    Done,
    /// The digest of the uncompressed bytes, which are the archive itself: hashing them twice would be for nothing.
    Left,
}

/// Throws the switch however the caller's thread leaves the scope: the scope waits for the reader.
struct StopAtEnd<'s>(&'s Cancel);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The first thread. Ends when the archive does, or when the others have.
fn read_all(
    archive: &Archive,
    (cancel, stop): (&Cancel, &Cancel),
    (limits, window): (&Limits, Window),
    free: &Receiver<Vec<u8>>,
    read: &SyncSender<Chunk>,
) -> Result<Check, ImageError> {
    let mut bytes = archive.open(cancel, stop, window)?;
    let mut total = 0_u64;
    while let Ok(mut buffer) = free.recv() {
        buffer.resize(BUFFER, 0);
        let count = bytes.fill(&mut buffer)?;
        total += count as u64;
        check(total, &bytes, limits)?;
        buffer.truncate(count);
        if count == 0 {
            bytes.verify()?;
        }
        if count == 0 || read.send(Ok(buffer)).is_err() {
            break;
        }
    }
    Ok(if bytes.is_plain() { Check::Left } else { Check::Done })
}

/// Refuses endless archives and decompression bombs.
fn check(total: u64, bytes: &Uncompressed<'_>, limits: &Limits) -> Result<(), ArchiveFault> {
    limits.check(Cap::Archive, total).map_err(ArchiveFault::Over)?;
    match bytes.compressed() {
        Some(taken) if total > limits.of(Cap::RatioFrom) && total / limits.of(Cap::Ratio) > taken => {
            Err(ArchiveFault::Over(limits.over(Cap::Ratio)))
        }
        _ => Ok(()),
    }
}

/// The second thread. The digest is of no use if the third one has ended before the archive did.
fn hash_all(to_hash: &Receiver<Chunk>, hashed: &SyncSender<Chunk>) -> Digest {
    let mut hasher = Sha256::new();
    while let Ok(chunk) = to_hash.recv() {
        if let Ok(bytes) = &chunk {
            hasher.update(bytes);
        }
        if hashed.send(chunk).is_err() {
            break;
        }
    }
    Digest::from_sha256(hasher.finalize().into())
}
