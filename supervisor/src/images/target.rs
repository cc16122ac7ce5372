//! What images are written into: a tar, compressed or not, or a directory.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::{error::ImageError, gzip::Gzip, outlet::Outlet};

/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;
/// Bytes of what one thread compresses at once; zstd's own 8 MiB would be too much memory for every thread.
const ZSTD_JOB: u32 = 1 << 20;
/// Threads of one compressor.
const THREADS: u32 = 4;
/// Bytes at once.
const BUFFER: usize = 128 << 10;

/// How something is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Compresses on the way to a writer. The same bytes always become the same bytes.
pub(super) enum Compressor<W: Write> {
    Plain(W),
    Gzip(Gzip<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    pub(super) fn new(compression: Compression, writer: W) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain(writer),
            Compression::Gzip => Self::Gzip(Gzip::new(writer)?),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(writer, ZSTD_LEVEL)?;
                // Always in jobs: then the number of threads does not change the bytes.
                encoder.multithread(threads())?;
                encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(ZSTD_JOB))?;
                Self::Zstd(encoder)
            }
        })
    }

    /// Writes what is left, and gives the writer back.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(writer) => Ok(writer),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(writer) => writer.write(buffer),
            Self::Gzip(encoder) => encoder.write(buffer),
            Self::Zstd(encoder) => encoder.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(writer) => writer.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

fn threads() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(processors).unwrap_or(THREADS).min(THREADS)
}

/// The tar or the directory.
pub(super) enum Target<'t> {
    Tar(Box<tar::Builder<Compressor<io::BufWriter<Outlet<'t>>>>>),
    /// The directory, and what was made in it: path, and whether it is a directory.
    Directory(OwnedFd, Vec<(String, bool)>),
}

impl<'t> Target<'t> {
    /// A tar.
    ///
    /// # Errors
    /// If there is no memory for the compressor.
    pub(super) fn tar(outlet: Outlet<'t>, compression: Compression) -> Result<Self, ImageError> {
        let writer = io::BufWriter::with_capacity(BUFFER, outlet);
        let compressor = Compressor::new(compression, writer).map_err(failed)?;
        Ok(Self::Tar(Box::new(tar::Builder::new(compressor))))
    }

    /// Makes a directory, below others that were made before.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn directory(&mut self, path: &str) -> Result<(), ImageError> {
        match self {
            Self::Tar(tar) => {
                let mut header = header(tar::EntryType::Directory, 0o755, 0);
                tar.append_data(&mut header, format!("{path}/"), io::empty()).map_err(failed)
            }
            Self::Directory(directory, made) => {
                rustix::fs::mkdirat(&*directory, path, Mode::from_raw_mode(0o755))
                    .map_err(|errno| failed(errno.into()))?;
                made.push((path.to_owned(), true));
                Ok(())
            }
        }
    }

    /// Makes a file of exactly `size` bytes.
    ///
    /// # Errors
    /// If it cannot be made, or the reader has less or more.
    pub(super) fn file(&mut self, path: &str, size: u64, mut reader: impl Read) -> Result<(), ImageError> {
        let mut exact = (&mut reader).take(size);
        match self {
            Self::Tar(tar) => {
                let mut header = header(tar::EntryType::Regular, 0o644, size);
                tar.append_data(&mut header, path, &mut exact).map_err(failed)?;
            }
            Self::Directory(directory, made) => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&*directory, path, flags, Mode::from_raw_mode(0o644));
                let mut file = File::from(file.map_err(|errno| failed(errno.into()))?);
                made.push((path.to_owned(), false));
                io::copy(&mut exact, &mut file).map_err(failed)?;
            }
        }
        let missing = exact.limit();
        let more = reader.read(&mut [0]).map_err(failed)?;
        match (missing, more) {
            (0, 0) => Ok(()),
            _ => Err(failed(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{path} has another length than it should"),
            ))),
        }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn finish(self) -> Result<(), ImageError> {
        match self {
            Self::Tar(tar) => {
                let compressor = tar.into_inner().map_err(failed)?;
                compressor.finish().and_then(|mut writer| writer.flush()).map_err(failed)
            }
            Self::Directory(..) => Ok(()),
        }
    }

    /// Takes away what was made in a directory; what is in a file, its owner throws away.
    pub(super) fn abandon(self) {
        let Self::Directory(directory, made) = self else { return };
        for (path, is_directory) in made.iter().rev() {
            let flags = if *is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            // What cannot be removed stays, without the index that would make it an image.
            let _ = rustix::fs::unlinkat(&directory, path.as_str(), flags);
        }
    }
}

/// Of nobody and of no time: the same image is the same archive.
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

pub(super) fn failed(source: io::Error) -> ImageError {
    ImageError::system("write", "the archive", source)
}
