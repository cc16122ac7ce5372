//! One cgroup directory by descriptor: it stays reachable when the shim has left the host's mounts behind.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};

use crate::error::{Call, SysError};

/// An open cgroup directory.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    /// For messages, and for its removal.
    path: PathBuf,
}

impl Directory {
    /// Opens it; `None` if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, SysError> {
        Self::open_at(rustix::fs::CWD, path, path.to_owned())
    }

    fn open_at(at: BorrowedFd<'_>, name: &Path, path: PathBuf) -> Result<Option<Self>, SysError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(at, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(SysError::new(format!("open(\"{}\")", path.display()), error)),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Another descriptor of it.
    pub(crate) fn try_clone(&self) -> Result<Self, SysError> {
        let fd = self.fd.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)")?;
        Ok(Self { fd, path: self.path.clone() })
    }

    /// Removes it with what is below it, and gives its parent; `None` if it was not there any more.
    pub(crate) fn remove(&self) -> Result<Option<Self>, SysError> {
        let (Some(above), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Ok(None);
        };
        let Some(parent) = Self::open_at(self.fd.as_fd(), Path::new(".."), above.to_owned())? else {
            return Ok(None);
        };
        let remove = || rustix::fs::unlinkat(&parent.fd, name, AtFlags::REMOVEDIR);
        let mut removed = remove();
        if removed == Err(Errno::BUSY) {
            let children: Vec<_> = self.children().iter().map(Self::remove).collect();
            children.into_iter().collect::<Result<Vec<_>, _>>()?;
            removed = remove();
        }
        match removed {
            Ok(()) => Ok(Some(parent)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(SysError::new(format!("rmdir(\"{}\")", self.path.display()), errno)),
        }
    }

    /// The text of a control file; empty if there is no such file.
    pub(crate) fn read(&self, name: &str) -> String {
        let mut text = String::new();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        if let Ok(fd) = rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            // A cgroup that was removed meanwhile reads as ENODEV: nothing is in it.
            let _ = File::from(fd).read_to_string(&mut text);
        }
        text
    }

    /// Whether it has this control file.
    pub(crate) fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Writes one value into a control file.
    pub(crate) fn write(&self, name: &str, value: &str) -> Result<(), SysError> {
        let call = || format!("write(\"{}/{name}\", \"{value}\")", self.path.display());
        let fd =
            rustix::fs::openat(&self.fd, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).call(call)?;
        File::from(fd).write_all(value.as_bytes()).call(call)
    }

    /// The cgroups right below it.
    pub(crate) fn children(&self) -> Vec<Directory> {
        let Ok(entries) = Dir::read_from(&self.fd) else {
            return Vec::new();
        };
        let mut children = Vec::new();
        for entry in entries.flatten().filter(|entry| entry.file_type() == FileType::Directory) {
            let Ok(name) = entry.file_name().to_str().map(Path::new) else { continue };
            if matches!(name.to_str(), Some("." | "..")) {
                continue;
            }
            if let Ok(Some(child)) = Self::open_at(self.fd.as_fd(), name, self.path.join(name)) {
                children.push(child);
            }
        }
        children
    }

    /// Removes it if nothing is in it. With other containers in it rmdir(2) is EBUSY, and right so.
    pub(crate) fn remove_if_empty(&self) {
        if let (Ok(Some(parent)), Some(name)) =
            (Self::open_at(self.fd.as_fd(), Path::new(".."), self.path.clone()), self.path.file_name())
        {
            let _ = rustix::fs::unlinkat(&parent.fd, name, AtFlags::REMOVEDIR);
        }
    }

    /// All processes in it and below it.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut pids: Vec<u32> =
            self.read("cgroup.procs").lines().filter_map(|line| line.parse().ok()).collect();
        for child in self.children() {
            pids.extend(child.processes());
        }
        pids
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
