//! Paths inside a root file system that its image, its volumes and other containers may change at any moment.
//!
//! Each is resolved once by the kernel, below the root (`RESOLVE_IN_ROOT`: a link cannot lead out), to a descriptor; after
//! that only the descriptor is used (CVE-2021-30465, CVE-2024-45310 and their kind).

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::error::{Call, SysError};

/// openat2(2) answers EAGAIN when a rename anywhere on the machine raced with a `..`; libpathrs measured that this many
/// tries are enough under constant attack.
const TRIES: u32 = 128;

fn openat2(root: BorrowedFd<'_>, path: &str, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let relative = match path.trim_start_matches('/') {
        "" => ".",
        relative => relative,
    };
    for _ in 0..TRIES {
        match rustix::fs::openat2(root, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens a path below `root`, following links inside it.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat2(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens a directory that must be one without any link on the way; `ELOOP` or `ENOTDIR` otherwise.
pub(crate) fn open_plain_directory(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW, resolve)
}

/// Opens a directory below `root`, making what is missing of its path.
///
/// A link that leads nowhere is an error: making its target would be guessing.
pub(crate) fn make_directory(root: BorrowedFd<'_>, path: &str, mode: Mode) -> Result<OwnedFd, SysError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open_in_root(root, path, flags) {
        Err(Errno::NOENT) => {}
        result => return result.call(|| format!("openat2(\"{path}\", RESOLVE_IN_ROOT)")),
    }
    let mut current = open_in_root(root, "/", flags).call(|| "openat2(\"/\", RESOLVE_IN_ROOT)")?;
    let mut so_far = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        so_far.push('/');
        so_far.push_str(part);
        current = match open_in_root(root, &so_far, flags) {
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(&current, part, mode).call(|| format!("mkdirat(\"{so_far}\")"))?;
                open_in_root(root, &so_far, flags)
            }
            result => result,
        }
        .call(|| format!("openat2(\"{so_far}\", RESOLVE_IN_ROOT)"))?;
    }
    Ok(current)
}

/// Opens a file below `root` for a mount on it, making an empty one when it is missing.
pub(crate) fn make_file(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, SysError> {
    match open_in_root(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        result => return result.call(|| format!("openat2(\"{path}\", RESOLVE_IN_ROOT)")),
    }
    let (parent, name) = split(path).ok_or_else(|| {
        SysError::new(format!("make the file \"{path}\""), io::Error::from(io::ErrorKind::InvalidInput))
    })?;
    let parent = make_directory(root, parent, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))
        .call(|| format!("openat(\"{path}\", O_CREAT|O_EXCL)"))?;
    rustix::fs::openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("openat(\"{path}\", O_PATH)"))
}

/// Parent and last part of an absolute path; `None` for the root.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (parent, name) = path.rsplit_once('/')?;
    (!name.is_empty()).then_some((if parent.is_empty() { "/" } else { parent }, name))
}
