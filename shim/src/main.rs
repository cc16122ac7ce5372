//! `mysup-shim`: one small process for each container. It makes the container, watches its init, keeps its output, records
//! its exit status, and takes it down in order, whatever happens to the supervisor.
//!
//! One thread, no async runtime, nothing about other containers. Modes:
//!
//! | called as | does |
//! |---|---|
//! | `mysup-shim run` | a container's whole life; fd 0 is the supervisor, fd 1 an attached client or /dev/null |
//! | `mysup-shim adopt` | the rest of the life of a container whose shim died and whose init lives; fd 0 is the supervisor |
//! | `mysup-shim teardown` | the end of a container whose shim died; fd 0 is the supervisor |
//! | `mysup-shim sweep DIR` | empties a directory without crossing a mount |
//! | `mysup-init PROGRAM...` | PID 1 of a container with `--init` |
//!
//! Exit codes: 0, 100 called wrongly, 111 the system failed.

mod aside;
mod cgroup;
mod deadline;
mod ending;
mod error;
mod event_loop;
mod hub;
mod inherit;
mod init;
mod life;
mod log;
mod mountinfo;
mod namespace;
mod pause;
mod peer;
mod prepare;
mod reap;
mod rootfs;
mod running;
mod stdio;
mod sys;
mod teardown;
mod user;

use std::{
    ffi::OsString,
    os::{fd::AsFd, unix::net::UnixStream},
    process::ExitCode,
    sync::Arc,
};

use error::{Call, SysError, chain};
use mysup_ipc::point;
use rustix::fs::{Mode, OFlags};

const CALLED_WRONGLY: u8 = 100;
const SYSTEM_FAILED: u8 = 111;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let args: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    match args.as_slice() {
        [name, rest @ ..] if *name == init::INIT_NAME => {
            log::install("init");
            let rest: Vec<String> = rest.iter().map(|arg| (*arg).to_owned()).collect();
            ExitCode::from(init::reaper::run(&rest))
        }
        [_, "run"] => exit_code(take_connections().and_then(|(control, attach)| life::run(control, attach))),
        [_, "adopt"] => exit_code(take_connections().and_then(|(control, _)| inherit::adopt(control))),
        [_, "teardown"] => exit_code(take_connections().and_then(|(control, _)| inherit::take_down(control))),
        [_, "sweep", directory] => sweep_directory(directory),
        _ => {
            log::install("");
            tracing::error!(
                "usage: mysup-shim run | adopt | teardown | sweep DIR (started by mysup, not by hand)"
            );
            ExitCode::from(CALLED_WRONGLY)
        }
    }
}

fn exit_code(result: Result<(), SysError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::from(SYSTEM_FAILED)
        }
    }
}

fn sweep_directory(path: &str) -> ExitCode {
    log::install("sweep");
    let directory = match teardown::sweep::open_root(path) {
        Ok(directory) => directory,
        Err(error) => return exit_code(Err(error)),
    };
    let refusals = teardown::sweep::empty(directory.as_fd());
    for refusal in &refusals {
        tracing::error!("{path}/{refusal}");
    }
    if refusals.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(SYSTEM_FAILED) }
}

/// Moves the connections from fd 0 and 1 to numbers above 2 and puts /dev/null there, so that no descriptor of ours can
/// ever be taken for the program's.
fn take_connections() -> Result<(UnixStream, Option<UnixStream>), SysError> {
    // For ps(1), when we were started by a descriptor. Cannot fail for so short a name.
    let _ = rustix::thread::set_name(c"mysup-shim");
    point::keep_reachable();
    // Our own session: the terminal of whoever started the supervisor must not signal us. Fails if we lead one already.
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // A limit on the size of files (setrlimit(2)) is an error of a write then, and not a death. The program does not inherit it.
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default())
        .call(|| "sigaction(SIGXFSZ)")?;
    let control = rustix::stdio::stdin().try_clone_to_owned().call(|| "fcntl(0, F_DUPFD_CLOEXEC)")?;
    let attach = rustix::stdio::stdout().try_clone_to_owned().call(|| "fcntl(1, F_DUPFD_CLOEXEC)")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open(\"/dev/null\")")?;
    rustix::stdio::dup2_stdin(&null).call(|| "dup2(0)")?;
    rustix::stdio::dup2_stdout(&null).call(|| "dup2(1)")?;
    let kind = rustix::fs::fstat(&attach).call(|| "fstat(1)")?.st_mode;
    let is_socket = rustix::fs::FileType::from_raw_mode(kind) == rustix::fs::FileType::Socket;
    Ok((UnixStream::from(control), is_socket.then(|| UnixStream::from(attach))))
}
