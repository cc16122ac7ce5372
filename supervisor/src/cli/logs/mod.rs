//! `logs`: reads a container's log files itself, so that it works whatever the supervisor does, and changes no byte.

mod files;
mod lines;

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use mysup_ipc::{
    blocking::{Connection, Received},
    container::ContainerState,
    error::{ErrorCode, WireError},
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

/// Between two tries to find the shim that follows a dead one.
const LOOK: Duration = Duration::from_millis(20);

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
    let run_directory = PathBuf::from(&info.run_dir);
    let connection = if args.follow { connect(&run_directory) } else { None };
    let directory = PathBuf::from(&info.state_dir);
    let skipped = match tail {
        Some(wanted) => count_lines(&directory, span)?.saturating_sub(wanted),
        None => 0,
    };
    let mut sequence = LogSequence::open(&directory)?;
    let mut printer = Printer::new(span, skipped, tail.is_some(), args.timestamps);
    if !args.follow {
        read_on(&mut sequence, &mut printer)?;
        return Ok(0);
    }
    let mut follower = Follower { instance, id: info.id.as_str(), run_directory: &run_directory, connection };
    let mut growth = Growth::More;
    // What was written before the last word is there when it is heard: so it is read once more.
    while read_on(&mut sequence, &mut printer)? == Flow::GoOn && growth == Growth::More {
        growth = follower.wait_for_growth()?;
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

/// What becomes of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// There may be more of it.
    More,
    /// The container has ended.
    No,
}

/// Hears of the growth of a log: from the container's shim, and from the next one when that is dead.
struct Follower<'a> {
    instance: &'a Instance,
    id: &'a str,
    run_directory: &'a Path,
    connection: Option<Connection>,
}

impl Follower<'_> {
    /// Waits until the log may have grown.
    fn wait_for_growth(&mut self) -> Result<Growth, CliError> {
        if let Some(connection) = &mut self.connection {
            match heard(connection)? {
                Some(growth) => return Ok(growth),
                None => self.connection = None,
            }
        }
        if !self.goes_on()? {
            return Ok(Growth::No);
        }
        self.connection = connect(self.run_directory);
        if self.connection.is_none() {
            thread::sleep(LOOK);
        }
        // What was written while nobody told is read before the next wait.
        Ok(Growth::More)
    }

    /// Whether there is, or will be, a shim that tells.
    fn goes_on(&self) -> Result<bool, CliError> {
        match self.instance.connect()?.inspect(self.id) {
            Ok(info) => Ok(match info.state {
                ContainerState::Starting
                | ContainerState::Running { .. }
                | ContainerState::Stopping { .. }
                | ContainerState::Unreachable
                // The last bytes of a dead shim's container may still be on their way.
                | ContainerState::TearingDown => true,
                ContainerState::Created
                | ContainerState::Exited
                | ContainerState::Leftover
                | ContainerState::Damaged(_) => false,
            }),
            // Removed meanwhile.
            Err(CliError::Refused(WireError { code: ErrorCode::NotFound, .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Connects to the shim, if there is one.
fn connect(run_directory: &Path) -> Option<Connection> {
    let socket = client::connect_in(run_directory, layout::SHIM_SOCKET).ok()?;
    let mut connection = Connection::new(socket);
    connection.send(&ToShim::Hello(Role::LogFollower)).ok()?;
    connection.socket().set_nonblocking(true).ok()?;
    Some(connection)
}

/// What the shim says of the log; nothing if it died.
fn heard(connection: &mut Connection) -> Result<Option<Growth>, CliError> {
    loop {
        let mut grew = false;
        loop {
            match connection.receive() {
                Ok(Received::Message(FromShim::LogGrew)) => grew = true,
                Ok(Received::Message(
                    FromShim::Exited(_) | FromShim::TornDown(_) | FromShim::Leftover(_),
                )) => {
                    return Ok(Some(Growth::No));
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
                Ok(Received::Closed) | Err(_) => return Ok(None),
            }
        }
        if grew {
            return Ok(Some(Growth::More));
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
