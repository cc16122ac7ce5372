//! The union of layers as a detached mount: overlayfs, or aufs where the kernel has it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use mysup_ipc::plan::StorageDriver;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags},
};

use crate::error::{Call, StartError, Step, SysError};

/// Bytes of an option that fsconfig(2) takes.
const LONGEST_OPTION: usize = 255;

/// What is joined.
#[derive(Debug)]
pub(crate) struct Layers {
    /// The only writable one.
    pub(crate) upper: PathBuf,
    /// Work directory, on the same file system as `upper`.
    pub(crate) work: PathBuf,
    /// Read-only ones, top first.
    pub(crate) lower: Vec<PathBuf>,
    /// Nothing has to survive a crash.
    pub(crate) volatile: bool,
}

/// Mounts the union; it is gone when its descriptor is, unless it was attached.
pub(crate) fn mount(driver: StorageDriver, layers: &Layers) -> Result<OwnedFd, StartError> {
    let (name, configured) = match driver {
        StorageDriver::Overlay => ("overlay", overlay(layers)),
        StorageDriver::Aufs => ("aufs", aufs(layers)),
    };
    match configured {
        Err(error) if error.errno() == Some(Errno::NODEV) => Err(StartError::NoUnion(name)),
        result => result.step("join the layers"),
    }
}

fn overlay(layers: &Layers) -> Result<OwnedFd, SysError> {
    let context = open_filesystem("overlay")?;
    set(&context, "source", "mysup")?;
    // Both held until the union is made: an older kernel looks the names up only then.
    let _opened = add_lower(&context, &layers.lower)?;
    let _directory = BackToRoot;
    set(&context, "upperdir", &escaped(text(&layers.upper)?))?;
    set(&context, "workdir", &escaped(text(&layers.work)?))?;
    // Some kernels do otherwise by default. The write layer is to have whole files and directories in their places, so that
    // it can be read without a mount; this turns `metacopy` off, too.
    set(&context, "redirect_dir", "off")?;
    if layers.volatile {
        rustix::mount::fsconfig_set_flag(context.as_fd(), "volatile")
            .call(|| "fsconfig(overlay, \"volatile\")")?;
    }
    create(&context, "overlay")
}

fn aufs(layers: &Layers) -> Result<OwnedFd, SysError> {
    let context = open_filesystem("aufs")?;
    let mut branches = format!("{}=rw", text(&layers.upper)?);
    for lower in &layers.lower {
        branches.push_str(&format!(":{}=ro", text(lower)?));
    }
    set(&context, "br", &branches)?;
    create(&context, "aufs")
}

fn open_filesystem(name: &str) -> Result<OwnedFd, SysError> {
    rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).call(|| format!("fsopen(\"{name}\")"))
}

/// Names the lower layers; what is returned must stay open until the union is made.
fn add_lower(context: &OwnedFd, lower: &[PathBuf]) -> Result<Vec<OwnedFd>, SysError> {
    if !takes_anything(context) {
        match add_each(context, lower) {
            // `lowerdir+` came with Linux 6.7.
            Err(error) if error.errno() == Some(Errno::INVAL) => {}
            result => return result.map(|()| Vec::new()),
        }
    }
    // All in one text, split at colons, without commas: the names of descriptors are short and have neither.
    let opened = lower.iter().map(|layer| open_layer(layer)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = opened.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let names = names.join(":");
    if names.len() > LONGEST_OPTION {
        let message = format!("{} layers are too many before Linux 6.7; newer kernels take 500", lower.len());
        return Err(SysError::new("name the lower layers", io::Error::other(message)));
    }
    rustix::process::chdir("/proc/self/fd").call(|| "chdir(\"/proc/self/fd\")")?;
    set(context, "lowerdir", &names)?;
    Ok(opened)
}

/// A shim works in `/`, wherever it goes for a moment.
struct BackToRoot;

impl Drop for BackToRoot {
    fn drop(&mut self) {
        // There is no root that cannot be entered.
        let _ = rustix::process::chdir("/");
    }
}

/// Before Linux 6.5 overlayfs knows of no context: the kernel collects options of any name as text, and only making
/// the union fails. Such a collection does not take paths.
fn takes_anything(context: &OwnedFd) -> bool {
    rustix::mount::fsconfig_set_path(context.as_fd(), "mysup", "/", rustix::fs::CWD) == Err(Errno::OPNOTSUPP)
}

fn add_each(context: &OwnedFd, lower: &[PathBuf]) -> Result<(), SysError> {
    for layer in lower {
        set(context, "lowerdir+", text(layer)?)?;
    }
    Ok(())
}

fn open_layer(layer: &Path) -> Result<OwnedFd, SysError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(layer, flags, Mode::empty()).call(|| format!("open(\"{}\", O_PATH)", layer.display()))
}

fn create(context: &OwnedFd, name: &str) -> Result<OwnedFd, SysError> {
    rustix::mount::fsconfig_create(context.as_fd()).call(|| format!("fsconfig({name}, CMD_CREATE)"))?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .call(|| format!("fsmount({name})"))
}

fn set(context: &OwnedFd, key: &str, value: &str) -> Result<(), SysError> {
    rustix::mount::fsconfig_set_string(context.as_fd(), key, value)
        .call(|| format!("fsconfig(\"{key}\", \"{value}\")"))
}

/// A path of these two options: overlayfs takes a backslash for the first half of something.
pub(crate) fn escaped(path: &str) -> String {
    path.replace('\\', "\\\\")
}

fn text(path: &Path) -> Result<&str, SysError> {
    path.to_str().ok_or_else(|| {
        SysError::new(format!("use {}", path.display()), io::Error::from(io::ErrorKind::InvalidInput))
    })
}
