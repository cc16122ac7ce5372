//! Whether the program of a dead shim was ever executed: its init says so in the run directory (`layout::START`).

use std::{fs::File, io, io::Read, path::Path, time::Duration};

use mysup_ipc::layout;
use tokio::time::{Instant, sleep};

use crate::{config::Places, sys};

/// From its release to exec an init takes milliseconds, unless the program lies on a file system that hangs. After this
/// it is taken for one that runs.
const EXEC: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);
/// The most bytes that are looked at.
const BOUND: u64 = 4096;

/// Waits until the init has executed its program or ended, and gives the reason if the program was not executed.
pub(super) async fn failure_when_over(places: &Places) -> Option<String> {
    let deadline = Instant::now() + EXEC;
    let start = places.run.join(layout::START);
    while sys::is_locked(&start).unwrap_or(false) && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    failure(&places.run)
}

/// Why the program was not executed; `None` if it was, or if nothing is known. Blocks.
pub(super) fn failure(run_directory: &Path) -> Option<String> {
    let file = File::open(run_directory.join(layout::START)).ok()?;
    let mut bytes = Vec::new();
    file.take(BOUND).read_to_end(&mut bytes).ok()?;
    let (number, step) = bytes.split_first_chunk()?;
    let error = io::Error::from_raw_os_error(i32::from_le_bytes(*number));
    let step = String::from_utf8_lossy(step);
    Some(format!("the shim was killed while it started the program: {step}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_that_executed_its_program_left_nothing() {
        let directory = std::env::temp_dir().join(format!("mysup-start-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        assert_eq!(failure(&directory), None);
        let path = directory.join(layout::START);
        std::fs::write(&path, "").unwrap();
        assert_eq!(failure(&directory), None);
        std::fs::write(&path, [&32i32.to_le_bytes()[..], b"wait for the shim"].concat()).unwrap();
        let told = failure(&directory).expect("a reason");
        assert!(told.contains("wait for the shim: Broken pipe"), "{told}");
        std::fs::remove_file(path).unwrap();
        std::fs::remove_dir(directory).unwrap();
    }
}
