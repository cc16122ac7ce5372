//! What a container has changed, as docker's lines: `A` added, `C` changed, `D` deleted, sorted by path.
//!
//! A directory is changed if its owner, mode or time is another one, or if something in it was added or deleted.

use std::{collections::BTreeMap, io::Write};

use super::{
    WriteLayer, failed,
    node::Node,
    stack::{Seen, Stack},
    walk::{Visitor, Walk},
};
use crate::images::{cancel::Cancel, error::ImageError, limits::Limits};

/// Writes the lines; `settled` is asked before.
///
/// # Errors
/// If something cannot be looked at or written, or what `settled` says.
pub(in crate::images) fn write_lines(
    layer: &WriteLayer,
    image: &Stack,
    mut out: impl Write,
    (limits, cancel): (&Limits, &Cancel),
    settled: impl FnOnce() -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut listing = Listing { lines: BTreeMap::new(), layer, unmade: Vec::new() };
    if let Some(directory) = &layer.directory {
        let walk = Walk { own: &layer.own, limits, cancel };
        walk.through(directory, image, &mut listing)?;
    }
    settled()?;
    for (path, kind) in listing.lines {
        out.write_all(&[kind, b" /", path.as_slice(), b"\n"].concat())
            .map_err(|error| failed("write the line of", &path, error))?;
    }
    out.flush().map_err(|error| failed("write", b"the list", error))
}

struct Listing<'l> {
    lines: BTreeMap<Vec<u8>, &'static [u8]>,
    layer: &'l WriteLayer,
    /// Directories above the present place that are the container's own, unless something is in them.
    unmade: Vec<Vec<u8>>,
}

impl Listing<'_> {
    fn add(&mut self, path: &[u8], kind: &'static [u8]) {
        for made in std::mem::take(&mut self.unmade) {
            self.lines.insert(made, b"A");
        }
        self.lines.insert(path.to_vec(), kind);
        if kind != b"C"
            && let Some(slash) = path.iter().rposition(|byte| *byte == b'/')
        {
            let parent = path.get(..slash).unwrap_or_default();
            self.lines.entry(parent.to_vec()).or_insert(b"C");
        }
    }
}

impl Visitor for Listing<'_> {
    fn enter(&mut self, path: &[u8], node: &Node, image: &Seen, opaque: bool) -> Result<(), ImageError> {
        let plain = |node: &Node| (node.stat.st_mode, node.stat.st_uid, node.stat.st_gid, node.modified());
        match image {
            Seen::Nothing if self.layer.own.has_stub(path) => self.unmade.push(path.to_vec()),
            Seen::Nothing => self.add(path, b"A"),
            Seen::File(_) => self.add(path, b"C"),
            Seen::Directory(before, _) if opaque || plain(node) != plain(before) => self.add(path, b"C"),
            Seen::Directory(..) => {}
        }
        Ok(())
    }

    fn leave(&mut self, path: &[u8]) -> Result<(), ImageError> {
        if self.unmade.last().is_some_and(|last| last == path) {
            self.unmade.pop();
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8], _node: &Node, image: &Seen) -> Result<(), ImageError> {
        self.add(path, if image.is_nothing() { b"A" } else { b"C" });
        Ok(())
    }

    fn removed(&mut self, path: &[u8], _mark: Option<&Node>) -> Result<(), ImageError> {
        self.add(path, b"D");
        Ok(())
    }
}
