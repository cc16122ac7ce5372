//! The only file that names bincode (unmaintained: see deny.toml), so that it can be replaced in a day.

use bincode::{
    config::{Configuration, Fixint, Limit, LittleEndian},
    error::{DecodeError, EncodeError},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::frame::{self, Frame, FrameError, Kind};

/// bincode charges `len * size_of::<T>()` against its limit, not encoded bytes, so it is several times a frame.
const DECODE_LIMIT: usize = 8 * frame::MAX_PAYLOAD;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<DECODE_LIMIT>> =
    bincode::config::standard().with_fixed_int_encoding().with_limit::<DECODE_LIMIT>();

/// What a reader puts behind bytes that end before its type does: the fields that an older version does not have, as zeros.
const MISSING: usize = 256;

/// Why a payload is not a message.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A value that cannot be encoded.
    #[error("cannot encode a message")]
    Encode(#[source] EncodeError),
    /// Bytes that are no value of the expected type.
    #[error("cannot decode a message")]
    Decode(#[source] DecodeError),
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
    /// What stands for a message that this version does not know, where that can be ignored or answered.
    const UNKNOWN: Option<Self>;

    /// The bytes of a whole frame.
    ///
    /// # Errors
    /// If the value is over the frame bound.
    fn to_frame(&self) -> Result<Vec<u8>, CodecError> {
        let payload = fields_to_bytes(self).map_err(CodecError::Encode)?;
        let frame = frame::encode(Self::KIND, &payload)?;
        #[cfg(feature = "next")]
        let frame = crate::next::surround(Self::KIND, frame);
        Ok(frame)
    }

    /// The value of a frame. Of a newer peer's what is appended is left out, of an older one's what is missing is zero; what
    /// is not known at all is [`Message::UNKNOWN`].
    ///
    /// # Errors
    /// If the frame is of another kind, or its payload is no such value and there is nothing that stands for it.
    fn from_frame(frame: &Frame) -> Result<Self, CodecError> {
        if frame.kind != Self::KIND {
            return Err(CodecError::WrongKind { found: frame.kind, expected: Self::KIND });
        }
        fields_from_bytes(&frame.payload).or_else(|error| Self::UNKNOWN.ok_or(CodecError::Decode(error)))
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bincode::serde::decode_from_slice(bytes, CONFIG) {
        Err(DecodeError::UnexpectedEnd { .. }) => {
            let padded = [bytes, &[0; MISSING]].concat();
            bincode::serde::decode_from_slice(&padded, CONFIG).map(|(value, _)| value)
        }
        decoded => decoded.map(|(value, _)| value),
    }
}

/// The fields of a growing struct or of a message.
pub(crate) fn fields_to_bytes<T: Serialize>(fields: &T) -> Result<Vec<u8>, EncodeError> {
    let bytes = bincode::serde::encode_to_vec(fields, CONFIG)?;
    #[cfg(feature = "next")]
    let bytes = crate::next::append(bytes);
    Ok(bytes)
}

/// A growing struct or a message from the fields that its writer knew.
#[cfg(not(feature = "next"))]
pub(crate) fn fields_from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode(bytes)
}

/// The same with the field more of a later version.
#[cfg(feature = "next")]
pub(crate) fn fields_from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, more) = decode(bytes)?;
    if crate::next::is_whole(more) {
        Ok(value)
    } else {
        Err(DecodeError::Other("the field more is not as it was sent"))
    }
}

impl Message for crate::api::Request {
    const KIND: Kind = Kind::Request;
    const UNKNOWN: Option<Self> = Some(Self::Unknown);
}
impl Message for crate::api::Response {
    const KIND: Kind = Kind::Response;
    const UNKNOWN: Option<Self> = Some(Self::Unknown);
}
impl Message for crate::shim::ToShim {
    const KIND: Kind = Kind::ToShim;
    const UNKNOWN: Option<Self> = Some(Self::Unknown);
}
impl Message for crate::shim::FromShim {
    const KIND: Kind = Kind::FromShim;
    const UNKNOWN: Option<Self> = Some(Self::Unknown);
}
impl Message for crate::exit::ExitReport {
    const KIND: Kind = Kind::ExitRecord;
    const UNKNOWN: Option<Self> = None;
}
impl Message for crate::teardown::TeardownReport {
    const KIND: Kind = Kind::TeardownRecord;
    const UNKNOWN: Option<Self> = None;
}
impl Message for crate::teardown::JournalEntry {
    const KIND: Kind = Kind::Journal;
    const UNKNOWN: Option<Self> = Some(Self::Unknown);
}
impl Message for crate::stop::StopUnderWay {
    const KIND: Kind = Kind::StopRecord;
    const UNKNOWN: Option<Self> = None;
}
impl Message for crate::progress::Progress {
    const KIND: Kind = Kind::Progress;
    const UNKNOWN: Option<Self> = None;
}
impl Message for crate::registry::ToRegistry {
    const KIND: Kind = Kind::ToRegistry;
    const UNKNOWN: Option<Self> = Some(Self::Unknown);
}
impl Message for crate::registry::FromRegistry {
    const KIND: Kind = Kind::FromRegistry;
    const UNKNOWN: Option<Self> = Some(Self::Unknown);
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
    fn what_a_newer_version_appends_is_left_out() {
        let payload = bincode::serde::encode_to_vec(report(), CONFIG).expect("encode");
        // After the struct, and after its fields: the first eight bytes are their length.
        let mut longer = payload.clone();
        longer[0] += 3;
        longer.extend([9; 12]);
        for bytes in [[&payload[..], &[9; 5]].concat(), longer] {
            assert_eq!(
                decode(&frame::encode(Kind::ExitRecord, &bytes).expect("short")).expect("known"),
                report()
            );
        }
    }

    #[test]
    fn what_an_older_version_lacks_is_zero() {
        let mut payload = bincode::serde::encode_to_vec(report(), CONFIG).expect("encode");
        // Without the last field, an empty text; then without `finished_at` too.
        for (missing, finished_at) in [(8, 2), (8, 0)] {
            payload.truncate(payload.len() - missing);
            payload[0] -= 8;
            let known = decode(&frame::encode(Kind::ExitRecord, &payload).expect("short")).expect("known");
            assert_eq!(known, ExitReport { finished_at, ..report() });
        }
    }

    #[test]
    fn unknown_variants_are_unknown_and_no_error_where_that_can_be_handled() {
        use crate::{
            error::ErrorCode,
            shim::FromShim,
            teardown::{StepKind, TeardownReport},
        };
        let message = Frame { kind: Kind::FromShim, payload: vec![0xff; 40] };
        assert_eq!(FromShim::from_frame(&message).expect("unknown"), FromShim::Unknown);
        let record = Frame { kind: Kind::TeardownRecord, payload: vec![0xff; 40] };
        assert!(matches!(TeardownReport::from_frame(&record), Err(CodecError::Decode(_))));
        assert_eq!(super::decode::<ErrorCode>(&[0xff, 0, 0, 0]).expect("unknown"), ErrorCode::Unknown);
        assert_eq!(super::decode::<StepKind>(&[0xff, 0, 0, 0]).expect("unknown"), StepKind::Unknown);
    }

    #[test]
    fn hostile_lengths_are_refused() {
        // The last field is a text: give it a length of 2^60.
        let mut hostile = bincode::serde::encode_to_vec(report(), CONFIG).expect("encode");
        let at = hostile.len() - 8;
        hostile[at..].copy_from_slice(&(1u64 << 60).to_le_bytes());
        let bytes = frame::encode(Kind::ExitRecord, &hostile).expect("short");
        assert!(matches!(decode(&bytes), Err(CodecError::Decode(_))));
        // And the fields themselves.
        hostile[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
        let bytes = frame::encode(Kind::ExitRecord, &hostile).expect("short");
        assert!(matches!(decode(&bytes), Err(CodecError::Decode(_))));
    }
}
