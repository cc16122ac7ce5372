//! A disk that remembers: a file on FUSE whose every write and flush is kept in order, with a loop device on it. From its
//! log come the states in which a power cut may leave a real disk: everything up to an instant, with any part of what
//! was not flushed missing (disks write in the order they like).
//!
//! The protocol is spoken here, by hand: include/uapi/linux/fuse.h has few messages for one file that is its own root.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags},
};

/// What came to the disk.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// Bytes, and where.
    Write(usize, Vec<u8>),
    /// All that came before stays, whatever happens.
    Flush,
}

/// All that came to a disk since it was plugged in.
#[derive(Debug)]
pub(super) struct Log {
    /// What was on it then.
    pub(super) base: Arc<Vec<u8>>,
    /// In order.
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug)]
struct Content {
    now: Vec<u8>,
    entries: Vec<Entry>,
}

/// The disk, plugged in as long as this lives.
#[derive(Debug)]
pub(super) struct Device {
    path: PathBuf,
    base: Arc<Vec<u8>>,
    content: Arc<Mutex<Content>>,
    server: Option<JoinHandle<()>>,
}

fn lock(content: &Mutex<Content>) -> MutexGuard<'_, Content> {
    content.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// Whether this machine has what it takes.
    pub(super) fn is_possible() -> bool {
        open().is_ok()
    }

    /// Plugs a disk in: `path` becomes a file with these bytes.
    ///
    /// # Errors
    /// If FUSE is not to be had.
    pub(super) fn new(path: &Path, base: &Arc<Vec<u8>>) -> io::Result<Device> {
        File::create(path)?;
        let kernel = open()?;
        let options = format!("fd={},rootmode=100600,user_id=0,group_id=0", kernel.as_raw_fd());
        let options = CString::new(options)?;
        rustix::mount::mount("power", path, "fuse", MountFlags::empty(), Some(options.as_c_str()))?;
        let content = Arc::new(Mutex::new(Content { now: base.to_vec(), entries: Vec::new() }));
        let shared = Arc::clone(&content);
        let server = thread::spawn(move || serve(kernel, &shared));
        Ok(Device { path: path.to_owned(), base: Arc::clone(base), content, server: Some(server) })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How much has come to it.
    pub(super) fn position(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let content = Arc::clone(&self.content);
        move || lock(&content).entries.len()
    }

    /// Pulls it out and gives what it remembers.
    pub(super) fn finish(mut self) -> Log {
        self.pull();
        let entries = std::mem::take(&mut lock(&self.content).entries);
        Log { base: Arc::clone(&self.base), entries }
    }

    fn pull(&mut self) {
        let Some(server) = self.server.take() else { return };
        // The last descriptor of it, a loop device's perhaps, ends the server.
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
        // Its panic would be one of this file; nothing more can be told here.
        let _ = server.join();
        // Only of use while the disk was there.
        let _ = fs::remove_file(&self.path);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.pull();
    }
}

fn open() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/fuse")
}

/// Bytes of the headers of a request and of an answer.
const REQUEST: usize = 40;
const ANSWER: usize = 16;
/// The most bytes of one write; the kernel's default without FUSE_MAX_PAGES.
const MAX_WRITE: usize = 128 << 10;

/// A request's numbers, little endian as this architecture is.
struct Request<'a>(&'a [u8]);

impl Request<'_> {
    fn word(&self, at: usize) -> u32 {
        self.0.get(at..at + 4).map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    fn size(&self, at: usize) -> usize {
        usize::try_from(self.word(at)).unwrap_or(0)
    }

    fn long(&self, at: usize) -> u64 {
        u64::from(self.word(at)) | u64::from(self.word(at + 4)) << 32
    }

    fn offset(&self, at: usize) -> usize {
        usize::try_from(self.long(at)).unwrap_or(usize::MAX)
    }
}

fn serve(mut kernel: File, content: &Mutex<Content>) {
    let mut buffer = vec![0; MAX_WRITE + 4096];
    loop {
        let length = match kernel.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A request that was taken back before it was read.
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => continue,
            // ENODEV: unmounted, and nobody has it open.
            Err(_) => return,
        };
        let request = Request(&buffer[..length]);
        let Some(answer) = answer(&request, content) else { continue };
        let (error, data) = match answer {
            Ok(data) => (0, data),
            Err(errno) => (-errno.raw_os_error(), Vec::new()),
        };
        let mut bytes = Vec::with_capacity(ANSWER + data.len());
        bytes.extend(u32::try_from(ANSWER + data.len()).unwrap_or(0).to_le_bytes());
        bytes.extend(error.to_le_bytes());
        bytes.extend(request.long(8).to_le_bytes());
        bytes.extend(data);
        // An answer that nobody waits for any more.
        let _ = kernel.write_all(&bytes);
    }
}

/// The answer to a request; `None` to one that has none.
fn answer(request: &Request<'_>, content: &Mutex<Content>) -> Option<Result<Vec<u8>, Errno>> {
    let body = REQUEST;
    let mut content = lock(content);
    Some(match request.word(4) {
        // FORGET, INTERRUPT, BATCH_FORGET
        2 | 36 | 42 => return None,
        // INIT
        26 => Ok(init()),
        // GETATTR, SETATTR
        3 | 4 => Ok(attributes(content.now.len())),
        // OPEN: no handle; the page cache may stay, nobody else writes.
        14 => Ok([&[0; 8][..], &2_u32.to_le_bytes(), &[0; 4]].concat()),
        // READ
        15 => {
            let begin = request.offset(body + 8).min(content.now.len());
            let end = begin.saturating_add(request.size(body + 16)).min(content.now.len());
            Ok(content.now[begin..end].to_vec())
        }
        // WRITE
        16 => {
            let begin = request.offset(body + 8);
            let data = request.0.get(body + 40..).unwrap_or_default();
            let Some(place) = content.now.get_mut(begin..begin.saturating_add(data.len())) else {
                return Some(Err(Errno::NOSPC));
            };
            place.copy_from_slice(data);
            content.entries.push(Entry::Write(begin, data.to_vec()));
            Ok([&u32::try_from(data.len()).unwrap_or(0).to_le_bytes()[..], &[0; 4]].concat())
        }
        // FSYNC
        20 => {
            content.entries.push(Entry::Flush);
            Ok(Vec::new())
        }
        // STATFS
        17 => Ok(vec![0; 80]),
        // RELEASE, FLUSH, DESTROY
        18 | 25 | 38 => Ok(Vec::new()),
        _ => Err(Errno::NOSYS),
    })
}

/// `struct fuse_init_out`: version 7.31, big writes.
fn init() -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    let words = [7, 31, 128 << 10, BIG_WRITES, 0];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    bytes.extend(u32::try_from(MAX_WRITE).unwrap_or(0).to_le_bytes());
    bytes.resize(64, 0);
    bytes
}

/// `struct fuse_attr_out`: a regular file, valid for a day.
fn attributes(size: usize) -> Vec<u8> {
    let size = u64::try_from(size).unwrap_or(0);
    let longs = [86_400, 0, 1, size, size / 512, 0, 0, 0];
    let mut bytes: Vec<u8> = longs.iter().flat_map(|long: &u64| long.to_le_bytes()).collect();
    let words = [0, 0, 0, 0o100_600, 1, 0, 0, 0, 4096, 0];
    bytes.extend(words.iter().flat_map(|word: &u32| word.to_le_bytes()));
    bytes
}
