//! Files below the root of one layer, made through descriptors of their directories.
//!
//! A name of an archive is resolved as the container will resolve it: symbolic links are followed, and absolute ones
//! and `..` in them end at the root of the layer (openat2, RESOLVE_IN_ROOT). Its last component is never followed.
//!
//! The directory of the last entry is kept open, since most entries are neighbours. That is where containerd once let
//! an image out (CVE-2025-47290: the path was kept while an entry replaced a part of it by a link). Here
//!
//! - what is kept is a descriptor of a directory inside, never a path that is looked up again, and
//! - it is given up after every entry that removed or replaced a name that existed. A name that did not exist cannot
//!   have been a step of a resolution that succeeded, so new names leave it valid.
//!
//! Making a file in a directory changes the directory's times. They are noted when it is opened and put back when it
//! is given up, so the order of entries does not matter and nothing is remembered about any but the last one.
//!
//! Never: a removal of more than one file or one empty directory.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps},
    io::Errno,
};

use super::{
    entries::Name,
    error::{ImageError, Refusal},
    implied, marks,
};

/// How often a resolution is tried again that the kernel gave up because something on the host was renamed while it
/// went through a `..` (openat2(2), EAGAIN).
const RESOLUTIONS: usize = 1000;

/// Names never lead to anything but what the archive made: no links of /proc, no mounts.
const INSIDE: ResolveFlags =
    ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// A directory that is only looked at and made files in. It is opened for reading, since times cannot be set
/// through an `O_PATH` descriptor.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The root of a layer and what is below it.
#[derive(Debug)]
pub(super) struct Tree<'r> {
    root: BorrowedFd<'r>,
    last: Option<Directory>,
    /// A name was removed or replaced since `last` was found.
    stale: bool,
    parents: Parents,
    /// Directories that were made because a name needed them.
    parents_made: u64,
}

/// What a directory is that only names of other entries tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parents {
    /// 0755 and root's.
    Plain,
    /// The same until it takes over what a layer below has there (implied.rs).
    Marked,
}

/// An open directory of the tree.
#[derive(Debug)]
struct Directory {
    name: Vec<u8>,
    /// Without links: other than `name` only where that leads through some.
    path: Vec<u8>,
    descriptor: OwnedFd,
    times: Timestamps,
}

/// A place in a directory: what the calls that end in `at` take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'t> {
    pub(super) directory: BorrowedFd<'t>,
    pub(super) name: &'t [u8],
}

impl<'r> Tree<'r> {
    pub(super) fn new(root: BorrowedFd<'r>, parents: Parents) -> Self {
        Self { root, last: None, stale: false, parents, parents_made: 0 }
    }

    /// Directories that were made because a name needed them.
    pub(super) fn parents_made(&self) -> u64 {
        self.parents_made
    }

    /// The root itself, for an entry about it.
    ///
    /// # Errors
    /// If the times of the last directory cannot be put back.
    pub(super) fn root(&mut self) -> Result<BorrowedFd<'r>, ImageError> {
        self.leave()?;
        Ok(self.root)
    }

    /// Where the entry belongs. Directories above it that are missing are made, 0755 and root's.
    ///
    /// # Errors
    /// If something that is no directory is on the way.
    pub(super) fn place<'t>(&'t mut self, name: &'t Name) -> Result<Place<'t>, ImageError> {
        if self.last.as_ref().is_none_or(|last| last.name != name.parent()) {
            self.leave()?;
            let descriptor = match self.resolve(name.parent()) {
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(name)?,
                result => result.map_err(|errno| cannot_enter(name, name.parent(), errno))?,
            };
            let look = |errno| failed("look at the directory of", name, errno);
            let times = times_of(&descriptor).map_err(look)?;
            let path = self.path_of(&descriptor, name.parent()).map_err(look)?;
            self.last = Some(Directory { name: name.parent().to_vec(), path, descriptor, times });
        }
        let directory = self.last.as_ref().map_or(self.root, |last| last.descriptor.as_fd());
        Ok(Place { directory, name: name.last() })
    }

    /// The path of a name that was just placed, without links on the way: directories never move, so it stays right
    /// for as long as the file is there.
    pub(super) fn path_without_links(&self, name: &Name) -> Vec<u8> {
        match self.last.as_ref().map(|last| last.path.as_slice()).unwrap_or_default() {
            b"" => name.last().to_vec(),
            path => [path, b"/", name.last()].concat(),
        }
    }

    /// The directory of a hard link's target, if there is one.
    ///
    /// # Errors
    /// As [`Tree::place`]; nothing is made.
    pub(super) fn target_directory(&self, target: &Name) -> Result<OwnedFd, Errno> {
        self.resolve(target.parent())
    }

    /// A name that existed was removed: for the next entry everything must be looked up anew. The rest of this one is
    /// made where it was begun.
    pub(super) fn forget(&mut self) {
        self.stale = true;
    }

    /// To be called before each entry.
    ///
    /// # Errors
    /// If the times of the last directory cannot be put back.
    pub(super) fn begin_entry(&mut self) -> Result<(), ImageError> {
        if self.stale { self.leave() } else { Ok(()) }
    }

    /// Puts the times of the last directory back. To be called after the last entry.
    ///
    /// # Errors
    /// If they cannot be set.
    pub(super) fn leave(&mut self) -> Result<(), ImageError> {
        self.stale = false;
        let Some(last) = self.last.take() else { return Ok(()) };
        rustix::fs::futimens(&last.descriptor, &last.times)
            .map_err(|errno| ImageError::system("set times of", super::error::quoted(&last.name), errno))
    }

    fn resolve(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        for _ in 1..RESOLUTIONS {
            match rustix::fs::openat2(self.root, path, DIRECTORY, Mode::empty(), INSIDE) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        rustix::fs::openat2(self.root, path, DIRECTORY, Mode::empty(), INSIDE)
    }

    /// Where a directory is. Nearly always by the name that led to it; the kernel tells where links led to.
    fn path_of(&self, directory: &OwnedFd, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let plain = INSIDE.union(ResolveFlags::NO_SYMLINKS);
        let path = if name.is_empty() { b"." } else { name };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat2(self.root, path, flags, Mode::empty(), plain) {
            Ok(_) => return Ok(name.to_vec()),
            Err(Errno::LOOP | Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let absolute = |descriptor: BorrowedFd<'_>| {
            let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
            rustix::fs::readlink(link, Vec::new()).map(std::ffi::CString::into_bytes)
        };
        let root = absolute(self.root)?;
        let whole = absolute(directory.as_fd())?;
        let below = whole.strip_prefix(root.as_slice()).ok_or(Errno::XDEV)?;
        Ok(below.strip_prefix(b"/").unwrap_or(below).to_vec())
    }

    /// Walks down and makes what is missing.
    fn make_parents(&mut self, name: &Name) -> Result<OwnedFd, ImageError> {
        let path = name.parent();
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let mut above = None;
        for end in ends.chain([path.len()]) {
            let (prefix, _) = path.split_at(end);
            let next = match self.resolve(prefix) {
                Err(Errno::NOENT) => self.make_parent(name, prefix, above.as_ref())?,
                Err(Errno::NOTDIR) => self.replace_whiteout(name, prefix, above.as_ref())?,
                result => result.map_err(|errno| cannot_enter(name, prefix, errno))?,
            };
            above = Some(next);
        }
        // A path has at least one component, since the root was there.
        above.ok_or_else(|| cannot_enter(name, path, Errno::NOENT))
    }

    /// A directory above a removed one is a new one: nothing of the old one is seen in it.
    fn replace_whiteout(
        &mut self,
        name: &Name,
        path: &[u8],
        above: Option<&OwnedFd>,
    ) -> Result<OwnedFd, ImageError> {
        let directory = above.map_or(self.root, |above| above.as_fd());
        let place = Place { directory, name: path.rsplit(|byte| *byte == b'/').next().unwrap_or_default() };
        if !place.look().is_ok_and(|stat| marks::is_whiteout(&stat)) {
            return Err(cannot_enter(name, path, Errno::NOTDIR));
        }
        let times = times_of(directory).and_then(|times| place.clear().map(|()| times));
        let times = times.map_err(|errno| failed("replace the mark above", name, errno))?;
        let made = self.make_parent(name, path, above)?;
        implied::unmark(&made).map_err(|errno| failed("make a directory above", name, errno))?;
        marks::make_opaque(&made, name)?;
        rustix::fs::futimens(directory, &times).map_err(|errno| failed("set times above", name, errno))?;
        Ok(made)
    }

    fn make_parent(
        &mut self,
        name: &Name,
        path: &[u8],
        above: Option<&OwnedFd>,
    ) -> Result<OwnedFd, ImageError> {
        let above = above.map_or(self.root, |above| above.as_fd());
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let fault = |errno| failed("make a directory above", name, errno);
        let times = times_of(above).map_err(fault)?;
        match rustix::fs::mkdirat(above, last, Mode::from_raw_mode(0o700)) {
            // It is there, and yet it was not found: a link that leads to nothing.
            Err(Errno::EXIST) => {
                return Err(ImageError::refused(
                    name.bytes(),
                    Refusal::DanglingParent(String::from_utf8_lossy(path).escape_debug().to_string()),
                ));
            }
            result => result.map_err(fault)?,
        }
        let made = open_directory(Place { directory: above, name: last }).map_err(fault)?;
        rustix::fs::fchown(&made, Some(rustix::fs::Uid::ROOT), Some(rustix::fs::Gid::ROOT)).map_err(fault)?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755)).map_err(fault)?;
        if self.parents == Parents::Marked {
            implied::mark(&made).map_err(fault)?;
        }
        rustix::fs::futimens(above, &times).map_err(fault)?;
        self.parents_made += 1;
        Ok(made)
    }
}

impl Place<'_> {
    /// What is there, if anything; a link is looked at itself.
    pub(super) fn look(self) -> Result<Stat, Errno> {
        rustix::fs::statat(self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Removes what is there. A directory only if it is empty: GNU tar does the same, and this is no place to remove
    /// trees.
    pub(super) fn clear(self) -> Result<(), Errno> {
        let is_directory = FileType::from_raw_mode(self.look()?.st_mode) == FileType::Directory;
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(self.directory, self.name, flags)
    }
}

/// Opens a directory that was just made or seen, and nothing else.
pub(super) fn open_directory(place: Place<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(place.directory, place.name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

/// An error at an entry.
pub(super) fn failed(action: &'static str, name: &Name, errno: Errno) -> ImageError {
    ImageError::system(action, super::error::quoted(name.bytes()), errno)
}

fn cannot_enter(name: &Name, path: &[u8], errno: Errno) -> ImageError {
    let shown = || String::from_utf8_lossy(path).escape_debug().to_string();
    match errno {
        Errno::NOTDIR => ImageError::refused(name.bytes(), Refusal::Parent(shown())),
        Errno::LOOP => ImageError::refused(name.bytes(), Refusal::Circle),
        _ => failed("open the directory of", name, errno),
    }
}

fn times_of(directory: impl AsFd) -> Result<Timestamps, Errno> {
    let stat = rustix::fs::fstat(directory)?;
    Ok(Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanoseconds(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds(stat.st_mtime_nsec) },
    })
}

/// The kernel gives 0 to 999,999,999 in a type that differs between architectures.
fn nanoseconds(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or_default()
}
