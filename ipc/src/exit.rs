//! How a container's program ended. Made in `shim/src/reap.rs` and nowhere else, or read from a record of it.

use serde::{Deserialize, Serialize};

crate::growing::growing!(ExitReport);

/// How the program of a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It returned this code, 0 to 255.
    Code(u8),
    /// It was killed by this signal number.
    Signal(u8),
    /// Nothing that saw it end has survived. Never made up into a number; shown as 255.
    Unknown,
}

impl ExitStatus {
    /// The one mapping to what a shell shows: the code, 128 + signal, or 255 where it is not known.
    pub fn shell_code(self) -> u8 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => signal.saturating_add(128),
            ExitStatus::Unknown => 255,
        }
    }

    /// From the status word of wait(2), as `PIDFD_INFO_EXIT` reports it too.
    pub fn from_wait_status(status: i32) -> Self {
        // wait(2): low seven bits are the signal, the next byte is the code; bit 7 says "core dumped".
        let low = u8::try_from(status & 0x7f).unwrap_or(0);
        let code = u8::try_from((status >> 8) & 0xff).unwrap_or(0);
        if low == 0 { ExitStatus::Code(code) } else { ExitStatus::Signal(low) }
    }
}

/// What the shim saw of a container's end: the durable exit record, and the message of the same content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ExitReport {
    /// How it ended.
    pub status: ExitStatus,
    /// The kernel killed a process of the container for lack of memory.
    pub oom_killed: bool,
    /// When the program was started, nanoseconds since 1970; `None` if it never was.
    pub started_at: Option<u64>,
    /// When its end was seen, nanoseconds since 1970.
    pub finished_at: u64,
    /// Why it could not be started or adopted, for people; empty otherwise.
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_status_of_every_code_and_signal() {
        for code in 0..=255u8 {
            assert_eq!(ExitStatus::from_wait_status(i32::from(code) << 8), ExitStatus::Code(code));
        }
        for signal in 1..=64u8 {
            assert_eq!(ExitStatus::from_wait_status(i32::from(signal)), ExitStatus::Signal(signal));
            assert_eq!(ExitStatus::from_wait_status(i32::from(signal) | 0x80), ExitStatus::Signal(signal));
        }
        assert_eq!(ExitStatus::Signal(9).shell_code(), 137);
        assert_eq!(ExitStatus::Unknown.shell_code(), 255);
    }
}
