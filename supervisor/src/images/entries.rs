//! The entries of a tar, from its blocks: ustar, old V7, GNU and PAX.
//!
//! The tar crate lends the layout of the headers. Its iterator is not used: it holds extension headers of any length
//! in memory, splits PAX values at newlines, knows no PAX sparse files, takes an archive without an end mark for a
//! whole one, and takes sizes modulo 2^64. What two readers could understand in two ways is refused here: that is
//! how entries are smuggled past a scanner (CVE-2025-62518, CVE-2026-33055).

use super::{
    error::{ArchiveFault, HeaderFault, ImageError, Refusal},
    fields,
    limits::{Cap, Limits},
    pax::Records,
    sparse::{self, SparseMap},
    tape::{BLOCK, Tape},
};

/// What an entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// With `Entry::stored` bytes of data next on the tape, and where they belong if the file has holes.
    File(Option<SparseMap>),
    Directory,
    /// The target as it is, any text.
    Symlink(Vec<u8>),
    Hardlink(Name),
    Fifo,
    /// Major and minor number.
    Character(u32, u32),
    /// Major and minor number.
    Block(u32, u32),
    /// `.wh.`: the mark of a removed file.
    Mark,
}

/// One entry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) kind: Kind,
    /// Bytes of data on the tape.
    pub(super) stored: u64,
    /// Permission bits with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, u32),
    /// Name and value.
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A name relative to the root: components without empty ones, `.` and `..`, joined by `/`. The root's is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name(Vec<u8>);

impl Name {
    /// A leading `/` means the root of the container, as everywhere in an archive of a root file system.
    pub(super) fn new(raw: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        if raw.is_empty() {
            return Err(Refusal::EmptyName);
        }
        if raw.contains(&0) {
            return Err(Refusal::NulInName);
        }
        let mut name = Vec::with_capacity(raw.len());
        let mut depth = 0;
        for component in raw.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(Refusal::Upwards),
                part => limits.check(Cap::Component, part.len() as u64).map_err(Refusal::Over)?,
            }
            if depth > 0 {
                name.push(b'/');
            }
            name.extend_from_slice(component);
            depth += 1;
        }
        limits.check(Cap::Name, name.len() as u64).map_err(Refusal::Over)?;
        limits.check(Cap::Depth, depth).map_err(Refusal::Over)?;
        Ok(Self(name))
    }

    /// All of it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory it is in; empty is the root.
    pub(super) fn parent(&self) -> &[u8] {
        let slash = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.0.get(..slash).unwrap_or_default()
    }

    /// Its last component.
    pub(super) fn last(&self) -> &[u8] {
        self.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

/// How it is known that an archive is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By its end mark.
    Mark,
    /// By its digest, which is known: then the mark may be missing, as some tools leave it out.
    Digest,
}

/// Reads entry after entry.
#[derive(Debug)]
pub(super) struct Entries<'l> {
    limits: &'l Limits,
    end: End,
    globals: Records,
    /// Entries so far, global headers included.
    count: u64,
    attribute_bytes: u64,
}

/// The extension headers before an entry.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<Vec<u8>>,
}

impl Extensions {
    fn any(&self) -> bool {
        self.name.is_some() || self.link.is_some() || self.records.is_some()
    }
}

impl<'l> Entries<'l> {
    pub(super) fn new(limits: &'l Limits, end: End) -> Self {
        Self { limits, end, globals: Records::default(), count: 0, attribute_bytes: 0 }
    }

    /// The next entry; its data is next on the tape. `None` at the end mark.
    ///
    /// # Errors
    /// If the archive is cut short, damaged, ambiguous, over a limit, or has an entry that is not taken.
    pub(super) fn next(&mut self, tape: &mut Tape) -> Result<Option<Entry>, ImageError> {
        let mut extensions = Extensions::default();
        loop {
            let offset = tape.position();
            let block = match tape.block() {
                Ok(Some(block)) => block,
                Ok(None) if self.end == End::Digest && !extensions.any() => return Ok(None),
                Ok(None) => return Err(tape.cut()),
                Err(ImageError::Archive(ArchiveFault::Cut { .. })) if offset == 0 => {
                    return Err(ArchiveFault::NotTar.into());
                }
                Err(error) => return Err(error),
            };
            let fault = |fault| ImageError::header(offset, fault);
            if block == [0; BLOCK] {
                return match (extensions.any(), tape.block()?) {
                    (false, None) => Ok(None),
                    (false, Some(second)) if second == [0; BLOCK] => Ok(None),
                    // Some readers go on after one block of zeros, others stop.
                    (false, Some(_)) | (true, _) => Err(fault(HeaderFault::Contradiction)),
                };
            }
            let header = tar::Header::from_byte_slice(&block);
            if !checksum_is_right(header) {
                return Err(match offset {
                    0 => ArchiveFault::NotTar.into(),
                    _ => fault(HeaderFault::Checksum),
                });
            }
            let name = header_name(header);
            match header.as_old().linkflag {
                // At most one of each before an entry.
                [b'L'] => self.extension(header, offset, tape, &mut extensions.name)?,
                [b'K'] => self.extension(header, offset, tape, &mut extensions.link)?,
                [b'x'] => self.extension(header, offset, tape, &mut extensions.records)?,
                [b'g'] => {
                    self.count(&name)?;
                    let mut records = None;
                    self.extension(header, offset, tape, &mut records)?;
                    self.globals.extend_global(&records.unwrap_or_default()).map_err(fault)?;
                }
                // The label of the tape.
                [b'V'] if !extensions.any() => self.count(&name)?,
                [_] => return self.entry(header, name, offset, extensions, tape).map(Some),
            }
        }
    }

    fn count(&mut self, name: &[u8]) -> Result<(), ImageError> {
        self.count += 1;
        let over = |over| ImageError::refused(name, Refusal::Over(over));
        self.limits.check(Cap::Entries, self.count).map_err(over)
    }

    /// The data of an extension header.
    fn extension(
        &self,
        header: &tar::Header,
        offset: u64,
        tape: &mut Tape,
        slot: &mut Option<Vec<u8>>,
    ) -> Result<(), ImageError> {
        let fault = |fault| ImageError::header(offset, fault);
        if slot.is_some() {
            return Err(fault(HeaderFault::Contradiction));
        }
        let size =
            fields::unsigned(&header.as_old().size).ok_or_else(|| fault(HeaderFault::Number("size")))?;
        self.limits.check(Cap::Extension, size).map_err(|over| fault(HeaderFault::Over(over)))?;
        *slot = Some(tape.bytes(size)?);
        tape.skip_padding(size)
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        header_name: Vec<u8>,
        offset: u64,
        extensions: Extensions,
        tape: &mut Tape,
    ) -> Result<Entry, ImageError> {
        let fault = |fault| ImageError::header(offset, fault);
        let number = |field| fault(HeaderFault::Number(field));
        let old = header.as_old();
        let mut records = self.globals.clone();
        if let Some(bytes) = &extensions.records {
            records.extend(bytes, self.limits).map_err(fault)?;
        }
        let raw = one_of(long(extensions.name), records.sparse.name.take().or(records.path.take()))
            .map_err(fault)?
            .unwrap_or(header_name);
        tape.enter(&raw);
        self.count(&raw)?;
        let refused = |refusal| ImageError::refused(&raw, refusal);
        let link = one_of(long(extensions.link), records.link.take())
            .map_err(fault)?
            .unwrap_or_else(|| fields::text(&old.linkname).to_vec());
        let name = Name::new(&raw, self.limits).map_err(refused)?;
        let stored = match records.size {
            Some(size) => size,
            None => fields::unsigned(&old.size).ok_or_else(|| number("size"))?,
        };
        let bytes = records.attribute_bytes() as u64;
        self.attribute_bytes += bytes;
        self.limits
            .check(Cap::Attributes, bytes)
            .and_then(|()| self.limits.check(Cap::AllAttributes, self.attribute_bytes))
            .map_err(|over| refused(Refusal::Over(over)))?;
        let owner = |record: Option<u64>, field: &[u8], label| {
            let number = record.or_else(|| fields::unsigned(field)).ok_or_else(|| number(label))?;
            // The last one is -1, which means "as it is" to chown(2).
            match u32::try_from(number) {
                Ok(id) if id != u32::MAX => Ok(id),
                _ => Err(refused(Refusal::Owner(number))),
            }
        };
        let uid = owner(records.uid, &old.uid, "uid")?;
        let gid = owner(records.gid, &old.gid, "gid")?;
        let mode = fields::number(&old.mode).ok_or_else(|| number("mode"))?;
        let modified = match records.modified {
            Some(time) => time,
            None => (fields::number(&old.mtime).ok_or_else(|| number("mtime"))?, 0),
        };
        let (kind, stored) = self.kind(header, &raw, link, stored, &records, tape)?;
        Ok(Entry {
            kind: if is_mark(&name).map_err(refused)? { Kind::Mark } else { kind },
            name,
            stored,
            mode: u32::try_from(mode & 0o7777).unwrap_or_default(),
            uid,
            gid,
            modified,
            attributes: records.attributes,
        })
    }

    /// What the entry makes, and how many bytes of data follow.
    fn kind(
        &self,
        header: &tar::Header,
        raw: &[u8],
        link: Vec<u8>,
        stored: u64,
        records: &Records,
        tape: &mut Tape,
    ) -> Result<(Kind, u64), ImageError> {
        let refused = |refusal| ImageError::refused(raw, refusal);
        let [flag] = header.as_old().linkflag;
        let kind = match flag {
            // Before ustar, a directory was a file whose name ends in a slash.
            b'0' | 0 | b'7' if raw.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' if records.sparse.present() => {
                let (map, stored) = records.sparse.map(stored, tape, self.limits)?;
                return Ok((Kind::File(Some(map)), stored));
            }
            b'0' | 0 | b'7' => return Ok((Kind::File(None), stored)),
            b'S' => {
                let gnu = header.as_gnu().ok_or_else(|| refused(Refusal::Type('S')))?;
                return Ok((Kind::File(Some(sparse::old_gnu_map(gnu, stored, tape, self.limits)?)), stored));
            }
            b'1' => Kind::Hardlink(
                Name::new(&link, self.limits)
                    .map_err(|refusal| refused(Refusal::Target(Box::new(refusal))))?,
            ),
            b'2' => Kind::Symlink(target(link, self.limits).map_err(refused)?),
            b'3' => device(header).map(|(major, minor)| Kind::Character(major, minor)).map_err(refused)?,
            b'4' => device(header).map(|(major, minor)| Kind::Block(major, minor)).map_err(refused)?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(refused(Refusal::Type(char::from(other)))),
        };
        // Some readers pass over such data, some take it for the next header.
        if stored != 0 {
            return Err(refused(Refusal::Data(stored)));
        }
        Ok((kind, 0))
    }
}

/// A GNU long name ends at its NUL.
fn long(data: Option<Vec<u8>>) -> Option<Vec<u8>> {
    data.map(|mut data| {
        if data.last() == Some(&0) {
            data.pop();
        }
        data
    })
}

/// GNU and PAX extensions may both be there, if they say the same: readers disagree about which one wins.
fn one_of(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, HeaderFault> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err(HeaderFault::Contradiction),
        (Some(name), _) | (None, Some(name)) => Ok(Some(name)),
        (None, None) => Ok(None),
    }
}

/// The text of a symbolic link: any, but one that the kernel can store.
fn target(link: Vec<u8>, limits: &Limits) -> Result<Vec<u8>, Refusal> {
    match link.as_slice() {
        [] => Err(Refusal::NoTarget),
        text if text.contains(&0) => Err(Refusal::Target(Box::new(Refusal::NulInName))),
        text => match limits.check(Cap::Name, text.len() as u64) {
            Err(over) => Err(Refusal::Target(Box::new(Refusal::Over(over)))),
            Ok(()) => Ok(link),
        },
    }
}

/// The kernel has 12 bits for the major and 20 for the minor number.
fn device(header: &tar::Header) -> Result<(u32, u32), Refusal> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        (None, None) => return Err(Refusal::Type(char::from(header.as_old().linkflag[0]))),
    };
    let major = fields::unsigned(major).unwrap_or(u64::MAX);
    let minor = fields::unsigned(minor).unwrap_or(u64::MAX);
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(short_major), Ok(short_minor)) if short_major < 1 << 12 && short_minor < 1 << 20 => {
            Ok((short_major, short_minor))
        }
        _ => Err(Refusal::DeviceNumber(major, minor)),
    }
}

/// Whether it is the mark of a removed file. docker takes marks in an imported archive as such, so no file of that
/// name is ever seen in a container; and to the aufs driver they are marks on the disk too. Below a mark is nothing.
fn is_mark(name: &Name) -> Result<bool, Refusal> {
    const MARK: &[u8] = b".wh.";
    if name.parent().split(|byte| *byte == b'/').any(|component| component.starts_with(MARK)) {
        return Err(Refusal::Mark);
    }
    match name.last().strip_prefix(MARK) {
        None => Ok(false),
        Some(b"" | b"." | b"..") => Err(Refusal::Mark),
        Some(_) => Ok(true),
    }
}

/// The name in the header itself: ustar has a second field for its beginning, shorter where star wrote it.
fn header_name(header: &tar::Header) -> Vec<u8> {
    let name = fields::text(&header.as_old().name);
    let Some(ustar) = header.as_ustar() else { return name.to_vec() };
    let prefix = match ustar.pad.ends_with(b"tar\0") {
        true => ustar.prefix.get(..131).unwrap_or_default(),
        false => &ustar.prefix,
    };
    match fields::text(prefix) {
        [] => name.to_vec(),
        prefix => [prefix, b"/", name].concat(),
    }
}

/// The sum of all bytes with the checksum itself as blanks. Some old tars summed signed bytes.
fn checksum_is_right(header: &tar::Header) -> bool {
    let Some(sum) = fields::unsigned(&header.as_old().cksum) else { return false };
    let bytes = header.as_bytes();
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (at, byte) in bytes.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    [unsigned, signed].iter().any(|found| u64::try_from(*found) == Ok(sum))
}
