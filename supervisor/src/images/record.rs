//! One image on the disk: `images/<hex of its id>.json`, `{"checksum":"sha256:...","image":{...}}`.
//!
//! The checksum is that of the bytes of the inner object as they are written. A record that does not match it, or
//! whose configuration does not have the digest that is its id, is damaged and gives no image.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
    sync::OnceLock,
};

use mysup_ipc::{
    id::Digest,
    point,
    record::{Durability, replace},
};
use rustix::fs::{AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::config::{ConfigFault, Configuration, Image, digest_of};

const SUFFIX: &str = ".json";
const BEFORE_CHECKSUM: &str = "{\"checksum\":\"";
const BEFORE_IMAGE: &str = "\",\"image\":";
const AFTER_IMAGE: &str = "}\n";

/// Bytes of a record; more cannot be one.
const LONGEST: u64 = 16 << 20;

/// Everything that is kept about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Digest of `configuration`.
    pub(super) id: Digest,
    pub(super) names: Vec<GivenName>,
    /// Nanoseconds since 1970.
    pub(super) created_at: u64,
    /// Bytes of its files.
    pub(super) size: u64,
    /// Bytes of the archive it came from: one of the same size may be the same.
    pub(super) archive_size: Option<u64>,
    /// It was removed with force while containers need it, and is not shown any more.
    #[serde(default)]
    pub(super) removed: bool,
    /// An OCI image configuration, as text, since its digest is that of its bytes.
    pub(super) configuration: String,
    /// Digest of the manifest it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) manifest: Option<Digest>,
    /// The manifest itself, or the one that it last went out with: a registry that has all of it gets it again as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) manifest_text: Option<String>,
    /// `configuration`, when it was parsed: every look at an image needs it.
    #[serde(skip)]
    pub(super) parsed: OnceLock<Configuration>,
}

/// A name of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GivenName {
    /// `name:tag`.
    pub(super) name: String,
    /// Nanoseconds since 1970: when two records have the same name after a power cut, the later one has it.
    pub(super) since: u64,
}

/// Why a record gives no image.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordFault {
    #[error("read the record")]
    Read(#[from] io::Error),
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it has another form")]
    Form(#[from] serde_json::Error),
    #[error("its configuration is none")]
    Configuration(#[from] ConfigFault),
    #[error("it is not the record of this id")]
    Id,
}

impl Record {
    /// A new image without a name.
    pub(super) fn new(configuration: String, created_at: u64, size: u64) -> Self {
        Self {
            id: digest_of(configuration.as_bytes()),
            names: Vec::new(),
            created_at,
            size,
            archive_size: None,
            removed: false,
            configuration,
            manifest: None,
            manifest_text: None,
            parsed: OnceLock::new(),
        }
    }

    /// The image it describes.
    ///
    /// # Errors
    /// If its configuration is none.
    pub(super) fn image(&self) -> Result<Image, ConfigFault> {
        let configuration = match self.parsed.get() {
            Some(parsed) => parsed.clone(),
            None => {
                let parsed = Configuration::parse(&self.configuration)?;
                self.parsed.get_or_init(|| parsed).clone()
            }
        };
        Ok(Image {
            id: self.id.clone(),
            names: self.names.iter().map(|given| given.name.clone()).collect(),
            config: configuration.config,
            layers: configuration.diff_ids,
            created_at: self.created_at,
            size: self.size,
        })
    }

    /// Writes it so that a power cut does not lose it.
    ///
    /// # Errors
    /// As `mysup_ipc::record::replace`; nothing is left beside it.
    pub(super) fn write(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        let image = serde_json::to_string(self)?;
        let checksum = digest_of(image.as_bytes());
        let text = format!("{BEFORE_CHECKSUM}{checksum}{BEFORE_IMAGE}{image}{AFTER_IMAGE}");
        point::before(point::Step::ImageRecord);
        let name = file_name(&self.id);
        let written = replace(directory, &name, text.as_bytes(), Durability::Durable);
        if written.is_err() {
            // No later write comes for an id that is new each time; the next start removes what stays even so.
            let _ = rustix::fs::unlinkat(directory, format!("{name}.tmp"), AtFlags::empty());
        }
        point::after(point::Step::ImageRecord);
        written
    }

    fn parse(text: &[u8], id: &Digest) -> Result<Self, RecordFault> {
        let inner = text
            .strip_prefix(BEFORE_CHECKSUM.as_bytes())
            .and_then(|text| text.split_at_checked(id.as_str().len()))
            .and_then(|(checksum, rest)| {
                let image =
                    rest.strip_prefix(BEFORE_IMAGE.as_bytes())?.strip_suffix(AFTER_IMAGE.as_bytes())?;
                (digest_of(image).as_str().as_bytes() == checksum).then_some(image)
            })
            .ok_or(RecordFault::Checksum)?;
        let record: Self = serde_json::from_slice(inner)?;
        if record.id != *id || digest_of(record.configuration.as_bytes()) != *id {
            return Err(RecordFault::Id);
        }
        record.image()?;
        Ok(record)
    }
}

/// What is in the directory of records.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) records: Vec<Record>,
    /// Names of files that are no whole records, and why.
    pub(super) damaged: Vec<(String, RecordFault)>,
}

/// Reads all records. Temporary files of writes that were interrupted are removed.
///
/// # Errors
/// If the directory itself cannot be read.
pub(super) fn read_all(directory: impl AsFd) -> io::Result<Found> {
    let directory = directory.as_fd();
    let mut found = Found::default();
    for name in names_in(directory)? {
        if name.ends_with(".tmp") {
            // If it stays, the next write of that record truncates it.
            let _ = rustix::fs::unlinkat(directory, name.as_str(), AtFlags::empty());
            continue;
        }
        let record = id_of(&name).ok_or(RecordFault::Id).and_then(|id| read(directory, &name, &id));
        match record {
            Ok(record) => found.records.push(record),
            Err(fault) => found.damaged.push((name, fault)),
        }
    }
    Ok(found)
}

/// The image whose record is called so.
pub(super) fn id_of(name: &str) -> Option<Digest> {
    format!("sha256:{}", name.strip_suffix(SUFFIX)?).parse().ok()
}

/// Removes a record so that a power cut does not bring it back. One that is not there is removed.
///
/// # Errors
/// If the file system fails.
pub(super) fn remove(directory: impl AsFd, id: &Digest) -> io::Result<()> {
    point::before(point::Step::ImageRemoval);
    let removed = rustix::fs::unlinkat(&directory, file_name(id), AtFlags::empty());
    point::after(point::Step::ImageRemoval);
    match removed {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(rustix::fs::fsync(&directory)?)
}

/// The names in a directory, sorted; those that are no UTF-8 are not ours.
pub(super) fn names_in(directory: impl AsFd) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        match entry?.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => {
                names.insert(name.to_owned());
            }
        }
    }
    Ok(names)
}

/// The names in a directory, any bytes, in no order.
pub(super) fn names_of(directory: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(name.to_vec()),
        }
    }
    Ok(names)
}

fn file_name(id: &Digest) -> String {
    format!("{}{SUFFIX}", id.hex())
}

fn read(directory: impl AsFd, name: &str, id: &Digest) -> Result<Record, RecordFault> {
    // Not to be followed, and not to be waited for, whatever someone has put there.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file =
        File::from(rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(io::Error::from)?);
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Record::parse(&text, id)
}
