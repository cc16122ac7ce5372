//! The volumes of a state root.
//!
//! ```text
//! ROOT/volumes/<name>/volume.json   what is known of it: on the disk before anybody is told
//!                     _data/        what containers see
//!                     fresh         until its first use: only then may content of an image come into it
//!                     _data.new/    that content while a shim copies it, under a flock of the volume's directory
//! ROOT/volumes/.new-<name>/         one that is being made
//! ```
//!
//! What blocks runs on threads that may. Who has a volume is worked out from the records of containers, by the registry,
//! and is kept nowhere: it says in one step whether volumes may go, and marks them as leaving (`leaving.rs`), so that a
//! container that comes a moment later waits and gets a new one. A container's record is there before its anonymous
//! volumes are, so none can be without one unless it was meant to stay.
//!
//! Never here: the removal of a tree. A volume is renamed into the trash, and not even that while anything is mounted in it.

mod leaving;
mod making;
mod mounts;
pub(crate) mod naming;
mod record;
mod store;
mod usage;

pub(crate) use self::{
    leaving::Leaving,
    making::Draft,
    record::Record,
    store::{NEW, Store, Volume, of_mounts},
    usage::usage,
};
