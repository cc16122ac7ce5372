//! Speaks as a later version would that has followed `growing.rs`: each growing struct and each message has a field more,
//! and messages to and from a shim come with others that the version of today does not know. For `tests/skew.rs` only.

use crate::frame::{self, Kind};

/// What the field more is, little-endian.
const MORE: u64 = u64::from_le_bytes(*b"NEXTNEXT");

/// The bytes of a struct or message with the field more.
pub(crate) fn append(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(MORE.to_le_bytes());
    bytes
}

/// Whether the field more came as it was sent, or from a version that does not have it.
pub(crate) fn is_whole(more: u64) -> bool {
    more == MORE || more == 0
}

/// A frame with one of an unknown variant: before what a shim says (also first of all), behind what a shim is told (its
/// first message decides what it is).
pub(crate) fn surround(kind: Kind, frame: Vec<u8>) -> Vec<u8> {
    // Cannot be over the bound.
    let unknown = frame::encode(kind, &[0xff; 12]).unwrap_or_default();
    match kind {
        Kind::FromShim => [unknown, frame].concat(),
        Kind::ToShim => [frame, unknown].concat(),
        // Progress and what is said to and of mysup-registry stay between programs of one build.
        Kind::Request
        | Kind::Response
        | Kind::ExitRecord
        | Kind::TeardownRecord
        | Kind::Journal
        | Kind::Progress
        | Kind::ToRegistry
        | Kind::FromRegistry
        | Kind::StopRecord => frame,
    }
}
