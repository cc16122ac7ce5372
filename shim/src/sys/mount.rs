//! mount_setattr(2), which rustix lacks.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// What is changed on a mount that is not attached yet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attributes {
    /// `MOUNT_ATTR_*` bits to set.
    pub(crate) set: u64,
    /// Make it private: nothing mounted below it reaches others, or comes from them.
    pub(crate) private: bool,
    /// And everything mounted below it.
    pub(crate) recursive: bool,
}

/// Changes the mount that `mount` is the root of; on a detached mount this cannot be redirected by a path.
pub(crate) fn set_attributes(mount: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: 0,
        propagation: if attributes.private { libc::MS_PRIVATE } else { 0 },
        userns_fd: 0,
    };
    let mut flags = libc::AT_EMPTY_PATH;
    if attributes.recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: mount_setattr(2) reads an empty C string and size_of(attr) bytes of `attr`; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
