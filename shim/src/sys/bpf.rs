//! Loads and attaches the program that decides over devices in cgroup version 2 (bpf(2)).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// One instruction, struct `bpf_insn` of linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    /// Operation.
    pub(crate) code: u8,
    /// Low four bits destination, high four bits source register.
    pub(crate) registers: u8,
    /// Jump distance or memory offset.
    pub(crate) offset: i16,
    /// Constant.
    pub(crate) immediate: i32,
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The attribute union is passed in this size, zero-filled. Linux 6.17 to 7.1 write past shorter ones in some commands.
const ATTRIBUTE_SIZE: usize = 160;

#[repr(C, align(8))]
struct Attribute([u8; ATTRIBUTE_SIZE]);

impl Attribute {
    fn new() -> Self {
        Self([0; ATTRIBUTE_SIZE])
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn put_u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
}

/// Loads a device program. The verifier's refusal is `EINVAL` or `EACCES`.
pub(crate) fn load_device_program(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let count = u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // Offsets of the anonymous struct for BPF_PROG_LOAD in linux/bpf.h.
    let mut attribute = Attribute::new();
    attribute.put_u32(0, BPF_PROG_TYPE_CGROUP_DEVICE);
    attribute.put_u32(4, count);
    attribute.put_u64(8, instructions.as_ptr() as u64);
    attribute.put_u64(16, license.as_ptr() as u64);
    // SAFETY: the kernel reads ATTRIBUTE_SIZE bytes of `attribute`, `count` instructions and the license; all live here.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, attribute.0.as_ptr(), ATTRIBUTE_SIZE) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to a cgroup; it is released with the cgroup.
pub(crate) fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let number = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX);
    let mut attribute = Attribute::new();
    attribute.put_u32(0, number(cgroup));
    attribute.put_u32(4, number(program));
    attribute.put_u32(8, BPF_CGROUP_DEVICE);
    attribute.put_u32(12, BPF_F_ALLOW_MULTI);
    // SAFETY: the kernel reads ATTRIBUTE_SIZE bytes of `attribute`, which lives here.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, attribute.0.as_ptr(), ATTRIBUTE_SIZE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
