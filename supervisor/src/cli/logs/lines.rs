//! Lines of a log: which are shown, and with what in front. A line may span records; the two streams have their own
//! lines.

use std::{io, os::fd::AsFd};

use mysup_ipc::{log::RecordHeader, shim::Stream};

use super::super::{describe, error::CliError, output};

/// Bytes that are collected before they are written.
const BUFFER: usize = 64 << 10;

/// Whether more is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Yes.
    GoOn,
    /// No: this is newer than what was asked for.
    Past,
}

/// The times that were asked for, nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    /// Not older.
    pub(super) since: Option<u64>,
    /// Not newer.
    pub(super) until: Option<u64>,
}

impl Span {
    fn is_before(self, time: u64) -> bool {
        self.since.is_some_and(|since| time < since)
    }

    fn is_after(self, time: u64) -> bool {
        self.until.is_some_and(|until| time > until)
    }
}

/// Whether each stream is inside of a line, and whether that line is shown.
#[derive(Debug, Default)]
struct LineStates {
    stdout: LineState,
    stderr: LineState,
}

#[derive(Debug, Default, Clone, Copy)]
struct LineState {
    inside: bool,
    shown: bool,
}

impl LineStates {
    fn of(&mut self, stream: Stream) -> &mut LineState {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// Counts the lines of a span.
#[derive(Debug)]
pub(super) struct LineCounter {
    span: Span,
    states: LineStates,
    lines: u64,
}

impl LineCounter {
    /// Nothing counted yet.
    pub(super) fn new(span: Span) -> Self {
        Self { span, states: LineStates::default(), lines: 0 }
    }

    /// Counts the lines that start in this record.
    pub(super) fn count(&mut self, header: RecordHeader, bytes: &[u8]) -> Flow {
        if self.span.is_after(header.time) {
            return Flow::Past;
        }
        if self.span.is_before(header.time) {
            return Flow::GoOn;
        }
        let state = self.states.of(header.stream);
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.lines += u64::from(!state.inside);
            state.inside = piece.last() != Some(&b'\n');
        }
        Flow::GoOn
    }

    /// How many there were.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }
}

/// Prints the lines of a span to stdout and stderr.
#[derive(Debug)]
pub(super) struct Printer {
    span: Span,
    /// Lines that are left out at the start.
    skipped: u64,
    /// Nothing depends on where lines start: bytes go through as they are.
    plain: bool,
    timestamps: bool,
    states: LineStates,
    stream: Stream,
    buffer: Vec<u8>,
}

impl Printer {
    /// Leaves the first `skipped` lines out; `by_lines` says that a number of lines was asked for at all.
    pub(super) fn new(span: Span, skipped: u64, by_lines: bool, timestamps: bool) -> Self {
        Self {
            span,
            skipped,
            plain: !by_lines && !timestamps,
            timestamps,
            states: LineStates::default(),
            stream: Stream::Stdout,
            buffer: Vec::with_capacity(BUFFER),
        }
    }

    /// Prints one record.
    pub(super) fn print(&mut self, header: RecordHeader, bytes: &[u8]) -> Result<Flow, CliError> {
        if self.span.is_after(header.time) {
            return Ok(Flow::Past);
        }
        if self.span.is_before(header.time) {
            return Ok(Flow::GoOn);
        }
        if header.stream != self.stream {
            // In the order in which they were written, should both be one terminal.
            self.flush()?;
            self.stream = header.stream;
        }
        self.collect(header, bytes);
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(Flow::GoOn)
    }

    fn collect(&mut self, header: RecordHeader, bytes: &[u8]) {
        if self.plain {
            self.buffer.extend_from_slice(bytes);
            return;
        }
        let state = self.states.of(header.stream);
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if !state.inside {
                state.shown = self.skipped == 0;
                self.skipped = self.skipped.saturating_sub(1);
                if state.shown && self.timestamps {
                    self.buffer.extend_from_slice(describe::padded_timestamp(header.time).as_bytes());
                    self.buffer.push(b' ');
                }
            }
            if state.shown {
                self.buffer.extend_from_slice(piece);
            }
            state.inside = piece.last() != Some(&b'\n');
        }
    }

    /// Writes what was collected.
    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        let written = match self.stream {
            Stream::Stdout => output::write(io::stdout().as_fd(), &self.buffer),
            Stream::Stderr => output::write(io::stderr().as_fd(), &self.buffer),
        };
        self.buffer.clear();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: Stream = Stream::Stdout;
    const ERR: Stream = Stream::Stderr;

    fn header(stream: Stream, time: u64, bytes: &[u8]) -> RecordHeader {
        RecordHeader { stream, length: u32::try_from(bytes.len()).expect("small"), time }
    }

    fn shown(records: &[(Stream, u64, &str)], span: Span, tail: Option<u64>, timestamps: bool) -> String {
        let mut counter = LineCounter::new(span);
        for (stream, time, text) in records {
            counter.count(header(*stream, *time, text.as_bytes()), text.as_bytes());
        }
        let skipped = tail.map_or(0, |tail| counter.lines().saturating_sub(tail));
        let mut printer = Printer::new(span, skipped, tail.is_some(), timestamps);
        for (stream, time, text) in records {
            if !span.is_before(*time) && !span.is_after(*time) {
                printer.collect(header(*stream, *time, text.as_bytes()), text.as_bytes());
            }
        }
        String::from_utf8(printer.buffer).expect("text")
    }

    const RECORDS: [(Stream, u64, &str); 5] =
        [(OUT, 1, "one\ntw"), (ERR, 2, "err\n"), (OUT, 3, "o\nthr"), (OUT, 4, "ee"), (OUT, 5, "\nfour")];

    #[test]
    fn bytes_go_through_unchanged() {
        assert_eq!(shown(&RECORDS, Span::default(), None, false), "one\ntwerr\no\nthree\nfour");
        assert_eq!(shown(&[(OUT, 1, "\0\r\n\n")], Span::default(), None, false), "\0\r\n\n");
    }

    #[test]
    fn tails_count_lines_of_both_streams() {
        let tail = |lines| shown(&RECORDS, Span::default(), Some(lines), false);
        assert_eq!(tail(0), "");
        assert_eq!(tail(1), "four");
        assert_eq!(tail(2), "three\nfour");
        assert_eq!(tail(3), "err\nthree\nfour");
        assert_eq!(tail(4), "twerr\no\nthree\nfour");
        assert_eq!(tail(99), "one\ntwerr\no\nthree\nfour");
    }

    #[test]
    fn a_time_stands_at_the_start_of_each_line_only() {
        let records = [(OUT, 1, "a"), (OUT, 2, "b\nc\n"), (OUT, 3, "")];
        let wanted = "1970-01-01T00:00:00.000000001Z ab\n1970-01-01T00:00:00.000000002Z c\n";
        assert_eq!(shown(&records, Span::default(), None, true), wanted);
        let wanted = "1970-01-01T00:00:00.000000002Z c\n";
        assert_eq!(shown(&records, Span::default(), Some(1), true), wanted);
    }

    #[test]
    fn spans_choose_records() {
        let span = Span { since: Some(2), until: Some(4) };
        assert_eq!(shown(&RECORDS, span, None, false), "err\no\nthree");
        assert_eq!(shown(&RECORDS, span, Some(1), false), "three");
        let mut counter = LineCounter::new(span);
        assert_eq!(counter.count(header(OUT, 5, b"x"), b"x"), Flow::Past);
        let mut printer = Printer::new(span, 0, false, false);
        assert_eq!(printer.print(header(OUT, 5, b"x"), b"x").expect("prints nothing"), Flow::Past);
    }
}
