//! The two roots: made if need be, closed to others, locked, and of which boot they are.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::Path,
};

use mysup_ipc::{
    point,
    record::{Durability, replace},
};

use crate::{
    config::Config,
    error::Error,
    registry::recover::{Boot, KERNEL_BOOT_ID},
    sys::{self, LockRefusal, RunLock},
};

/// Makes and checks the roots and takes their locks.
pub(super) fn take(config: &Config) -> Result<Vec<RunLock>, Error> {
    for root in [&config.root, &config.run_root] {
        if let Some(parent) = root.parent() {
            make_above(parent)?;
        }
        private(root)?;
    }
    let mut locks = Vec::new();
    for path in config.locks() {
        match sys::lock(&path) {
            Ok(lock) => locks.push(lock),
            Err(LockRefusal::Held(pid)) => return Err(Error::AlreadyRunning { pid }),
            Err(LockRefusal::Io(error)) => return Err(Error::file("lock", path)(error)),
        }
    }
    let own =
        [config.containers(), config.volumes(), config.trash(), config.run_containers(), config.run_trash()];
    for directory in own {
        private(&directory)?;
    }
    Ok(locks)
}

/// A directory that a root is to be in, and those above it.
fn make_above(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_above(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => sync_name(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::file("make directory", path)(error)),
    }
}

/// What is durable in a directory is so only if the name of the directory is.
fn sync_name(path: &Path) -> Result<(), Error> {
    let Some(parent) = path.parent() else { return Ok(()) };
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(Error::file("sync", parent))
}

/// A directory of ours that nobody else may enter: sockets, layers and records lie in it.
fn private(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_name(path)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::file("make directory", path)(error)),
    }
    if sys::is_private(path).map_err(Error::file("look at", path))? {
        Ok(())
    } else {
        Err(Error::NotPrivate { path: path.to_owned() })
    }
}

/// Whether the run root is of this boot. One that does not say is not.
pub(super) fn boot(config: &Config) -> Result<Boot, Error> {
    let now = fs::read_to_string(KERNEL_BOOT_ID).map_err(Error::file("read", KERNEL_BOOT_ID))?;
    let path = config.boot_id();
    match fs::read_to_string(&path) {
        Ok(then) if then == now => Ok(Boot::Same),
        Ok(_) => Ok(Boot::Other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Boot::Other),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// Says that the run root is of this boot; only after everything of another one is gone from it.
pub(super) fn write_boot(config: &Config) -> Result<(), Error> {
    let now = fs::read(KERNEL_BOOT_ID).map_err(Error::file("read", KERNEL_BOOT_ID))?;
    let directory = File::open(&config.run_root).map_err(Error::file("open", &config.run_root))?;
    let name = config.boot_id();
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    point::before(point::Step::BootRecord);
    let written = replace(directory.as_fd(), &name, &now, Durability::Volatile);
    point::after(point::Step::BootRecord);
    written.map_err(Error::file("write", config.boot_id()))
}
