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
            let children: Vec<_> = self.children()?.iter().map(Self::remove).collect();
            children.into_iter().collect::<Result<Vec<_>, _>>()?;
            removed = remove();
        }
        match removed {
            Ok(()) => Ok(Some(parent)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(SysError::new(format!("rmdir(\"{}\")", self.path.display()), errno)),
        }
    }

    /// The text of a control file; empty if there is no such file, or no such cgroup any more.
    pub(crate) fn read(&self, name: &str) -> Result<String, SysError> {
        let call = || format!("read(\"{}/{name}\")", self.path.display());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NODEV) => return Ok(String::new()),
            result => result.call(call)?,
        };
        let mut text = String::new();
        match File::from(fd).read_to_string(&mut text) {
            // A cgroup that was removed meanwhile: nothing is in it. Or one that a program has made threaded: its processes
            // stand in the nearest one above that is not (cgroups(7)), which at the latest is the container's own.
            Err(error)
                if [Errno::NODEV, Errno::OPNOTSUPP]
                    .iter()
                    .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) =>
            {
                Ok(String::new())
            }
            result => result.call(call).map(|_| text),
        }
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
    fn children(&self) -> Result<Vec<Directory>, SysError> {
        let call = || format!("getdents(\"{}\")", self.path.display());
        let mut children = Vec::new();
        for entry in Dir::read_from(&self.fd).call(call)? {
            let entry = match entry {
                // It was removed meanwhile.
                Err(Errno::NOENT) => break,
                result => result.call(call)?,
            };
            let Ok(name) = entry.file_name().to_str().map(Path::new) else { continue };
            if entry.file_type() == FileType::Directory && !matches!(name.to_str(), Some("." | "..")) {
                children.extend(Self::open_at(self.fd.as_fd(), name, self.path.join(name))?);
            }
        }
        Ok(children)
    }

    /// Removes it if nothing is in it. With other containers in it rmdir(2) is EBUSY, and right so.
    pub(crate) fn remove_if_empty(&self) {
        if let (Ok(Some(parent)), Some(name)) =
            (Self::open_at(self.fd.as_fd(), Path::new(".."), self.path.clone()), self.path.file_name())
        {
            let _ = rustix::fs::unlinkat(&parent.fd, name, AtFlags::REMOVEDIR);
        }
    }

    /// All processes in it and below it. Who cannot be listed is an error: nobody may be taken for gone.
    pub(crate) fn processes(&self) -> Result<Vec<u32>, SysError> {
        let mut pids: Vec<u32> =
            self.read("cgroup.procs")?.lines().filter_map(|line| line.parse().ok()).collect();
        for child in self.children()? {
            pids.extend(child.processes()?);
        }
        Ok(pids)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_listed_is_not_taken_for_gone() {
        let path = std::env::temp_dir().join(format!("mysup-cgroup-{}", std::process::id()));
        // A directory cannot be read as a file, as little as anything when no descriptor is left.
        std::fs::create_dir_all(path.join("below/cgroup.procs")).expect("mkdir");
        let directory = Directory::open(&path).expect("open").expect("it was made");
        assert!(directory.processes().is_err(), "below it");
        std::fs::remove_dir(path.join("below/cgroup.procs")).expect("rmdir");
        assert_eq!(directory.processes().expect("no file is nobody"), Vec::<u32>::new());
        std::fs::remove_dir(path.join("below")).expect("rmdir");
        std::fs::remove_dir(&path).expect("rmdir");
        assert_eq!(directory.processes().expect("no cgroup is nobody"), Vec::<u32>::new());
    }
}
