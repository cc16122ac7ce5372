//! `logs`: reads a container's log files itself, so that it works whatever the supervisor does, and changes no byte.

mod files;
mod lines;

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use mysup_ipc::{
    blocking::{Connection, Received},
    layout,
    shim::{FromShim, Role, ToShim},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use self::lines::{LineCounter, Printer, Span};
pub(crate) use self::{files::LogSequence, lines::Flow};
use super::{
    args::LogsArgs,
    client::{self, Instance},
    describe,
    error::CliError,
    values::{Invalid, time},
};

/// Prints the log, and goes on with `-f` until the container ends.
///
/// # Errors
/// If a flag makes no sense, there is no such container, or its files cannot be read.
pub(crate) fn logs(instance: &Instance, args: &LogsArgs) -> Result<u8, CliError> {
    let now = describe::now();
    let moment = |flag: &'static str, text: Option<&str>| {
        let parsed = text.map(|text| time::parse(text, now)).transpose();
        parsed.map_err(|reason| CliError::Flag { flag, reason })
    };
    let span = Span {
        since: moment("--since", args.since.as_deref())?,
        until: moment("--until", args.until.as_deref())?,
    };
    let tail = args.tail.as_deref().map(tail).transpose()?.flatten();
    let info = instance.connect()?.inspect(&args.container)?;
    // Before the files are read: what is written from now on is announced.
    let follower = if args.follow { follow(Path::new(&info.run_dir)) } else { None };
    let directory = PathBuf::from(&info.state_dir);
    let skipped = match tail {
        Some(wanted) => count_lines(&directory, span)?.saturating_sub(wanted),
        None => 0,
    };
    let mut sequence = LogSequence::open(&directory)?;
    let mut printer = Printer::new(span, skipped, tail.is_some(), args.timestamps);
    let flow = read_on(&mut sequence, &mut printer)?;
    if let (Some(mut connection), Flow::GoOn) = (follower, flow) {
        while wait_for_growth(&mut connection)? {
            if read_on(&mut sequence, &mut printer)? == Flow::Past {
                return Ok(0);
            }
        }
        read_on(&mut sequence, &mut printer)?;
    }
    Ok(0)
}

/// Number of lines; `None` is all of them.
fn tail(text: &str) -> Result<Option<u64>, CliError> {
    match (text, text.parse::<i64>()) {
        ("all", _) => Ok(None),
        // docker takes -1 for all, too.
        (_, Ok(number)) => Ok(u64::try_from(number).ok()),
        (_, Err(_)) => Err(CliError::Flag {
            flag: "--tail",
            reason: Invalid::new(format!("invalid number of lines \"{text}\": a number or all is allowed")),
        }),
    }
}

fn count_lines(directory: &Path, span: Span) -> Result<u64, CliError> {
    let mut counter = LineCounter::new(span);
    LogSequence::open(directory)?.read(&mut |header, bytes| Ok(counter.count(header, bytes)))?;
    Ok(counter.lines())
}

fn read_on(sequence: &mut LogSequence, printer: &mut Printer) -> Result<Flow, CliError> {
    let flow = sequence.read(&mut |header, bytes| printer.print(header, bytes))?;
    printer.flush()?;
    Ok(flow)
}

/// Connects to the shim; without one the container has ended.
fn follow(run_directory: &Path) -> Option<Connection> {
    let socket = client::connect_in(run_directory, layout::SHIM_SOCKET).ok()?;
    let mut connection = Connection::new(socket);
    connection.send(&ToShim::Hello(Role::LogFollower)).ok()?;
    connection.socket().set_nonblocking(true).ok()?;
    Some(connection)
}

/// Waits until the log grew; false when the container has ended.
fn wait_for_growth(connection: &mut Connection) -> Result<bool, CliError> {
    loop {
        let mut grew = false;
        loop {
            match connection.receive() {
                Ok(Received::Message(FromShim::LogGrew)) => grew = true,
                Ok(Received::Message(
                    FromShim::Exited(_) | FromShim::TornDown(_) | FromShim::Leftover(_),
                )) => {
                    return Ok(false);
                }
                Ok(Received::Message(
                    FromShim::Created { .. }
                    | FromShim::Started { .. }
                    | FromShim::Failed(_)
                    | FromShim::Output { .. }
                    | FromShim::Step(_)
                    | FromShim::Report(_)
                    | FromShim::Paused
                    | FromShim::Unknown,
                )) => {}
                Ok(Received::NotYet) => break,
                // Also when it died: nobody will tell of growth any more.
                Ok(Received::Closed) | Err(_) => return Ok(false),
            }
        }
        if grew {
            return Ok(true);
        }
        wait(connection)?;
    }
}

/// Waits for the shim's word, and for the end of whoever reads our output.
fn wait(connection: &Connection) -> Result<(), CliError> {
    let stdout = io::stdout();
    let mut polled = [
        PollFd::new(connection.socket().as_fd(), PollFlags::POLLIN),
        PollFd::new(stdout.as_fd(), PollFlags::empty()),
    ];
    match poll(&mut polled, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(CliError::Call { action: "wait for the log", source: error.into() }),
    }
    match polled[1].revents() {
        Some(events) if events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP) => {
            Err(CliError::ReaderGone)
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails() {
        assert_eq!(tail("all").expect("valid"), None);
        assert_eq!(tail("-1").expect("valid"), None);
        assert_eq!(tail("0").expect("valid"), Some(0));
        assert_eq!(tail("12").expect("valid"), Some(12));
        assert!(tail("x").is_err() && tail("").is_err() && tail("1.5").is_err());
    }
}
