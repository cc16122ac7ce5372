//! Makes the files of an archive in an empty directory.
//!
//! A later entry of a name replaces an earlier one: a directory keeps what is in it and takes the new owner, mode and
//! times; anything else is removed first, so that nothing is ever written through a link; a directory that is not
//! empty gives way to nothing but a directory.
//!
//! Device nodes are made as the archive has them. They open nothing: the layer lies in a directory of root alone, and
//! in a container the device cgroup decides.
//!
//! `.wh.` marks hide what lower layers have (marks.rs). Where there is none below, they make nothing.
//!
//! What is needed to write the archive again is recorded on the way (recording.rs).

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat},
    io::Errno,
};

use super::{
    entries::{End, Entries, Entry, Kind, Name},
    error::{ImageError, Refusal, quoted},
    implied::{self, Implied},
    layers::NewLayer,
    limits::{Cap, Limits},
    marks, metadata,
    recording::Recorder,
    sparse::{Segment, SparseMap},
    tape::Tape,
    tree::{Parents, Place, Tree, failed, open_directory},
};

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    /// Bytes of all files, replaced ones included; holes are none.
    pub(super) bytes: u64,
    /// Bytes of the archive.
    pub(super) tar_bytes: u64,
    /// Marks of removed files that had nothing to hide.
    pub(super) marks: u64,
    /// Extended attributes that were left out.
    pub(super) attributes_left_out: u64,
    /// Directories that have no entry, of a layer above others.
    pub(super) implied: Implied,
}

/// Whether the layer has others below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// It is the lowest one.
    Lowest,
    /// Marks in it have something to hide.
    Above,
}

/// Unpacks the archive into a new layer and records it.
///
/// # Errors
/// If the archive is refused or damaged, or the file system fails. What was made until then is left there.
pub(super) fn unpack(
    tape: &mut Tape,
    layer: &NewLayer,
    position: Position,
    end: End,
    limits: &Limits,
) -> Result<Totals, ImageError> {
    tape.record(Recorder::new(layer.recording()?)?);
    if end == End::Digest {
        tape.allow_unfilled_end();
    }
    let parents = if position == Position::Lowest { Parents::Plain } else { Parents::Marked };
    let tree = Tree::new(layer.tree(), parents);
    let mut unpacking = Unpacking { tree, layer, position, limits, totals: Totals::default() };
    unpacking.totals.implied.root = position == Position::Above;
    let mut entries = Entries::new(limits, end);
    while let Some(entry) = entries.next(tape)? {
        unpacking.make(&entry, tape)?;
        // One name may have hundreds.
        let over = |over| ImageError::refused(entry.name.bytes(), Refusal::Over(over));
        limits.check(Cap::Entries, unpacking.tree.parents_made()).map_err(over)?;
    }
    unpacking.tree.leave()?;
    if position == Position::Above {
        unpacking.totals.implied.directories = unpacking.tree.parents_made();
    }
    tape.drain()?;
    tape.end_record()?;
    unpacking.totals.tar_bytes = tape.position();
    Ok(unpacking.totals)
}

struct Unpacking<'u> {
    tree: Tree<'u>,
    layer: &'u NewLayer,
    position: Position,
    limits: &'u Limits,
    totals: Totals,
}

impl Unpacking<'_> {
    fn make(&mut self, entry: &Entry, tape: &mut Tape) -> Result<(), ImageError> {
        let refused = |refusal| Err(ImageError::refused(entry.name.bytes(), refusal));
        self.tree.begin_entry()?;
        self.totals.attributes_left_out += metadata::check_attributes(entry)?;
        if entry.name.is_root() {
            return match entry.kind {
                Kind::Directory => {
                    self.totals.implied.root = false;
                    metadata::apply(self.tree.root()?, entry)
                }
                Kind::File(_)
                | Kind::Symlink(_)
                | Kind::Hardlink(_)
                | Kind::Fifo
                | Kind::Character(..)
                | Kind::Block(..)
                | Kind::Mark => refused(Refusal::NotDirectory),
            };
        }
        match &entry.kind {
            Kind::File(map) => self.make_file(entry, map.as_ref(), tape),
            Kind::Directory => self.make_directory(entry),
            Kind::Symlink(target) => {
                let link =
                    |place: Place<'_>| rustix::fs::symlinkat(target.as_slice(), place.directory, place.name);
                self.make_anew(&entry.name, "make the symbolic link", link)?;
                metadata::apply_to_link(self.tree.place(&entry.name)?, entry)
            }
            Kind::Hardlink(target) => self.make_hardlink(entry, target),
            Kind::Fifo => self.make_node(entry, FileType::Fifo, 0),
            Kind::Character(0, 0) => refused(Refusal::OverlayMark),
            Kind::Character(major, minor) => {
                self.make_node(entry, FileType::CharacterDevice, rustix::fs::makedev(*major, *minor))
            }
            Kind::Block(major, minor) => {
                self.make_node(entry, FileType::BlockDevice, rustix::fs::makedev(*major, *minor))
            }
            Kind::Mark => {
                match self.position {
                    Position::Lowest => self.totals.marks += 1,
                    Position::Above => marks::make(&mut self.tree, entry)?,
                }
                tape.copy(entry.stored, |_| Ok(()))?;
                tape.skip_padding(entry.stored)
            }
        }
    }

    fn make_file(
        &mut self,
        entry: &Entry,
        map: Option<&SparseMap>,
        tape: &mut Tape,
    ) -> Result<(), ImageError> {
        let over = |over| ImageError::refused(entry.name.bytes(), Refusal::Over(over));
        self.limits.check(Cap::File, map.map_or(entry.stored, |map| map.size)).map_err(over)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.make_anew(&entry.name, "make the file", |place| {
            rustix::fs::openat(place.directory, place.name, flags, Mode::from_raw_mode(0o600))
        })?;
        if entry.stored > 0 {
            let stat = rustix::fs::fstat(&file).map_err(|errno| failed("look at", &entry.name, errno))?;
            tape.record_file(&self.tree.path_without_links(&entry.name), stat.st_ino)?;
        }
        match map {
            None => write_run(&file, entry, Segment { offset: 0, length: entry.stored }, tape)?,
            Some(map) => {
                let fault = |errno| failed("write", &entry.name, errno);
                rustix::fs::ftruncate(&file, map.size).map_err(fault)?;
                for segment in &map.segments {
                    rustix::fs::seek(&file, SeekFrom::Start(segment.offset)).map_err(fault)?;
                    write_run(&file, entry, *segment, tape)?;
                }
            }
        }
        tape.skip_padding(entry.stored)?;
        self.totals.bytes += entry.stored;
        metadata::apply(file.as_fd(), entry)
    }

    fn make_directory(&mut self, entry: &Entry) -> Result<(), ImageError> {
        let place = self.tree.place(&entry.name)?;
        let there = place.look().ok();
        let is_directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !there.as_ref().is_some_and(is_directory) {
            self.make_anew(&entry.name, "make the directory", |place| {
                rustix::fs::mkdirat(place.directory, place.name, Mode::from_raw_mode(0o700))
            })?;
        }
        let directory = open_directory(self.tree.place(&entry.name)?)
            .map_err(|errno| failed("open the directory", &entry.name, errno))?;
        if there.as_ref().is_some_and(marks::is_whiteout) {
            marks::make_opaque(&directory, &entry.name)?;
        }
        if there.as_ref().is_some_and(is_directory) && self.tree.parents_made() > 0 {
            implied::unmark(&directory).map_err(|errno| failed("make", &entry.name, errno))?;
        }
        metadata::apply(directory.as_fd(), entry)
    }

    /// Another name of a file of the archive. What the entry says of owner and mode is the file's own, and not
    /// looked at, as GNU tar has it.
    fn make_hardlink(&mut self, entry: &Entry, target: &Name) -> Result<(), ImageError> {
        let refused = |refusal: fn(String) -> Refusal| {
            ImageError::refused(entry.name.bytes(), refusal(quoted(target.bytes())))
        };
        let missing = |errno| match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => refused(Refusal::MissingTarget),
            _ => failed("look up the link target of", &entry.name, errno),
        };
        if target.is_root() {
            return Err(refused(Refusal::DirectoryTarget));
        }
        let directory = self.tree.target_directory(target).map_err(missing)?;
        let old = Place { directory: directory.as_fd(), name: target.last() };
        let stat = old.look().map_err(missing)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(refused(Refusal::DirectoryTarget));
        }
        // Of itself, or once more: removing it first would lose the file.
        let there = self.tree.place(&entry.name)?.look();
        if there.is_ok_and(|there| (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        self.make_anew(&entry.name, "make the hard link", |place| {
            rustix::fs::linkat(old.directory, old.name, place.directory, place.name, AtFlags::empty())
        })
    }

    fn make_node(&mut self, entry: &Entry, kind: FileType, device: u64) -> Result<(), ImageError> {
        self.make_anew(&entry.name, "make the device node or fifo", |place| {
            rustix::fs::mknodat(place.directory, place.name, kind, Mode::from_raw_mode(0o600), device)
        })?;
        metadata::apply_to_node(self.tree.place(&entry.name)?, entry)
    }

    /// Makes something that must not be there yet; what is there is removed first.
    fn make_anew<T>(
        &mut self,
        name: &Name,
        action: &'static str,
        make: impl Fn(Place<'_>) -> Result<T, Errno>,
    ) -> Result<T, ImageError> {
        let layer = self.layer;
        let place = self.tree.place(name)?;
        let fault = |errno| failed(action, name, errno);
        match make(place) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(fault),
        }
        clear(layer, place).map_err(|errno| match errno {
            Errno::NOTEMPTY | Errno::EXIST => ImageError::refused(name.bytes(), Refusal::InTheWay),
            _ => failed("replace", name, errno),
        })?;
        let made = make(place).map_err(fault);
        self.tree.forget();
        made
    }
}

/// Removes what is there. The recording needs the contents of files, so these are kept.
fn clear(layer: &NewLayer, place: Place<'_>) -> Result<(), Errno> {
    let stat = place.look()?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    match is_file && stat.st_size > 0 {
        true => layer.keep(place.directory, place.name, stat.st_ino),
        false => place.clear(),
    }
}

/// Writes the next bytes of the tape at the file's offset, which is the segment's.
fn write_run(file: &OwnedFd, entry: &Entry, segment: Segment, tape: &mut Tape) -> Result<(), ImageError> {
    tape.copy_contents(segment.offset, segment.length, |bytes| {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = match rustix::io::write(file, rest) {
                Err(Errno::INTR) => continue,
                result => result.map_err(|errno| failed("write", &entry.name, errno))?,
            };
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    })
}
