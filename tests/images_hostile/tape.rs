//! Tars written block by block, so that anything can be wrong with them.

use tar::{EntryType, Header};

/// Bytes of an entry or of several.
pub(super) type Bytes = Vec<u8>;

/// A GNU header as given, with the right checksum.
pub(super) fn header(kind: u8, name: &[u8], link: &[u8], size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::new(kind));
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_device_major(0).expect("a GNU header has devices");
    header.set_device_minor(0).expect("a GNU header has devices");
    header.set_cksum();
    header
}

/// An entry with its header changed.
pub(super) fn changed(mut header: Header, change: impl Fn(&mut Header), data: &[u8]) -> Bytes {
    change(&mut header);
    header.set_cksum();
    with_data(&header, data)
}

fn with_data(header: &Header, data: &[u8]) -> Bytes {
    let mut bytes = [&header.as_bytes()[..], data].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub(super) fn entry(kind: u8, name: &str, link: &str, data: &[u8]) -> Bytes {
    with_data(&header(kind, name.as_bytes(), link.as_bytes(), data.len() as u64), data)
}

pub(super) fn file(name: &str, data: &str) -> Bytes {
    entry(b'0', name, "", data.as_bytes())
}

pub(super) fn directory(name: &str) -> Bytes {
    entry(b'5', name, "", b"")
}

pub(super) fn symlink(name: &str, target: &str) -> Bytes {
    entry(b'2', name, target, b"")
}

pub(super) fn hardlink(name: &str, target: &str) -> Bytes {
    entry(b'1', name, target, b"")
}

pub(super) fn device(name: &str, major: u32, minor: u32) -> Bytes {
    let change = |header: &mut Header| {
        header.set_device_major(major).expect("a GNU header has devices");
        header.set_device_minor(minor).expect("a GNU header has devices");
    };
    changed(header(b'3', name.as_bytes(), b"", 0), change, b"")
}

/// PAX records for the next entry (`x`) or for all (`g`).
pub(super) fn records(kind: u8, records: &[(&str, &[u8])]) -> Bytes {
    let mut data = Vec::new();
    for (key, value) in records {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..).find(|length| rest + length.to_string().len() == *length).unwrap_or(rest);
        data.extend(format!("{length} {key}=").into_bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    entry(kind, "./PaxHeaders/x", "", &data)
}

pub(super) fn pax(key: &str, value: &[u8]) -> Bytes {
    records(b'x', &[(key, value)])
}

/// A GNU long name for the next entry.
pub(super) fn long_name(name: &[u8]) -> Bytes {
    entry(b'L', "././@LongLink", "", &[name, b"\0"].concat())
}

/// Entries with the end mark.
pub(super) fn tar(entries: &[Bytes]) -> Bytes {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}
