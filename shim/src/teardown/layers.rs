//! Removal of a container's directories: renamed to the trash first, then swept.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use mysup_ipc::{layout, plan::Lifetime};
use rustix::{
    fs::{AtFlags, CWD, Dir},
    io::Errno,
};

use super::{Failure, Places, StepResult, sweep};
use crate::{
    error::{Call, SysError},
    mountinfo::{self, Mount},
    rootfs::open_directory,
};

/// Removes the write layer (kept with `--keep`) and what was made around it.
pub(super) fn remove_layers(places: &Places, lifetime: Lifetime) -> StepResult {
    let all = [layout::INIT_LAYER, layout::STAGE, layout::WORK, layout::WRITE_LAYER];
    let names = match lifetime {
        Lifetime::WriteLayer => &all[..3],
        Lifetime::Record | Lifetime::Nothing => &all[..],
    };
    let Some(state) = existing(sweep::open_root(&places.state_dir))? else {
        return Ok(());
    };
    let mounts = mountinfo::read()?;
    let remove = |name: &&str| {
        refuse_mountpoints(places, name, &mounts)?;
        discard(state.as_fd(), name, &trash_name(places, name), places)
    };
    // One that resists does not keep the others.
    let removed: Vec<StepResult> = names.iter().map(remove).collect();
    removed.into_iter().collect()
}

/// Removes the files of the run directory, whatever version made them, the journal last, and the directory. No directory
/// in it is removed but the empty mountpoint, which an earlier attempt may not have seen below a mount of somebody's.
pub(super) fn remove_run_directory(places: &Places) -> StepResult {
    remove_mountpoint(places)?;
    let Some(run) = existing(sweep::open_root(&places.run_dir))? else {
        return Ok(());
    };
    let mut removed = Ok(());
    for entry in Dir::read_from(&run).call(|| format!("getdents(\"{}\")", places.run_dir))? {
        let entry = entry.call(|| format!("getdents(\"{}\")", places.run_dir))?;
        let name = entry.file_name();
        if ![c".", c"..", JOURNAL].contains(&name) {
            removed = removed.and(unlink(&run, name, places));
        }
    }
    // As long as anything else is there, the journal says what it is.
    removed?;
    unlink(&run, JOURNAL, places)?;
    match rustix::fs::unlinkat(CWD, places.run_dir.as_str(), AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(SysError::new(format!("rmdir(\"{}\")", places.run_dir), errno).into()),
    }
}

const JOURNAL: &CStr = c"journal";

/// rmdir(2), which cannot delete anything: a mountpoint is EBUSY, a directory with files is ENOTEMPTY.
pub(super) fn remove_mountpoint(places: &Places) -> StepResult {
    let Some(run) = existing(sweep::open_root(&places.run_dir))? else {
        return Ok(());
    };
    match rustix::fs::unlinkat(run, layout::MOUNTPOINT, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => {
            let call = format!("rmdir(\"{}/{}\")", places.run_dir, layout::MOUNTPOINT);
            Err(SysError::new(call, errno).into())
        }
    }
}

fn unlink(run: &OwnedFd, name: &CStr, places: &Places) -> Result<(), SysError> {
    match rustix::fs::unlinkat(run, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        result => result.call(|| format!("unlinkat(\"{}/{}\")", places.run_dir, name.to_string_lossy())),
    }
}

/// `--rm`: removes the container's directory with record and log.
pub(super) fn remove_state_directory(places: &Places) -> StepResult {
    let path = Path::new(&places.state_dir);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    refuse_mountpoints(places, "", &mountinfo::read()?)?;
    match existing(open_directory(&parent.display().to_string()))? {
        Some(parent) => discard(parent.as_fd(), name, name, places),
        None => Ok(()),
    }
}

/// A tree with a mount of the host's inside is not even renamed: it would take the mount with it.
fn refuse_mountpoints(places: &Places, name: &str, mounts: &[Mount]) -> StepResult {
    let tree = Path::new(&places.state_dir).join(name);
    match mounts.iter().find(|mount| Path::new(&mount.point).starts_with(&tree)) {
        None => Ok(()),
        Some(mount) => {
            let error =
                format!("{} is a mountpoint; unmount it, nothing below it is touched", mount.point.display());
            Err(Failure { error, holders: Vec::new() })
        }
    }
}

/// The same name at every attempt, so that a later one finds what an earlier one left in the trash.
fn trash_name(places: &Places, name: &str) -> String {
    let id = Path::new(&places.state_dir).file_name().and_then(|id| id.to_str()).unwrap_or("unnamed");
    format!("{id}.{name}")
}

fn discard(parent: BorrowedFd<'_>, name: &str, trash_name: &str, places: &Places) -> StepResult {
    let trash = sweep::open_root(&places.trash_dir)?;
    sweep_name(&trash, trash_name)?;
    let rename = || rustix::fs::renameat(parent, name, &trash, trash_name);
    let renamed = match rename() {
        // A full disk has no space for a longer directory: what is in the trash holds space, and names.
        Err(Errno::NOSPC | Errno::DQUOT) => {
            for refusal in sweep::empty(trash.as_fd()) {
                tracing::warn!("in the trash, {refusal}, continuing");
            }
            rename()
        }
        result => result,
    };
    match renamed {
        Ok(()) => sweep_name(&trash, trash_name),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(SysError::new(format!("renameat(\"{name}\", trash)"), errno).into()),
    }
}

fn sweep_name(trash: &OwnedFd, name: &str) -> StepResult {
    let name = CString::new(name).unwrap_or_default();
    match sweep::remove(trash.as_fd(), &name).first() {
        None => Ok(()),
        Some(refusal) => Err(Failure { error: format!("in the trash, {refusal}"), holders: Vec::new() }),
    }
}

fn existing(opened: Result<OwnedFd, SysError>) -> Result<Option<OwnedFd>, SysError> {
    match opened {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
