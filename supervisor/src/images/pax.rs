//! PAX extension records (POSIX pax, "Extended Header"): `LENGTH KEY=VALUE\n`, where the value is any bytes.
//!
//! The tar crate splits them at newlines and takes the first of two records of a key. Capabilities and names do have
//! newlines in them, and POSIX says that the last one counts; so they are read here.

use super::{
    error::HeaderFault,
    fields,
    limits::{Cap, Limits},
    sparse::SparseRecords,
};

const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// What extension records say about the next entry. `None`: the header counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    /// Bytes of data in the archive.
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    /// Seconds and nanoseconds.
    pub(super) modified: Option<(i64, u32)>,
    /// Name and value.
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseRecords,
}

impl Records {
    /// Adds the records of the header before one entry.
    ///
    /// # Errors
    /// If they are malformed: a record that is passed over could be the one that another reader obeys.
    pub(super) fn extend(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), HeaderFault> {
        each(bytes, |key, value| {
            if let Some(name) = key.strip_prefix(ATTRIBUTE) {
                self.set_attribute(decoded(name), value);
                let count = self.attributes.len() as u64;
                return limits.check(Cap::AttributeCount, count).map_err(HeaderFault::Over);
            }
            if let Some(rest) = key.strip_prefix(SPARSE) {
                return self.sparse.set(rest, value, limits);
            }
            match key {
                b"path" => self.path = text(value),
                b"linkpath" => self.link = text(value),
                b"size" => self.size = parsed(value, "size", fields::decimal)?,
                _ => self.set_common(key, value)?,
            }
            Ok(())
        })
    }

    /// Adds the records of a global header, which hold for all entries after it.
    ///
    /// # Errors
    /// If they are malformed, or of a kind that makes no sense for many entries: readers disagree about those, and
    /// docker passes over all of them.
    pub(super) fn extend_global(&mut self, bytes: &[u8]) -> Result<(), HeaderFault> {
        each(bytes, |key, value| match key {
            b"path" => Err(HeaderFault::Global("path")),
            b"linkpath" => Err(HeaderFault::Global("linkpath")),
            b"size" => Err(HeaderFault::Global("size")),
            _ if key.starts_with(SPARSE) => Err(HeaderFault::Global("GNU.sparse")),
            _ if key.starts_with(ATTRIBUTE) => Err(HeaderFault::Global("SCHILY.xattr")),
            _ => self.set_common(key, value),
        })
    }

    /// Bytes of all names and values of extended attributes.
    pub(super) fn attribute_bytes(&self) -> usize {
        self.attributes.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    fn set_common(&mut self, key: &[u8], value: &[u8]) -> Result<(), HeaderFault> {
        match key {
            b"uid" => self.uid = parsed(value, "uid", fields::decimal)?,
            b"gid" => self.gid = parsed(value, "gid", fields::decimal)?,
            b"mtime" => self.modified = parsed(value, "mtime", fields::time)?,
            // Names of owners mean nothing on another host; other times cannot be set or mean nothing; the rest is
            // for other programs, as POSIX wants it.
            _ => {}
        }
        Ok(())
    }

    fn set_attribute(&mut self, name: Vec<u8>, value: &[u8]) {
        match self.attributes.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => value.clone_into(known),
            None => self.attributes.push((name, value.to_vec())),
        }
    }
}

/// An empty value takes a record back.
fn text(value: &[u8]) -> Option<Vec<u8>> {
    if value.is_empty() { None } else { Some(value.to_vec()) }
}

fn parsed<T>(
    value: &[u8],
    key: &'static str,
    parse: fn(&[u8]) -> Option<T>,
) -> Result<Option<T>, HeaderFault> {
    if value.is_empty() {
        return Ok(None);
    }
    parse(value).map(Some).ok_or(HeaderFault::Number(key))
}

/// GNU tar writes `=` and `%` in the name of an attribute as `%3D` and `%25`.
fn decoded(name: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match (first, tail) {
            (b'%', [b'3', b'D', tail @ ..]) => (b'=', tail),
            (b'%', [b'2', b'5', tail @ ..]) => (b'%', tail),
            (byte, tail) => (*byte, tail),
        };
        result.push(byte);
        rest = tail;
    }
    result
}

/// Calls `take` with each key and value.
fn each(
    bytes: &[u8],
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), HeaderFault>,
) -> Result<(), HeaderFault> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (key, value, tail) = split_record(rest).ok_or(HeaderFault::Extension)?;
        take(key, value)?;
        rest = tail;
    }
    Ok(())
}

/// The first record's key and value, and what comes after it.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(fields::decimal(bytes.get(..blank)?)?).ok()?;
    let (record, tail) = bytes.split_at_checked(length)?;
    let pair = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (pair.get(..equals)?, pair.get(equals + 1..)?);
    if key.is_empty() || key.contains(&0) { None } else { Some((key, value, tail)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_have_newlines_and_the_last_record_counts() {
        let mut records = Records::default();
        records
            .extend(b"12 path=a\nb\n9 size=1\n9 size=2\n14 linkpath=x\n13 linkpath=\n", &Limits::default())
            .expect("well formed");
        assert_eq!(records.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(records.size, Some(2));
        assert_eq!(records.link, None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            &b"8 path=a\n"[..],
            b"11 path=a\n",
            b"x path=a\n",
            b"9 path=ab",
            b"8 patha\n",
            b"4 =\n",
            b"0 path=a\n",
            b"-1 path=a\n",
            b"99999999999999999999999 path=a\n",
            b"11 size=-1\n",
            b"11 size=0x\n",
        ] {
            assert!(
                Records::default().extend(bytes, &Limits::default()).is_err(),
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
}
