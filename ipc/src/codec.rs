//! The only file that names bincode (unmaintained: see deny.toml), so that it can be replaced in a day.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::{Serialize, de::DeserializeOwned};

use crate::frame::{self, Frame, FrameError, Kind};

/// bincode charges `len * size_of::<T>()` against its limit, not encoded bytes, so it is several times a frame.
const DECODE_LIMIT: usize = 8 * frame::MAX_PAYLOAD;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<DECODE_LIMIT>> =
    bincode::config::standard().with_fixed_int_encoding().with_limit::<DECODE_LIMIT>();

/// Why a payload is not a message.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A value that cannot be encoded.
    #[error("cannot encode a message")]
    Encode(#[source] bincode::error::EncodeError),
    /// Bytes that are no value of the expected type.
    #[error("cannot decode a message")]
    Decode(#[source] bincode::error::DecodeError),
    /// The value ended before the bytes did.
    #[error("{0} bytes left over after a message")]
    TrailingBytes(usize),
    /// A frame of another kind than expected here.
    #[error("a frame of kind {found:?} where {expected:?} was due")]
    WrongKind {
        /// What came.
        found: Kind,
        /// What was due.
        expected: Kind,
    },
    /// The frame around it.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// A top-level type: it has a frame kind of its own.
pub trait Message: Serialize + DeserializeOwned {
    /// The kind of its frames.
    const KIND: Kind;

    /// The bytes of a whole frame.
    ///
    /// # Errors
    /// If the value is over the frame bound.
    fn to_frame(&self) -> Result<Vec<u8>, CodecError> {
        let payload = bincode::serde::encode_to_vec(self, CONFIG).map_err(CodecError::Encode)?;
        Ok(frame::encode(Self::KIND, &payload)?)
    }

    /// The value of a frame; bytes left over are an error, since they mean another version or an attack.
    ///
    /// # Errors
    /// If the frame is of another kind or its payload is no such value.
    fn from_frame(frame: &Frame) -> Result<Self, CodecError> {
        if frame.kind != Self::KIND {
            return Err(CodecError::WrongKind { found: frame.kind, expected: Self::KIND });
        }
        let (value, used) =
            bincode::serde::decode_from_slice(&frame.payload, CONFIG).map_err(CodecError::Decode)?;
        match frame.payload.len() - used {
            0 => Ok(value),
            left => Err(CodecError::TrailingBytes(left)),
        }
    }
}

impl Message for crate::api::Request {
    const KIND: Kind = Kind::Request;
}
impl Message for crate::api::Response {
    const KIND: Kind = Kind::Response;
}
impl Message for crate::shim::ToShim {
    const KIND: Kind = Kind::ToShim;
}
impl Message for crate::shim::FromShim {
    const KIND: Kind = Kind::FromShim;
}
impl Message for crate::exit::ExitReport {
    const KIND: Kind = Kind::ExitRecord;
}
impl Message for crate::teardown::TeardownReport {
    const KIND: Kind = Kind::TeardownRecord;
}
impl Message for crate::teardown::JournalEntry {
    const KIND: Kind = Kind::Journal;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{ExitReport, ExitStatus};

    fn report() -> ExitReport {
        ExitReport {
            status: ExitStatus::Code(7),
            oom_killed: false,
            started_at: Some(1),
            finished_at: 2,
            error: String::new(),
        }
    }

    fn decode(bytes: &[u8]) -> Result<ExitReport, CodecError> {
        let mut decoder = frame::Decoder::new();
        decoder.push(bytes);
        let frame = decoder.next_frame()?.expect("a whole frame");
        ExitReport::from_frame(&frame)
    }

    #[test]
    fn a_report_survives_the_round_trip() {
        assert_eq!(decode(&report().to_frame().expect("encode")).expect("decode"), report());
    }

    #[test]
    fn the_bytes_of_version_1_are_kept() {
        // header: magic, version 1, kind 5, length, checksum; payload: variant, code, flag, option, times, text length
        let expected =
            "4d535550010005001f0000007c3ad21800000000070001010000000000000002000000000000000000000000000000";
        let bytes = report().to_frame().expect("encode");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn trailing_bytes_and_hostile_lengths_are_refused() {
        let payload = bincode::serde::encode_to_vec(report(), CONFIG).expect("encode");
        let mut longer = payload.clone();
        longer.push(0);
        let bytes = frame::encode(Kind::ExitRecord, &longer).expect("short");
        assert!(matches!(decode(&bytes), Err(CodecError::TrailingBytes(1))));

        // The last field is a text: give it a length of 2^60.
        let mut hostile = payload;
        let at = hostile.len() - 8;
        hostile[at..].copy_from_slice(&(1u64 << 60).to_le_bytes());
        let bytes = frame::encode(Kind::ExitRecord, &hostile).expect("short");
        assert!(matches!(decode(&bytes), Err(CodecError::Decode(_))));
    }
}
