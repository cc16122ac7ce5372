//! Writes a tar entry by entry: ustar headers, and PAX records (POSIX pax, "Extended Header") for what does not fit into one:
//! long and other than ASCII names, nanoseconds, large numbers, extended attributes as GNU tar, docker and bsdtar have them,
//! holes in GNU's form 1.0. The same entries always become the same bytes.

use std::io::{self, Write};

use super::{sparse::SparseMap, tape::BLOCK};

/// Bytes of a name in a ustar header.
const NAME: usize = 100;
/// The largest number of an eight-byte octal field.
const SMALL: u64 = 0o7_777_777;
/// The largest number of a twelve-byte octal field.
const LARGE: u64 = 0o77_777_777_777;

/// All that an entry is besides its data.
#[derive(Debug)]
pub(super) struct Head<'h> {
    /// Relative; a directory's without its slash.
    pub(super) name: &'h [u8],
    pub(super) kind: HeadKind<'h>,
    /// Permission bits, setuid and the like.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(super) modified: (i64, u32),
    /// Names and values of extended attributes.
    pub(super) attributes: &'h [(Vec<u8>, Vec<u8>)],
}

/// What an entry is.
#[derive(Debug, Clone, Copy)]
pub(super) enum HeadKind<'h> {
    /// With so many bytes of data to follow.
    File(u64),
    /// Its segments are the data to follow.
    Sparse(&'h SparseMap),
    Directory,
    Symlink(&'h [u8]),
    Hardlink(&'h [u8]),
    Fifo,
    /// Major and minor number.
    Character(u32, u32),
    Block(u32, u32),
}

/// A tar that is being written.
#[derive(Debug)]
pub(super) struct TarWriter<W> {
    out: W,
    /// Bytes so far.
    position: u64,
}

impl<W: Write> TarWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, position: 0 }
    }

    /// Begins an entry.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn head(&mut self, head: &Head<'_>) -> io::Result<()> {
        let mut records = Records::default();
        let mut name = head.name.to_vec();
        if matches!(head.kind, HeadKind::Directory) {
            name.push(b'/');
        }
        let (shown, map) = if let HeadKind::Sparse(sparse) = head.kind {
            records.add(b"GNU.sparse.major", b"1");
            records.add(b"GNU.sparse.minor", b"0");
            records.add(b"GNU.sparse.name", &name);
            records.add(b"GNU.sparse.realsize", sparse.size.to_string().as_bytes());
            ([b"GNUSparseFile.0/", name.as_slice()].concat(), map_text(sparse))
        } else {
            if !fits(&name) {
                records.add(b"path", &name);
            }
            (name, Vec::new())
        };
        let (flag, link, size, device) = match head.kind {
            HeadKind::File(size) => (b'0', &b""[..], size, None),
            HeadKind::Sparse(sparse) => (b'0', &b""[..], map.len() as u64 + data_of(sparse), None),
            HeadKind::Directory => (b'5', &b""[..], 0, None),
            HeadKind::Symlink(target) => (b'2', target, 0, None),
            HeadKind::Hardlink(target) => (b'1', target, 0, None),
            HeadKind::Fifo => (b'6', &b""[..], 0, None),
            HeadKind::Character(major, minor) => (b'3', &b""[..], 0, Some((major, minor))),
            HeadKind::Block(major, minor) => (b'4', &b""[..], 0, Some((major, minor))),
        };
        if !fits(link) {
            records.add(b"linkpath", link);
        }
        let size = records.number(b"size", size, LARGE);
        let uid = records.number(b"uid", head.uid.into(), SMALL);
        let gid = records.number(b"gid", head.gid.into(), SMALL);
        let (seconds, nanoseconds) = head.modified;
        let time = u64::try_from(seconds).ok().filter(|time| *time <= LARGE && nanoseconds == 0);
        if time.is_none() {
            records.add(b"mtime", decimal_time(seconds, nanoseconds).as_bytes());
        }
        let time = time.or_else(|| u64::try_from(seconds).ok()).filter(|time| *time <= LARGE).unwrap_or(0);
        for (key, value) in head.attributes {
            records.add(&[b"SCHILY.xattr.", encoded(key).as_slice()].concat(), value);
        }
        if !records.0.is_empty() {
            let numbers = Numbers { mode: 0o644, size: records.0.len() as u64, ..Numbers::default() };
            self.block(b'x', b"PaxHeaders.0/entry", b"", &numbers)?;
            self.data(&records.0)?;
            self.pad()?;
        }
        let numbers = Numbers { mode: head.mode.into(), uid, gid, size, time, device };
        self.block(flag, &shown, link, &numbers)?;
        self.data(&map)
    }

    /// Data of the entry that was begun.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Ends the data of an entry.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn pad(&mut self) -> io::Result<()> {
        let filled = usize::try_from(self.position % BLOCK as u64).unwrap_or_default();
        if filled > 0 {
            self.data(&[0; BLOCK][filled..])?;
        }
        Ok(())
    }

    /// Writes the end mark and gives the writer back.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.data(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn block(&mut self, flag: u8, name: &[u8], link: &[u8], numbers: &Numbers) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        let ustar = header.as_ustar_mut().expect("it was made one");
        text(&mut ustar.name, name);
        text(&mut ustar.linkname, link);
        ustar.typeflag = [flag];
        octal(&mut ustar.mode, numbers.mode);
        octal(&mut ustar.uid, numbers.uid);
        octal(&mut ustar.gid, numbers.gid);
        octal(&mut ustar.size, numbers.size);
        octal(&mut ustar.mtime, numbers.time);
        if let Some((major, minor)) = numbers.device {
            octal(&mut ustar.dev_major, major.into());
            octal(&mut ustar.dev_minor, minor.into());
        }
        header.set_cksum();
        self.data(header.as_bytes())
    }
}

#[derive(Default)]
struct Numbers {
    mode: u64,
    uid: u64,
    gid: u64,
    size: u64,
    time: u64,
    device: Option<(u32, u32)>,
}

/// PAX records.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    /// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(length.to_string().as_bytes());
        for part in [b" ", key, b"=", value, b"\n"] {
            self.0.extend_from_slice(part);
        }
    }

    /// The number for the header: 0 if only a record can have it.
    fn number(&mut self, key: &[u8], number: u64, most: u64) -> u64 {
        if number <= most {
            return number;
        }
        self.add(key, number.to_string().as_bytes());
        0
    }
}

/// Names of other letters than ASCII are in the records, where readers take them as they are.
fn fits(name: &[u8]) -> bool {
    name.len() <= NAME && name.is_ascii()
}

/// As much as there is room for.
fn text(field: &mut [u8], text: &[u8]) {
    for (place, byte) in field.iter_mut().zip(text) {
        *place = if byte.is_ascii() { *byte } else { b'_' };
    }
}

fn octal(field: &mut [u8], number: u64) {
    let width = field.len() - 1;
    for (place, digit) in field.iter_mut().zip(format!("{number:0width$o}").bytes()) {
        *place = digit;
    }
}

/// Seconds before 1970 count backwards, and so do their parts.
fn decimal_time(seconds: i64, nanoseconds: u32) -> String {
    let text = match (seconds, nanoseconds) {
        (seconds, 0) => return seconds.to_string(),
        (seconds @ 0.., part) => format!("{seconds}.{part:09}"),
        (seconds, part) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - part),
    };
    text.trim_end_matches('0').to_owned()
}

/// A record's key ends at its first `=`: GNU tar's way, which docker's reader does not know. `%` stays what it is where
/// nobody can take it for the beginning of that.
fn encoded(name: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(name.len());
    for (at, byte) in name.iter().enumerate() {
        let rest = name.get(at + 1..).unwrap_or_default();
        match byte {
            b'=' => result.extend_from_slice(b"%3D"),
            b'%' if rest.starts_with(b"3D") || rest.starts_with(b"25") => result.extend_from_slice(b"%25"),
            other => result.push(*other),
        }
    }
    result
}

fn data_of(map: &SparseMap) -> u64 {
    map.segments.iter().map(|segment| segment.length).sum()
}

/// Decimal numbers, each with a newline: how many segments, and offset and length of each; filled to whole blocks.
fn map_text(map: &SparseMap) -> Vec<u8> {
    let mut text = format!("{}\n", map.segments.len());
    for segment in &map.segments {
        text.push_str(&format!("{}\n{}\n", segment.offset, segment.length));
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for length in 1..1200 {
            let mut records = Records::default();
            records.add(b"k", &vec![b'v'; length]);
            let text = String::from_utf8(records.0).expect("ASCII");
            let (number, _) = text.split_once(' ').expect("a blank");
            assert_eq!(number.parse::<usize>().expect("a number"), text.len());
        }
    }

    #[test]
    fn times_are_read_as_they_were_written() {
        for time in [(0, 0), (5, 1), (-1, 999_999_999), (-2, 500_000_000), (-7, 0), (1 << 40, 120)] {
            let text = decimal_time(time.0, time.1);
            assert_eq!(super::super::fields::time(text.as_bytes()), Some(time), "{text}");
        }
    }
}
