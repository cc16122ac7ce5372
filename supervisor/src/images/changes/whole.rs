//! The whole file system of a container as one tar: its write layer over the layers of its image, without a mount.

use std::{
    io::Write,
    os::fd::{AsFd, OwnedFd},
};

use rustix::fs::FileType;

use super::{
    WriteLayer,
    archive::{Archive, LeftOut},
    failed,
    node::Node,
    stack::{Seen, Stack},
    walk::Walk,
};
use crate::images::{cancel::Cancel, error::ImageError, limits::Limits, marks, record::names_of};

/// Writes the tar, and calls `settled` after the last file was read and before the end mark: without that it is no tar.
/// Gives the writer back.
///
/// # Errors
/// If something cannot be read or written, or what `settled` says.
pub(in crate::images) fn write_whole<W: Write>(
    layer: &WriteLayer,
    image: &Stack,
    out: W,
    (limits, cancel): (&Limits, &Cancel),
    settled: impl FnOnce() -> Result<(), ImageError>,
) -> Result<(W, LeftOut), ImageError> {
    let walk = Walk { own: &layer.own, limits, cancel };
    let mut whole = Whole { walk, archive: Archive::new(out, limits, cancel) };
    if let Some(top) = layer.directory.as_ref().or(image.top()) {
        let root = Node::of(top.as_fd()).map_err(|errno| failed("look at", b"/", errno))?;
        whole.archive.enter(b"", &root, true)?;
    }
    whole.directory(layer.directory.as_ref(), Some(image), 1, &mut Vec::new())?;
    settled()?;
    let left_out = whole.archive.left_out;
    Ok((whole.archive.finish()?, left_out))
}

struct Whole<'w, W> {
    walk: Walk<'w>,
    archive: Archive<'w, W>,
}

impl<W: Write> Whole<'_, W> {
    fn directory(
        &mut self,
        upper: Option<&OwnedFd>,
        image: Option<&Stack>,
        depth: usize,
        path: &mut Vec<u8>,
    ) -> Result<(), ImageError> {
        let fault = |error| failed("read the directory", path, error);
        let mut names = image.map(Stack::names).transpose().map_err(fault)?.unwrap_or_default();
        if let Some(upper) = upper {
            names.extend(names_of(upper).map_err(fault)?);
        }
        for name in names {
            self.walk.check(depth, path)?;
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            let done = self.name(&name, upper, image, depth, path);
            path.truncate(length);
            done?;
        }
        Ok(())
    }

    fn name(
        &mut self,
        name: &[u8],
        upper: Option<&OwnedFd>,
        image: Option<&Stack>,
        depth: usize,
        path: &mut Vec<u8>,
    ) -> Result<(), ImageError> {
        let look = |errno| failed("look at", path, errno);
        let seen = match image {
            Some(image) => image.look(name).map_err(look)?,
            None => Seen::Nothing,
        };
        let own = match upper.filter(|_| !self.walk.own.has_file(path)) {
            Some(upper) => Node::find(upper.as_fd(), name).map_err(look)?,
            None => None,
        };
        match (own, seen) {
            (Some(node), _) if marks::is_whiteout(&node.stat) => Ok(()),
            (Some(node), seen) if node.kind() == FileType::Directory => {
                let directory = node.enter().map_err(look)?;
                let wanted = !seen.is_nothing() || !self.walk.own.has_stub(path);
                self.archive.enter(path, &node, wanted)?;
                let below = match &seen {
                    Seen::Directory(_, stack) if !marks::is_opaque(&directory) => Some(stack),
                    Seen::Directory(..) | Seen::File(_) | Seen::Nothing => None,
                };
                self.directory(Some(&directory), below, depth + 1, path)?;
                self.archive.leave(path);
                Ok(())
            }
            (Some(node), _) | (None, Seen::File(node)) => self.archive.file(path, &node),
            (None, Seen::Directory(node, stack)) => {
                self.archive.enter(path, &node, true)?;
                self.directory(None, Some(&stack), depth + 1, path)?;
                self.archive.leave(path);
                Ok(())
            }
            (None, Seen::Nothing) => Ok(()),
        }
    }
}
