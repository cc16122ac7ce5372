//! Clocks.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, for records; a clock before 1970 reads as 0.
pub(crate) fn wall_clock() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
