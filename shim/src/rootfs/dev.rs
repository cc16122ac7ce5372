//! The container's own /dev: always a fresh tmpfs, and everything in it is made relative to its descriptor, so that
//! nothing the image has at /dev matters (CVE-2026-41579, CVE-2026-47766).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mysup_ipc::plan::ContainerPlan;
use rustix::{
    fs::{AtFlags, Dev, Dir, FileType, Mode, OFlags},
    io::Errno,
    mount::MountAttrFlags,
};

use super::{resolve, volumes::mount_new};
use crate::{
    error::{Call, StartError, Step, SysError},
    namespace,
};

/// Nodes of every container: name, major, minor (Documentation/admin-guide/devices.txt).
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// 64 MB of shared memory, as docker.
const SHM_SIZE: u64 = 64 << 20;

/// Nodes of the host's /dev, for a privileged container: path, is a block device, number, mode.
#[derive(Debug, Default)]
pub(crate) struct HostDevices(Vec<(String, FileType, Dev, Mode)>);

impl HostDevices {
    /// Reads the host's /dev.
    pub(crate) fn read() -> Result<Self, SysError> {
        let dev = super::open_directory("/dev")?;
        let mut devices = Self::default();
        devices.collect(dev.as_fd(), "")?;
        Ok(devices)
    }

    fn collect(&mut self, directory: BorrowedFd<'_>, prefix: &str) -> Result<(), SysError> {
        let entries = Dir::read_from(directory).call(|| format!("getdents(\"/dev/{prefix}\")"))?;
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().to_str() else { continue };
            let path = format!("{prefix}{name}");
            // These are instances of the container's own.
            if [".", "..", "pts", "shm", "mqueue", "console"].contains(&name) {
                continue;
            }
            let Ok(status) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let kind = FileType::from_raw_mode(status.st_mode);
            if kind == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(child) = rustix::fs::openat(directory, name, flags, Mode::empty()) {
                    self.collect(child.as_fd(), &format!("{path}/"))?;
                }
            } else if kind.is_char_device() || kind.is_block_device() {
                let mode = Mode::from_raw_mode(status.st_mode & 0o7777);
                self.0.push((path, kind, status.st_rdev, mode));
            }
        }
        Ok(())
    }
}

/// Mounts /dev, /dev/pts and /dev/shm of the container.
pub(crate) fn mount(
    root: BorrowedFd<'_>,
    plan: &ContainerPlan,
    devices: &HostDevices,
) -> Result<(), StartError> {
    let target = resolve::open_plain_directory(root, "dev")
        .map_err(|_| StartError::NotADirectory("/dev".to_owned()))?;
    let dev = make(devices).step("make /dev")?;
    namespace::attach_on(dev.as_fd(), target.as_fd()).step("mount /dev")?;
    let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("ptmxmode", "0666".to_owned()), ("mode", "0620".to_owned()), ("gid", "5".to_owned())];
    let pts = mount_new("devpts", &options, nosuid).step("make /dev/pts")?;
    namespace::attach(pts.as_fd(), dev.as_fd(), "pts").step("mount /dev/pts")?;
    let options = [("mode", "1777".to_owned()), ("size", SHM_SIZE.to_string())];
    let shm =
        mount_new("tmpfs", &options, nosuid | MountAttrFlags::MOUNT_ATTR_NODEV).step("make /dev/shm")?;
    namespace::attach(shm.as_fd(), dev.as_fd(), "shm").step("mount /dev/shm")?;
    if plan.process.terminal.is_some() {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(&dev, "console", flags, Mode::from_raw_mode(0o600))
            .call(|| "openat(\"/dev/console\", O_CREAT|O_EXCL)")
            .step("make /dev/console")?;
    }
    Ok(())
}

/// A tmpfs with the nodes, links and mountpoints of a container's /dev, detached.
pub(crate) fn make(devices: &HostDevices) -> Result<OwnedFd, SysError> {
    let options = [("mode", "755".to_owned()), ("size", "65536k".to_owned())];
    let dev = mount_new("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    // Nodes are for everybody; the device cgroup decides.
    let umask = rustix::process::umask(Mode::empty());
    let made = fill(dev.as_fd(), devices);
    rustix::process::umask(umask);
    made.map(|()| dev)
}

fn fill(dev: BorrowedFd<'_>, devices: &HostDevices) -> Result<(), SysError> {
    for (name, major, minor) in NODES {
        let number = rustix::fs::makedev(major, minor);
        make_node(dev, name, FileType::CharacterDevice, number, Mode::from_raw_mode(0o666))?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, dev, name).call(|| format!("symlinkat(\"/dev/{name}\")"))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755))
            .call(|| format!("mkdirat(\"/dev/{name}\")"))?;
    }
    for (path, kind, number, mode) in &devices.0 {
        if let Some((parent, _)) = path.rsplit_once('/') {
            resolve::make_directory(dev, parent, Mode::from_raw_mode(0o755))?;
        }
        make_node(dev, path, *kind, *number, *mode)?;
    }
    Ok(())
}

fn make_node(
    dev: BorrowedFd<'_>,
    name: &str,
    kind: FileType,
    number: Dev,
    mode: Mode,
) -> Result<(), SysError> {
    match rustix::fs::mknodat(dev, name, kind, mode, number) {
        // A privileged container's null is already there.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        result => result.call(|| format!("mknodat(\"/dev/{name}\")")),
    }
}
