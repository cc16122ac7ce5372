//! Standard input and output of the program: FIFOs in the run directory, or a pty.
//!
//! FIFOs, not pipes: the container has them open for reading and writing, so that no reader's death is a SIGPIPE, and a
//! new shim can open them again by path with the bytes still in them. What a program writes to a pty goes through such a
//! FIFO too: splice(2) takes from the one and gives to the other in one call, so that a shim's death loses no byte.

pub(crate) mod log_file;
mod pty;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mysup_ipc::{layout, plan::ProcessPlan, plan::TerminalSize, shim::Stream};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
};

use crate::{
    error::{Call, SysError},
    init::StdioEnds,
    rootfs::AttachedRoot,
    user::User,
};

/// Bytes that are read at once.
pub(crate) const READ_SIZE: usize = mysup_ipc::log::MAX_RECORD;

/// The shim's ends.
#[derive(Debug)]
pub(crate) struct Stdio {
    outputs: Vec<Output>,
    /// Where input for the program goes; `None` if it has none or it was closed.
    input: Option<OwnedFd>,
    terminal: bool,
    /// The program has input: a terminal that comes back gets it.
    interactive: bool,
    /// Ends kept open so that a program that closes its own is no end of file to us.
    kept: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Output {
    stream: Stream,
    fifo: OwnedFd,
    /// The terminal's side of which this is the output.
    master: Option<OwnedFd>,
}

/// What there is for the log.
pub(crate) enum Waiting<'a> {
    /// So many bytes in this FIFO.
    Bytes(BorrowedFd<'a>, usize),
    /// Nothing for now.
    Nothing,
    /// Nothing more ever.
    End,
    /// The kernel cannot tell, or cannot move it: to be read.
    Unmovable,
}

/// What a read of the program's output gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing more for now.
    Nothing,
    /// Nothing more ever.
    End,
}

impl Stdio {
    /// Makes both sides of standard input and output.
    pub(crate) fn create(
        run_directory: BorrowedFd<'_>,
        root: &AttachedRoot,
        process: &ProcessPlan,
        user: &User,
    ) -> Result<(Self, StdioEnds), SysError> {
        match process.terminal {
            Some(size) => pty::create(run_directory, root, size, process.stdin, user),
            None => create_fifos(run_directory, root, process.stdin, user),
        }
    }

    /// Goes on with the input and output of a dead shim. What was in the FIFOs is still in them. `kept` is what the
    /// supervisor has held, as [`Stdio::keepsakes`] gave it.
    pub(crate) fn reopen(
        run_directory: BorrowedFd<'_>,
        process: &ProcessPlan,
        kept: Vec<OwnedFd>,
    ) -> Result<Self, SysError> {
        let mut kept = kept.into_iter();
        if process.terminal.is_some() {
            return pty::reopen(run_directory, process.stdin, kept.next());
        }
        // The FIFOs were held so that their bytes outlive the program; they are opened by path.
        let input = kept.nth(2);
        let interactive = process.stdin;
        let mut stdio = Self { outputs: Vec::new(), input, terminal: false, interactive, kept: Vec::new() };
        for (stream, name) in [(Stream::Stdout, layout::STDOUT), (Stream::Stderr, layout::STDERR)] {
            let fifo = open_at(run_directory, name, OFlags::RDONLY | OFlags::NONBLOCK)?;
            stdio.outputs.push(Output { stream, fifo, master: None });
            stdio.kept.push(open_at(run_directory, name, OFlags::RDWR)?);
        }
        Ok(stdio)
    }

    /// What must outlive the shim, for the supervisor to hold: the master of a terminal and the FIFO behind it; or both
    /// FIFOs (a FIFO that nobody has open forgets its bytes), and behind them the program's input, unless a client owns
    /// it, whose end would be the end of input. Nothing of a terminal without its master.
    pub(crate) fn keepsakes(&self, client_owns_input: bool) -> Result<Vec<OwnedFd>, SysError> {
        let masters = self.outputs.iter().filter_map(|output| output.master.as_ref());
        let with_them = |output: &&Output| !self.terminal || output.master.is_some();
        let fifos = self.outputs.iter().filter(with_them).map(|output| &output.fifo);
        let input = self.input.as_ref().filter(|_| !client_owns_input && !self.terminal);
        masters.chain(fifos).chain(input).map(|fd| fd.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)")).collect()
    }

    /// Descriptors to poll for reading, with the stream each carries.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        self.outputs.iter().flat_map(|output| {
            [Some(&output.fifo), output.master.as_ref()]
                .into_iter()
                .flatten()
                .map(|fd| (output.stream, fd.as_fd()))
        })
    }

    /// What there is of a stream for the log; of a terminal it is in the FIFO then.
    pub(crate) fn waiting(&self, stream: Stream) -> Waiting<'_> {
        let Some(output) = self.outputs.iter().find(|output| output.stream == stream) else {
            return Waiting::End;
        };
        let fifo = output.fifo.as_fd();
        match (rustix::io::ioctl_fionread(fifo), &output.master) {
            (Err(_), _) => Waiting::Unmovable,
            // Of a terminal, what a dead shim has left comes first.
            (Ok(available @ 1..), _) => Waiting::Bytes(fifo, usize::try_from(available).unwrap_or(0)),
            (Ok(0), Some(master)) => pty::pass_on(master.as_fd(), fifo),
            (Ok(0), None) if self.terminal => Waiting::End,
            (Ok(0), None) => Waiting::Nothing,
        }
    }

    /// Reads what the program wrote.
    pub(crate) fn read(&self, stream: Stream, buffer: &mut [u8]) -> Read {
        let Some(output) = self.outputs.iter().find(|output| output.stream == stream) else {
            return Read::End;
        };
        for fd in [Some(&output.fifo), output.master.as_ref()].into_iter().flatten() {
            match rustix::io::read(fd, &mut *buffer) {
                Ok(count @ 1..) => return Read::Bytes(count),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // EIO is how a pty says that its other side is closed.
                Ok(0) | Err(_) => return Read::End,
            }
        }
        Read::Nothing
    }

    /// Where input goes.
    pub(crate) fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(AsFd::as_fd)
    }

    /// Whether it is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Goes on with a terminal that was lost to this shim; gives copies for the supervisor to hold, as
    /// [`Stdio::keepsakes`] does.
    pub(crate) fn go_on_with(&mut self, master: OwnedFd) -> Result<Vec<OwnedFd>, SysError> {
        pty::connect(self, master)?;
        self.keepsakes(false)
    }

    /// No more input: the program reads an end of file. On a terminal there is no such thing.
    pub(crate) fn close_input(&mut self) {
        if !self.terminal {
            self.input = None;
        }
    }

    /// The program has ended: nobody of ours may keep its output open any more.
    pub(crate) fn release_kept(&mut self) {
        self.kept.clear();
    }

    /// Tells the terminal its size.
    pub(crate) fn resize(&self, size: TerminalSize) -> Result<(), SysError> {
        match self.outputs.iter().find_map(|output| output.master.as_ref()) {
            Some(master) => pty::set_size(master.as_fd(), size),
            None => Ok(()),
        }
    }
}

fn create_fifos(
    run_directory: BorrowedFd<'_>,
    root: &AttachedRoot,
    stdin: bool,
    user: &User,
) -> Result<(Stdio, StdioEnds), SysError> {
    let (stdout, stdout_end) = create_output(run_directory, layout::STDOUT, user)?;
    let (stderr, stderr_end) = create_output(run_directory, layout::STDERR, user)?;
    let (input, stdin_end) = if stdin {
        let (input, end) = create_input(run_directory, user)?;
        (Some(input), end)
    } else {
        (None, open_null(root)?)
    };
    let mut kept = Vec::new();
    for end in [&stdout_end, &stderr_end] {
        kept.push(end.try_clone().call(|| "fcntl(F_DUPFD_CLOEXEC)")?);
    }
    let outputs = [(Stream::Stdout, stdout), (Stream::Stderr, stderr)]
        .map(|(stream, fifo)| Output { stream, fifo, master: None })
        .into();
    let stdio = Stdio { outputs, input, terminal: false, interactive: stdin, kept };
    Ok((stdio, StdioEnds { ends: [stdin_end, stdout_end, stderr_end], terminal: false }))
}

fn make_fifo(directory: BorrowedFd<'_>, name: &str) -> Result<(), SysError> {
    match rustix::fs::mknodat(directory, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        // Left by a dead shim.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        result => result.call(|| format!("mknodat(\"{name}\", S_IFIFO)")),
    }
}

/// For a program to have open.
fn make_fifo_for(user: &User, directory: BorrowedFd<'_>, name: &str) -> Result<(), SysError> {
    make_fifo(directory, name)?;
    if (user.uid, user.gid) == (0, 0) {
        return Ok(());
    }
    // So that the program may open /dev/stdout again.
    let (uid, gid) = (rustix::fs::Uid::from_raw(user.uid), rustix::fs::Gid::from_raw(user.gid));
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .call(|| format!("fchownat(\"{name}\")"))
}

fn open_at(directory: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, SysError> {
    rustix::fs::openat(directory, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("openat(\"{name}\")"))
}

/// The end we read (first, so that opening the other one does not wait), and the program's.
fn create_output(directory: BorrowedFd<'_>, name: &str, user: &User) -> Result<(OwnedFd, OwnedFd), SysError> {
    make_fifo_for(user, directory, name)?;
    let reader = open_at(directory, name, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let writer = open_at(directory, name, OFlags::RDWR)?;
    Ok((reader, writer))
}

/// The end we write, and the program's; reading it gives an end of file when ours is closed.
fn create_input(directory: BorrowedFd<'_>, user: &User) -> Result<(OwnedFd, OwnedFd), SysError> {
    make_fifo_for(user, directory, layout::STDIN)?;
    let reader = open_at(directory, layout::STDIN, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let writer = open_at(directory, layout::STDIN, OFlags::WRONLY | OFlags::NONBLOCK)?;
    rustix::fs::fcntl_setfl(&reader, OFlags::empty()).call(|| "fcntl(stdin, F_SETFL)")?;
    Ok((writer, reader))
}

/// The container's own /dev/null, which is on a tmpfs that we made.
fn open_null(root: &AttachedRoot) -> Result<OwnedFd, SysError> {
    open_at(root.as_fd(), "dev/null", OFlags::RDWR)
}
