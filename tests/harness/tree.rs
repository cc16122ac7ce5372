//! Everything about every file below a directory, so that a changed byte, mode, owner, time or inode is seen.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// What is below a directory: relative path to a description of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<String, String>);

impl Tree {
    /// Reads all below `root`, and `root` itself as the empty path.
    pub(crate) fn read(root: &Path) -> Tree {
        let mut found = BTreeMap::new();
        read_into(root, "", &[], &mut found);
        Tree(found)
    }

    /// The same without what differs when an archive is unpacked again: inode numbers, and the time of the root.
    pub(crate) fn into_unpacked(mut self) -> Tree {
        for (path, text) in &mut self.0 {
            let left_out: &[&str] = if path.is_empty() { &["inode", "mtime"] } else { &["inode"] };
            let mut words = text.split(' ');
            let mut kept = Vec::new();
            while let Some(word) = words.next() {
                if left_out.contains(&word) {
                    words.next();
                } else {
                    kept.push(word);
                }
            }
            *text = kept.join(" ");
        }
        self
    }

    /// The same without inode numbers, which copies do not share: files with several names are known by the first one.
    pub(crate) fn read_copy(root: &Path) -> Tree {
        Tree::read_copy_but(root, &[])
    }

    /// The same, without looking into these directories.
    pub(crate) fn read_copy_but(root: &Path, closed: &[PathBuf]) -> Tree {
        let mut found = BTreeMap::new();
        read_into(root, "", closed, &mut found);
        let mut first = BTreeMap::new();
        for (path, text) in &mut found {
            let inode =
                text.split("inode ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            let inode = inode.to_owned();
            let name = first.entry(inode.clone()).or_insert_with(|| path.clone());
            *text = text.replace(&format!("inode {inode} "), &format!("same file as {name:?} "));
        }
        Tree(found)
    }

    /// As somebody sees it who keeps less: each path with the words of its description, or nothing.
    pub(crate) fn seen_by(self, keep: impl Fn(&str, &str) -> Option<String>) -> Tree {
        let seen = |(path, text): (String, String)| keep(&path, &text).map(|text| (path, text));
        Tree(self.0.into_iter().filter_map(seen).collect())
    }

    /// The paths of all files.
    pub(crate) fn paths(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// Without a path and what is below it; without the root itself if the path is empty.
    pub(crate) fn without(mut self, path: &str) -> Tree {
        if path.is_empty() {
            self.0.remove("");
            return self;
        }
        let below = format!("{path}/");
        self.0.retain(|name, _| name != path && !name.starts_with(&below));
        self
    }

    /// What differs, one line for each path.
    pub(crate) fn difference(&self, after: &Tree) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, was) in &self.0 {
            match after.0.get(path) {
                None => lines.push(format!("{path:?} is gone (was {was})")),
                Some(is) if is != was => lines.push(format!("{path:?} changed: {was} -> {is}")),
                Some(_) => {}
            }
        }
        let new = after.0.keys().filter(|path| !self.0.contains_key(*path));
        lines.extend(new.map(|path| format!("{path:?} is new")));
        lines
    }

    /// Fails unless `root` is still what it was.
    #[track_caller]
    pub(crate) fn expect_unchanged(&self, root: &Path) {
        let difference = self.difference(&Tree::read(root));
        assert!(difference.is_empty(), "{} changed:\n{}", root.display(), difference.join("\n"));
    }
}

fn read_into(path: &Path, relative: &str, closed: &[PathBuf], found: &mut BTreeMap<String, String>) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    let kind = meta.file_type();
    let content = if kind.is_file() {
        hex(&Sha256::digest(fs::read(path).unwrap_or_default()))
    } else if kind.is_symlink() {
        format!("-> {}", fs::read_link(path).unwrap_or_default().display())
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("device {}", meta.rdev())
    } else {
        String::new()
    };
    found.insert(
        relative.to_owned(),
        format!(
            "mode {:o} owner {}:{} inode {} mtime {}.{:09} size {} {content} {}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec(),
            if kind.is_dir() { 0 } else { meta.size() },
            attributes(path),
        ),
    );
    if kind.is_dir() && !closed.iter().any(|closed| closed == path) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            read_into(&entry.path(), &format!("{relative}/{name}"), closed, found);
        }
    }
}

fn attributes(path: &Path) -> String {
    let mut names = vec![0_u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut shown = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 4096];
        let size = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
        shown.push(format!("{}={}", String::from_utf8_lossy(name), hex(&value[..size])));
    }
    shown.sort();
    shown.join(",")
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Paths below a directory, without reading the files; `skip` names top-level entries not to descend into.
pub(crate) fn paths(root: &Path, skip: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            if skip.iter().any(|name| relative == *name) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(path);
            }
            found.push(relative);
        }
    }
    found.sort();
    found
}

/// Makes a small tree with everything that can be lost: nested directories, modes, owners, a link, an attribute, times.
#[track_caller]
pub(crate) fn plant_data(root: &Path, word: &str) -> Tree {
    let write = |name: &str, text: &str| fs::write(root.join(name), text).expect("the tree is ours");
    fs::create_dir_all(root.join("deep/er")).expect("the tree is ours");
    write("data", &format!("{word}\n"));
    write("deep/er/precious", &word.repeat(1000));
    write(".hidden", word);
    std::os::unix::fs::symlink("data", root.join("link")).expect("the tree is ours");
    std::os::unix::fs::chown(root.join("data"), Some(1234), Some(4321)).expect("the tests run as root");
    rustix::fs::chmod(root.join("deep"), rustix::fs::Mode::from_raw_mode(0o2750)).expect("the tree is ours");
    // Not every file system has user attributes; where there are none, none can be lost.
    let _ = rustix::fs::setxattr(
        root.join("data"),
        "user.mysup",
        word.as_bytes(),
        rustix::fs::XattrFlags::empty(),
    );
    Tree::read(root)
}
