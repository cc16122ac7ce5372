//! The directory through which a test and the kill points of supervisor and shim talk (ipc/src/point.rs).

use std::{fs, path::PathBuf};

use crate::harness::Sandbox;

/// Of one instance.
#[derive(Debug)]
pub(super) struct Control {
    directory: PathBuf,
}

impl Control {
    /// Made, and named to all processes of the instance that are started from now on.
    #[track_caller]
    pub(super) fn new(sandbox: &Sandbox) -> Control {
        let directory = PathBuf::from(sandbox.new_directory("points"));
        sandbox.set_variable("MYSUP_KILL_POINTS", &directory);
        Control { directory }
    }

    /// Nobody stops anywhere, nothing was seen.
    #[track_caller]
    pub(super) fn clear(&self) {
        for entry in fs::read_dir(&self.directory).expect("the sandbox is ours").flatten() {
            // Somebody who arrives just now takes it away himself.
            let _ = fs::remove_file(entry.path());
        }
    }

    /// The first to reach this point stops there.
    #[track_caller]
    pub(super) fn arm(&self, point: &str) {
        fs::write(self.directory.join(point), "").expect("the sandbox is ours");
    }

    /// Who has stopped.
    pub(super) fn arrived(&self) -> Option<i32> {
        fs::read_to_string(self.directory.join("arrived")).ok()?.parse().ok()
    }

    /// The points that were reached, each once, in the order of the first time.
    pub(super) fn seen(&self) -> Vec<String> {
        let mut seen: Vec<String> = Vec::new();
        for line in fs::read_to_string(self.directory.join("seen")).unwrap_or_default().lines() {
            if !seen.iter().any(|point| point == line) {
                seen.push(line.to_owned());
            }
        }
        seen
    }
}
