//! The container-init layer: what this container adds to its image before the program starts: hostname, hosts,
//! resolv.conf, and the directories and files that things are mounted on. It is read-only for the program, and neither
//! the image nor another container sees it.
//!
//! It is made through a union of its own (init layer on top of the image), so that overlayfs copies modes, owners and
//! links of the image's directories as it does at any other change.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use mysup_ipc::plan::{ContainerPlan, MountPlan, MountSource, Network};
use rustix::{
    fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT},
    io::Errno,
};

use super::{resolve, union};
use crate::error::{Call, StartError, Step, SysError};

/// More of the host's resolv.conf is not copied.
const MAX_HOST_FILE: usize = 1 << 16;

/// Fills the directory `init` (`stage` is the union's work directory).
pub(crate) fn create(plan: &ContainerPlan, init: &Path, stage: &Path) -> Result<(), StartError> {
    let layers = union::Layers {
        upper: init.to_owned(),
        work: stage.to_owned(),
        lower: plan.rootfs.layers.iter().map(PathBuf::from).collect(),
        volatile: true,
    };
    let union = union::mount(plan.rootfs.driver, &layers)?;
    let root = union.as_fd();
    let parents = Parents::of(root, plan);
    for name in ["dev", "proc", "sys"] {
        make_plain_directory(root, name)?;
    }
    write_own_files(root, plan).step("write /etc files of the container")?;
    for mount in &plan.mounts {
        make_mountpoint(root, mount, &plan.mounts)?;
    }
    if !below_a_mount(&plan.process.cwd, &plan.mounts) {
        resolve::make_directory(root, &plan.process.cwd, Mode::from_raw_mode(0o755))
            .step("make the working directory")?;
    }
    parents.put_times_back().step("set times in the root file system")
}

/// The image's directories in which something is made: to the program they are as old as they were, and what it does not
/// touch in them is not among its changes.
struct Parents(Vec<(OwnedFd, Timestamps)>);

impl Parents {
    /// Before anything is made. One that cannot be looked at fails when something is made in it.
    fn of(root: BorrowedFd<'_>, plan: &ContainerPlan) -> Self {
        let destinations = plan.mounts.iter().map(|mount| mount.destination.as_str());
        let made = ["/etc/hosts", plan.process.cwd.as_str()].into_iter().chain(destinations);
        let noted = made.filter_map(|path| {
            let directory = deepest(root, path)?;
            let stat = rustix::fs::fstat(&directory).ok()?;
            let modified = Timespec {
                tv_sec: stat.st_mtime,
                tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or_default(),
            };
            let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            Some((directory, Timestamps { last_access: omit, last_modification: modified }))
        });
        Self(noted.collect())
    }

    fn put_times_back(self) -> Result<(), SysError> {
        for (directory, times) in self.0 {
            let now = rustix::fs::fstat(&directory).call(|| "fstat()")?.st_mtime_nsec;
            if i64::try_from(now).ok() != Some(times.last_modification.tv_nsec) {
                // KERNEL(5.8): AT_EMPTY_PATH.
                rustix::fs::utimensat(&directory, "", &times, AtFlags::EMPTY_PATH)
                    .call(|| "utimensat(AT_EMPTY_PATH)")?;
            }
        }
        Ok(())
    }
}

/// The last directory on the way to a path that is not there; the root has no time of the image's.
fn deepest(root: BorrowedFd<'_>, path: &str) -> Option<OwnedFd> {
    let mut last = None;
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).skip(1);
    for end in ends {
        match resolve::open_in_root(root, path.get(..end)?, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(directory) => last = Some(directory),
            Err(Errno::NOENT | Errno::NOTDIR) => return last,
            Err(_) => return None,
        }
    }
    // All of it is there: nothing is made.
    None
}

/// /dev, /proc and /sys must be real directories: what is mounted there must not land elsewhere (CVE-2023-27561).
fn make_plain_directory(root: BorrowedFd<'_>, name: &str) -> Result<(), StartError> {
    match rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        result => result.call(|| format!("mkdirat(\"/{name}\")")).step("prepare the root file system")?,
    }
    match resolve::open_plain_directory(root, name) {
        Ok(_) => Ok(()),
        Err(_) => Err(StartError::NotADirectory(format!("/{name}"))),
    }
}

fn write_own_files(root: BorrowedFd<'_>, plan: &ContainerPlan) -> Result<(), SysError> {
    let etc = resolve::make_directory(root, "/etc", Mode::from_raw_mode(0o755))?;
    let write = |name: &str, text: &[u8]| replace_file(etc.as_fd(), name, text);
    write("hostname", format!("{}\n", plan.hostname).as_bytes())?;
    write("hosts", &hosts(plan))?;
    write("resolv.conf", &host_file("/etc/resolv.conf"))
}

fn hosts(plan: &ContainerPlan) -> Vec<u8> {
    match plan.network {
        Network::Host => host_file("/etc/hosts"),
        Network::None => format!(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
             ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n127.0.1.1\t{}\n",
            plan.hostname
        )
        .into_bytes(),
    }
}

/// A file of the host's; a host without one gives its containers an empty one.
fn host_file(path: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap_or_default();
    bytes.truncate(MAX_HOST_FILE);
    bytes
}

/// Replaces a file, or a link to one (it may lead out of the image), by a new one.
fn replace_file(directory: BorrowedFd<'_>, name: &str, text: &[u8]) -> Result<(), SysError> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        result => result.call(|| format!("unlinkat(\"/etc/{name}\")"))?,
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644))
        .call(|| format!("openat(\"/etc/{name}\", O_CREAT|O_EXCL)"))?;
    File::from(file).write_all(text).call(|| format!("write(\"/etc/{name}\")"))
}

/// Whether a path lies below (not at) another mount's destination: it is then made there when that is mounted.
fn below_a_mount(path: &str, mounts: &[MountPlan]) -> bool {
    ["/dev", "/proc", "/sys"].iter().any(|own| Path::new(path).starts_with(own))
        || mounts
            .iter()
            .any(|mount| Path::new(path).starts_with(&mount.destination) && mount.destination != path)
}

fn make_mountpoint(root: BorrowedFd<'_>, mount: &MountPlan, all: &[MountPlan]) -> Result<(), StartError> {
    if below_a_mount(&mount.destination, all) {
        return Ok(());
    }
    let directory = match &mount.source {
        MountSource::Tmpfs { .. } | MountSource::Volume(_) => true,
        MountSource::Bind { path, .. } => std::fs::metadata(path).map_or(true, |source| source.is_dir()),
    };
    let made = if directory {
        resolve::make_directory(root, &mount.destination, Mode::from_raw_mode(0o755))
    } else {
        resolve::make_file(root, &mount.destination)
    };
    match made {
        Ok(_) => Ok(()),
        // A file where a directory is needed, or the reverse: said with both names when it is mounted.
        Err(error) if error.errno() == Some(Errno::NOTDIR) => Ok(()),
        Err(source) => Err(StartError::Volume { destination: mount.destination.clone(), source }),
    }
}
