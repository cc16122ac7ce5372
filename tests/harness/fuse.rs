//! A file system whose server withholds answers: what a dead network, a stopped daemon or a broken disk looks like to those
//! who use it. It speaks the kernel's protocol itself (fuse(4), include/uapi/linux/fuse.h), on a thread of the test.
//!
//! In its root are a file `data` and an empty directory `sub`. Nothing is cached: every look asks the server.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::mount::{MountFlags, UnmountFlags};

use super::{Sandbox, skip, wait_until};

/// What the kernel may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Ask {
    /// A name in a directory.
    Lookup = 1,
    /// The attributes of a file.
    Getattr = 3,
    /// To open a file.
    Open = 14,
    /// Bytes of a file.
    Read = 15,
    /// To keep bytes of a file.
    Write = 16,
    /// How full it is.
    Statfs = 17,
    /// The last descriptor of a file was closed.
    Release = 18,
    /// A descriptor of a file was closed.
    Flush = 25,
    /// To open a directory.
    Opendir = 27,
    /// The names in a directory.
    Readdir = 28,
    /// The file system was unmounted, and its device is free when this is answered.
    Destroy = 38,
}

impl Ask {
    /// All of them.
    pub(crate) const ALL: [Ask; 11] = [
        Ask::Lookup,
        Ask::Getattr,
        Ask::Open,
        Ask::Read,
        Ask::Write,
        Ask::Statfs,
        Ask::Release,
        Ask::Flush,
        Ask::Opendir,
        Ask::Readdir,
        Ask::Destroy,
    ];
}

const FORGET: u32 = 2;
const SETATTR: u32 = 4;
const INIT: u32 = 26;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const ROOT: u64 = 1;
const DATA: u64 = 2;
const SUB: u64 = 3;

/// Bytes of `struct fuse_in_header`.
const HEADER: usize = 40;
/// What the kernel may send at once, and some room.
const BUFFER: usize = 1 << 18;

/// A mounted file system and its server.
#[derive(Debug)]
pub(crate) struct Fuse {
    point: PathBuf,
    server: Arc<Server>,
}

#[derive(Debug)]
struct Server {
    device: File,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    silent: Vec<Ask>,
    withheld: Vec<Request>,
    data: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Request {
    code: u32,
    unique: u64,
    node: u64,
    body: Vec<u8>,
}

impl Fuse {
    /// Mounts one at a place of the sandbox.
    #[track_caller]
    pub(crate) fn mount(sandbox: &Sandbox, name: &str) -> Fuse {
        Self::mount_as(sandbox, name, "fuse.silent", Path::new("none"), "")
    }

    /// Mounts one that has a block device, and is asked to let go of it when it is unmounted for the last time.
    #[track_caller]
    pub(crate) fn mount_on(sandbox: &Sandbox, name: &str, device: &Path) -> Fuse {
        Self::mount_as(sandbox, name, "fuseblk", device, ",blksize=512")
    }

    #[track_caller]
    fn mount_as(sandbox: &Sandbox, name: &str, kind: &str, source: &Path, more: &str) -> Fuse {
        let point = PathBuf::from(sandbox.new_directory(name));
        let opened = File::options().read(true).write(true).open("/dev/fuse");
        let Ok(device) = opened else { skip("/dev/fuse cannot be opened") };
        let options =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other{more}", device.as_raw_fd());
        let options = std::ffi::CString::new(options).expect("no NUL in it");
        let server = Arc::new(Server { device, state: Mutex::default() });
        if let Err(error) =
            rustix::mount::mount(source, &point, kind, MountFlags::empty(), Some(options.as_c_str()))
        {
            skip(format!("{kind} cannot be mounted here: {error}"));
        }
        let serving = Arc::clone(&server);
        // It ends with the file system.
        drop(thread::spawn(move || serving.serve()));
        Fuse { point, server }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> String {
        self.point.to_string_lossy().into_owned()
    }

    /// From now on these are not answered.
    pub(crate) fn withhold(&self, asks: &[Ask]) {
        self.server.state().silent = asks.to_vec();
    }

    /// Waits until something was asked that is not answered.
    #[track_caller]
    pub(crate) fn wait_until_asked(&self, ask: Ask) {
        let asked = || self.server.state().withheld.iter().any(|request| request.code == ask as u32);
        wait_until(&format!("the server was asked for {ask:?}"), asked);
    }

    /// Answers everything, and all that comes.
    pub(crate) fn answer(&self) {
        let withheld = {
            let mut state = self.server.state();
            state.silent.clear();
            std::mem::take(&mut state.withheld)
        };
        for request in withheld {
            self.server.answer(&request);
        }
    }

    /// Takes it away from the host; whoever uses it keeps it.
    pub(crate) fn detach(&self) {
        rustix::mount::unmount(&self.point, UnmountFlags::DETACH).expect("it is mounted");
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.answer();
        // Not there any more after `detach`.
        let _ = rustix::mount::unmount(&self.point, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.point);
    }
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut buffer = vec![0; BUFFER];
        loop {
            match (&self.device).read(&mut buffer) {
                Ok(count) => self.take(&buffer[..count]),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return,
                // A request that was taken back before it was read.
                Err(_) => {}
            }
        }
    }

    fn take(&self, bytes: &[u8]) {
        let request = Request {
            code: u32_at(bytes, 4),
            unique: u64_at(bytes, 8),
            node: u64_at(bytes, 16),
            body: bytes[HEADER..].to_vec(),
        };
        let mut state = self.state();
        if state.silent.iter().any(|ask| *ask as u32 == request.code) {
            state.withheld.push(request);
            return;
        }
        drop(state);
        self.answer(&request);
    }

    fn answer(&self, request: &Request) {
        let (error, body) = match self.reply(request) {
            Some(Ok(body)) => (0, body),
            Some(Err(errno)) => (-errno, Vec::new()),
            None => return,
        };
        let length = u32::try_from(16 + body.len()).expect("answers are short");
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(error.to_le_bytes());
        bytes.extend(request.unique.to_le_bytes());
        bytes.extend(body);
        // Who asked may have been killed: ENOENT.
        let _ = (&self.device).write(&bytes);
    }

    /// `None` where no answer is due.
    fn reply(&self, request: &Request) -> Option<Result<Vec<u8>, i32>> {
        let Request { code, node, body, .. } = request;
        Some(match *code {
            INIT => Ok(init()),
            FORGET | BATCH_FORGET | INTERRUPT => return None,
            code if code == Ask::Lookup as u32 => self.entry(*node, body),
            code if code == Ask::Getattr as u32 || code == SETATTR => {
                let mut bytes = vec![0; 16];
                bytes.extend(self.attributes(*node));
                Ok(bytes)
            }
            code if code == Ask::Open as u32 || code == Ask::Opendir as u32 => Ok(vec![0; 16]),
            code if code == Ask::Read as u32 => Ok(self.read(body)),
            code if code == Ask::Write as u32 => Ok(self.write(body)),
            code if code == Ask::Statfs as u32 => Ok(vec![0; 80]),
            code if code == Ask::Readdir as u32 => Ok(names(*node, body)),
            code if code == Ask::Release as u32 || code == RELEASEDIR => Ok(Vec::new()),
            code if code == Ask::Flush as u32 || code == Ask::Destroy as u32 => Ok(Vec::new()),
            _ => Err(libc::ENOSYS),
        })
    }

    fn entry(&self, parent: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        let node = match (parent, body.split(|byte| *byte == 0).next()) {
            (ROOT, Some(b"data")) => DATA,
            (ROOT, Some(b"sub")) => SUB,
            _ => return Err(libc::ENOENT),
        };
        let mut bytes = node.to_le_bytes().to_vec();
        bytes.resize(40, 0);
        bytes.extend(self.attributes(node));
        Ok(bytes)
    }

    /// `struct fuse_attr`
    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, size) = match node {
            DATA => (libc::S_IFREG | 0o644, self.state().data.len()),
            _ => (libc::S_IFDIR | 0o755, 0),
        };
        let mut bytes = node.to_le_bytes().to_vec();
        bytes.extend(u64::try_from(size).expect("it is short").to_le_bytes());
        bytes.resize(60, 0);
        bytes.extend(mode.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.resize(88, 0);
        bytes
    }

    fn read(&self, body: &[u8]) -> Vec<u8> {
        let from = usize::try_from(u64_at(body, 8)).unwrap_or(usize::MAX);
        let state = self.state();
        state.data.get(from..).unwrap_or_default().to_vec()
    }

    fn write(&self, body: &[u8]) -> Vec<u8> {
        let at = usize::try_from(u64_at(body, 8)).expect("files are short");
        let bytes = &body[HEADER..];
        let mut state = self.state();
        let end = state.data.len().max(at + bytes.len());
        state.data.resize(end, 0);
        state.data[at..at + bytes.len()].copy_from_slice(bytes);
        let mut answer = u32::try_from(bytes.len()).expect("writes are short").to_le_bytes().to_vec();
        answer.resize(8, 0);
        answer
    }
}

/// `struct fuse_init_out` of protocol 7.31: no features.
fn init() -> Vec<u8> {
    let mut bytes = 7u32.to_le_bytes().to_vec();
    bytes.extend(31u32.to_le_bytes());
    bytes.resize(20, 0);
    bytes.extend((1u32 << 16).to_le_bytes());
    bytes.resize(64, 0);
    bytes
}

/// `struct fuse_dirent`, one after another.
fn names(node: u64, body: &[u8]) -> Vec<u8> {
    let all: &[(u64, &[u8], u32)] = if node == ROOT { &[(DATA, b"data", 8), (SUB, b"sub", 4)] } else { &[] };
    let from = usize::try_from(u64_at(body, 8)).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    for (index, (node, name, kind)) in all.iter().enumerate().skip(from) {
        bytes.extend(node.to_le_bytes());
        bytes.extend(u64::try_from(index + 1).expect("few").to_le_bytes());
        bytes.extend(u32::try_from(name.len()).expect("short").to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(*name);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
