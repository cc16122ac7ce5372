//! What can go wrong with images, and how a user is told.

use std::{error::Error, fmt::Write, io};

use mysup_ipc::{
    error::{ErrorCode, WireError},
    id::Digest,
};

use super::limits::Over;

/// Why something could not be done with an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// What was typed is no name of an image.
    #[error("invalid image name \"{name}\": {fault}")]
    Name {
        /// As typed.
        name: String,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// No image of that name or id.
    #[error("No such image: {reference}")]
    NotFound {
        /// As typed.
        reference: String,
    },
    /// A prefix of more than one id.
    #[error("the ids of {count} images begin with \"{prefix}\": give more of its digits")]
    Ambiguous {
        /// As typed.
        prefix: String,
        /// How many.
        count: usize,
    },
    /// The last name of an image in use.
    #[error(
        "conflict: unable to remove repository reference \"{reference}\" (must force) - \
         container {container} is using its referenced image {image}"
    )]
    NameInUse {
        /// As typed.
        reference: String,
        /// Short id.
        container: String,
        /// Short id.
        image: String,
    },
    /// Removal by id of an image with several names.
    #[error(
        "conflict: unable to delete {image} (must be forced) - image is referenced in multiple repositories"
    )]
    ManyNames {
        /// Short id.
        image: String,
    },
    /// A container that does not run was made from it.
    #[error(
        "conflict: unable to delete {image} (must be forced) - image is being used by stopped container {container}"
    )]
    UsedByStopped {
        /// Short id.
        image: String,
        /// Short id.
        container: String,
    },
    /// A container that runs was made from it.
    #[error(
        "conflict: unable to delete {image} (cannot be forced) - image is being used by running container {container}"
    )]
    UsedByRunning {
        /// Short id.
        image: String,
        /// Short id.
        container: String,
    },
    /// The one who asked for the import has left.
    #[error("it was cancelled")]
    Cancelled,
    /// Something is wrong with one layer of an image.
    #[error("layer {layer}")]
    Layer {
        /// Its digest.
        layer: Digest,
        /// What.
        #[source]
        fault: Box<ImageError>,
    },
    /// The archive or directory of images is not what can be loaded.
    #[error("cannot load {subject}: {fault}")]
    Bundle {
        /// A file in it, quoted, or what it is about.
        subject: String,
        /// What is wrong.
        fault: BundleFault,
    },
    /// What was typed after `--change`.
    #[error("invalid change \"{change}\": {reason}")]
    Change {
        /// As typed.
        change: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What a container has changed cannot be taken.
    #[error(transparent)]
    Commit(#[from] CommitFault),
    /// The archive is not what can be imported.
    #[error(transparent)]
    Archive(#[from] ArchiveFault),
    /// The file system of the store is full, or its quota is used up.
    #[error("no space left in the image store while writing {subject}: free some space and try again")]
    NoSpace {
        /// An entry of the archive, quoted, or a file of the store.
        subject: String,
    },
    /// A system call failed.
    #[error("{action} {subject}")]
    System {
        /// What was attempted.
        action: &'static str,
        /// On what: an entry of the archive, quoted, or a file of the store.
        subject: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with the name of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameFault {
    /// Nothing, or nothing before the tag.
    #[error("it is empty")]
    Empty,
    /// Longer than docker allows.
    #[error("it is longer than 255 characters")]
    Long,
    /// Not the alphabet of a repository.
    #[error(
        "a repository has lower-case letters and digits, in it single separators (. _ __ -), and parts set off by /"
    )]
    Repository,
    /// Not the digest of a manifest.
    #[error("after the @ is sha256: and 64 hexadecimal digits")]
    Digest,
    /// Not the alphabet of a tag.
    #[error("a tag has up to 128 of the characters [a-zA-Z0-9_.-] and begins with none of .-")]
    Tag,
    /// It would be taken for the id of an image.
    #[error("64 hexadecimal digits are an id")]
    Digits,
}

/// What is wrong with an archive or a directory of images.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleFault {
    /// Nothing that is known.
    #[error(
        "there is neither manifest.json nor index.json nor repositories in it (docker archive, OCI archive or directory)"
    )]
    Unknown,
    /// A file that others speak of.
    #[error("it is missing")]
    Missing,
    /// Two files of one name: readers disagree about which one counts.
    #[error("it is there twice")]
    Twice,
    /// Not a regular file.
    #[error("it is no regular file")]
    NoFile,
    /// A link that leads nowhere.
    #[error("it is a link to nothing in the archive")]
    Link,
    /// More than is read into memory.
    #[error("it has more than {0} bytes, which is the limit")]
    Long(u64),
    /// More files than there may be.
    #[error("{0}")]
    Over(Over),
    /// Other bytes than were announced.
    #[error("its digest is {found}, expected was {expected}")]
    Digest {
        /// What was announced.
        expected: Digest,
        /// What is there.
        found: Digest,
    },
    /// Another length than was announced.
    #[error("it has {found} bytes, expected were {expected}")]
    Size {
        /// What was announced.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A digest that is none of sha256.
    #[error("\"{0}\" is not a digest that is known: sha256: and 64 lower-case hexadecimal digits")]
    UnknownDigest(String),
    /// No JSON, or another form.
    #[error("it has another form: {0}")]
    Form(String),
    /// A document that is two things to two readers.
    #[error("it is ambiguous: {0}")]
    Ambiguous(&'static str),
    /// A media type that is not known.
    #[error("its media type {0} is not known")]
    MediaType(String),
    /// An image of another operating system.
    #[error("it is an image for {0}, and linux is expected")]
    System(String),
    /// None for this machine.
    #[error("there is no image for {0} in it")]
    Platform(String),
    /// More images than there may be.
    #[error("it has more than {0} images, which is the limit")]
    ManyImages(usize),
    /// More layers than can be joined.
    #[error("it has more than {0} layers, which is the limit")]
    ManyLayers(usize),
    /// Numbers of layers that differ.
    #[error("it has {layers} layers, and its configuration names {diff_ids}")]
    Layers {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
}

/// Why what a container has changed is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitFault {
    /// It has no image.
    #[error("the container was made from a directory, not from an image: export it, and import that")]
    Directory,
    /// A file whose name means something else in a layer.
    #[error("{path} cannot be in a layer: names that begin with .wh. are marks of removed files there")]
    Mark {
        /// Quoted.
        path: String,
    },
    /// Made by a kernel that keeps the content of a file or directory elsewhere.
    #[error(
        "the content of {path} is elsewhere (redirect_dir or metacopy of overlayfs): copy it to another name and back in \
         the container"
    )]
    Redirected {
        /// Quoted.
        path: String,
    },
    /// It could not be paused.
    #[error("{0}; with --no-pause it goes on meanwhile")]
    Pause(String),
    /// It went on before everything was read.
    #[error("the container ended or went on in the middle: try again")]
    WentOn,
    /// Its write layer was removed before everything was read.
    #[error("the container ended in the middle, and what it had changed is gone")]
    Gone,
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveFault {
    /// Not one byte came.
    #[error(
        "the archive is empty: expected is the tar of a root file system, plain or compressed (gzip, zstd)"
    )]
    Empty,
    /// A directory or a disk.
    #[error("the archive is a {kind}: expected is a file or pipe with the tar of a root file system")]
    NoStream {
        /// What it is.
        kind: &'static str,
    },
    /// The first block is no header.
    #[error(
        "this is no tar archive: expected is the tar of a root file system, plain or compressed (gzip, zstd)"
    )]
    NotTar,
    /// Compressed with something else.
    #[error("the archive is compressed with {format}: only plain, gzip and zstd archives can be imported")]
    Foreign {
        /// The other compression.
        format: &'static str,
    },
    /// What is left of it cannot be decompressed.
    #[error("the {format} data of the archive is damaged or cut short")]
    Compression {
        /// gzip or zstd.
        format: &'static str,
        /// What the decompressor says.
        #[source]
        source: io::Error,
    },
    /// It ends before its end mark.
    #[error("the archive is cut short: it ends {place}")]
    Cut {
        /// Where.
        place: String,
    },
    /// A header whose checksum is wrong, or one that contradicts itself.
    #[error("the archive is damaged at byte {offset}: {fault}")]
    Header {
        /// Of the header in the uncompressed archive.
        offset: u64,
        /// What is wrong.
        fault: HeaderFault,
    },
    /// An entry that is not taken.
    #[error("entry {entry} is refused: {refusal}")]
    Refused {
        /// Its name, quoted.
        entry: String,
        /// Why.
        refusal: Refusal,
    },
    /// More than a limit, of bytes or of the ratio of a bomb.
    #[error("{0}")]
    Over(Over),
    /// Other bytes than were announced.
    #[error("its digest is {found}, expected was {expected}")]
    Digest {
        /// What was announced.
        expected: Digest,
        /// What came.
        found: Digest,
    },
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderFault {
    #[error("the checksum of the header is wrong")]
    Checksum,
    #[error("its field {0} is no number that fits")]
    Number(&'static str),
    #[error("an extension record is malformed")]
    Extension,
    #[error("its extension headers say two different things")]
    Contradiction,
    #[error("{0}")]
    Over(Over),
    #[error("the global record {0} would change every entry")]
    Global(&'static str),
    #[error("the map of a sparse file is malformed")]
    Sparse,
}

/// Why an entry is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("its name is empty")]
    EmptyName,
    #[error("its name has a NUL byte in it")]
    NulInName,
    #[error("names with \"..\" in them are not allowed")]
    Upwards,
    #[error("{0}")]
    Over(Over),
    #[error("its extended attribute {0} is the union file system's own and may not come from an archive")]
    Attribute(String),
    #[error("it has {0} bytes of data, which only a file can have")]
    Data(u64),
    #[error("its owner or group is {0}, numbers up to 4294967294 are allowed")]
    Owner(u64),
    #[error("its type '{0}' is none of a root file system's")]
    Type(char),
    #[error("its name belongs to the root directory")]
    NotDirectory,
    #[error("it has no link target")]
    NoTarget,
    #[error("its link target {0}")]
    Target(Box<Refusal>),
    #[error("its link target {0} does not exist in the archive before it")]
    MissingTarget(String),
    #[error("its link target {0} is a directory")]
    DirectoryTarget(String),
    #[error("\"{0}\" in its name is no directory")]
    Parent(String),
    #[error("\"{0}\" in its name is a symbolic link to nothing")]
    DanglingParent(String),
    #[error("symbolic links in its name lead in a circle")]
    Circle,
    #[error("a directory that is not empty is in its place")]
    InTheWay,
    #[error("its device number {0}:{1} does not exist")]
    DeviceNumber(u64, u64),
    #[error("the character device 0:0 is overlayfs' mark of a removed file")]
    OverlayMark,
    #[error("names with .wh. are marks of removed files, and this one is malformed")]
    Mark,
}

impl ImageError {
    /// As it is sent to the one who asked: the whole chain in one line.
    pub(crate) fn to_wire(&self) -> WireError {
        let code = match self {
            ImageError::Name { .. }
            | ImageError::Archive(_)
            | ImageError::Bundle { .. }
            | ImageError::Change { .. } => ErrorCode::Invalid,
            ImageError::Layer { fault, .. } => fault.to_wire().code,
            ImageError::NotFound { .. } => ErrorCode::NotFound,
            ImageError::Ambiguous { .. } => ErrorCode::Ambiguous,
            ImageError::Commit(
                CommitFault::Directory | CommitFault::Mark { .. } | CommitFault::Redirected { .. },
            ) => ErrorCode::Invalid,
            ImageError::Commit(_)
            | ImageError::NameInUse { .. }
            | ImageError::ManyNames { .. }
            | ImageError::UsedByStopped { .. }
            | ImageError::UsedByRunning { .. } => ErrorCode::Conflict,
            ImageError::Cancelled | ImageError::NoSpace { .. } | ImageError::System { .. } => {
                ErrorCode::System
            }
        };
        let mut message = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            // Writing to a string cannot fail.
            let _ = write!(message, ": {error}");
            cause = error.source();
        }
        // Names out of an archive are in it: none of them may move the cursor of a terminal, or begin a line of a log.
        let mut shown = String::with_capacity(message.len());
        for letter in message.chars() {
            match letter.is_control() {
                true => shown.extend(letter.escape_default()),
                false => shown.push(letter),
            }
        }
        WireError::new(code, shown)
    }

    /// An error of a system call; a full file system is told apart, since the user can do something about it.
    pub(super) fn system(
        action: &'static str,
        subject: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        let source = source.into();
        let subject = subject.into();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            ImageError::NoSpace { subject }
        } else {
            ImageError::System { action, subject, source }
        }
    }

    /// A refused entry.
    pub(super) fn refused(name: &[u8], refusal: Refusal) -> Self {
        ImageError::Archive(ArchiveFault::Refused { entry: quoted(name), refusal })
    }

    /// A damaged header.
    pub(super) fn header(offset: u64, fault: HeaderFault) -> Self {
        ImageError::Archive(ArchiveFault::Header { offset, fault })
    }
}

/// A name out of an archive as it may be shown: one line, no control characters, not endless.
pub(super) fn quoted(name: &[u8]) -> String {
    /// Characters shown; the end of a long name tells more than its beginning.
    const SHOWN: usize = 160;
    let text: Vec<char> = String::from_utf8_lossy(name).escape_debug().collect();
    let cut = text.len().saturating_sub(SHOWN);
    let tail: String = text.iter().skip(cut).collect();
    if cut == 0 { format!("\"{tail}\"") } else { format!("\"...{tail}\"") }
}
