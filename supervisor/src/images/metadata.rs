//! Owner, mode, extended attributes and times of a new file, in this order: a change of owner takes setuid and
//! capabilities away, and every change touches the times.
//!
//! All of it through a descriptor, or on the last component of a name without following it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{
    entries::Entry,
    error::{ImageError, Refusal},
    tree::{Place, failed},
};

/// What becomes of an extended attribute of an archive.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Take,
    LeaveOut,
    Refuse,
}

/// Files' own data and capabilities are taken over. What the security modules of this host or its file systems
/// decide by (`security.selinux`, `security.ima`, `trusted.`, `system.`) is no business of an image and is left out.
/// The marks of overlayfs would make one file of the archive show another (`trusted.overlay.redirect`): refused.
fn decide(attribute: &[u8]) -> Decision {
    match attribute {
        _ if attribute.starts_with(b"trusted.overlay.") || attribute.starts_with(b"user.overlay.") => {
            Decision::Refuse
        }
        b"security.capability" => Decision::Take,
        _ if attribute.starts_with(b"user.") => Decision::Take,
        _ => Decision::LeaveOut,
    }
}

/// Refuses an entry with an attribute that may not be; gives the number of those that are left out.
pub(super) fn check_attributes(entry: &Entry) -> Result<u64, ImageError> {
    let mut left_out = 0;
    for (name, _) in &entry.attributes {
        match decide(name) {
            Decision::Take => {}
            Decision::LeaveOut => left_out += 1,
            Decision::Refuse => {
                let shown = String::from_utf8_lossy(name).escape_debug().to_string();
                return Err(ImageError::refused(entry.name.bytes(), Refusal::Attribute(shown)));
            }
        }
    }
    Ok(left_out)
}

/// Everything on an open file or directory.
///
/// # Errors
/// If something cannot be set; the file is then incomplete.
pub(super) fn apply(file: BorrowedFd<'_>, entry: &Entry) -> Result<(), ImageError> {
    let fault = |action| move |errno| failed(action, &entry.name, errno);
    rustix::fs::fchown(file, owner(entry), group(entry)).map_err(fault("set owner of"))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(fault("set mode of"))?;
    for (name, value) in taken(entry) {
        rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())
            .map_err(fault("set an extended attribute of"))?;
    }
    rustix::fs::futimens(file, &times(entry)).map_err(fault("set times of"))
}

/// Everything on a symbolic link. It has no mode.
///
/// # Errors
/// As [`apply`].
pub(super) fn apply_to_link(place: Place<'_>, entry: &Entry) -> Result<(), ImageError> {
    let fault = |action| move |errno| failed(action, &entry.name, errno);
    rustix::fs::chownat(place.directory, place.name, owner(entry), group(entry), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(fault("set owner of"))?;
    set_attributes_unfollowed(place, entry)?;
    set_times(place, entry)
}

/// Everything on a FIFO or device, which must not be opened: that would wait, or wake a driver.
///
/// # Errors
/// As [`apply`].
pub(super) fn apply_to_node(place: Place<'_>, entry: &Entry) -> Result<(), ImageError> {
    let fault = |action| move |errno| failed(action, &entry.name, errno);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node =
        rustix::fs::openat(place.directory, place.name, flags, Mode::empty()).map_err(fault("look at"))?;
    rustix::fs::chownat(&node, "", owner(entry), group(entry), AtFlags::EMPTY_PATH)
        .map_err(fault("set owner of"))?;
    // fchmod(2) does not take a descriptor with O_PATH, and fchmodat2(2) is of Linux 6.6. The link in /proc leads to
    // the very file that is open; it is no symbolic link, since mknod(2) has just made it.
    rustix::fs::chmodat(
        rustix::fs::CWD,
        path_of(node.as_fd()),
        Mode::from_raw_mode(entry.mode),
        AtFlags::empty(),
    )
    .map_err(fault("set mode of"))?;
    set_attributes_unfollowed(place, entry)?;
    set_times(place, entry)
}

/// There is no setxattrat(2) before Linux 6.13: the directory is named by its descriptor, and the last component is
/// not followed.
fn set_attributes_unfollowed(place: Place<'_>, entry: &Entry) -> Result<(), ImageError> {
    for (name, value) in taken(entry) {
        let mut path = path_of(place.directory).into_bytes();
        path.push(b'/');
        path.extend_from_slice(place.name);
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
            .map_err(|errno: Errno| failed("set an extended attribute of", &entry.name, errno))?;
    }
    Ok(())
}

/// The times of what is never followed.
///
/// # Errors
/// As [`apply`].
pub(super) fn set_times(place: Place<'_>, entry: &Entry) -> Result<(), ImageError> {
    rustix::fs::utimensat(place.directory, place.name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| failed("set times of", &entry.name, errno))
}

fn taken(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .attributes
        .iter()
        .filter(|(name, _)| decide(name) == Decision::Take)
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
}

fn path_of(descriptor: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

fn owner(entry: &Entry) -> Option<Uid> {
    Some(Uid::from_raw(entry.uid))
}

fn group(entry: &Entry) -> Option<Gid> {
    Some(Gid::from_raw(entry.gid))
}

/// The time of the last access is not kept by archives; it is set to the other one, so that the same archive makes
/// the same layer.
fn times(entry: &Entry) -> Timestamps {
    let (seconds, nanoseconds) = entry.modified;
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}
