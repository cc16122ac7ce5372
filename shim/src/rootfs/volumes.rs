//! Volumes and tmpfs mounts: each source is resolved once, on the host, to a descriptor; checked; cloned as a detached
//! mount with its flags; and attached on a descriptor inside the root. No path is used twice.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::fs::DirBuilderExt,
    path::Path,
    time::Duration,
};

use mysup_ipc::plan::{ContainerPlan, MountPlan, MountSource};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags},
};

use super::resolve;
use crate::{
    aside::{Answer, Aside},
    error::{Call, StartError, SysError},
    mountinfo::{Location, Mount},
    namespace,
    sys::mount::{Attributes, set_attributes},
};

/// How long a volume's server may take to say what its source is.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a volume's source is compared with.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// Mounts of the host's namespace.
    mounts: &'a [Mount],
    /// mysup's own directories.
    own: Vec<(String, Location)>,
}

/// A mount that is made and not attached yet.
#[derive(Debug)]
pub(crate) struct DetachedVolume {
    destination: String,
    source: String,
    mount: OwnedFd,
    directory: bool,
}

impl<'a> Sources<'a> {
    /// Prepares the check against mysup's own directories.
    pub(crate) fn new(plan: &ContainerPlan, mounts: &'a [Mount]) -> Result<Self, SysError> {
        let mut own = Vec::new();
        for path in &plan.own_roots {
            let directory = open_path(path)?;
            own.push((path.clone(), Location::of(directory.as_fd(), mounts)?));
        }
        Ok(Self { mounts, own })
    }

    /// Makes all mounts of the plan, outermost first.
    pub(crate) fn open_all(&self, plan: &ContainerPlan) -> Result<Vec<DetachedVolume>, StartError> {
        let mut sorted: Vec<&MountPlan> = plan.mounts.iter().collect();
        sorted.sort_by_key(|mount| mount.destination.split('/').filter(|part| !part.is_empty()).count());
        sorted.into_iter().map(|mount| self.open(mount)).collect()
    }

    fn open(&self, plan: &MountPlan) -> Result<DetachedVolume, StartError> {
        let failed = |source: SysError| StartError::Volume { destination: plan.destination.clone(), source };
        let (mount, source) = match &plan.source {
            MountSource::Bind { path, create } => (self.open_bind(plan, path, *create)?, path.clone()),
            MountSource::Tmpfs { size, mode, exec } => {
                (open_tmpfs(*size, *mode, *exec).map_err(failed)?, "tmpfs".to_owned())
            }
        };
        if plan.read_only {
            let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, private: false, recursive: true };
            set_attributes(mount.as_fd(), attributes)
                .call(|| format!("mount_setattr(\"{source}\", MOUNT_ATTR_RDONLY)"))
                .map_err(failed)?;
        }
        let directory = namespace::is_directory(mount.as_fd()).map_err(failed)?;
        Ok(DetachedVolume { destination: plan.destination.clone(), source, mount, directory })
    }

    fn open_bind(&self, plan: &MountPlan, path: &str, create: bool) -> Result<OwnedFd, StartError> {
        let failed = |source: SysError| StartError::Volume { destination: plan.destination.clone(), source };
        let source = match self.open_source(path) {
            Err(error) if error.errno() == Some(Errno::NOENT) && create => {
                self.refuse_own_ancestor(path)?;
                let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
                made.call(|| format!("mkdir(\"{path}\")")).map_err(failed)?;
                self.open_source(path).map_err(failed)?
            }
            Err(error) if error.errno() == Some(Errno::NOENT) => {
                return Err(StartError::MissingSource(path.to_owned()));
            }
            result => result.map_err(failed)?,
        };
        self.refuse_own(path, source.as_fd(), |own, at| own.overlaps(at))?;
        namespace::clone_tree(source.as_fd(), "", true).map_err(failed)
    }

    /// Opens a source. Where a server may have to be asked, which may never answer, that is done aside and in time.
    fn open_source(&self, path: &str) -> Result<OwnedFd, SysError> {
        let call = || format!("open(\"{path}\", O_PATH)");
        let below = self.mounts.iter().filter(|mount| Path::new(path).starts_with(&mount.point));
        let nearest = below.max_by_key(|mount| mount.point.len());
        if nearest.is_some_and(|mount| !mount.may_hang()) {
            // Links may lead elsewhere: what the kernel knows without asking anybody is enough for most.
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED) {
                Err(Errno::AGAIN) => {}
                result => return result.call(call),
            }
        }
        let work = || match open_path(path) {
            // A descriptor rides with a byte.
            Ok(fd) => (vec![0], Some(fd)),
            Err(error) => (error.errno().unwrap_or(Errno::IO).raw_os_error().to_le_bytes().to_vec(), None),
        };
        let aside = Aside::start(&[], work)?;
        match aside.wait(PATIENCE)? {
            Some(Answer { descriptor: Some(fd), .. }) => Ok(fd),
            Some(Answer { bytes, .. }) => {
                let errno = bytes
                    .first_chunk()
                    .map_or(Errno::IO, |errno| Errno::from_raw_os_error(i32::from_le_bytes(*errno)));
                Err(errno).call(call)
            }
            None => {
                aside.abandon();
                Err(io::Error::new(io::ErrorKind::TimedOut, "its file system does not answer")).call(call)
            }
        }
    }

    /// Before a missing source is made: the place where it would be made must not be inside ours.
    fn refuse_own_ancestor(&self, path: &str) -> Result<(), StartError> {
        let existing = Path::new(path)
            .ancestors()
            .skip(1)
            .find_map(|ancestor| self.open_source(ancestor.to_str()?).ok());
        match existing {
            Some(ancestor) => self.refuse_own(path, ancestor.as_fd(), Location::contains),
            None => Ok(()),
        }
    }

    fn refuse_own(
        &self,
        path: &str,
        source: BorrowedFd<'_>,
        relation: impl Fn(&Location, &Location) -> bool,
    ) -> Result<(), StartError> {
        let at = Location::of(source, self.mounts)
            .map_err(|source| StartError::Volume { destination: path.to_owned(), source })?;
        match self.own.iter().find(|(_, own)| relation(own, &at)) {
            Some((own, _)) => Err(StartError::OwnData { volume: path.to_owned(), own: own.clone() }),
            None => Ok(()),
        }
    }
}

impl DetachedVolume {
    /// Attaches it inside the root; what is missing of its destination is made (below other volumes: in them).
    pub(crate) fn attach(self, root: BorrowedFd<'_>) -> Result<(), StartError> {
        let Self { destination, source, mount, directory } = self;
        let target = if directory {
            resolve::make_directory(root, &destination, Mode::from_raw_mode(0o755))
        } else {
            resolve::make_file(root, &destination)
        };
        let kind =
            || StartError::VolumeKind { destination: destination.clone(), source_path: source.clone() };
        let failed = |source: SysError| StartError::Volume { destination: destination.clone(), source };
        let target = match target {
            Err(error) if error.errno() == Some(Errno::NOTDIR) => return Err(kind()),
            result => result.map_err(failed)?,
        };
        if namespace::is_directory(target.as_fd()).map_err(failed)? != directory {
            return Err(kind());
        }
        namespace::attach_on(mount.as_fd(), target.as_fd()).map_err(failed)
    }
}

fn open_path(path: &str) -> Result<OwnedFd, SysError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open(\"{path}\", O_PATH)"))
}

fn open_tmpfs(size: Option<u64>, mode: u32, exec: bool) -> Result<OwnedFd, SysError> {
    let mut options = vec![("mode", format!("{mode:o}"))];
    if let Some(size) = size {
        options.push(("size", size.to_string()));
    }
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if !exec {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    mount_new("tmpfs", &options, attributes)
}

/// A new instance of a file system as a detached mount.
pub(crate) fn mount_new(
    kind: &str,
    options: &[(&str, String)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, SysError> {
    let context =
        rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).call(|| format!("fsopen(\"{kind}\")"))?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", kind)
        .call(|| format!("fsconfig({kind}, \"source\")"))?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), *key, value.as_str())
            .call(|| format!("fsconfig({kind}, \"{key}\", \"{value}\")"))?;
    }
    rustix::mount::fsconfig_create(context.as_fd()).call(|| format!("fsconfig({kind}, CMD_CREATE)"))?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .call(|| format!("fsmount({kind})"))
}
