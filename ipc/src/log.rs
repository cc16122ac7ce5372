//! The container log on disk: written by the shim, read by the command line.
//!
//! ```text
//!  offset 0     2        3        4        8        16
//!         "ML"  stream   unused   length   time     bytes of the program, unchanged
//!         u16   u8       u8       u32      u64 ns   length bytes
//! ```
//! One record is one read of the program's output, so a line may span records and a record may hold many lines. A
//! file may end in a torn record after a crash; its reader stops there.

use crate::shim::Stream;

/// Bytes of a record's header.
pub const HEADER: usize = 16;
/// The most bytes of one record.
pub const MAX_RECORD: usize = 1 << 16;

const MAGIC: [u8; 2] = *b"ML";

/// The header of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Where the bytes came from.
    pub stream: Stream,
    /// Their number.
    pub length: u32,
    /// When they were read, nanoseconds since 1970.
    pub time: u64,
}

impl RecordHeader {
    /// As it stands in the file.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..].copy_from_slice(&self.time.to_le_bytes());
        bytes
    }

    /// From a file; `None` if these bytes are no header.
    pub fn from_bytes(bytes: &[u8; HEADER]) -> Option<Self> {
        let [m0, m1, stream, _, l0, l1, l2, l3, time @ ..] = *bytes;
        let stream = match stream {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return None,
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let valid = [m0, m1] == MAGIC && usize::try_from(length).is_ok_and(|length| length <= MAX_RECORD);
        valid.then(|| Self { stream, length, time: u64::from_le_bytes(time) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_and_noise_does_not() {
        let header = RecordHeader { stream: Stream::Stderr, length: 65536, time: 1 << 60 };
        assert_eq!(RecordHeader::from_bytes(&header.to_bytes()), Some(header));
        assert_eq!(RecordHeader::from_bytes(&[0; HEADER]), None);
        let longer = RecordHeader { length: 65537, ..header };
        assert_eq!(RecordHeader::from_bytes(&longer.to_bytes()), None);
    }
}
