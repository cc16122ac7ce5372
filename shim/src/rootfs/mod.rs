//! The root file system: made as detached mounts in the host's namespace (a death before they are attached leaves nothing),
//! then attached in the shim's own. Layers, top first: write layer, container-init layer, image layers.

mod copy;
mod dev;
mod init_layer;
pub(crate) mod own_volumes;
mod resolve;
pub(crate) mod union;
pub(crate) mod volumes;

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use mysup_ipc::{
    layout,
    plan::{ContainerPlan, Lifetime},
    point,
    teardown::JournalEntry,
};
use rustix::fs::{Mode, OFlags};

pub(crate) use self::{
    dev::HostDevices,
    resolve::{make_directory, open_in_root, open_plain_directory},
    volumes::{DetachedVolume, Sources},
};
use crate::{
    aside,
    error::{Call, StartError, Step, SysError},
    namespace,
    sys::mount::{Attributes, set_attributes},
    teardown::journal::Journal,
    user::{self, User},
};

/// A root file system that is made and not attached yet.
#[derive(Debug)]
pub(crate) struct DetachedRoot {
    union: OwnedFd,
}

impl DetachedRoot {
    /// Makes the layers' directories and the union of them.
    pub(crate) fn create(plan: &ContainerPlan, journal: &mut Journal) -> Result<Self, StartError> {
        let state = Path::new(&plan.state_dir);
        journal.append(&JournalEntry::WriteLayer).step("write the journal")?;
        make_layer_directories(plan, state).step("make the write layer")?;
        let init = state.join(layout::INIT_LAYER);
        init_layer::create(plan, &init, &state.join(layout::STAGE))?;
        let mut lower = vec![init];
        lower.extend(plan.rootfs.layers.iter().map(PathBuf::from));
        let union = union::mount(
            plan.rootfs.driver,
            &union::Layers {
                upper: state.join(layout::WRITE_LAYER),
                work: state.join(layout::WORK),
                lower,
                // Without syncs only where the write layer ends with the container: `work/incompat/volatile` forbids
                // any later use of it.
                volatile: plan.lifetime != Lifetime::WriteLayer,
            },
        )?;
        point::after(point::Step::WriteLayer);
        if plan.rootfs.read_only {
            let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, private: false, recursive: false };
            set_attributes(union.as_fd(), attributes)
                .call(|| "mount_setattr(MOUNT_ATTR_RDONLY)")
                .step("make the root file system read-only")?;
        }
        Ok(Self { union })
    }

    /// What images, init layer and write layer have together.
    pub(crate) fn union(&self) -> BorrowedFd<'_> {
        self.union.as_fd()
    }

    /// Attaches it at the mountpoint in the shim's namespace, with everything that is mounted below it.
    pub(crate) fn attach(
        self,
        plan: &ContainerPlan,
        mut volumes: Vec<DetachedVolume>,
        devices: &HostDevices,
    ) -> Result<AttachedRoot, StartError> {
        namespace::attach(self.union.as_fd(), rustix::fs::CWD, layout::MOUNTPOINT)
            .step("mount the root file system")?;
        let root = self.union;
        dev::mount(root.as_fd(), plan, devices)?;
        let may_hang = volumes.iter().any(DetachedVolume::may_hang);
        volumes.sort_by_key(DetachedVolume::depth);
        for volume in volumes {
            volume.attach(root.as_fd(), may_hang)?;
        }
        let make = || make_directory(root.as_fd(), &plan.process.cwd, Mode::from_raw_mode(0o755));
        let made = if may_hang { aside::open(&plan.process.cwd, &[root.as_fd()], make) } else { make() };
        made.step("make the working directory")?;
        Ok(AttachedRoot { root, may_hang })
    }
}

/// The root file system in the shim's namespace.
#[derive(Debug)]
pub(crate) struct AttachedRoot {
    root: OwnedFd,
    may_hang: bool,
}

impl AttachedRoot {
    /// Looks the program's user up in it.
    pub(crate) fn user(&self, text: &str) -> Result<User, StartError> {
        if self.may_hang {
            // What has been read once comes from the page cache.
            let read = || {
                let _ = user::look_up(self.root.as_fd(), text);
                self.root.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)")
            };
            aside::open("/etc/passwd", &[self.root.as_fd()], read).step("read passwd and group")?;
        }
        user::look_up(self.root.as_fd(), text)
    }
}

impl AsFd for AttachedRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Makes `upper`, `work`, `init` and `stage`. The union's root looks like its topmost directory, so mode and owner are
/// those of the image's root.
fn make_layer_directories(plan: &ContainerPlan, state: &Path) -> Result<(), SysError> {
    let model = plan.rootfs.layers.first().and_then(|layer| fs::metadata(layer).ok());
    for name in [layout::WRITE_LAYER, layout::INIT_LAYER, layout::WORK, layout::STAGE] {
        let path = state.join(name);
        match fs::DirBuilder::new().mode(0o755).create(&path) {
            // A kept write layer is used again; whatever else is there is of an earlier start and the same container.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            result => result.call(|| format!("mkdir(\"{}\")", path.display()))?,
        }
        let Some(model) =
            model.as_ref().filter(|_| [layout::WRITE_LAYER, layout::INIT_LAYER].contains(&name))
        else {
            continue;
        };
        if (model.uid(), model.gid()) != (0, 0) {
            chown(&path, Some(model.uid()), Some(model.gid()))
                .call(|| format!("chown(\"{}\")", path.display()))?;
        }
        if model.mode() & 0o7777 != 0o755 {
            let mode = fs::Permissions::from_mode(model.mode() & 0o7777);
            fs::set_permissions(&path, mode).call(|| format!("chmod(\"{}\")", path.display()))?;
        }
    }
    Ok(())
}

/// Opens a directory that is ours, following no link in its last part.
pub(crate) fn open_directory(path: &str) -> Result<OwnedFd, SysError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).call(|| format!("open(\"{path}\", O_DIRECTORY)"))
}
