//! What PID 1 of a container with `--init` leaves behind of its program's end, for the case that nobody else lives to see
//! it: a file in the run directory that PID 1 alone has open.
//!
//! Two bytes: 1 when the program has ended, and the code that PID 1 then leaves with. The shim makes the file with both
//! zero, so that it is there and needs no space when the time comes.

use std::{
    fs::File,
    io::Read,
    os::fd::BorrowedFd,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::{
    fcntl::{self, OFlag},
    sys::stat::Mode,
};

use crate::{exit::ExitStatus, layout};

/// The bytes while the program runs.
pub const RUNNING: [u8; 2] = [0, 0];

/// The bytes when it has ended.
pub fn ended_with(code: u8) -> [u8; 2] {
    [1, code]
}

/// The end of a program as its PID 1 saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitStatus {
    /// How PID 1 was about to leave.
    pub status: ExitStatus,
    /// When, nanoseconds since 1970.
    pub at: u64,
}

/// Reads what PID 1 left in a run directory; `None` without `--init`, or if it was killed before its program ended. To be
/// asked only when PID 1 is dead.
pub fn read(run_directory: BorrowedFd<'_>) -> Option<InitStatus> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = fcntl::openat(run_directory, layout::INIT_STATUS, flags, Mode::empty()).ok()?;
    let mut file = File::from(file);
    let mut bytes = [0; 2];
    file.read_exact(&mut bytes).ok()?;
    let modified =
        file.metadata().and_then(|metadata| metadata.modified()).unwrap_or_else(|_| SystemTime::now());
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    match bytes {
        [1, code] => Some(InitStatus {
            status: ExitStatus::Code(code),
            at: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        }),
        _ => None,
    }
}

/// When a process was started, in clock ticks since the machine was: field 22 of its `stat`, proc_pid_stat(5). The name before
/// it is in parentheses, and may have some itself.
pub fn start_in(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_start_is_found_behind_any_name() {
        let fields: Vec<String> = (3..30).map(|number| number.to_string()).collect();
        assert_eq!(start_in(&format!("12 (a) R) {}", fields.join(" "))), Some(22));
        assert_eq!(start_in("12 (a) S 1"), None);
        assert!(start_in(&std::fs::read_to_string("/proc/self/stat").expect("proc")).is_some());
    }

    #[test]
    fn only_an_end_that_was_written_whole_is_one() {
        let path = std::env::temp_dir().join(format!("init-status-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a new directory");
        let directory = File::open(&path).expect("it was made");
        let left = |bytes: &[u8]| {
            std::fs::write(path.join(layout::INIT_STATUS), bytes).expect("it is ours");
            read(directory.as_fd()).map(|end| end.status)
        };
        assert_eq!(read(directory.as_fd()), None);
        assert_eq!(left(&RUNNING), None);
        assert_eq!(left(&[1]), None);
        assert_eq!(left(&ended_with(0)), Some(ExitStatus::Code(0)));
        assert_eq!(left(&ended_with(255)), Some(ExitStatus::Code(255)));
        std::fs::remove_file(path.join(layout::INIT_STATUS)).expect("it is ours");
        std::fs::remove_dir(path).expect("it is empty");
    }
}
