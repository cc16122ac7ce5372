//! `/proc/PID/mountinfo`, proc_pid_mountinfo(5): the mounts of a namespace, and where a path really is.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};

use crate::error::{Call, SysError};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Unique while it exists, on the whole machine.
    pub(crate) id: u64,
    /// The mount it is mounted on.
    pub(crate) parent: u64,
    /// `major:minor` of its file system.
    pub(crate) device: String,
    /// Path within the file system that is its root.
    pub(crate) root: OsString,
    /// Where it is, relative to the reader's root. Whoever may rename a directory above it chooses the bytes.
    pub(crate) point: OsString,
    /// File system type.
    pub(crate) kind: String,
    /// Options of the file system, as the kernel shows them.
    super_options: Vec<u8>,
}

/// Types whose calls wait for nobody outside of the kernel and its disks.
const LOCAL: [&str; 22] = [
    "aufs", "btrfs", "cgroup", "cgroup2", "devpts", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4",
    "f2fs", "iso9660", "mqueue", "overlay", "proc", "ramfs", "squashfs", "sysfs", "tmpfs", "vfat", "xfs",
];

impl Mount {
    /// The options of the file system, one by one. A comma in one of them is escaped.
    pub(crate) fn super_options(&self) -> impl Iterator<Item = OsString> {
        self.super_options.split(|byte| *byte == b',').map(unescape)
    }

    /// Whether a call on it may wait for a server, for ever: network file systems, FUSE, and whatever is not known here.
    pub(crate) fn may_hang(&self) -> bool {
        !LOCAL.contains(&self.kind.as_str())
    }
}

/// The mounts of the process that `process` (a directory of proc) is of.
pub(crate) fn read_at(process: BorrowedFd<'_>, pid: &str) -> Result<Vec<Mount>, SysError> {
    let name = format!("{pid}/mountinfo");
    let file = rustix::fs::openat(process, &*name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("openat(\"/proc/{name}\")"))?;
    let mut text = Vec::new();
    fs::File::from(file).read_to_end(&mut text).call(|| format!("read(\"/proc/{name}\")"))?;
    Ok(parse(&text))
}

/// The mounts of this process' namespace.
pub(crate) fn read() -> Result<Vec<Mount>, SysError> {
    let text = fs::read("/proc/self/mountinfo").call(|| "read(\"/proc/self/mountinfo\")")?;
    Ok(parse(&text))
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    // No field before it is a single hyphen: the two paths begin with a slash.
    let separator = line.windows(3).position(|window| window == b" - ")?;
    let (before, after) = (&line[..separator], &line[separator + 3..]);
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let mut fields = before.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = text(fields.next()?);
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let mut fields = after.split(|byte| *byte == b' ');
    let kind = text(fields.next()?);
    let super_options = fields.nth(1).unwrap_or_default().to_owned();
    Some(Mount { id, parent, device, root, point, kind, super_options })
}

/// The kernel writes space, tab, newline, backslash, and in options the comma, as `\ooo`.
fn unescape(text: &[u8]) -> OsString {
    if !text.contains(&b'\\') {
        return OsStr::from_bytes(text).to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// The id of the mount that an open descriptor is on.
pub(crate) fn id_of(fd: BorrowedFd<'_>) -> Result<u64, SysError> {
    id_at(fd, "", AtFlags::EMPTY_PATH)
}

/// The id of the mount that a path is on (the topmost one there).
pub(crate) fn id_at(
    directory: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    flags: AtFlags,
) -> Result<u64, SysError> {
    let path = path.as_ref();
    // What a silent server would have to be asked for is not needed.
    let flags = flags | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let status = rustix::fs::statx(directory, path, flags, StatxFlags::MNT_ID)
        .call(|| format!("statx(\"{}\", STATX_MNT_ID)", path.display()))?;
    Ok(status.stx_mnt_id)
}

/// Where something is: the same for all names that lead to it, through links, binds and other mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// `major:minor` of its file system.
    device: String,
    /// Path within that file system.
    inner: PathBuf,
    /// Path as this namespace sees it.
    outer: PathBuf,
}

impl Location {
    /// Of an open descriptor, by the mount it is on.
    pub(crate) fn of(fd: BorrowedFd<'_>, mounts: &[Mount]) -> Result<Self, SysError> {
        let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        let outer = fs::read_link(&link).call(|| format!("readlink(\"{link}\")"))?;
        let id = id_of(fd)?;
        let mount = mounts.iter().find(|mount| mount.id == id).ok_or_else(|| {
            let message = format!("mount {id} is not in this namespace");
            SysError::new("find a mount", io::Error::other(message))
        })?;
        let below = outer.strip_prefix(&mount.point).unwrap_or(Path::new(""));
        Ok(Self { device: mount.device.clone(), inner: Path::new(&mount.root).join(below), outer })
    }

    /// Where the mounts below it lead.
    pub(crate) fn mounts_below(&self, mounts: &[Mount]) -> impl Iterator<Item = Location> {
        let below = mounts.iter().filter(|mount| {
            let point = Path::new(&mount.point);
            point.starts_with(&self.outer) && point != self.outer
        });
        below.map(|mount| Location {
            device: mount.device.clone(),
            inner: PathBuf::from(&mount.root),
            outer: PathBuf::from(&mount.point),
        })
    }

    /// Whether a call on what is here or below may wait for a server, for ever.
    pub(crate) fn may_hang(&self, mounts: &[Mount]) -> bool {
        let here = |mount: &&Mount| self.outer.starts_with(&mount.point);
        let nearest = mounts.iter().filter(here).max_by_key(|mount| mount.point.len());
        let below = mounts.iter().filter(|mount| Path::new(&mount.point).starts_with(&self.outer));
        nearest.into_iter().chain(below).any(Mount::may_hang)
    }

    /// Whether `other` is this, or inside it.
    pub(crate) fn contains(&self, other: &Location) -> bool {
        (self.device == other.device && other.inner.starts_with(&self.inner))
            || other.outer.starts_with(&self.outer)
    }

    /// Whether one is the other, or is inside it.
    pub(crate) fn overlaps(&self, other: &Location) -> bool {
        self.contains(other) || other.contains(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes() {
        let line = b"36 35 98:0 /a\\040b /mnt/x\\134y rw,noatime master:1 shared:2 - ext4 /dev/root rw,upperdir=/q\\054";
        let mount = parse_line(line).expect("valid");
        assert_eq!(mount.id, 36);
        assert_eq!(mount.root, "/a b");
        assert_eq!(mount.point, "/mnt/x\\y");
        assert_eq!(mount.kind, "ext4");
        assert_eq!(mount.super_options().collect::<Vec<_>>(), ["rw", "upperdir=/q,"]);
    }

    #[test]
    fn a_path_is_bytes() {
        let mounts = parse(b"36 35 98:0 / /a/\xff\xfe\\012 rw - ext4 /dev/root rw\nnot a line\n");
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].point.as_bytes(), b"/a/\xff\xfe\n");
    }

    #[test]
    fn locations_overlap_through_binds() {
        let at = |device: &str, inner: &str, outer: &str| Location {
            device: device.into(),
            inner: inner.into(),
            outer: outer.into(),
        };
        let own = at("8:1", "/var/lib/mysup", "/var/lib/mysup");
        assert!(own.overlaps(&at("8:1", "/var/lib/mysup/containers/x", "/elsewhere")));
        assert!(own.overlaps(&at("8:9", "/", "/var/lib")));
        assert!(own.overlaps(&at("8:1", "/", "/")));
        assert!(!own.overlaps(&at("8:1", "/var/lib/mysup2", "/var/lib/mysup2")));
        assert!(!own.overlaps(&at("8:2", "/var/lib/mysup", "/data")));
    }
}
