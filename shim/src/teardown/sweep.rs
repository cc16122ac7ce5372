//! Removing a tree without ever crossing a mount.
//!
//! `st_dev` does not protect: a bind of the same file system below has the same device. The walk goes by directory
//! descriptors that are opened with `openat2(RESOLVE_NO_XDEV|RESOLVE_NO_SYMLINKS|RESOLVE_BENEATH)`, which fails at every
//! mount; such a place is refused and named, and everything beside it is removed.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::error::{Call, SysError};

/// Deeper directories are moved up first: each level costs an open descriptor.
const MAX_DEPTH: usize = 64;
/// No more refusals than this are kept.
const MAX_REFUSALS: usize = 16;

/// What stayed, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} was not removed: {reason}")]
pub(crate) struct Refusal {
    /// Relative to where the sweep began.
    pub(crate) path: String,
    /// For people.
    pub(crate) reason: String,
}

struct Sweep<'a> {
    /// Where the tree is, and where what is too deep is moved to.
    top: BorrowedFd<'a>,
    moved: Vec<CString>,
    refusals: Vec<Refusal>,
}

/// Removes `name` in the directory `parent` with all below it; "not there" is done. Returns what was refused.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &CStr) -> Vec<Refusal> {
    let mut sweep = Sweep { top: parent, moved: Vec::new(), refusals: Vec::new() };
    sweep.remove_any(parent, name, &name.to_string_lossy(), 0);
    while let Some(name) = sweep.moved.pop() {
        sweep.remove_any(parent, &name, &name.to_string_lossy(), 0);
    }
    sweep.refusals
}

/// Removes everything in a directory, not itself.
pub(crate) fn empty(directory: BorrowedFd<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    match names(directory) {
        Ok(names) => {
            for (name, _) in names {
                refusals.extend(remove(directory, &name));
            }
        }
        Err(errno) => refusals.push(Refusal { path: ".".to_owned(), reason: errno.to_string() }),
    }
    refusals
}

impl Sweep<'_> {
    fn remove_any(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &str, depth: usize) {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => self.remove_directory(parent, name, path, depth),
            Err(errno) => self.refuse(path, errno),
        }
    }

    fn remove_directory(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &str, depth: usize) {
        if depth >= MAX_DEPTH && self.move_up(parent, name) {
            return;
        }
        match open_directory(parent, name) {
            Ok(directory) => self.empty(directory.as_fd(), path, depth),
            Err(Errno::NOENT) => return,
            Err(errno) => return self.refuse(path, errno),
        }
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Something in it was refused, and that has been said.
            Err(Errno::NOTEMPTY) if !self.refusals.is_empty() => {}
            Err(errno) => self.refuse(path, errno),
        }
    }

    fn empty(&mut self, directory: BorrowedFd<'_>, path: &str, depth: usize) {
        let names = match names(directory) {
            Ok(names) => names,
            Err(errno) => return self.refuse(path, errno),
        };
        for (name, kind) in names {
            let path = format!("{path}/{}", name.to_string_lossy());
            if kind == FileType::Directory {
                self.remove_directory(directory, &name, &path, depth + 1);
            } else {
                self.remove_any(directory, &name, &path, depth + 1);
            }
        }
    }

    /// Moves a directory next to the top. A mountpoint cannot be renamed (EBUSY), so this crosses nothing.
    fn move_up(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> bool {
        let new = format!(".deep-{}-{}", std::process::id(), crate::sys::time::wall_clock());
        let Ok(new) = CString::new(new) else { return false };
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        let moved = rustix::fs::renameat_with(parent, name, self.top, &new, flags).is_ok();
        if moved {
            self.moved.push(new);
        }
        moved
    }

    fn refuse(&mut self, path: &str, errno: Errno) {
        let reason = match errno {
            Errno::XDEV => "it is a mountpoint".to_owned(),
            Errno::BUSY => "it is a mountpoint or otherwise busy".to_owned(),
            errno => errno.to_string(),
        };
        if self.refusals.len() < MAX_REFUSALS {
            self.refusals.push(Refusal { path: path.to_owned(), reason });
        }
    }
}

/// Opens a directory of our own in which something is to be removed. Somebody may have mounted his data on it: what that
/// hides is ours, what it shows is not.
///
/// # Errors
/// If it is a mountpoint, or cannot be opened.
pub(crate) fn open_root(path: &str) -> Result<OwnedFd, SysError> {
    let call = || format!("openat2(\"{path}\", RESOLVE_NO_XDEV)");
    let name =
        Path::new(path).file_name().and_then(|name| name.to_str()).and_then(|name| CString::new(name).ok());
    let (Some(parent), Some(name)) = (Path::new(path).parent(), name) else {
        return Err(SysError::new(call(), Errno::INVAL));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::openat(CWD, parent, flags, Mode::empty())
        .call(|| format!("open(\"{}\", O_PATH)", parent.display()))?;
    match open_directory(parent.as_fd(), &name) {
        Err(Errno::XDEV) => {
            let error = io::Error::other("it is a mountpoint; unmount it, nothing below it is touched");
            Err(SysError::new(call(), error))
        }
        result => result.call(call),
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    loop {
        match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            result => return result,
        }
    }
}

/// All names in a directory, read before anything is removed (removal while reading may skip some).
fn names(directory: BorrowedFd<'_>) -> Result<Vec<(CString, FileType)>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::PathBuf};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mysup-sweep-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("mkdir");
            Self(path)
        }

        fn sweep(&self, name: &CStr) -> Vec<Refusal> {
            let directory = fs::File::open(&self.0).expect("open");
            remove(directory.as_fd(), name)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let directory = fs::File::open(&self.0).expect("open");
            assert_eq!(empty(directory.as_fd()), []);
            fs::remove_dir(&self.0).expect("rmdir");
        }
    }

    #[test]
    fn a_tree_goes_and_what_links_lead_to_stays() {
        let scratch = Scratch::new("links");
        let decoy = scratch.0.join("decoy");
        fs::create_dir(&decoy).expect("mkdir");
        fs::write(decoy.join("kept"), "bytes").expect("write");
        let tree = scratch.0.join("tree");
        fs::create_dir_all(tree.join("a/b")).expect("mkdir");
        fs::write(tree.join("a/file"), "x").expect("write");
        symlink(&decoy, tree.join("a/link")).expect("symlink");
        symlink("..", tree.join("up")).expect("symlink");
        assert_eq!(scratch.sweep(c"tree"), []);
        assert!(!tree.exists());
        assert_eq!(fs::read(decoy.join("kept")).expect("read"), b"bytes");
        assert_eq!(scratch.sweep(c"tree"), [], "a second time is done too");
    }

    #[test]
    fn a_tree_deeper_than_the_table_of_descriptors_goes() {
        let scratch = Scratch::new("deep");
        let mut directory = fs::File::open(&scratch.0).expect("open");
        for _ in 0..3000 {
            rustix::fs::mkdirat(&directory, "d", Mode::from_raw_mode(0o755)).expect("mkdirat");
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            directory = rustix::fs::openat(&directory, "d", flags, Mode::empty()).expect("openat").into();
        }
        assert_eq!(scratch.sweep(c"d"), []);
        assert_eq!(fs::read_dir(&scratch.0).expect("read").count(), 0);
    }
}
