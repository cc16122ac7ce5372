//! How many bytes of disk a tree has: its blocks, a file with several names once. Containers may change the tree
//! meanwhile: the walk goes by descriptors, follows no link and crosses no mount.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// Each level costs an open descriptor; what lies deeper is not counted.
const DEEPEST: usize = 256;
/// stat(2): `st_blocks` are of 512 bytes.
const BLOCK: u64 = 512;

/// The bytes at and below a path. What vanishes meanwhile, or cannot be looked at, is not counted. Blocks, and may take long.
///
/// # Errors
/// If the path itself cannot be opened.
pub(crate) fn usage(path: &Path) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    let own = rustix::fs::fstat(&directory)?;
    let mut walk = Walk { seen: HashSet::new(), bytes: 0 };
    walk.count(own.st_blocks);
    // What cannot be read is not counted.
    let _ = walk.below(directory.as_fd(), 0);
    Ok(walk.bytes)
}

struct Walk {
    /// Device and inode of files with several names.
    seen: HashSet<(u64, u64)>,
    bytes: u64,
}

impl Walk {
    fn count(&mut self, blocks: i64) {
        self.bytes += u64::try_from(blocks).unwrap_or(0) * BLOCK;
    }

    fn below(&mut self, directory: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(found) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
                if found.st_nlink < 2 || self.seen.insert((found.st_dev, found.st_ino)) {
                    self.count(found.st_blocks);
                }
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
            let opened = rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve);
            if let Ok(child) = opened {
                self.count(found.st_blocks);
                if depth < DEEPEST {
                    let _ = self.below(child.as_fd(), depth + 1);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_counts_once_and_a_link_leads_nowhere() {
        let scratch = std::env::temp_dir().join(format!("mysup-usage-{}", std::process::id()));
        fs::create_dir_all(scratch.join("a")).unwrap();
        fs::write(scratch.join("a/file"), vec![7; 1 << 20]).unwrap();
        let one = usage(&scratch).unwrap();
        assert!((1 << 20..3 << 19).contains(&one), "{one}");
        fs::hard_link(scratch.join("a/file"), scratch.join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", scratch.join("link")).unwrap();
        let two = usage(&scratch).unwrap();
        assert!(two < one + (1 << 16), "{one} {two}");
        for name in ["a/file", "again", "link"] {
            fs::remove_file(scratch.join(name)).unwrap();
        }
        fs::remove_dir(scratch.join("a")).unwrap();
        fs::remove_dir(scratch).unwrap();
    }
}
