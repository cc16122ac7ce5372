//! The shutdown ioctl of ext4: from one instant to the next nothing is written any more, as if the power were gone.

use std::{fs::File, os::fd::AsRawFd, path::Path};

use super::options::Cutting;

mod request {
    nix::ioctl_read!(ext4_shutdown, b'X', 125, u32);
}

/// Cuts. Whoever still works there gets EIO.
///
/// # Errors
/// If this is no ext4.
#[expect(unsafe_code, reason = "nix has no wrapper of this ioctl")]
pub(super) fn cut(mountpoint: &Path, how: Cutting) -> std::io::Result<()> {
    // fs/ext4/ext4.h: EXT4_GOING_FLAGS_*
    let mut flags: u32 = match how {
        Cutting::Everything => 0,
        Cutting::JournalFlushed => 1,
        Cutting::NothingFlushed => 2,
    };
    let directory = File::open(mountpoint)?;
    // SAFETY: in spite of its name the request only reads the u32 it is given, which lives until after the call.
    unsafe { request::ext4_shutdown(directory.as_raw_fd(), &raw mut flags) }?;
    Ok(())
}
