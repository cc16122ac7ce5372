//! The first process of the container: prepared and cloned in `spawn.rs`, brought up to exec in `child.rs`. With `--init`
//! it then runs `reaper.rs` in an image of our own program that cannot be written to.

mod child;
pub(crate) mod reaper;
mod report;
mod spawn;

pub(crate) use self::spawn::{Held, INIT_NAME, OwnInit, Prepared, StdioEnds, open_start};
