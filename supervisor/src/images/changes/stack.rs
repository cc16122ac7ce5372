//! Directories of several layers as overlayfs shows them together, without a mount.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
};

use super::node::Node;
use crate::images::{marks, record::names_of};

/// Directories that are joined, top first. None is an empty directory.
#[derive(Debug, Default)]
pub(in crate::images) struct Stack(Vec<OwnedFd>);

/// What is seen of a name.
#[derive(Debug)]
pub(in crate::images) enum Seen {
    Nothing,
    /// Anything but a directory.
    File(Node),
    /// The topmost directory, whose owner, mode and times count, and all that are joined.
    Directory(Node, Stack),
}

impl Seen {
    pub(in crate::images) fn is_nothing(&self) -> bool {
        matches!(self, Seen::Nothing)
    }
}

impl Stack {
    /// The roots of layers.
    pub(in crate::images) fn of_roots(directories: &[PathBuf]) -> Result<Self, (PathBuf, Errno)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &PathBuf| {
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| (path.clone(), errno))
        };
        Ok(Self(directories.iter().map(open).collect::<Result<_, _>>()?))
    }

    /// Roots that are open, top first. What lies below an opaque one is never seen.
    pub(in crate::images) fn of_open(roots: Vec<OwnedFd>) -> Self {
        let opaque = roots.iter().position(marks::is_opaque);
        let seen = opaque.map_or(roots.len(), |at| at + 1);
        Self(roots.into_iter().take(seen).collect())
    }

    /// The topmost directory.
    pub(in crate::images) fn top(&self) -> Option<&OwnedFd> {
        self.0.first()
    }

    /// What is seen of a name.
    pub(in crate::images) fn look(&self, name: &[u8]) -> Result<Seen, Errno> {
        let mut top = None;
        let mut joined = Vec::new();
        for layer in &self.0 {
            let Some(node) = Node::find(layer.as_fd(), name)? else { continue };
            if node.kind() != FileType::Directory {
                if top.is_none() && !marks::is_whiteout(&node.stat) {
                    return Ok(Seen::File(node));
                }
                break;
            }
            let directory = node.enter()?;
            let is_opaque = marks::is_opaque(&directory);
            joined.push(directory);
            top.get_or_insert(node);
            if is_opaque {
                break;
            }
        }
        Ok(top.map_or(Seen::Nothing, |node| Seen::Directory(node, Self(joined))))
    }

    /// All names that any of them has, removed ones too.
    pub(in crate::images) fn names(&self) -> std::io::Result<BTreeSet<Vec<u8>>> {
        let mut names = BTreeSet::new();
        for layer in &self.0 {
            names.extend(names_of(layer)?);
        }
        Ok(names)
    }
}
