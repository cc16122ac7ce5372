//! `commit`, `export`, `diff`: what a container has changed, to the byte and to the nanosecond, and of one instant.

#![expect(
    clippy::disallowed_methods,
    reason = "what a program in the container does, on trees of the test's own"
)]

mod awkward;
mod changing;
mod deaths;
pub(crate) mod instant;
mod peers;
mod roundtrip;

use crate::harness::Case;

pub(crate) fn cases() -> Vec<Case> {
    let all = [roundtrip::cases(), instant::cases(), awkward::cases(), deaths::cases(), peers::cases()];
    all.into_iter().flatten().collect()
}
