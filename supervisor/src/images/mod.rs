//! The images: root file system archives unpacked into layers, and the names that people give them.
//!
//! ```text
//! ROOT/images/<id>.json      one image: its configuration, names, size            (record.rs)
//! ROOT/layers/<digest>/      one unpacked layer, named by the sha256 of its tar    (layers.rs)
//! ROOT/layers/import-<hex>/  an import under way, or one that was interrupted
//! ROOT/trash/                what nobody needs any more is renamed here; the sweeper of the shim deletes it
//! ```
//!
//! An import is a line of three threads: read and decompress (source.rs), hash, unpack (pipeline.rs). Between them
//! go a few buffers that are used again and again. The archive is a stranger's: entries.rs reads it, tree.rs and
//! unpack.rs make the files, on directory descriptors, and nothing in it can reach out of its own directory.
//!
//! Never here: the removal of a tree (a rename into the trash is all), policy taken from an image, a layer that is
//! listed before it is on the disk.

mod cancel;
mod config;
mod entries;
mod error;
mod fields;
mod layers;
mod limits;
mod metadata;
mod pax;
mod pipeline;
mod record;
mod reference;
mod removal;
mod source;
mod sparse;
mod store;
mod tape;
mod tree;
mod unpack;

#[cfg(test)]
mod tests;

pub(crate) use cancel::Cancel;
pub(crate) use config::{Image, ImageConfig};
pub(crate) use error::ImageError;
pub(crate) use store::Store;
