//! What an attached client has not shown yet when its shim dies. It stands in the log, which loses no byte when a shim
//! does; from there on the client shows the log, and takes what the next shim sends as a sign that the log grew.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use mysup_ipc::{
    container::{ContainerInfo, ContainerState},
    layout,
    shim::Stream,
};

use crate::cli::{
    error::CliError,
    logs::{Flow, LogSequence},
    output,
};

/// What a client has shown so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    /// When the program was started, nanoseconds since 1970.
    pub(super) since: Option<u64>,
    /// Its standard output.
    pub(super) stdout: u64,
    /// Its standard error.
    pub(super) stderr: u64,
}

impl Shown {
    /// Notes bytes that were shown.
    pub(super) fn add(&mut self, stream: Stream, bytes: &[u8]) {
        *self.of(stream) += u64::try_from(bytes.len()).unwrap_or(0);
    }

    fn of(&mut self, stream: Stream) -> &mut u64 {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// The log, from where the client has not shown it.
#[derive(Debug)]
pub(crate) struct Rest {
    log: LogSequence,
    since: u64,
    /// Bytes at the beginning that were shown.
    shown: Shown,
}

impl Rest {
    /// Opens the log of a container whose shim died. `None` if it cannot be told where in the log the client is: then it
    /// misses what was written between two shims.
    pub(crate) fn open(info: &ContainerInfo, shown: &Shown) -> Option<Self> {
        let files = info.config.as_ref()?.log.max_files;
        let directory = PathBuf::from(&info.state_dir);
        // The oldest file may have been thrown away, and with it an unknown number of bytes.
        if files < 2 || directory.join(format!("{}.{}", layout::LOG, files - 1)).exists() {
            return None;
        }
        let since = shown.since.or_else(|| started_at(info))?;
        Self::of(&directory, since, shown)
    }

    fn of(directory: &Path, since: u64, shown: &Shown) -> Option<Self> {
        Some(Self { log: LogSequence::open(directory).ok()?, since, shown: shown.clone() })
    }

    /// Shows what is there and was not shown.
    ///
    /// # Errors
    /// If the log cannot be read, or nobody reads the output any more.
    pub(crate) fn show(&mut self) -> Result<(), CliError> {
        self.each(show)
    }

    fn each(&mut self, show: impl Fn(Stream, &[u8]) -> Result<(), CliError>) -> Result<(), CliError> {
        let Self { log, since, shown } = self;
        let flow = log.read(&mut |header, bytes| {
            // Of an earlier start.
            if header.time >= *since {
                let left = shown.of(header.stream);
                let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= u64::try_from(skipped).unwrap_or(0);
                show(header.stream, &bytes[skipped..])?;
            }
            Ok(Flow::GoOn)
        });
        flow.map(drop)
    }
}

/// Writes bytes of the program to the same stream of ours.
///
/// # Errors
/// If nobody reads the output any more, or it cannot be written.
pub(super) fn show(stream: Stream, bytes: &[u8]) -> Result<(), CliError> {
    match stream {
        Stream::Stdout => output::write(io::stdout().as_fd(), bytes),
        Stream::Stderr => match output::write(io::stderr().as_fd(), bytes) {
            // A program goes on when its stderr is closed; so does this one.
            Ok(()) | Err(CliError::ReaderGone) => Ok(()),
            Err(error) => Err(error),
        },
    }
}

fn started_at(info: &ContainerInfo) -> Option<u64> {
    match &info.state {
        ContainerState::Running { since, .. } | ContainerState::Stopping { since, .. } => Some(*since),
        ContainerState::Created
        | ContainerState::Starting
        | ContainerState::TearingDown
        | ContainerState::Exited
        | ContainerState::Leftover
        | ContainerState::Unreachable
        | ContainerState::Damaged(_) => info.exit.as_ref()?.started_at,
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeMap, fs};

    use mysup_ipc::log::RecordHeader;

    use super::*;

    #[test]
    fn what_was_shown_is_not_shown_again_and_nothing_is_missing() {
        let directory = std::env::temp_dir().join(format!("mysup-rest-{}", std::process::id()));
        fs::create_dir(&directory).expect("directory");
        let mut log = Vec::new();
        let mut record = |stream, time, text: &str| {
            let length = u32::try_from(text.len()).expect("small");
            log.extend(RecordHeader { stream, length, time }.to_bytes());
            log.extend(text.as_bytes());
        };
        record(Stream::Stdout, 1, "of an earlier start");
        record(Stream::Stdout, 5, "abc");
        record(Stream::Stderr, 6, "xy");
        record(Stream::Stdout, 7, "def");
        fs::write(directory.join(layout::LOG), &log).expect("written");
        for stdout in 0..=6u64 {
            let shown = Shown { since: Some(5), stdout, stderr: 1 };
            let mut rest = Rest::of(&directory, 5, &shown).expect("opens");
            let texts = RefCell::new(BTreeMap::from([("out", String::new()), ("err", String::new())]));
            for _ in 0..2 {
                rest.each(|stream, bytes| {
                    let name = if stream == Stream::Stdout { "out" } else { "err" };
                    let mut texts = texts.borrow_mut();
                    let text = texts.entry(name).or_default();
                    text.push_str(std::str::from_utf8(bytes).expect("text"));
                    Ok(())
                })
                .expect("reads");
            }
            let texts = texts.into_inner();
            assert_eq!(texts["out"], "abcdef"[usize::try_from(stdout).expect("small")..]);
            assert_eq!(texts["err"], "y");
        }
        fs::remove_file(directory.join(layout::LOG)).expect("removed");
        fs::remove_dir(directory).expect("removed");
    }
}
