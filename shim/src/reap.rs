//! The only place that waits for processes: two waiters lose exit codes.

use std::os::fd::BorrowedFd;

use mysup_ipc::{exit::ExitStatus, init_status};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, WaitOptions};

use crate::{
    error::{Call, SysError},
    sys::process,
};

/// The status of a child that its pidfd says has ended, or `None` if it has not.
pub(crate) fn status_of(pidfd: BorrowedFd<'_>) -> Result<Option<ExitStatus>, SysError> {
    let status = rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
        .call(|| "waitid(P_PIDFD)")?;
    Ok(status.as_ref().map(exit_status))
}

/// The status of an init that is somebody else's child: told by its pidfd once it was reaped (Linux 6.15).
pub(crate) fn status_of_adopted(pidfd: BorrowedFd<'_>) -> Option<ExitStatus> {
    process::exit_of(pidfd).map(ExitStatus::from_wait_status)
}

/// Whether a process that has ended was reaped, by anyone. Before that its status is not lost.
pub(crate) fn is_reaped(pidfd: BorrowedFd<'_>) -> bool {
    let asked = process::send_signal(pidfd, 0);
    asked.is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
}

/// The status of an init of ours (`--init`) that is dead, as it left it in the run directory.
pub(crate) fn status_left_behind(run_directory: BorrowedFd<'_>) -> Option<ExitStatus> {
    init_status::read(run_directory).map(|end| end.status)
}

fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    let byte = |number: i32| u8::try_from(number & 0xff).unwrap_or(0);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(byte(code)),
        (None, Some(signal)) => ExitStatus::Signal(byte(signal)),
        // waitid(2) with WEXITED alone reports nothing else.
        (None, None) => ExitStatus::Unknown,
    }
}

/// For PID 1 of a container with `--init`: one child that has ended, orphans included.
pub(crate) fn any_child() -> Option<(u32, ExitStatus)> {
    let (pid, status) = rustix::process::wait(WaitOptions::NOHANG).ok()??;
    let raw = i32::from_ne_bytes(status.as_raw().to_ne_bytes());
    Some((u32::try_from(pid.as_raw_nonzero().get()).unwrap_or(0), ExitStatus::from_wait_status(raw)))
}
