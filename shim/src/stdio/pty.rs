//! The terminal of a container with `-t`: a pty of the container's own devpts, and the FIFO through which its output goes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mysup_ipc::{layout, plan::TerminalSize, shim::Stream};
use rustix::{
    fs::{Gid, Mode, OFlags, Uid},
    io::Errno,
    pipe::SpliceFlags,
    pty::OpenptFlags,
    termios::Winsize,
};

use super::{Output, Stdio, Waiting, make_fifo, open_at};
use crate::{
    error::{Call, SysError},
    init::StdioEnds,
    namespace,
    rootfs::{AttachedRoot, open_plain_directory},
    user::User,
};

/// A terminal's buffer in the kernel (`N_TTY_BUF_SIZE`): it gives no more at once, and more pages would be for nothing.
const PASSED_AT_ONCE: usize = 4096;

/// Group `tty` of Debian and all who follow it; devpts gives it to new terminals.
const TTY_GROUP: u32 = 5;

pub(super) fn create(
    run_directory: BorrowedFd<'_>,
    root: &AttachedRoot,
    size: TerminalSize,
    stdin: bool,
    user: &User,
) -> Result<(Stdio, StdioEnds), SysError> {
    let pts = open_plain_directory(root.as_fd(), "dev/pts").call(|| "openat2(\"/dev/pts\")")?;
    let master = open_master(&pts)?;
    let name = rustix::pty::ptsname(&master, Vec::new()).call(|| "ioctl(TIOCGPTN)")?;
    let name = name.to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned();
    // In a devpts that we have just mounted: nobody can have put anything else there.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let slave = rustix::fs::openat(&pts, &*name, flags, Mode::empty())
        .call(|| format!("openat(\"/dev/pts/{name}\")"))?;
    if user.uid != 0 {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(TTY_GROUP));
        rustix::fs::fchown(&slave, Some(uid), Some(gid)).call(|| "fchown(pty)")?;
    }
    set_size(master.as_fd(), size)?;
    make_console(root, &slave)?;
    let clone = |fd: &OwnedFd| fd.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)");
    let input = if stdin { Some(clone(&master)?) } else { None };
    let ends = [clone(&slave)?, clone(&slave)?, clone(&slave)?];
    let outputs =
        vec![Output { stream: Stream::Stdout, fifo: open_fifo(run_directory)?, master: Some(master) }];
    let stdio = Stdio { outputs, input, terminal: true, interactive: stdin, kept: vec![slave] };
    Ok((stdio, StdioEnds { ends, terminal: true }))
}

/// Opens the master through a mount of its own that is detached again: the supervisor keeps a copy of it, and that must not
/// keep the container's /dev/pts busy when it is to be unmounted (the supervisor may be stopped just then).
fn open_master(pts: &OwnedFd) -> Result<OwnedFd, SysError> {
    let aside = namespace::clone_tree(pts.as_fd(), "", false)?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master =
        rustix::fs::openat(&aside, "ptmx", flags, Mode::empty()).call(|| "openat(\"/dev/pts/ptmx\")")?;
    rustix::pty::unlockpt(&master).call(|| "ioctl(TIOCSPTLCK)")?;
    Ok(master)
}

/// Goes on with a terminal whose master the supervisor or a client kept. Without one the terminal was hung up with the last
/// master, unless a client has it and brings it when it attaches again: until then there is nothing to write, and to read
/// only what is in the FIFO.
pub(super) fn reopen(
    run_directory: BorrowedFd<'_>,
    stdin: bool,
    master: Option<OwnedFd>,
) -> Result<Stdio, SysError> {
    let outputs = vec![Output { stream: Stream::Stdout, fifo: open_fifo(run_directory)?, master: None }];
    let mut stdio = Stdio { outputs, input: None, terminal: true, interactive: stdin, kept: Vec::new() };
    if let Some(master) = master {
        connect(&mut stdio, master)?;
    }
    Ok(stdio)
}

/// Goes on with this master.
pub(super) fn connect(stdio: &mut Stdio, master: OwnedFd) -> Result<(), SysError> {
    // Whoever had it: it must be the master of a pty. The other end is kept as at a start: without anybody who has it
    // open the master is ready to be read for ever, and gives nothing but EIO.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    stdio.kept.push(rustix::pty::ioctl_tiocgptpeer(&master, flags).call(|| "ioctl(TIOCGPTPEER)")?);
    if stdio.interactive {
        stdio.input = Some(master.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)")?);
    }
    if let Some(output) = stdio.outputs.first_mut() {
        output.master = Some(master);
    }
    Ok(())
}

/// Opened for both sides: it has no end, and is never waited for.
fn open_fifo(run_directory: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    make_fifo(run_directory, layout::STDOUT)?;
    open_at(run_directory, layout::STDOUT, OFlags::RDWR | OFlags::NONBLOCK)
}

/// Moves what the program wrote into the empty FIFO. The kernel does not look for signals between taking and giving, and
/// has the memory for it before it takes (`copy_splice_read`, Linux 6.5; before, `generic_file_splice_read`).
pub(super) fn pass_on<'a>(master: BorrowedFd<'_>, fifo: BorrowedFd<'a>) -> Waiting<'a> {
    match rustix::pipe::splice(master, None, fifo, None, PASSED_AT_ONCE, SpliceFlags::NONBLOCK) {
        Ok(count @ 1..) => Waiting::Bytes(fifo, count),
        Err(Errno::AGAIN | Errno::INTR) => Waiting::Nothing,
        // Its other side is closed.
        Ok(0) | Err(Errno::IO) => Waiting::End,
        Err(_) => Waiting::Unmovable,
    }
}

/// /dev/console is the same terminal.
fn make_console(root: &AttachedRoot, slave: &OwnedFd) -> Result<(), SysError> {
    let console = namespace::clone_tree(slave.as_fd(), "", false)?;
    let dev = open_plain_directory(root.as_fd(), "dev").call(|| "openat2(\"/dev\")")?;
    namespace::attach(console.as_fd(), dev.as_fd(), "console")
}

pub(super) fn set_size(terminal: BorrowedFd<'_>, size: TerminalSize) -> Result<(), SysError> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).call(|| "ioctl(TIOCSWINSZ)")
}
