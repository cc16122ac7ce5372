//! The changes of a container as the tar of a layer (OCI image specification, "Image Layer Filesystem Changeset").
//!
//! Whiteouts of overlayfs become `.wh.NAME`, opaque directories get `.wh..wh..opq`. Directories that are in the write layer
//! only for what is in them are written if that is: to overlayfs the topmost directory's owner, mode and times count.

use std::{io::Write, os::fd::AsFd};

use super::{
    WriteLayer,
    archive::{Archive, LeftOut},
    failed,
    node::Node,
    stack::{Seen, Stack},
    walk::{Visitor, Walk},
};
use crate::images::{
    cancel::Cancel,
    error::{CommitFault, ImageError, quoted},
    limits::Limits,
};

/// Begins the marks.
const MARK: &[u8] = b".wh.";
/// The mark of an opaque directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Writes the tar, and calls `settled` after the last file was read and before the end mark: without that it is no tar.
/// Gives the number of entries.
///
/// # Errors
/// If something cannot be read, written or told in a layer, or what `settled` says.
pub(in crate::images) fn write_layer<W: Write>(
    layer: &WriteLayer,
    image: &Stack,
    out: W,
    (limits, cancel): (&Limits, &Cancel),
    settled: impl FnOnce() -> Result<(), ImageError>,
) -> Result<(u64, LeftOut), ImageError> {
    let mut writing = Writing { archive: Archive::new(out, limits, cancel), layer };
    if let Some(directory) = &layer.directory {
        writing.root(image)?;
        let walk = Walk { own: &layer.own, limits, cancel };
        walk.through(directory, image, &mut writing)?;
    }
    settled()?;
    let (entries, left_out) = (writing.archive.entries, writing.archive.left_out);
    writing.archive.finish()?;
    Ok((entries, left_out))
}

struct Writing<'w, W> {
    archive: Archive<'w, W>,
    layer: &'w WriteLayer,
}

impl<W: Write> Writing<'_, W> {
    /// The root, if the program has given it another owner, mode or attribute. Its time is each container's own.
    fn root(&mut self, image: &Stack) -> Result<(), ImageError> {
        let (Some(directory), Some(top)) = (&self.layer.directory, image.top()) else { return Ok(()) };
        let look = |errno| failed("look at", b"/", errno);
        let node = Node::of(directory.as_fd()).map_err(look)?;
        let before = Node::of(top.as_fd()).map_err(look)?;
        if !is_alike(&node, &before, b"")? {
            self.archive.enter(b"", &node, true)?;
        }
        Ok(())
    }
}

impl<W: Write> Visitor for Writing<'_, W> {
    fn enter(&mut self, path: &[u8], node: &Node, image: &Seen, opaque: bool) -> Result<(), ImageError> {
        refuse_mark(path)?;
        let wanted = match image {
            Seen::Nothing => !self.layer.own.has_stub(path),
            Seen::File(_) => true,
            Seen::Directory(before, _) => {
                opaque || node.modified() != before.modified() || !is_alike(node, before, path)?
            }
        };
        self.archive.enter(path, node, wanted)?;
        if opaque && matches!(image, Seen::Directory(..)) {
            self.archive.mark(&[path, b"/", OPAQUE].concat(), node.modified())?;
        }
        Ok(())
    }

    fn leave(&mut self, path: &[u8]) -> Result<(), ImageError> {
        self.archive.leave(path);
        Ok(())
    }

    fn file(&mut self, path: &[u8], node: &Node, _image: &Seen) -> Result<(), ImageError> {
        refuse_mark(path)?;
        self.archive.file(path, node)
    }

    fn removed(&mut self, path: &[u8], mark: Option<&Node>) -> Result<(), ImageError> {
        // Below an opaque directory all is hidden already.
        let Some(mark) = mark else { return Ok(()) };
        let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (parent, name) = path.split_at(at);
        self.archive.mark(&[parent, MARK, name].concat(), mark.modified())
    }
}

/// Owner, mode and attributes.
fn is_alike(one: &Node, other: &Node, path: &[u8]) -> Result<bool, ImageError> {
    let plain = |node: &Node| (node.stat.st_mode, node.stat.st_uid, node.stat.st_gid);
    if plain(one) != plain(other) {
        return Ok(false);
    }
    let attributes = |node: &Node| {
        node.attributes().map_err(|errno| failed("read the extended attributes of", path, errno))
    };
    Ok(attributes(one)?.taken == attributes(other)?.taken)
}

/// Whoever unpacks the layer would take such a file for the mark of a removed one.
fn refuse_mark(path: &[u8]) -> Result<(), ImageError> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    match name.starts_with(MARK) {
        true => Err(ImageError::Commit(CommitFault::Mark { path: quoted(path) })),
        false => Ok(()),
    }
}
