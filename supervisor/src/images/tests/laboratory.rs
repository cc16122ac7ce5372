//! A place to unpack hostile archives in: a layer, and beside it a decoy that must stay as it is.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::images::{
    cancel::Cancel,
    entries::End,
    error::ImageError,
    layers::NewLayer,
    limits::Limits,
    memory::Window,
    pipeline,
    source::Archive,
    unpack,
    unpack::{Position, Totals},
};

/// A directory of one test, removed at its end.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mysup-images-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    #[expect(clippy::disallowed_methods, reason = "a test's own directory, in which nothing is ever mounted")]
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// What can be seen of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) modified: (i64, i64),
    pub(super) device: u64,
    /// Bytes of a file or target of a link.
    pub(super) content: Vec<u8>,
    pub(super) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name of the same file.
    pub(super) same_as: PathBuf,
    pub(super) changed: (i64, i64),
}

/// Everything below a directory and itself.
pub(super) fn survey(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(name) = waiting.pop() {
        let path = root.join(&name);
        let data = fs::symlink_metadata(&path).unwrap();
        let content = match data.file_type() {
            kind if kind.is_file() => fs::read(&path).unwrap(),
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
            _ => Vec::new(),
        };
        if data.is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            waiting.extend(names.iter().rev().map(|entry| name.join(entry)));
        }
        let same_as = inodes.entry(data.ino()).or_insert_with(|| name.clone()).clone();
        let attributes = attributes_of(&path);
        seen.insert(
            name,
            Seen {
                mode: data.mode(),
                owner: (data.uid(), data.gid()),
                modified: (data.mtime(), data.mtime_nsec()),
                device: data.rdev(),
                content,
                attributes,
                same_as,
                changed: (data.ctime(), data.ctime_nsec()),
            },
        );
    }
    seen
}

fn attributes_of(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0_u8; 65536];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0_u8; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

/// A layer beside a decoy.
#[derive(Debug)]
pub(super) struct Laboratory {
    scratch: Scratch,
    before: BTreeMap<PathBuf, Seen>,
    pub(super) limits: Limits,
    pub(super) position: Position,
}

impl Laboratory {
    pub(super) fn new() -> Self {
        let scratch = Scratch::new();
        let decoy = scratch.path().join("decoy");
        fs::create_dir_all(decoy.join("directory")).unwrap();
        fs::write(decoy.join("secret"), "secret").unwrap();
        fs::write(decoy.join("directory/file"), "file").unwrap();
        fs::set_permissions(decoy.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(decoy.join("directory"), fs::Permissions::from_mode(0o711)).unwrap();
        fs::create_dir(scratch.path().join("layer")).unwrap();
        let before = survey(&decoy);
        Self { scratch, before, limits: Limits::default(), position: Position::Lowest }
    }

    pub(super) fn layer(&self) -> PathBuf {
        self.scratch.path().join("layer")
    }

    pub(super) fn decoy(&self) -> PathBuf {
        self.scratch.path().join("decoy")
    }

    /// Unpacks, and fails if anything beside the layer is not as it was.
    pub(super) fn unpack(&self, archive: &[u8]) -> Result<Totals, ImageError> {
        let root = fs::File::open(self.layer()).unwrap();
        let file = self.file(archive);
        let archive = Archive::new(file).unwrap();
        let cancel = Cancel::new().unwrap();
        let work = Scratch::new();
        let layer = NewLayer::of(fs::File::open(work.path()).unwrap().into(), root.into());
        let result = pipeline::run(&archive, &cancel, &self.limits, Window::Longest, |tape| {
            unpack::unpack(tape, &layer, self.position, End::Mark, &self.limits)
        });
        assert_eq!(survey(&self.decoy()), self.before, "the decoy was touched");
        let beside: Vec<_> =
            fs::read_dir(self.scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(beside.len(), 3, "something was made beside the layer: {beside:?}");
        result.map(|(totals, _)| totals)
    }

    /// Unpacks what must be refused, and gives the message.
    pub(super) fn refusal(&self, archive: &[u8]) -> String {
        match self.unpack(archive) {
            Ok(totals) => panic!("it was taken: {totals:?}, {:?}", survey(&self.layer()).keys()),
            Err(error) => error.to_wire().message,
        }
    }

    pub(super) fn file(&self, bytes: &[u8]) -> OwnedFd {
        let path = self.scratch.path().join("archive");
        fs::write(&path, bytes).unwrap();
        fs::File::open(path).unwrap().into()
    }
}

/// Fills the last block.
pub(super) fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

/// A GNU header as given, without any check.
pub(super) fn header(kind: u8, name: &[u8], link: &[u8], size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(kind));
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_size(size);
    header.set_mode(0o640);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000);
    header.set_device_major(0).unwrap();
    header.set_device_minor(0).unwrap();
    header.set_cksum();
    header
}

/// A whole entry.
pub(super) fn entry(kind: u8, name: &str, link: &str, data: &[u8]) -> Vec<u8> {
    let header = header(kind, name.as_bytes(), link.as_bytes(), data.len() as u64);
    [&header.as_bytes()[..], &padded(data)].concat()
}

pub(super) fn file(name: &str, data: &str) -> Vec<u8> {
    entry(b'0', name, "", data.as_bytes())
}

pub(super) fn directory(name: &str) -> Vec<u8> {
    entry(b'5', name, "", b"")
}

pub(super) fn symlink(name: &str, target: &str) -> Vec<u8> {
    entry(b'2', name, target, b"")
}

pub(super) fn hardlink(name: &str, target: &str) -> Vec<u8> {
    entry(b'1', name, target, b"")
}

pub(super) fn device(kind: u8, name: &str, major: u32, minor: u32) -> Vec<u8> {
    let mut header = header(kind, name.as_bytes(), b"", 0);
    header.set_device_major(major).unwrap();
    header.set_device_minor(minor).unwrap();
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// PAX records for the next entry.
pub(super) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions(records.iter().copied()).unwrap();
    let mut bytes = builder.into_inner().unwrap();
    // Without the end mark.
    bytes.truncate(bytes.len() - 1024);
    bytes
}

/// A GNU long name for the next entry.
pub(super) fn long_name(name: &[u8]) -> Vec<u8> {
    let data = [name, b"\0"].concat();
    let header = header(b'L', b"././@LongLink", b"", data.len() as u64);
    [&header.as_bytes()[..], &padded(&data)].concat()
}

/// Entries with the end mark.
pub(super) fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}
