//! Structs that get more fields from version to version, on the wire and in records.
//!
//! bincode does not describe what it encodes, so a field more in the middle of a message would shift all that follows. The
//! fields of a growing struct therefore stand behind their length. An older reader leaves out what it does not know, a newer
//! one reads zeros for what is missing: `None`, `false`, 0, empty, or the first variant.
//!
//! How to grow, so that old and new understand each other:
//! - append fields, at the end of a growing struct or of a variant of a top-level enum; zero must mean "as before";
//! - append variants, before `Unknown` where there is one; a peer that is older takes a message with one for `Unknown`;
//! - change, move or remove nothing. `ipc/tests/golden.rs` has the bytes of every release.

use std::fmt;

use serde::de;

/// Takes bytes as they are.
pub(crate) struct Bytes;

impl de::Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the fields of a struct")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
}

/// Makes structs growing ones; each derives `Serialize` and `Deserialize` with `#[serde(remote = "Self")]`. In JSON they
/// are what they always were.
macro_rules! growing {
    ($($name:ident),+ $(,)?) => {$(
        const _: () = {
            use crate::{codec, growing::Bytes};

            struct Fields<T>(T);

            impl serde::Serialize for Fields<&$name> {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    $name::serialize(self.0, serializer)
                }
            }

            impl<'de> serde::Deserialize<'de> for Fields<$name> {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    $name::deserialize(deserializer).map(Fields)
                }
            }

            impl serde::Serialize for $name {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    if serializer.is_human_readable() {
                        return $name::serialize(self, serializer);
                    }
                    let bytes = codec::fields_to_bytes(&Fields(self)).map_err(serde::ser::Error::custom)?;
                    serializer.serialize_bytes(&bytes)
                }
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    if deserializer.is_human_readable() {
                        return $name::deserialize(deserializer);
                    }
                    let bytes = deserializer.deserialize_byte_buf(Bytes)?;
                    let fields = codec::fields_from_bytes::<Fields<$name>>(&bytes);
                    fields.map(|fields| fields.0).map_err(serde::de::Error::custom)
                }
            }
        };
    )+};
}

pub(crate) use growing;
