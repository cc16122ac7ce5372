//! What every test stands on: a private instance of mysup, a look at the kernel, and the proof that nothing stayed.
//!
//! A test is a function of a [`Sandbox`]. The runner makes the sandbox, calls the function, ends the sandbox (all
//! containers removed, supervisor shut down) and asks the leak oracle. A failing test is cleaned up by force, so that it
//! cannot make the next one fail.

pub(crate) mod bundle;
pub(crate) mod command;
pub(crate) mod fuse;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod leaks;
pub(crate) mod peers;
pub(crate) mod plant;
pub(crate) mod processes;
pub(crate) mod random;
pub(crate) mod registry;
pub(crate) mod runner;
pub(crate) mod sandbox;
pub(crate) mod terminal;
pub(crate) mod trace;
pub(crate) mod tree;

use std::{
    thread,
    time::{Duration, Instant},
};

pub(crate) use self::{
    runner::{Case, skip},
    sandbox::Sandbox,
};

/// How long a test waits for something that must come; only a broken product waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the list of a module's cases, each named after its function.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        vec![$($crate::harness::Case::new(concat!(module_path!(), "::", stringify!($name)), $name)),*]
    };
}

/// Whether this kernel is at least Linux `major.minor`.
pub(crate) fn linux_is_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// Waits until `condition` holds. `what` completes "waited in vain until ...".
#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, condition), "waited in vain until {what}");
}

/// Whether `condition` comes to hold before `limit` is over.
pub(crate) fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(3));
    }
}
