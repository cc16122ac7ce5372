//! How long a shim may take before it is called silent, and how often a death is made up for.

use std::time::Duration;

/// From the plan to a running program.
pub(super) const START: Duration = Duration::from_secs(60);
/// One teardown step, or the wait between a stop's kill and the end.
pub(super) const STEP: Duration = Duration::from_secs(30);
/// From a connection to a living shim to its report.
pub(super) const REPORT: Duration = Duration::from_secs(5);
/// A small message to a shim.
pub(super) const SEND: Duration = Duration::from_secs(5);
/// From the end of a shim's connection to the end of its lock, when it died.
pub(super) const LOCK_END: Duration = Duration::from_millis(500);
/// Between two looks at that lock.
pub(super) const LOOK: Duration = Duration::from_millis(5);
/// Between two tries to reach a silent shim.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// The first pause between two tries to start a shim for a dead one; they grow up to `RETRY`.
pub(super) const FIRST_RETRY: Duration = Duration::from_millis(20);
/// A shim that refuses a connection may be about to end: its lock is free in a moment. After this it is called silent.
pub(super) const ENDING: Duration = Duration::from_secs(5);
/// Shims that were started and may fail to adopt, one after another, before the container is ended.
pub(super) const ADOPTIONS: u32 = 3;
/// Teardown processes that were started and may die before we give up until somebody asks again.
pub(super) const TEARDOWNS: u32 = 5;
