//! Bytes with file descriptors over a Unix socket (SCM_RIGHTS, unix(7)).
//!
//! The descriptors of a message arrive with its first byte; a reader therefore uses [`receive`] for every read of a
//! socket on which they may come, and keeps what it gets in order.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

/// The most descriptors that one message carries.
pub const MAX_DESCRIPTORS: usize = 4;

/// Sends as many of `bytes` as the socket takes, and all of `fds` with the first; returns the number of bytes.
///
/// # Errors
/// As sendmsg(2). Nothing was sent then.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    // MSG_NOSIGNAL: a reader that went away is an error to handle, not a SIGPIPE.
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)
        .map_err(io::Error::from)
}

/// Reads into `buffer` and appends received descriptors (close-on-exec) to `fds`; 0 bytes is the end.
///
/// # Errors
/// As recvmsg(2).
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut control = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for received in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = received {
            for fd in raw {
                fds.push(own(fd));
            }
        }
    }
    Ok(message.bytes)
}

#[expect(unsafe_code, reason = "the kernel hands descriptors over as numbers")]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: recvmsg(2) has just installed this descriptor in our table for this message alone; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
