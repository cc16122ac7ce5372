//! Framing without IO: bytes in, frames out.
//!
//! ```text
//!  offset 0      4        6       8        12       16
//!         magic  version  kind    length   crc32    payload (bincode)
//!         u32    u16      u16     u32      u32      length bytes          all little-endian
//! ```
//!
//! The same frame is used on sockets, in the undo journal and for records on disk: a torn tail is recognised by
//! its length or checksum and is never half a message.

/// `MSUP`: the first four bytes of every frame.
pub const MAGIC: u32 = u32::from_le_bytes(*b"MSUP");
/// The version of all payload types. A shim is as old as its container, so a supervisor must read every released one.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER: usize = 16;
/// The largest payload. An exec may carry up to 2 MiB of arguments and environment (execve(2)); beyond this bound a
/// frame is refused before anything is allocated for it.
pub const MAX_PAYLOAD: usize = 4 << 20;

/// What a payload is; one number for each top-level type. Only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// [`crate::api::Request`]
    Request = 1,
    /// [`crate::api::Response`]
    Response = 2,
    /// [`crate::shim::ToShim`]
    ToShim = 3,
    /// [`crate::shim::FromShim`]
    FromShim = 4,
    /// [`crate::exit::ExitReport`] on disk
    ExitRecord = 5,
    /// [`crate::teardown::TeardownReport`] on disk
    TeardownRecord = 6,
    /// One entry of the shim's undo journal
    Journal = 7,
    /// [`crate::progress::Progress`]
    Progress = 8,
    /// [`crate::registry::ToRegistry`]
    ToRegistry = 9,
    /// [`crate::registry::FromRegistry`]
    FromRegistry = 10,
    /// [`crate::stop::StopUnderWay`] on disk
    StopRecord = 11,
}

impl Kind {
    fn from_number(number: u16) -> Option<Self> {
        use Kind::{
            ExitRecord, FromRegistry, FromShim, Journal, Progress, Request, Response, StopRecord,
            TeardownRecord, ToRegistry, ToShim,
        };
        [Request, Response, ToShim, FromShim, ExitRecord, TeardownRecord, Journal]
            .into_iter()
            .chain([Progress, ToRegistry, FromRegistry, StopRecord])
            .find(|kind| *kind as u16 == number)
    }
}

/// Why bytes are not a frame. All but a short read are fatal for a connection: the stream has no other sync point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first bytes are not ours.
    #[error("not a mysup frame (magic {0:#010x})")]
    Magic(u32),
    /// Another protocol version.
    #[error("protocol version {0}, this program speaks {VERSION}")]
    Version(u16),
    /// A kind this version does not know.
    #[error("unknown frame kind {0}")]
    Kind(u16),
    /// Larger than [`MAX_PAYLOAD`].
    #[error("frame of {0} bytes, at most {MAX_PAYLOAD} are allowed")]
    TooLong(usize),
    /// The bytes changed on the way.
    #[error("frame checksum does not match")]
    Checksum,
}

/// One frame: its kind and the encoded payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// bincode bytes.
    pub payload: Vec<u8>,
}

/// The bytes of a frame around `payload`.
///
/// # Errors
/// [`FrameError::TooLong`] if the payload is over the bound.
pub fn encode(kind: Kind, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = u32::try_from(payload.len()).map_err(|_| FrameError::TooLong(payload.len()))?;
    if payload.len() > MAX_PAYLOAD {
        return Err(FrameError::TooLong(payload.len()));
    }
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(kind as u16).to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

/// Collects bytes and gives out frames; holds at most one frame and what was read beyond it.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` already given out; moved away when a new read comes.
    consumed: usize,
}

impl Decoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes just read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether bytes of an unfinished frame are waiting: a stream that ends here was torn.
    pub fn has_partial(&self) -> bool {
        self.buffer.len() > self.consumed
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// When the bytes cannot be a frame; the decoder is then of no further use.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let bytes = &self.buffer[self.consumed..];
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let header = Header::parse(header)?;
        let Some(payload) = rest.get(..header.length) else {
            return Ok(None);
        };
        if crc32fast::hash(payload) != header.checksum {
            return Err(FrameError::Checksum);
        }
        let frame = Frame { kind: header.kind, payload: payload.to_vec() };
        self.consumed += HEADER + header.length;
        Ok(Some(frame))
    }
}

struct Header {
    kind: Kind,
    length: usize,
    checksum: u32,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Result<Self, FrameError> {
        let [m0, m1, m2, m3, v0, v1, k0, k1, l0, l1, l2, l3, c0, c1, c2, c3] = *bytes;
        let magic = u32::from_le_bytes([m0, m1, m2, m3]);
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let version = u16::from_le_bytes([v0, v1]);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = u16::from_le_bytes([k0, k1]);
        let kind = Kind::from_number(kind).ok_or(FrameError::Kind(kind))?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        Ok(Self { kind, length, checksum: u32::from_le_bytes([c0, c1, c2, c3]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &[u8]) -> Vec<u8> {
        encode(Kind::Request, text).expect("short")
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let mut bytes = frame(b"one");
        bytes.extend(frame(b""));
        bytes.extend(frame(b"three"));
        for step in 1..bytes.len() {
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(step) {
                decoder.push(chunk);
                while let Some(frame) = decoder.next_frame().expect("valid") {
                    seen.push(frame.payload);
                }
            }
            assert_eq!(seen, [&b"one"[..], b"", b"three"]);
            assert!(!decoder.has_partial());
        }
    }

    #[test]
    fn every_flipped_bit_is_refused_or_waits_for_more() {
        let good = frame(b"payload");
        for position in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[position / 8] ^= 1 << (position % 8);
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            if let Ok(Some(frame)) = decoder.next_frame() {
                // A flipped kind may be another valid kind: the payload type then refuses it.
                assert_ne!(frame.kind, Kind::Request);
            }
        }
    }

    #[test]
    fn an_announced_giant_is_refused_by_its_header_alone() {
        let mut bytes = frame(b"");
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong(_))));
    }
}
