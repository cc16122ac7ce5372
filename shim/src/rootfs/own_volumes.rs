//! mysup's own volumes: opened below their directory, without any link; filled with the image's content at their first use.
//!
//! ```text
//! lock ─▶ fresh? ─no──────────────────────────────────────────────▶ mount
//!           └─yes─▶ copy to _data.new ─▶ sync ─▶ rename to _data ─▶ not fresh any more ─▶ mount
//! ```
//! The rename takes the place of an empty directory and of nothing else. A death before it leaves `_data.new`, which the
//! next one under the lock removes; one after it leaves a volume that is filled and so is not filled again. Two containers
//! that start at once: one copies, the other waits for the lock. What is in a volume is never changed here.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use mysup_ipc::{
    layout,
    plan::{ContainerPlan, MountPlan, MountSource, VolumeMount},
    point,
};
use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{copy, open_directory, resolve, volumes::DetachedVolume};
use crate::{
    error::{Call, StartError, SysError},
    mountinfo, namespace,
    teardown::sweep,
};

/// How long another container may take to fill a volume. Longer than its start may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at the lock.
const LOOK: Duration = Duration::from_millis(5);

/// Makes the mounts of all volumes of the plan, those that are new with what the union has at their place.
pub(crate) fn open_all(
    plan: &ContainerPlan,
    union: BorrowedFd<'_>,
) -> Result<Vec<DetachedVolume>, StartError> {
    let volume = |mount: &'_ MountPlan| match &mount.source {
        MountSource::Volume(volume) => Some(open(mount, volume, union)),
        MountSource::Bind { .. } | MountSource::Tmpfs { .. } => None,
    };
    plan.mounts.iter().filter_map(volume).collect()
}

fn open(
    mount: &MountPlan,
    volume: &VolumeMount,
    union: BorrowedFd<'_>,
) -> Result<DetachedVolume, StartError> {
    let failed = |source: SysError| StartError::Volume { destination: mount.destination.clone(), source };
    let directory = open_directory(&volume.directory).map_err(failed)?;
    lock(directory.as_fd(), &volume.name).map_err(failed)?;
    let content = match content(union, &mount.destination) {
        Err(error) if error.errno() == Some(Errno::NOTDIR) => {
            return Err(StartError::VolumeKind {
                destination: mount.destination.clone(),
                source_path: format!("volume {}", volume.name),
            });
        }
        result => result.map_err(failed)?,
    };
    first_use(directory.as_fd(), volume, content).map_err(|source| StartError::VolumeFilling {
        volume: volume.name.clone(),
        destination: mount.destination.clone(),
        source,
    })?;
    let data = open_below(directory.as_fd(), volume, layout::VOLUME_DATA).map_err(failed)?;
    let clone = namespace::clone_tree(data.as_fd(), "", true).map_err(failed)?;
    // It is on the state root's file system, without which nothing goes on anyway.
    DetachedVolume::new(mount, format!("volume {}", volume.name), clone, false)
}

/// A directory in a volume's own. What is mounted on it counts.
fn open_below(directory: BorrowedFd<'_>, volume: &VolumeMount, name: &str) -> Result<OwnedFd, SysError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve)
        .call(|| format!("openat2(\"{}/{name}\", O_DIRECTORY)", volume.directory))
}

/// Held until `directory` is closed. Asked for again and again: a shim that was stopped may hold it for ever.
fn lock(directory: BorrowedFd<'_>, name: &str) -> Result<(), SysError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(LOOK),
            Err(Errno::WOULDBLOCK) => {
                let error =
                    io::Error::new(io::ErrorKind::TimedOut, "another container is filling it, for long");
                return Err(SysError::new(format!("lock volume {name}"), error));
            }
            Err(Errno::INTR) => {}
            result => return result.call(|| format!("flock(volume {name}, LOCK_EX)")),
        }
    }
}

/// What the root file system has at a destination, below links; nothing where it has nothing.
fn content(union: BorrowedFd<'_>, destination: &str) -> Result<Option<OwnedFd>, SysError> {
    match resolve::open_in_root(union, destination, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(content) => Ok(Some(content)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(SysError::new(format!("openat2(\"{destination}\", RESOLVE_IN_ROOT)"), errno)),
    }
}

fn first_use(
    directory: BorrowedFd<'_>,
    volume: &VolumeMount,
    content: Option<OwnedFd>,
) -> Result<(), SysError> {
    // Of a shim that died while it had the lock.
    discard_copy(directory)?;
    match rustix::fs::statat(directory, layout::VOLUME_FRESH, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        result => result.call(|| "statat(\"fresh\")")?,
    };
    if let Some(content) = content.filter(|_| !volume.no_copy)
        && is_untouched(directory, volume)?
    {
        point::before(point::Step::FillVolume);
        if let Err(error) = fill(directory, volume, content.as_fd()) {
            // Best effort: the next one under the lock does it, too.
            let _ = discard_copy(directory);
            return Err(error);
        }
        point::after(point::Step::FillVolume);
    }
    // From here on a container may have it, and nothing takes its place any more.
    rustix::fs::unlinkat(directory, layout::VOLUME_FRESH, AtFlags::empty()).call(|| "unlinkat(\"fresh\")")?;
    if volume.ephemeral { Ok(()) } else { rustix::fs::fsync(directory).call(|| "fsync(volume)") }
}

/// Nobody has put anything into it, or mounted anything on it.
fn is_untouched(directory: BorrowedFd<'_>, volume: &VolumeMount) -> Result<bool, SysError> {
    let data = open_below(directory, volume, layout::VOLUME_DATA)?;
    if mountinfo::id_of(data.as_fd())? != mountinfo::id_of(directory)? {
        return Ok(false);
    }
    let mut entries = Dir::read_from(&data).call(|| "getdents(\"_data\")")?;
    let is_entry = |entry: &Result<rustix::fs::DirEntry, Errno>| {
        entry.as_ref().map_or(true, |entry| !matches!(entry.file_name().to_bytes(), b"." | b".."))
    };
    Ok(!entries.any(|entry| is_entry(&entry)))
}

fn fill(directory: BorrowedFd<'_>, volume: &VolumeMount, content: BorrowedFd<'_>) -> Result<(), SysError> {
    let (new, data) = (layout::VOLUME_COPY, layout::VOLUME_DATA);
    rustix::fs::mkdirat(directory, new, Mode::RWXU).call(|| format!("mkdirat(\"{new}\")"))?;
    let target = open_below(directory, volume, new)?;
    copy::tree(content, target.as_fd())?;
    if !volume.ephemeral {
        // One for all of it: an fsync(2) of each of thousands of files would be a transaction each.
        rustix::fs::syncfs(&target).call(|| "syncfs(volume)")?;
    }
    // rename(2): an empty directory is replaced, and nothing else.
    match rustix::fs::renameat(directory, new, directory, data) {
        // Somebody has put something into it meanwhile: that is what stays.
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => discard_copy(directory),
        result => result.call(|| format!("renameat(\"{new}\", \"{data}\")")),
    }
}

/// Crosses no mount, and nobody but us knows of it.
fn discard_copy(directory: BorrowedFd<'_>) -> Result<(), SysError> {
    match sweep::remove(directory, c"_data.new").first() {
        None => Ok(()),
        Some(refusal) => Err(SysError::new("remove the half copy", io::Error::other(refusal.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mysup-volume-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("v/_data")).expect("mkdir");
            fs::write(path.join("v/fresh"), "").expect("write");
            fs::create_dir_all(path.join("root/d/deep")).expect("mkdir");
            fs::write(path.join("root/d/file"), "content").expect("write");
            Self(path)
        }

        fn use_it(&self, no_copy: bool) -> Result<(), SysError> {
            let directory = open_directory(self.0.join("v").to_str().expect("text"))?;
            let content = open_directory(self.0.join("root/d").to_str().expect("text"))?;
            let volume = VolumeMount { no_copy, ..VolumeMount::default() };
            first_use(directory.as_fd(), &volume, Some(content))
        }

        fn names(&self, path: &str) -> Vec<String> {
            let read = fs::read_dir(self.0.join(path)).expect("a directory");
            let mut names: Vec<String> =
                read.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect();
            names.sort();
            names
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let directory = fs::File::open(&self.0).expect("open");
            assert_eq!(sweep::empty(directory.as_fd()), []);
            fs::remove_dir(&self.0).expect("rmdir");
        }
    }

    #[test]
    fn the_first_use_fills_and_no_later_one_does() {
        let scratch = Scratch::new("first");
        scratch.use_it(false).expect("filled");
        assert_eq!(scratch.names("v"), ["_data"]);
        assert_eq!(scratch.names("v/_data"), ["deep", "file"]);
        fs::remove_file(scratch.0.join("v/_data/file")).expect("unlink");
        fs::remove_dir(scratch.0.join("v/_data/deep")).expect("rmdir");
        scratch.use_it(false).expect("used");
        assert!(scratch.names("v/_data").is_empty(), "what its user emptied stays empty");
    }

    #[test]
    fn what_is_there_stays_and_a_half_copy_goes() {
        let scratch = Scratch::new("there");
        fs::create_dir_all(scratch.0.join("v/_data.new/half")).expect("mkdir");
        fs::write(scratch.0.join("v/_data/.hidden"), "mine").expect("write");
        scratch.use_it(false).expect("used");
        assert_eq!(scratch.names("v"), ["_data"]);
        assert_eq!(scratch.names("v/_data"), [".hidden"]);
    }

    #[test]
    fn nocopy_is_a_first_use_too() {
        let scratch = Scratch::new("nocopy");
        scratch.use_it(true).expect("used");
        scratch.use_it(false).expect("used");
        assert!(scratch.names("v/_data").is_empty(), "a container may be in it");
    }
}
