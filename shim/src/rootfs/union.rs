//! The union of layers as a detached mount: overlayfs, or aufs where the kernel has it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use mysup_ipc::plan::StorageDriver;
use rustix::{
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags},
};

use crate::error::{Call, StartError, Step, SysError};

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
    match add_lower(&context, &layers.lower) {
        // `lowerdir+` came with Linux 6.7; before, all layers are one text, separated by colons.
        Err(error) if error.errno() == Some(Errno::INVAL) => {
            set(&context, "lowerdir", &joined(&layers.lower)?)?;
        }
        result => result?,
    }
    set(&context, "upperdir", text(&layers.upper)?)?;
    set(&context, "workdir", text(&layers.work)?)?;
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

fn add_lower(context: &OwnedFd, lower: &[PathBuf]) -> Result<(), SysError> {
    for layer in lower {
        set(context, "lowerdir+", text(layer)?)?;
    }
    Ok(())
}

fn joined(lower: &[PathBuf]) -> Result<String, SysError> {
    let mut list = Vec::new();
    for layer in lower {
        list.push(text(layer)?.replace('\\', "\\\\").replace(':', "\\:"));
    }
    Ok(list.join(":"))
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

fn text(path: &Path) -> Result<&str, SysError> {
    path.to_str().ok_or_else(|| {
        SysError::new(format!("use {}", path.display()), io::Error::from(io::ErrorKind::InvalidInput))
    })
}
