//! Archives and directories that have images in them: which files there are, and their bytes.
//!
//! An archive that is compressed or comes through a pipe is first written, uncompressed, into a file without a name: the
//! documents that say what the layers are come last in most of them. Its members are read where they lie.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use mysup_ipc::id::Digest;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{
    audience::Audience,
    cancel::Cancel,
    config::digest_of,
    entries::{End, Entries, Kind, Name},
    error::{BundleFault, ImageError, quoted},
    layers::Layers,
    limits::{Cap, Limits},
    memory::Window,
    pipeline,
    source::Archive,
    tape::Tape,
};

/// Links from one name to the next.
const LINKS: usize = 16;

/// Where images come from.
#[derive(Debug)]
pub(super) enum Bundle {
    /// The members of a plain tar.
    Archive {
        /// The tar.
        file: File,
        /// What is in it.
        members: BTreeMap<Vec<u8>, Member>,
    },
    /// An open directory.
    Directory(OwnedFd),
}

/// What a name of an archive is.
#[derive(Debug, Clone)]
pub(super) enum Member {
    /// A file: offset and bytes.
    File(u64, u64),
    /// Another name for a file.
    Link(Vec<u8>),
    /// Something without bytes.
    Other,
}

impl Bundle {
    /// Looks at what a client sent: a directory, a file or a pipe.
    ///
    /// # Errors
    /// If it cannot be read, or is no archive.
    pub(super) fn open(
        source: OwnedFd,
        layers: &Layers,
        limits: &Limits,
        (cancel, audience): (&Cancel, &Audience),
    ) -> Result<Self, ImageError> {
        let file = File::from(source);
        let data = file.metadata().map_err(|source| ImageError::system("look at", "the archive", source))?;
        if data.is_dir() {
            return Ok(Self::Directory(file.into()));
        }
        let archive = Archive::new(file.into())?.told_to(audience, "archive");
        let (file, begin, end) = match archive.plain_file()? {
            Some(plain) => plain,
            None => spool(&archive, layers, limits, cancel)?,
        };
        let members = index(Tape::of_file(clone(&file)?, begin, end), begin, limits)?;
        Ok(Self::Archive { file, members })
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.part(name).is_ok()
    }

    /// A file as an archive of its own, whose bytes must have the digest if there is one.
    ///
    /// # Errors
    /// If there is no such file.
    pub(super) fn archive(&self, name: &str, expected: Option<Digest>) -> Result<Archive, ImageError> {
        let (file, begin, length) = self.part(name)?;
        Ok(Archive::part(file, begin, length, expected))
    }

    /// The bytes of a small file.
    ///
    /// # Errors
    /// If there is no such file, or it is longer than `limit`.
    pub(super) fn bytes(&self, name: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let (file, begin, length) = self.part(name)?;
        if length > limit {
            return Err(fault(name, BundleFault::Long(limit)));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_exact_at(&mut bytes, begin)
            .map_err(|source| ImageError::system("read", quoted(name.as_bytes()), source))?;
        Ok(bytes)
    }

    /// The bytes of a small file that must have this digest.
    ///
    /// # Errors
    /// As [`Bundle::bytes`], and if they have not.
    pub(super) fn verified(&self, name: &str, expected: &Digest, limit: u64) -> Result<Vec<u8>, ImageError> {
        let bytes = self.bytes(name, limit)?;
        let found = digest_of(&bytes);
        match found == *expected {
            true => Ok(bytes),
            false => Err(fault(name, BundleFault::Digest { expected: expected.clone(), found })),
        }
    }

    /// The file, offset and length of one.
    fn part(&self, name: &str) -> Result<(File, u64, u64), ImageError> {
        match self {
            Bundle::Archive { file, members } => {
                let (begin, length) = find(members, name)?;
                Ok((clone(file)?, begin, length))
            }
            Bundle::Directory(directory) => {
                let file = open_below(directory, name)?;
                let data = file
                    .metadata()
                    .map_err(|source| ImageError::system("look at", quoted(name.as_bytes()), source))?;
                match data.is_file() {
                    true => Ok((file, 0, data.len())),
                    false => Err(fault(name, BundleFault::NoFile)),
                }
            }
        }
    }
}

/// An error about a file of the bundle.
pub(super) fn fault(name: &str, fault: BundleFault) -> ImageError {
    ImageError::Bundle { subject: quoted(name.as_bytes()), fault }
}

fn clone(file: &File) -> Result<File, ImageError> {
    file.try_clone().map_err(|source| ImageError::system("duplicate", "the archive's descriptor", source))
}

/// Never out of the directory, and without waiting, whatever is there.
fn open_below(directory: &OwnedFd, name: &str) -> Result<File, ImageError> {
    use rustix::io::Errno;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let below = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    loop {
        return match rustix::fs::openat2(directory.as_fd(), name, flags, Mode::empty(), below) {
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(Errno::NOENT | Errno::NOTDIR) => Err(fault(name, BundleFault::Missing)),
            Err(Errno::XDEV | Errno::LOOP) => Err(fault(name, BundleFault::NoFile)),
            Err(errno) => Err(ImageError::system("open", quoted(name.as_bytes()), errno)),
            Ok(file) => Ok(file.into()),
        };
    }
}

/// Writes the archive, uncompressed, into a file without a name.
fn spool(
    archive: &Archive,
    layers: &Layers,
    limits: &Limits,
    cancel: &Cancel,
) -> Result<(File, u64, u64), ImageError> {
    let failed = |source| ImageError::system("write", "the archive into a file of the store", source);
    let mut file = layers.scratch().map_err(failed)?;
    let (length, _) = pipeline::run(archive, cancel, limits, Window::Longest, |tape| {
        tape.rest(|bytes| file.write_all(bytes).map_err(failed))?;
        Ok(tape.position())
    })?;
    Ok((file, 0, length))
}

/// What is in a plain tar. Only headers are read.
fn index(mut tape: Tape, begin: u64, limits: &Limits) -> Result<BTreeMap<Vec<u8>, Member>, ImageError> {
    let mut members = BTreeMap::new();
    let mut entries = Entries::new(limits, End::Mark);
    while let Some(entry) = entries.next(&mut tape)? {
        let member = match &entry.kind {
            Kind::File(None) => Member::File(begin + tape.position(), entry.stored),
            Kind::Symlink(target) => Member::Link(joined(entry.name.parent(), target)),
            Kind::Hardlink(target) => Member::Link(target.bytes().to_vec()),
            Kind::Directory | Kind::Mark => {
                tape.skip(entry.stored)?;
                tape.skip_padding(entry.stored)?;
                continue;
            }
            Kind::File(Some(_)) | Kind::Fifo | Kind::Character(..) | Kind::Block(..) => Member::Other,
        };
        tape.skip(entry.stored)?;
        tape.skip_padding(entry.stored)?;
        if members.insert(entry.name.bytes().to_vec(), member).is_some() {
            return Err(ImageError::Bundle {
                subject: quoted(entry.name.bytes()),
                fault: BundleFault::Twice,
            });
        }
        limits.check(Cap::Members, members.len() as u64).map_err(|over| ImageError::Bundle {
            subject: "the archive".to_owned(),
            fault: BundleFault::Over(over),
        })?;
    }
    Ok(members)
}

/// The name that a link means: `..` ends at the root, and nothing is looked up anywhere.
fn joined(directory: &[u8], target: &[u8]) -> Vec<u8> {
    let from_root = target.starts_with(b"/");
    let start = if from_root { &b""[..] } else { directory };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in start.split(|byte| *byte == b'/').chain(target.split(|byte| *byte == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join(&b'/')
}

fn find(members: &BTreeMap<Vec<u8>, Member>, name: &str) -> Result<(u64, u64), ImageError> {
    let normal = Name::new(name.as_bytes(), &Limits::default());
    let mut at = normal.map_err(|_refusal| fault(name, BundleFault::Missing))?.bytes().to_vec();
    for step in 0..=LINKS {
        match members.get(&at) {
            Some(Member::File(begin, length)) => return Ok((*begin, *length)),
            Some(Member::Link(target)) => at.clone_from(target),
            Some(Member::Other) => return Err(fault(name, BundleFault::NoFile)),
            None if step == 0 => return Err(fault(name, BundleFault::Missing)),
            None => break,
        }
    }
    Err(fault(name, BundleFault::Link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_archive() {
        for (directory, target, name) in [
            ("a", "../b/layer.tar", "b/layer.tar"),
            ("a/b", "./c", "a/b/c"),
            ("", "../../etc/passwd", "etc/passwd"),
            ("a", "/x", "x"),
        ] {
            let found = joined(directory.as_bytes(), target.as_bytes());
            assert_eq!(String::from_utf8_lossy(&found), name);
        }
    }
}
