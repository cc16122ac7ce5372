//! The memory of all unpacking together: a pipeline asks for its share before it starts, and waits while others have it.
//!
//! A pipeline needs its buffers and what the decompressor keeps of the past, which for zstd is up to the archive's
//! maker. With [`WINDOW_MAX`] everything stays below 64 MiB, whatever the archives are and however many come at once.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use super::cancel::Cancel;

/// MiB for all pipelines.
const ALL: u64 = 48;
/// MiB of a pipeline's buffers and of a decompressor without its window.
const BUFFERS: u64 = 3;
/// MiB that zstd keeps with all levels up to 19, and gzip never reaches.
const WINDOW_USUAL: u64 = 8;
/// Power of two of the longest window that is taken: 32 MiB, as zstd's level 20 has it, and the `best` level of
/// the encoder that podman and docker use. Levels 21, 22 and `--long` have more and are refused.
pub(super) const WINDOW_MAX: u32 = 25;
/// Between two looks at the switch.
const LOOK: Duration = Duration::from_millis(50);

/// What one pipeline may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Window {
    /// 8 MiB.
    Usual,
    /// The longest that is taken.
    Longest,
}

impl Window {
    /// As a power of two.
    pub(super) fn log(self) -> u32 {
        match self {
            Window::Usual => 23,
            Window::Longest => WINDOW_MAX,
        }
    }

    fn share(self) -> u64 {
        BUFFERS
            + match self {
                Window::Usual => WINDOW_USUAL,
                Window::Longest => 1 << (WINDOW_MAX - 20),
            }
    }
}

static TAKEN: Mutex<u64> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// A share; it is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Share(u64);

impl Share {
    /// Waits for a share; `None` if the switch was thrown meanwhile.
    pub(super) fn take(window: Window, cancel: &Cancel) -> Option<Self> {
        let share = window.share();
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken + share > ALL {
            if cancel.is_cancelled() {
                return None;
            }
            let woken = GIVEN_BACK.wait_timeout(taken, LOOK);
            (taken, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
        *taken += share;
        Some(Self(share))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        GIVEN_BACK.notify_all();
    }
}
