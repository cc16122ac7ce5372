//! What is mounted in a volume on the host, proc_pid_mountinfo(5). A rename would take it along, and a removal would reach
//! the files of somebody else behind it (moby issue 35323).

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// A mountpoint at or below `path`, which must be free of links.
///
/// # Errors
/// If the table cannot be read.
pub(super) fn inside(path: &Path) -> io::Result<Option<PathBuf>> {
    Ok(find(&fs::read("/proc/self/mountinfo")?, path))
}

fn find(table: &[u8], path: &Path) -> Option<PathBuf> {
    let points =
        table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points.map(unescaped).find(|point| point.starts_with(path))
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let octal =
            tail.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountpoints_at_and_below_a_path_are_found() {
        let table = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
            2 1 8:1 /x /v/one/_data/with\\040space rw - ext4 /dev/a rw\n\
            3 1 8:1 /x /v/two-more rw - ext4 /dev/a rw\n";
        let at = |path: &str| find(table, Path::new(path));
        assert_eq!(at("/v/one"), Some(PathBuf::from("/v/one/_data/with space")));
        assert_eq!(at("/v/two-more"), Some(PathBuf::from("/v/two-more")));
        assert_eq!(at("/v/two"), None);
    }
}
