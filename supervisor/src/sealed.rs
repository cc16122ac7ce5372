//! Records that a person can read: a header line and JSON.
//!
//! ```text
//! mysup-container 1 <sha256 of the rest, hex> <bytes of the rest>\n
//! { ... }
//! ```
//! JSON, so that a person can read it; the header, so that half a file, or a file with a changed byte, is never taken
//! for a record.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

const VERSION: &str = "1";
/// The most bytes of a record. A request is at most 4 MiB, and JSON at worst spells each byte with six (`\u0001`).
const BOUND: u64 = 32 << 20;

/// The bytes of a record; `magic` is the first word of its header.
///
/// # Errors
/// If it has no JSON form.
pub(crate) fn to_bytes(magic: &str, record: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(record)?;
    json.push(b'\n');
    let mut bytes = format!("{magic} {VERSION} {} {}\n", checksum(&json), json.len()).into_bytes();
    bytes.append(&mut json);
    Ok(bytes)
}

/// Reads the record in a file.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn read<T: DeserializeOwned>(magic: &str, path: &Path) -> Result<T, String> {
    // Once more: there are errors of the moment, and nobody reads it again before the next start.
    parse(magic, &load(path).or_else(|_| load(path))?)
}

fn load(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| format!("open: {error}"))?;
    let mut bytes = Vec::new();
    file.take(BOUND).read_to_end(&mut bytes).map_err(|error| format!("read: {error}"))?;
    Ok(bytes)
}

/// The record that these bytes are.
///
/// # Errors
/// What is wrong with them, for people.
pub(crate) fn parse<T: DeserializeOwned>(magic: &str, bytes: &[u8]) -> Result<T, String> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("it is cut short in its first line")?;
    let (header, json) = (&bytes[..end], &bytes[end + 1..]);
    let header = std::str::from_utf8(header).map_err(|_| "its first line is damaged")?;
    let words: Vec<&str> = header.split(' ').collect();
    let [word, version, sum, length] = words[..] else { return Err("its first line is damaged".into()) };
    if word != magic {
        return Err("its first line is damaged".into());
    }
    if version != VERSION {
        return Err(format!("it is of version {version}, this program reads {VERSION}"));
    }
    if length != json.len().to_string() {
        return Err(format!("it has {} bytes, {length} were written", json.len()));
    }
    if sum != checksum(json) {
        return Err("its checksum does not match".into());
    }
    serde_json::from_slice(json).map_err(|error| format!("it has another form: {error}"))
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
