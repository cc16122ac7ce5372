//! The container's log: records of `ipc/src/log.rs`, appended by the shim alone, rotated by size. Bytes of the program
//! are never changed. A log that cannot be written never stops the program: what is lost is counted and said.

use std::{
    fs::File,
    io::{self, IoSlice, Write},
    os::fd::{AsFd, OwnedFd},
};

use mysup_ipc::{
    layout,
    log::{HEADER, RecordHeader},
    plan::LogPlan,
    shim::Stream,
};
use rustix::fs::{Mode, OFlags};

use crate::{
    error::{Call, SysError},
    sys::time::wall_clock,
};

/// The log of one container.
#[derive(Debug)]
pub(crate) struct LogFile {
    directory: OwnedFd,
    file: File,
    size: u64,
    bounds: LogPlan,
    /// Bytes of the program that could not be written since the last one that could.
    lost: u64,
}

impl LogFile {
    /// Opens the log in a container's state directory; an earlier start's records stay.
    pub(crate) fn open(directory: OwnedFd, bounds: LogPlan) -> Result<Self, SysError> {
        let (file, size) = open_current(&directory)?;
        Ok(Self { directory, file, size, bounds, lost: 0 })
    }

    /// Appends what the program wrote.
    pub(crate) fn append(&mut self, stream: Stream, bytes: &[u8]) {
        if let Err(error) = self.try_append(stream, bytes) {
            if self.lost == 0 {
                tracing::warn!(%error, "the log cannot be written, the program goes on without it");
            }
            self.lost += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        }
    }

    fn try_append(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if self.size >= self.bounds.max_size {
            self.rotate()?;
        }
        if self.lost > 0 {
            let mark = format!("[mysup: {} bytes of output lost, the log could not be written]\n", self.lost);
            self.write_record(Stream::Stderr, mark.as_bytes())?;
            self.lost = 0;
        }
        self.write_record(stream, bytes)
    }

    fn write_record(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let header = RecordHeader { stream, length, time: wall_clock() }.to_bytes();
        let wanted = HEADER + bytes.len();
        let written = match self.file.write_vectored(&[IoSlice::new(&header), IoSlice::new(bytes)]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            result => result?,
        };
        let rest = if written == wanted { Ok(()) } else { self.write_rest(&header, bytes, written) };
        match rest {
            Ok(()) => {
                self.size += u64::try_from(wanted).unwrap_or(u64::MAX);
                Ok(())
            }
            // Half a record would end the log for its readers.
            Err(error) => {
                self.file.set_len(self.size)?;
                Err(error)
            }
        }
    }

    /// A short write is the disk filling up, or a signal.
    fn write_rest(&mut self, header: &[u8], bytes: &[u8], written: usize) -> io::Result<()> {
        if written < HEADER {
            self.file.write_all(&header[written..])?;
        }
        self.file.write_all(&bytes[written.saturating_sub(HEADER)..])
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`, and so on; the oldest is replaced.
    fn rotate(&mut self) -> io::Result<()> {
        let name = |number: u32| match number {
            0 => layout::LOG.to_owned(),
            number => format!("{}.{number}", layout::LOG),
        };
        let oldest = self.bounds.max_files.saturating_sub(1);
        if oldest == 0 {
            rustix::fs::unlinkat(&self.directory, name(0), rustix::fs::AtFlags::empty())?;
        }
        for number in (0..oldest).rev() {
            let (from, to) = (name(number), name(number + 1));
            match rustix::fs::renameat(&self.directory, from, &self.directory, to) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (file, size) = open_current(&self.directory).map_err(io::Error::other)?;
        self.file = file;
        self.size = size;
        Ok(())
    }
}

fn open_current(directory: &OwnedFd) -> Result<(File, u64), SysError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory.as_fd(), layout::LOG, flags, Mode::RUSR | Mode::WUSR)
        .call(|| "openat(\"log\", O_CREAT|O_APPEND)")?;
    let size = rustix::fs::fstat(&fd).call(|| "fstat(\"log\")")?.st_size;
    Ok((File::from(fd), u64::try_from(size).unwrap_or(0)))
}
