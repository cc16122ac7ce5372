//! The OCI archive that an image is fetched into: its blobs arrive at once and in pieces, each at the place that is kept
//! free for it.

use std::{fs::File, io, os::unix::fs::FileExt};

use mysup_ipc::id::Digest;

/// Bytes of a tar's block.
const BLOCK: u64 = 512;

/// A tar that is being written, in a file.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    end: u64,
}

impl Archive {
    /// In an empty file.
    pub(super) fn new(file: File) -> Self {
        Self { file, end: 0 }
    }

    /// Keeps a place for a blob of so many bytes; gives its offset.
    ///
    /// # Errors
    /// As write(2).
    pub(super) fn keep(&mut self, digest: &Digest, size: u64) -> io::Result<u64> {
        self.entry(&format!("blobs/sha256/{}", digest.hex()), size)
    }

    /// Writes a blob.
    ///
    /// # Errors
    /// As write(2).
    pub(super) fn blob(&mut self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let offset = self.keep(digest, bytes.len() as u64)?;
        self.file.write_all_at(bytes, offset)
    }

    /// Writes a file.
    ///
    /// # Errors
    /// As write(2).
    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let offset = self.entry(name, bytes.len() as u64)?;
        self.file.write_all_at(bytes, offset)
    }

    /// Writes the end, which is where the last place that was kept ends.
    ///
    /// # Errors
    /// As ftruncate(2).
    pub(super) fn finish(&self) -> io::Result<()> {
        self.file.set_len(self.end + 2 * BLOCK)
    }

    /// The file, for what is written at places that are kept.
    pub(super) fn writer(&self) -> &File {
        &self.file
    }

    fn entry(&mut self, name: &str, size: u64) -> io::Result<u64> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name)?;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.file.write_all_at(header.as_bytes(), self.end)?;
        let offset = self.end + BLOCK;
        self.end = offset + size.next_multiple_of(BLOCK);
        Ok(offset)
    }
}
