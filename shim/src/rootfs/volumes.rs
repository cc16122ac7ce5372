//! Volumes and tmpfs mounts: each source is resolved once, on the host, to a descriptor; checked; cloned as a detached
//! mount with its flags; and attached on a descriptor inside the root. No path is used twice.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use mysup_ipc::plan::{ContainerPlan, MountPlan, MountSource};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags},
};

use super::resolve;
use crate::{
    aside,
    error::{Call, StartError, SysError},
    mountinfo::{Location, Mount},
    namespace,
    sys::mount::{Attributes, set_attributes},
};

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
    may_hang: bool,
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

    /// Makes all mounts of the plan but those of mysup's own volumes, which `own_volumes.rs` makes.
    pub(crate) fn open_all(&self, plan: &ContainerPlan) -> Result<Vec<DetachedVolume>, StartError> {
        plan.mounts.iter().filter_map(|mount| self.open(mount).transpose()).collect()
    }

    fn open(&self, plan: &MountPlan) -> Result<Option<DetachedVolume>, StartError> {
        let failed = |source: SysError| StartError::Volume { destination: plan.destination.clone(), source };
        let (mount, source, may_hang) = match &plan.source {
            MountSource::Volume(_) => return Ok(None),
            MountSource::Bind { path, create } => {
                let (mount, may_hang) = self.open_bind(plan, path, *create)?;
                (mount, path.clone(), may_hang)
            }
            MountSource::Tmpfs { size, mode, exec } => {
                (open_tmpfs(*size, *mode, *exec).map_err(failed)?, "tmpfs".to_owned(), false)
            }
        };
        DetachedVolume::new(plan, source, mount, may_hang).map(Some)
    }

    /// A copy of the source's mounts, and whether their servers may be silent.
    fn open_bind(&self, plan: &MountPlan, path: &str, create: bool) -> Result<(OwnedFd, bool), StartError> {
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
        let at = self.refuse_own(path, source.as_fd(), |own, at| own.overlaps(at))?;
        // What is mounted below it comes along.
        for mount in at.mounts_below(self.mounts) {
            self.refuse(path, &mount, |own, at| own.overlaps(at))?;
        }
        let mount = namespace::clone_tree(source.as_fd(), "", true).map_err(failed)?;
        Ok((mount, at.may_hang(self.mounts)))
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
        aside::open(path, &[], || open_path(path))
    }

    /// Before a missing source is made: the place where it would be made must not be inside ours.
    fn refuse_own_ancestor(&self, path: &str) -> Result<(), StartError> {
        let existing = Path::new(path)
            .ancestors()
            .skip(1)
            .find_map(|ancestor| self.open_source(ancestor.to_str()?).ok());
        match existing {
            Some(ancestor) => self.refuse_own(path, ancestor.as_fd(), Location::contains).map(drop),
            None => Ok(()),
        }
    }

    fn refuse_own(
        &self,
        path: &str,
        source: BorrowedFd<'_>,
        relation: impl Fn(&Location, &Location) -> bool,
    ) -> Result<Location, StartError> {
        let at = Location::of(source, self.mounts)
            .map_err(|source| StartError::Volume { destination: path.to_owned(), source })?;
        self.refuse(path, &at, relation)?;
        Ok(at)
    }

    fn refuse(
        &self,
        path: &str,
        at: &Location,
        relation: impl Fn(&Location, &Location) -> bool,
    ) -> Result<(), StartError> {
        match self.own.iter().find(|(_, own)| relation(own, at)) {
            Some((own, _)) => Err(StartError::OwnData { volume: path.to_owned(), own: own.clone() }),
            None => Ok(()),
        }
    }
}

impl DetachedVolume {
    /// A mount with what the plan says of it; `source` is for people. `may_hang`: its servers may be silent.
    pub(super) fn new(
        plan: &MountPlan,
        source: String,
        mount: OwnedFd,
        may_hang: bool,
    ) -> Result<Self, StartError> {
        let failed = |source: SysError| StartError::Volume { destination: plan.destination.clone(), source };
        if plan.read_only {
            let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, private: false, recursive: true };
            set_attributes(mount.as_fd(), attributes)
                .call(|| format!("mount_setattr(\"{source}\", MOUNT_ATTR_RDONLY)"))
                .map_err(failed)?;
        }
        let directory = namespace::is_directory(mount.as_fd()).map_err(failed)?;
        Ok(Self { destination: plan.destination.clone(), source, mount, directory, may_hang })
    }

    /// How deep its destination is: outer ones are attached first.
    pub(super) fn depth(&self) -> usize {
        self.destination.split('/').filter(|part| !part.is_empty()).count()
    }

    /// Whether a call on it may wait for a server, for ever.
    pub(super) fn may_hang(&self) -> bool {
        self.may_hang
    }

    /// Attaches it inside the root; what is missing of its destination is made (below other volumes: in them, whose servers
    /// may be silent if `root_may_hang`).
    pub(super) fn attach(self, root: BorrowedFd<'_>, root_may_hang: bool) -> Result<(), StartError> {
        let Self { destination, source, mount, directory, may_hang: _ } = self;
        let make = || match directory {
            true => resolve::make_directory(root, &destination, Mode::from_raw_mode(0o755)),
            false => resolve::make_file(root, &destination),
        };
        let target = if root_may_hang { aside::open(&destination, &[root], make) } else { make() };
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
