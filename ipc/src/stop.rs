//! A stop under way, in the run directory of its container: whoever goes on for a dead shim keeps its deadline.

use serde::{Deserialize, Serialize};

crate::growing::growing!(StopUnderWay);

/// Written before the program hears of it. It means nothing in another boot, and the run directory is gone then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct StopUnderWay {
    /// The signal by which the program is asked.
    pub signal: u8,
    /// When it is killed, in milliseconds of `CLOCK_MONOTONIC`, which no change of the time of day moves; `None` is never.
    pub kill_at: Option<u64>,
}
