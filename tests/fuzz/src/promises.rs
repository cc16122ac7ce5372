//! What the targets of tests/fuzz do with bytes of anybody: what is taken must be safe, and what is refused must leave
//! nothing outside; a panic or a broken promise ends the target.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use sha2::{Digest as _, Sha256};

use super::{
    audience::Audience,
    bundle::Bundle,
    cancel::Cancel,
    census,
    change::Change,
    config::{Configuration, digest_of},
    entries::End,
    incoming,
    layers::{Layers, NewLayer, StoredLayer, open_root},
    limits::{Cap, Limits},
    memory::Window,
    pipeline,
    replay::{Replay, read_through},
    source::Archive,
    unpack::{self, Position},
};
use crate::shim_link::sweep::Sweeper;

/// Directories of this process: a decoy, and one that is made anew for each input.
struct Range {
    place: PathBuf,
    before: Vec<(PathBuf, [u64; 6])>,
}

impl Range {
    fn of_this_process() -> &'static Self {
        static RANGE: OnceLock<Range> = OnceLock::new();
        RANGE.get_or_init(|| {
            let place = std::env::temp_dir().join(format!("mysup-fuzz-{}", std::process::id()));
            fs::create_dir_all(place.join("decoy/directory")).expect("a place for the fuzzer");
            fs::write(place.join("decoy/secret"), "secret").expect("a place for the fuzzer");
            fs::write(place.join("decoy/directory/file"), "file").expect("a place for the fuzzer");
            let before = seen(&place);
            Self { place, before }
        })
    }

    /// Nothing but the work changes anything.
    fn check(&self) {
        assert!(seen(&self.place) == self.before, "the decoy was touched");
        let beside = fs::read_dir(&self.place).expect("it is there").count();
        assert_eq!(beside, 2, "something was made beside the layer");
    }
}

fn seen(place: &Path) -> Vec<(PathBuf, [u64; 6])> {
    ["decoy", "decoy/directory", "decoy/secret", "decoy/directory/file"]
        .into_iter()
        .map(|name| {
            let data = fs::symlink_metadata(place.join(name)).expect("the decoy is there");
            let times = [data.mtime(), data.ctime_nsec()].map(i64::cast_unsigned);
            let mode = u64::from(data.mode());
            (name.into(), [data.ino(), mode, data.nlink(), data.size(), times[0], times[1]])
        })
        .collect()
}

/// A directory for one input, removed at its end.
struct Work(PathBuf);

impl Work {
    fn new(range: &Range) -> Self {
        let path = range.place.join("work");
        fs::create_dir(&path).expect("the last one was removed");
        Self(path)
    }
}

impl Drop for Work {
    #[expect(
        clippy::disallowed_methods,
        reason = "the fuzzer's own directory, in which nothing is ever mounted"
    )]
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the fuzzer's own directory");
    }
}

/// Small enough for thousands of inputs in a second.
fn limits() -> Limits {
    let small = [
        (Cap::Entries, 200),
        (Cap::Depth, 40),
        (Cap::Archive, 4 << 20),
        (Cap::Ratio, 100),
        (Cap::RatioFrom, 1 << 20),
        (Cap::File, 1 << 40),
        (Cap::Segments, 50),
        (Cap::Extension, 1 << 16),
    ];
    small.into_iter().fold(Limits::default(), |limits, (cap, limit)| limits.with(cap, limit))
}

/// The bytes with a right checksum in every block that looks like a header, which no mutation would find.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512) {
        if block.get(257..262) == Some(b"ustar") {
            let mut header = tar::Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    bytes
}

/// A layer's tar, of which the first byte says whether it lies above another, and whether checksums are put right.
/// What is taken goes out again as it came in.
///
/// # Panics
/// If it is not, or anything beside the layer changed.
pub fn layer(bytes: &[u8]) {
    let Some((switches, tar)) = bytes.split_first() else { return };
    let tar = if switches & 2 == 0 { with_checksums(tar) } else { tar.to_vec() };
    let position = if switches & 1 == 0 { Position::Lowest } else { Position::Above };
    let end = if switches & 4 == 0 { End::Mark } else { End::Digest };
    let range = Range::of_this_process();
    let work = Work::new(range);
    let (limits, cancel) = (limits(), Cancel::new().expect("a pipe"));
    fs::write(work.0.join("given"), &tar).expect("the fuzzer's own directory");
    fs::create_dir(work.0.join("tree")).expect("the fuzzer's own directory");
    let open = |name: &str| OwnedFd::from(File::open(work.0.join(name)).expect("it was made"));
    let archive = Archive::new(open("given")).expect("a regular file");
    let new = NewLayer::of(open(""), open("tree"));
    let result = pipeline::run(&archive, &cancel, &limits, Window::Usual, |tape| {
        unpack::unpack(tape, &new, position, end, &limits)
    });
    if let Ok((_, digest)) = result {
        census::take(new.tree()).expect("what was made can be looked at");
        let mut hasher = Sha256::new();
        let stored = StoredLayer::of(open(""));
        let replay = Replay::new(&stored).expect("it was recorded");
        read_through(replay, |bytes| {
            hasher.update(bytes);
            Ok(())
        })
        .expect("it can be read again");
        let found: [u8; 32] = hasher.finalize().into();
        assert!(mysup_ipc::id::Digest::from_sha256(found) == digest, "it goes out as another one");
    }
    range.check();
}

/// The configuration of an image: what is taken stays one when it is changed.
///
/// # Panics
/// If it does not.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(parsed) = Configuration::parse(text) else { return };
    let change = Change::default();
    let again = change.apply(text.to_owned()).expect("nothing is changed");
    assert!(Configuration::parse(&again).expect("it was one") == parsed);
}

/// Documents of a bundle, `\0` between them, in which `@0@`, `@1@` and so on stand for the digests of those before. The
/// last is `index.json`, the one before it `manifest.json`; each is a blob and a file.
pub fn manifest(bytes: &[u8]) {
    let range = Range::of_this_process();
    let work = Work::new(range);
    let mut members: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut digests: Vec<String> = Vec::new();
    let documents: Vec<&[u8]> = bytes.split(|byte| *byte == 0).take(8).collect();
    for (at, document) in documents.iter().enumerate() {
        let mut text = String::from_utf8_lossy(document).into_owned();
        for (number, digest) in digests.iter().enumerate() {
            text = text.replace(&format!("@{number}@"), digest);
        }
        let digest = digest_of(text.as_bytes());
        digests.push(digest.hex().to_owned());
        members.insert(format!("blobs/sha256/{}", digest.hex()), text.clone().into_bytes());
        match documents.len() - at {
            1 => drop(members.insert("index.json".to_owned(), text.into_bytes())),
            2 => drop(members.insert("manifest.json".to_owned(), text.into_bytes())),
            _ => drop(members.insert(format!("file{at}"), text.into_bytes())),
        }
    }
    members.insert("oci-layout".to_owned(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec());
    let cancel = Cancel::new().expect("a pipe");
    let root = open_root(&work.0).expect("the fuzzer's own directory");
    let layers = Layers::open(root.as_fd(), Sweeper::default()).expect("the fuzzer's own directory");
    // As a whole, and each form alone.
    for left_out in ["", "index.json", "manifest.json"] {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in members.iter().filter(|(name, _)| name.as_str() != left_out) {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes.as_slice()).expect("writing to memory");
        }
        fs::write(work.0.join("given"), tar.into_inner().expect("writing to memory")).expect("it is ours");
        let given = File::open(work.0.join("given")).expect("it was written");
        let bundle = Bundle::open(given.into(), &layers, &limits(), (&cancel, &Audience::default()))
            .expect("it is a tar");
        for image in incoming::all(&bundle, &limits(), &cancel).unwrap_or_default() {
            assert_eq!(image.diff_ids.len(), image.layers.len());
        }
    }
    range.check();
}
