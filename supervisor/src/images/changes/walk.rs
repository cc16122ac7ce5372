//! A walk through a write layer, directory by directory in the order of names, with what the image has at each place.
//!
//! A directory of the write layer that is marked opaque hides what the image has in it. It is walked all the same with the
//! image's beside it, so that a visitor can tell what was there before.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FileType;

use super::{
    OwnPaths, failed,
    node::Node,
    stack::{Seen, Stack},
};
use crate::images::{
    cancel::Cancel,
    error::{ImageError, Refusal},
    limits::{Cap, Limits},
    marks,
    record::names_of,
};

/// What is done with each thing that is found. Paths are relative to the root.
pub(super) trait Visitor {
    /// A directory, before what is in it. It hides what the image has in it if it is `opaque`.
    fn enter(&mut self, path: &[u8], node: &Node, image: &Seen, opaque: bool) -> Result<(), ImageError>;
    /// The same directory, after what is in it.
    fn leave(&mut self, path: &[u8]) -> Result<(), ImageError>;
    /// Anything else.
    fn file(&mut self, path: &[u8], node: &Node, image: &Seen) -> Result<(), ImageError>;
    /// Something of the image that is hidden; by a mark of its own, or by that of a directory above it.
    fn removed(&mut self, path: &[u8], mark: Option<&Node>) -> Result<(), ImageError>;
}

/// What stays the same during a walk.
pub(super) struct Walk<'w> {
    pub(super) own: &'w OwnPaths,
    pub(super) limits: &'w Limits,
    pub(super) cancel: &'w Cancel,
}

/// Where the walk is.
struct Place<'p> {
    directory: &'p OwnedFd,
    image: &'p Stack,
    /// What the image has here is hidden by this directory or one above it.
    hidden: bool,
    depth: usize,
}

impl Walk<'_> {
    /// Walks through the write layer. Its root is not visited.
    ///
    /// # Errors
    /// If something cannot be looked at, or what the visitor says.
    pub(super) fn through(
        &self,
        directory: &OwnedFd,
        image: &Stack,
        visitor: &mut dyn Visitor,
    ) -> Result<(), ImageError> {
        let root = Place { directory, image, hidden: false, depth: 1 };
        self.directory(&root, &mut Vec::new(), visitor)
    }

    fn directory(
        &self,
        place: &Place<'_>,
        path: &mut Vec<u8>,
        visitor: &mut dyn Visitor,
    ) -> Result<(), ImageError> {
        let fault = |path: &[u8], source: std::io::Error| failed("read the directory", path, source);
        let mut names = names_of(place.directory).map_err(|error| fault(path, error))?;
        names.sort_unstable();
        for name in &names {
            self.check(place.depth, path)?;
            self.at(name, path, |path| self.name(place, name, path, visitor))?;
        }
        if place.hidden {
            for name in place.image.names().map_err(|error| fault(path, error))? {
                if names.binary_search(&name).is_err() {
                    self.at(&name, path, |path| {
                        let seen = place.image.look(&name).map_err(|errno| failed("look at", path, errno))?;
                        if seen.is_nothing() { Ok(()) } else { visitor.removed(path, None) }
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Whether the walk goes on, and so deep.
    pub(super) fn check(&self, depth: usize, path: &[u8]) -> Result<(), ImageError> {
        if self.cancel.is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        self.limits
            .check(Cap::Depth, depth as u64)
            .map_err(|over| ImageError::refused(path, Refusal::Over(over)))
    }

    /// Does something with the path of a name in the directory `path`.
    pub(super) fn at<T>(
        &self,
        name: &[u8],
        path: &mut Vec<u8>,
        work: impl FnOnce(&mut Vec<u8>) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let done = work(path);
        path.truncate(length);
        done
    }

    fn name(
        &self,
        place: &Place<'_>,
        name: &[u8],
        path: &mut Vec<u8>,
        visitor: &mut dyn Visitor,
    ) -> Result<(), ImageError> {
        if self.own.has_file(path) {
            return Ok(());
        }
        let look = |errno| failed("look at", path, errno);
        // One that is not there any more: somebody goes on while it is read.
        let Some(node) = Node::find(place.directory.as_fd(), name).map_err(look)? else { return Ok(()) };
        let image = place.image.look(name).map_err(look)?;
        if marks::is_whiteout(&node.stat) {
            let mark = (!place.hidden).then_some(&node);
            return if image.is_nothing() { Ok(()) } else { visitor.removed(path, mark) };
        }
        if node.kind() != FileType::Directory {
            return visitor.file(path, &node, &image);
        }
        let directory = node.enter().map_err(look)?;
        let opaque = !place.hidden && marks::is_opaque(&directory);
        visitor.enter(path, &node, &image, opaque)?;
        let nothing = Stack::default();
        let below = match &image {
            Seen::Directory(_, stack) => stack,
            Seen::Nothing | Seen::File(_) => &nothing,
        };
        let hidden = place.hidden || opaque;
        let inside = Place { directory: &directory, image: below, hidden, depth: place.depth + 1 };
        self.directory(&inside, path, visitor)?;
        visitor.leave(path)
    }
}
