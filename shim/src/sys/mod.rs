//! System calls that no crate offers safely, typed. All `unsafe` of the shim is below this folder and in
//! `init/child.rs`. Nothing here decides anything.
#![expect(unsafe_code, reason = "raw system calls; each block says what makes it sound")]

pub(crate) mod bpf;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod time;
