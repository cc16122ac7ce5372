//! Directories of a layer that its archive names only as a part of other names: `data/word` without an entry `data/`.
//!
//! overlayfs shows owner, mode, attributes and times of the topmost layer's directory. If such a directory were made as
//! any, it would hide those of the layers below, which the archive says nothing about. So it takes them from there, as
//! overlayfs does when it copies a directory up, and as containerd does (`mkparent` in archive/tar.go).
//!
//! A layer may be unpacked before those below it are there. Until it has taken what it needs, such a directory bears a
//! mark, an extended attribute that no archive can set.
//!
//! Never: a path that is followed through a link, here or below. What is a link or a file there is another thing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{
    census::enter,
    changes::{Node, Seen, Stack},
    error::{ImageError, quoted},
    marks,
    record::names_of,
};

/// metadata.rs leaves every `trusted.` attribute of an archive out.
const MARK: &str = "trusted.mysup.implied";

/// What the archive of a layer has no entry for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Implied {
    /// The root.
    pub(super) root: bool,
    /// Directories below it that were made with the mark.
    pub(super) directories: u64,
}

impl Implied {
    pub(super) fn is_any(self) -> bool {
        self.root || self.directories > 0
    }
}

/// Marks a new directory. Where there are no such attributes, it is what it was made as.
///
/// # Errors
/// If the attribute cannot be set.
pub(super) fn mark(directory: impl AsFd) -> Result<(), Errno> {
    match rustix::fs::fsetxattr(directory, MARK, b"", XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// Takes the mark away, if there is one: the archive has told about it.
///
/// # Errors
/// If the attribute cannot be removed.
pub(super) fn unmark(directory: impl AsFd) -> Result<(), Errno> {
    match rustix::fs::fremovexattr(directory, MARK) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// Gives the directories what those below them have. `lower` are the roots of the layers below, top first. Whether
/// anything but marks was changed.
///
/// # Errors
/// If the file system fails. Then some have it and some do not.
pub(super) fn settle(root: BorrowedFd<'_>, lower: &Stack, implied: Implied) -> Result<bool, ImageError> {
    let mut changed = implied.root && settle_root(root, lower)?;
    let mut waiting = if implied.directories > 0 { vec![Vec::new()] } else { Vec::new() };
    while let Some(path) = waiting.pop() {
        let failed = |errno: Errno| ImageError::system("look at", quoted(&path), errno);
        let directory = enter(root, &path).map_err(failed)?;
        let mut nothing = [0; 0];
        if rustix::fs::fgetxattr(&directory, MARK, &mut nothing).is_ok() {
            unmark(&directory).map_err(failed)?;
            if let Some(below) = below(root, &path, lower).map_err(failed)? {
                take_over(directory.as_fd(), &below, &path)?;
            }
            changed = true;
        }
        let names = names_of(&directory).map_err(|error| ImageError::system("read", quoted(&path), error))?;
        for name in names {
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            let stat = rustix::fs::statat(&directory, name.as_slice(), flags).map_err(failed)?;
            if is_directory(&stat) {
                waiting.push(if path.is_empty() { name } else { [&path, &b"/"[..], &name].concat() });
            }
        }
    }
    Ok(changed)
}

/// The root's times are each container's own, and nearly every layer's archive has no entry for it.
fn settle_root(root: BorrowedFd<'_>, lower: &Stack) -> Result<bool, ImageError> {
    let failed = |errno| ImageError::system("look at", "the root of the layer below", errno);
    let Some(below) = lower.top() else { return Ok(false) };
    let (own, below) = (Node::of(root).map_err(failed)?, Node::of(below.as_fd()).map_err(failed)?);
    let plain = |node: &Node| (node.stat.st_mode, node.stat.st_uid, node.stat.st_gid);
    if plain(&own) == plain(&below) && below.attributes().map_err(failed)?.taken.is_empty() {
        return Ok(false);
    }
    take_over(root, &below, b"/")?;
    Ok(true)
}

/// The directory that would be seen at the path without this layer's own last component.
fn below(root: BorrowedFd<'_>, path: &[u8], lower: &Stack) -> Result<Option<Node>, Errno> {
    let mut own: OwnedFd = enter(root, b"")?;
    let mut seen: Option<(Node, Stack)> = None;
    for component in path.split(|byte| *byte == b'/') {
        // Nothing of the layers below is seen in it.
        if marks::is_opaque(&own) {
            return Ok(None);
        }
        let stack = seen.as_ref().map_or(lower, |(_, stack)| stack);
        seen = match stack.look(component)? {
            Seen::Directory(node, stack) => Some((node, stack)),
            Seen::Nothing | Seen::File(_) => return Ok(None),
        };
        own = enter(own.as_fd(), component)?;
    }
    Ok(seen.map(|(node, _)| node))
}

/// Owner first: a change of it takes bits of the mode away. Times last.
fn take_over(directory: BorrowedFd<'_>, from: &Node, path: &[u8]) -> Result<(), ImageError> {
    let fault = |action: &'static str| move |errno: Errno| ImageError::system(action, quoted(path), errno);
    let stat = &from.stat;
    let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(directory, Some(owner), Some(group)).map_err(fault("set owner of"))?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(stat.st_mode & 0o7777))
        .map_err(fault("set mode of"))?;
    let attributes = from.attributes().map_err(fault("read the extended attributes below"))?;
    for (name, value) in &attributes.taken {
        rustix::fs::fsetxattr(directory, name.as_slice(), value, XattrFlags::empty())
            .map_err(fault("set an extended attribute of"))?;
    }
    let (seconds, nanoseconds) = from.modified();
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::futimens(directory, &times).map_err(fault("set times of"))
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
