//! A copy of a tree with all that a file system keeps of it: owners, modes, times, attributes, holes, further names, devices.
//!
//! The source may be an image of anybody: the walk goes by descriptors, follows no link and crosses no mount. The target is
//! a directory that nobody else knows of yet.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    },
    io::Errno,
};

use crate::error::{Call, SysError};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 18;
/// The longest list of names and the longest value of extended attributes, xattr(7).
const LONGEST_ATTRIBUTE: usize = 1 << 16;
/// Deeper than a path can be typed; each level costs two descriptors.
const DEEPEST: usize = 400;

/// Copies all that is in `source` into the empty directory `target`, and what `source` itself looks like.
///
/// # Errors
/// The first call that failed, with the path below `source`; a part may be in `target` then.
pub(super) fn tree(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut copy = Copy { first_names: HashMap::new(), buffer: vec![0; CHUNK], top: target };
    let status = rustix::fs::fstat(source).call(|| "fstat(\"/\")")?;
    copy.entries(source, target, "", 0)?;
    dress(source, target, &status, "/")
}

struct Copy<'a> {
    /// Of a file with several names, by device and inode: the first one in the copy.
    first_names: HashMap<(u64, u64), String>,
    buffer: Vec<u8>,
    top: BorrowedFd<'a>,
}

/// One thing that is copied.
struct Entry<'a> {
    source: BorrowedFd<'a>,
    target: BorrowedFd<'a>,
    name: &'a CStr,
    /// Below the top, for people.
    path: &'a str,
    status: Stat,
}

impl Copy<'_> {
    fn entries(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        path: &str,
        depth: usize,
    ) -> Result<(), SysError> {
        if depth > DEEPEST {
            return Err(SysError::new(format!("copy \"{path}\""), Errno::NAMETOOLONG));
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(source).call(|| format!("getdents(\"{path}\")"))? {
            let entry = entry.call(|| format!("getdents(\"{path}\")"))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        for name in names {
            let path = format!("{path}/{}", name.to_string_lossy());
            let status = rustix::fs::statat(source, &name, AtFlags::SYMLINK_NOFOLLOW)
                .call(|| format!("statat(\"{path}\")"))?;
            self.entry(&Entry { source, target, name: &name, path: &path, status }, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>, depth: usize) -> Result<(), SysError> {
        let kind = FileType::from_raw_mode(entry.status.st_mode);
        if kind == FileType::Directory {
            return self.directory(entry, depth);
        }
        if entry.status.st_nlink > 1 && self.is_linked(entry)? {
            return Ok(());
        }
        match kind {
            FileType::RegularFile => self.file(entry),
            FileType::Symlink => symlink(entry),
            FileType::Directory
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => node(entry, kind),
        }
    }

    /// Whether it is one more name of what was copied already, and has it now.
    fn is_linked(&mut self, entry: &Entry<'_>) -> Result<bool, SysError> {
        let key = (entry.status.st_dev, entry.status.st_ino);
        let Some(first) = self.first_names.get(&key) else {
            self.first_names.insert(key, entry.path.trim_start_matches('/').to_owned());
            return Ok(false);
        };
        rustix::fs::linkat(self.top, first.as_str(), entry.target, entry.name, AtFlags::empty())
            .call(|| format!("linkat(\"{}\")", entry.path))?;
        Ok(true)
    }

    fn directory(&mut self, entry: &Entry<'_>, depth: usize) -> Result<(), SysError> {
        let source = open(entry.source, entry.name, OFlags::RDONLY | OFlags::DIRECTORY, entry.path)?;
        rustix::fs::mkdirat(entry.target, entry.name, Mode::RWXU)
            .call(|| format!("mkdirat(\"{}\")", entry.path))?;
        let target = open(entry.target, entry.name, OFlags::RDONLY | OFlags::DIRECTORY, entry.path)?;
        self.entries(source.as_fd(), target.as_fd(), entry.path, depth + 1)?;
        dress(source.as_fd(), target.as_fd(), &entry.status, entry.path)
    }

    fn file(&mut self, entry: &Entry<'_>) -> Result<(), SysError> {
        let source = open(entry.source, entry.name, OFlags::RDONLY, entry.path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(entry.target, entry.name, flags, Mode::RUSR | Mode::WUSR)
            .call(|| format!("openat(\"{}\", O_CREAT)", entry.path))?;
        let (source, target) = (File::from(source), File::from(target));
        self.bytes(&source, &target, entry)?;
        dress(source.as_fd(), target.as_fd(), &entry.status, entry.path)
    }

    /// Only what is data: holes stay holes.
    fn bytes(&mut self, source: &File, target: &File, entry: &Entry<'_>) -> Result<(), SysError> {
        let size = u64::try_from(entry.status.st_size).unwrap_or(0);
        target.set_len(size).call(|| format!("ftruncate(\"{}\")", entry.path))?;
        let mut from = 0;
        while let Some((begin, end)) =
            data_from(source, from, size).call(|| format!("lseek(\"{}\")", entry.path))?
        {
            let mut at = begin;
            while at < end {
                let wanted = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
                let read = source
                    .read_at(&mut self.buffer[..wanted], at)
                    .call(|| format!("read(\"{}\")", entry.path))?;
                if read == 0 {
                    return Ok(());
                }
                target
                    .write_all_at(&self.buffer[..read], at)
                    .call(|| format!("write(\"{}\")", entry.path))?;
                at += u64::try_from(read).unwrap_or(0);
            }
            from = end;
        }
        Ok(())
    }
}

/// The next piece of data at or behind `from`; lseek(2) with SEEK_DATA and SEEK_HOLE.
fn data_from(file: &File, from: u64, size: u64) -> Result<Option<(u64, u64)>, Errno> {
    if from >= size {
        return Ok(None);
    }
    let begin = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(from)) {
        Ok(begin) => begin,
        // Nothing but a hole to the end.
        Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(begin))?;
    Ok(Some((begin, end.min(size))))
}

fn open(at: BorrowedFd<'_>, name: &CStr, flags: OFlags, path: &str) -> Result<OwnedFd, SysError> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(at, name, flags, Mode::empty(), resolve) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            result => return result.call(|| format!("openat2(\"{path}\")")),
        }
    }
}

fn symlink(entry: &Entry<'_>) -> Result<(), SysError> {
    let text = rustix::fs::readlinkat(entry.source, entry.name, Vec::new())
        .call(|| format!("readlinkat(\"{}\")", entry.path))?;
    rustix::fs::symlinkat(&text, entry.target, entry.name)
        .call(|| format!("symlinkat(\"{}\")", entry.path))?;
    dress_by_name(entry)
}

fn node(entry: &Entry<'_>, kind: FileType) -> Result<(), SysError> {
    let mode = Mode::from_raw_mode(entry.status.st_mode & 0o7777);
    rustix::fs::mknodat(entry.target, entry.name, kind, mode, entry.status.st_rdev)
        .call(|| format!("mknodat(\"{}\")", entry.path))?;
    dress_by_name(entry)?;
    // mknod(2) heeds the umask. It is no link: we made it.
    rustix::fs::chmodat(entry.target, entry.name, mode, AtFlags::empty())
        .call(|| format!("fchmodat(\"{}\")", entry.path))
}

/// Of what cannot be opened. The path of an attribute's file has one last part, which is not followed.
fn dress_by_name(entry: &Entry<'_>) -> Result<(), SysError> {
    let Entry { source, target, name, path, status } = entry;
    let (owner, group) = owner(status);
    rustix::fs::chownat(target, *name, owner, group, AtFlags::SYMLINK_NOFOLLOW)
        .call(|| format!("fchownat(\"{path}\")"))?;
    let by_descriptor = |directory: &BorrowedFd<'_>| {
        let mut text = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
        text.extend_from_slice(name.to_bytes());
        CString::new(text).unwrap_or_default()
    };
    let (from, to) = (by_descriptor(source), by_descriptor(target));
    attributes(
        path,
        |list| rustix::fs::llistxattr(&from, list),
        |key, value| rustix::fs::lgetxattr(&from, key, value),
        |key, value| rustix::fs::lsetxattr(&to, key, value, XattrFlags::empty()),
    )?;
    rustix::fs::utimensat(target, *name, &times(status), AtFlags::SYMLINK_NOFOLLOW)
        .call(|| format!("utimensat(\"{path}\")"))
}

/// Owner before mode and attributes: a change of it takes set-user-id bits and capabilities away. Times last.
fn dress(source: BorrowedFd<'_>, target: BorrowedFd<'_>, status: &Stat, path: &str) -> Result<(), SysError> {
    let (owner, group) = owner(status);
    rustix::fs::fchown(target, owner, group).call(|| format!("fchown(\"{path}\")"))?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(status.st_mode & 0o7777))
        .call(|| format!("fchmod(\"{path}\")"))?;
    attributes(
        path,
        |list| rustix::fs::flistxattr(source, list),
        |key, value| rustix::fs::fgetxattr(source, key, value),
        |key, value| rustix::fs::fsetxattr(target, key, value, XattrFlags::empty()),
    )?;
    rustix::fs::futimens(target, &times(status)).call(|| format!("futimens(\"{path}\")"))
}

fn owner(status: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(status.st_uid)), Some(Gid::from_raw(status.st_gid)))
}

fn times(status: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(status.st_atime, status.st_atime_nsec),
        last_modification: time(status.st_mtime, status.st_mtime_nsec),
    }
}

/// All that the source shows; what belongs to overlayfs itself it does not.
fn attributes(
    path: &str,
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
    set: impl Fn(&CStr, &[u8]) -> Result<(), Errno>,
) -> Result<(), SysError> {
    let mut names = vec![0; LONGEST_ATTRIBUTE];
    let length = match list(&mut names) {
        // A file system without any.
        Ok(0) | Err(Errno::NOTSUP) => return Ok(()),
        result => result.call(|| format!("listxattr(\"{path}\")"))?,
    };
    let mut value = vec![0; LONGEST_ATTRIBUTE];
    for key in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(key) = CStr::from_bytes_with_nul(key) else { continue };
        let size = get(key, &mut value).call(|| format!("getxattr(\"{path}\", {key:?})"))?;
        set(key, &value[..size]).call(|| format!("setxattr(\"{path}\", {key:?})"))?;
    }
    Ok(())
}
