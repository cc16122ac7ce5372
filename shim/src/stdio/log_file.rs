//! The container's log: records of `ipc/src/log.rs`, written by the shim alone, rotated by size. Bytes of the program are
//! never changed. A log that cannot be written never stops the program: what is lost is counted and said.
//!
//! What comes through a FIFO is moved by splice(2): the kernel takes from the FIFO what it writes into the file in one
//! call, which a SIGKILL cannot cut in two. The header stands before it with the full length; a shim that adopts finds the
//! torn record and goes on in the middle of it. So no byte is lost or doubled, whenever a shim dies.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use mysup_ipc::{
    layout,
    log::{HEADER, MAX_RECORD, RecordHeader},
    plan::LogPlan,
    shim::Stream,
};
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    pipe::SpliceFlags,
};

use crate::{
    error::{Call, SysError},
    sys::time::wall_clock,
};

/// The log of one container.
#[derive(Debug)]
pub(crate) struct LogFile {
    directory: OwnedFd,
    file: File,
    /// Where the next record begins.
    end: u64,
    /// Behind the last byte that was moved here.
    moved_to: u64,
    bounds: LogPlan,
    /// A record of a dead shim whose bytes are not all here yet.
    torn: Option<Torn>,
    /// Bytes of the program that could not be written since the last one that could.
    lost: u64,
}

/// The end of a log that its writer did not finish.
#[derive(Debug, Clone, Copy)]
struct Torn {
    header: RecordHeader,
    /// Where its header is.
    at: u64,
    /// Bytes of it that are here.
    present: u32,
}

impl LogFile {
    /// Opens the log in a container's state directory; an earlier start's records stay.
    pub(crate) fn open(directory: OwnedFd, bounds: LogPlan) -> Result<Self, SysError> {
        let file = open_current(&directory)?;
        let (end, torn) = find_end(&file).call(|| "read(\"log\")")?;
        Ok(Self { directory, file, end, moved_to: end, bounds, torn, lost: 0 })
    }

    /// Nobody will ever finish a torn record: it is made as long as it is.
    pub(crate) fn settle(&mut self) -> Result<(), SysError> {
        match self.torn.take() {
            Some(torn) => self.cut(torn).call(|| "write(\"log\")"),
            None => Ok(()),
        }
    }

    /// Moves at most `available` bytes from a FIFO to the log. `None` if the log cannot take them: they are still in the
    /// FIFO then.
    pub(crate) fn move_from(
        &mut self,
        stream: Stream,
        fifo: BorrowedFd<'_>,
        available: usize,
    ) -> Option<usize> {
        let moved = match self.torn {
            Some(torn) if torn.header.stream == stream => self.go_on(torn, fifo, available),
            // The other stream's record comes first; its FIFO holds the rest of it.
            Some(torn) => self.cut(torn).and_then(|()| self.move_record(stream, fifo, available)),
            None => self.move_record(stream, fifo, available),
        };
        self.noted(moved)
    }

    /// The bytes that were moved last.
    pub(crate) fn read_back(&self, bytes: &mut [u8]) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let at = self.moved_to.saturating_sub(length);
        // Once more: there are errors of the moment.
        self.file.read_exact_at(bytes, at).or_else(|_| self.file.read_exact_at(bytes, at))
    }

    /// Appends bytes that were read from the program.
    pub(crate) fn append(&mut self, stream: Stream, bytes: &[u8]) {
        let written = self.prepare().and_then(|()| self.write_record(stream, bytes));
        if self.noted(written.map(|()| bytes.len())).is_none() {
            self.lose(bytes.len());
        }
    }

    /// Counts bytes that were taken from the program and are in no log.
    fn lose(&mut self, count: usize) {
        self.lost += u64::try_from(count).unwrap_or(u64::MAX);
    }

    /// The program has ended: says what was lost, if there is room for that now.
    pub(crate) fn finish(&mut self) {
        let said = if self.lost > 0 { self.prepare() } else { Ok(()) };
        if let Err(error) = said {
            tracing::warn!(%error, lost = self.lost, "the log cannot say what it lost");
        }
    }

    fn noted(&self, outcome: io::Result<usize>) -> Option<usize> {
        outcome
            .inspect_err(|error| {
                if self.lost == 0 {
                    tracing::warn!(%error, "the log cannot be written, the program goes on without it");
                }
            })
            .ok()
    }

    /// Before each record: a file of its own if the current one is full, and the mark of what was lost.
    fn prepare(&mut self) -> io::Result<()> {
        if let Some(torn) = self.torn {
            self.cut(torn)?;
        }
        if self.end >= self.bounds.max_size {
            self.rotate()?;
        }
        if self.lost > 0 {
            let mark = format!("[mysup: {} bytes of output lost, the log could not be written]\n", self.lost);
            self.write_record(Stream::Stderr, mark.as_bytes())?;
            self.lost = 0;
        }
        Ok(())
    }

    fn move_record(&mut self, stream: Stream, fifo: BorrowedFd<'_>, available: usize) -> io::Result<usize> {
        self.prepare()?;
        let length = u32::try_from(available.min(MAX_RECORD)).unwrap_or(0);
        let header = RecordHeader { stream, length, time: wall_clock() };
        self.write_header(header, self.end)?;
        self.go_on(Torn { header, at: self.end, present: 0 }, fifo, available)
    }

    /// Fills a record whose header is there, from where it ends. All its bytes are in the FIFO: we are its only reader.
    fn go_on(&mut self, mut torn: Torn, fifo: BorrowedFd<'_>, available: usize) -> io::Result<usize> {
        self.torn = Some(torn);
        let mut moved = 0usize;
        while torn.present < torn.header.length && moved < available {
            let missing = usize::try_from(torn.header.length - torn.present).unwrap_or(0);
            let mut at = torn.at + HEADER_BYTES + u64::from(torn.present);
            let wanted = missing.min(available - moved);
            match rustix::pipe::splice(fifo, None, &self.file, Some(&mut at), wanted, SpliceFlags::NONBLOCK) {
                Ok(0) => break,
                Ok(count) => {
                    torn.present += u32::try_from(count).unwrap_or(0);
                    moved += count;
                    self.moved_to = at;
                    self.torn = Some(torn);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) if moved == 0 => return self.cut(torn).and(Err(error.into())),
                // What was moved is logged; the next try says what is wrong.
                Err(_) => {
                    self.cut(torn)?;
                    return Ok(moved);
                }
            }
        }
        if torn.present == torn.header.length {
            self.torn = None;
            self.end = torn.at + HEADER_BYTES + u64::from(torn.present);
        }
        Ok(moved)
    }

    /// Ends a record where its bytes end. Needs no space: the header is overwritten, or taken away.
    fn cut(&mut self, torn: Torn) -> io::Result<()> {
        self.torn = None;
        self.end = torn.at;
        if torn.present > 0 {
            self.write_header(RecordHeader { length: torn.present, ..torn.header }, torn.at)?;
            self.end = torn.at + HEADER_BYTES + u64::from(torn.present);
        }
        self.file.set_len(self.end)
    }

    fn write_header(&self, header: RecordHeader, at: u64) -> io::Result<()> {
        self.file.write_all_at(&header.to_bytes(), at)
    }

    fn write_record(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut record = Vec::with_capacity(HEADER + bytes.len());
        record.extend_from_slice(&RecordHeader { stream, length, time: wall_clock() }.to_bytes());
        record.extend_from_slice(bytes);
        if let Err(error) = self.file.write_all_at(&record, self.end) {
            // Half a record would end the log for its readers.
            self.file.set_len(self.end)?;
            return Err(error);
        }
        self.end += u64::try_from(record.len()).unwrap_or(0);
        Ok(())
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`, and so on; the oldest is replaced.
    fn rotate(&mut self) -> io::Result<()> {
        let name = |number: u32| match number {
            0 => layout::LOG.to_owned(),
            number => format!("{}.{number}", layout::LOG),
        };
        let oldest = self.bounds.max_files.saturating_sub(1);
        if oldest == 0 {
            rustix::fs::unlinkat(&self.directory, name(0), AtFlags::empty())?;
        }
        for number in (0..oldest).rev() {
            let (from, to) = (name(number), name(number + 1));
            match rustix::fs::renameat(&self.directory, from, &self.directory, to) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.file = open_current(&self.directory).map_err(io::Error::other)?;
        (self.end, self.torn) = find_end(&self.file)?;
        Ok(())
    }
}

/// Bytes of a header, as a file position.
const HEADER_BYTES: u64 = HEADER as u64;

/// Not in append mode, which splice(2) refuses; there is one writer, who knows the end.
fn open_current(directory: &OwnedFd) -> Result<File, SysError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory.as_fd(), layout::LOG, flags, Mode::RUSR | Mode::WUSR)
        .call(|| "openat(\"log\", O_CREAT)")?;
    Ok(File::from(fd))
}

/// Where the whole records end, and the torn one behind them.
fn find_end(file: &File) -> io::Result<(u64, Option<Torn>)> {
    let size = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(0))?;
    let mut at = 0u64;
    while size - at >= HEADER_BYTES {
        let mut bytes = [0; HEADER];
        reader.read_exact(&mut bytes)?;
        // What is no header is the rest of a damaged file: it is overwritten.
        let Some(header) = RecordHeader::from_bytes(&bytes) else { break };
        let present = size - at - HEADER_BYTES;
        if present < u64::from(header.length) {
            let present = u32::try_from(present).unwrap_or(0);
            return Ok((at, Some(Torn { header, at, present })));
        }
        reader.seek_relative(i64::from(header.length))?;
        at += HEADER_BYTES + u64::from(header.length);
    }
    Ok((at, None))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mysup-log-{name}-{}", std::process::id()));
            fs::create_dir(&path).expect("mkdir");
            Self(path)
        }

        fn open(&self) -> LogFile {
            LogFile::open(File::open(&self.0).expect("open").into(), LogPlan::default()).expect("log")
        }

        /// The bytes of all whole records.
        fn text(&self) -> Vec<u8> {
            let bytes = fs::read(self.0.join("log")).expect("read");
            let (mut at, mut text) = (0, Vec::new());
            while let Some(header) = bytes.get(at..at + HEADER) {
                let header =
                    RecordHeader::from_bytes(header.try_into().expect("its size")).expect("a header");
                let length = usize::try_from(header.length).expect("small");
                text.extend_from_slice(&bytes[at + HEADER..at + HEADER + length]);
                at += HEADER + length;
            }
            text
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_file(self.0.join("log")).expect("unlink");
            fs::remove_dir(&self.0).expect("rmdir");
        }
    }

    #[test]
    fn a_record_torn_anywhere_is_finished_by_the_next_shim() {
        let text = b"0123456789";
        for cut in 0..=HEADER + text.len() {
            let scratch = Scratch::new(&format!("torn{cut}"));
            let (reader, writer) = rustix::pipe::pipe().expect("pipe");
            rustix::io::write(&writer, text).expect("write");
            scratch.open().move_from(Stream::Stdout, reader.as_fd(), text.len()).expect("moved");
            // As if the shim had died when so much was written: the rest is still in the FIFO.
            let file = fs::OpenOptions::new().write(true).open(scratch.0.join("log")).expect("open");
            file.set_len(u64::try_from(cut).expect("small")).expect("truncate");
            let present = cut.saturating_sub(HEADER);
            rustix::io::write(&writer, &text[present..]).expect("write");
            rustix::io::write(&writer, b"more").expect("write");
            let mut log = scratch.open();
            let mut left = text.len() - present + 4;
            while left > 0 {
                left -= log.move_from(Stream::Stdout, reader.as_fd(), left).expect("moved");
            }
            assert_eq!(scratch.text(), b"0123456789more", "cut at {cut}");
        }
    }

    #[test]
    fn what_was_lost_last_is_said_at_the_end() {
        let scratch = Scratch::new("lost");
        let mut log = scratch.open();
        log.append(Stream::Stdout, b"kept");
        log.lose(7);
        log.finish();
        log.finish();
        let text = String::from_utf8(scratch.text()).expect("text");
        assert_eq!(text, "kept[mysup: 7 bytes of output lost, the log could not be written]\n");
    }

    #[test]
    fn a_torn_record_that_nobody_finishes_is_made_whole() {
        let scratch = Scratch::new("settled");
        let mut log = scratch.open();
        log.append(Stream::Stderr, b"whole");
        log.append(Stream::Stdout, b"half");
        drop(log);
        let file = fs::OpenOptions::new().write(true).open(scratch.0.join("log")).expect("open");
        file.set_len(file.metadata().expect("stat").len() - 2).expect("truncate");
        let mut log = scratch.open();
        log.settle().expect("settled");
        log.append(Stream::Stdout, b"next");
        assert_eq!(scratch.text(), b"wholehanext");
    }
}
