//! The images: root file system archives unpacked into layers, and the names that people give them.
//!
//! ```text
//! ROOT/images/<id>.json      one image: its configuration, names, size            (record.rs)
//! ROOT/layers/<chain id>/    one unpacked layer, and what else its tar had in it   (layers.rs, recording.rs)
//! ROOT/layers/import-<hex>/  an import under way, or one that was interrupted
//! ROOT/trash/                what nobody needs any more is renamed here; the sweeper of the shim deletes it
//! ```
//!
//! In: bundle.rs finds the files of an archive or directory of images, docker_archive.rs and oci_layout.rs the images in
//! it (incoming.rs). A layer goes through a line of three threads: read and decompress (source.rs), hash, unpack
//! (pipeline.rs), several layers at once. Between them go a few buffers that are used again and again (memory.rs). The
//! tar is a stranger's: entries.rs reads it, tree.rs and unpack.rs make the files, on directory descriptors, and
//! nothing in it can reach out of its own directory. What it does not tell of a directory is taken from the layers below
//! (implied.rs, store/settling.rs). Out: replay.rs reads the tar of a layer again, target.rs writes
//! (gzip.rs compresses). What a container has changed (changes/) becomes the tar of a new layer, and comes in as any other.
//!
//! Never here: the removal of a tree (a rename into the trash is all), policy taken from an image, a layer that is
//! listed before it is on the disk.

mod audience;
mod bundle;
mod cancel;
mod census;
mod chain;
mod change;
mod changes;
mod child_config;
mod config;
mod docker_archive;
mod entries;
mod error;
mod fields;
#[cfg(fuzzing)]
#[path = "../../../tests/fuzz/src/promises.rs"]
pub(crate) mod fuzzing;
mod gzip;
mod implied;
mod incoming;
mod layer_record;
mod layers;
mod limits;
mod marks;
mod memory;
mod metadata;
mod oci_layout;
mod outlet;
mod pax;
mod pipeline;
mod record;
mod recording;
mod reference;
mod removal;
mod replay;
mod source;
mod sparse;
mod store;
mod tape;
mod tar_writer;
mod target;
mod tree;
mod unpack;

#[cfg(test)]
mod tests;

pub(crate) use audience::Audience;
pub(crate) use cancel::Cancel;
pub(crate) use chain::chain_ids;
pub(crate) use change::Change;
pub(crate) use changes::{OwnPaths, WriteLayer};
pub(crate) use child_config::{Defaults, Draft};
pub(crate) use config::{Image, ImageConfig};
pub(crate) use error::{CommitFault, ImageError};
pub(crate) use limits::{InvalidLimits, Limits};
pub(crate) use store::{Changed, Details, Format, HistoryLine, Origin, Pruned, Store};
pub(crate) use target::Compression;
