//! A person at a terminal: a pty whose other side is a client of ours.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::{
    process::Signal,
    pty::OpenptFlags,
    termios::{self, Winsize},
};

use super::{holds_within, processes, sandbox::Sandbox, wait_until};

/// Written by us behind all that a client has written.
const LAST: &str = "\u{1b}_all was read\u{1b}\\";

/// A client that runs on a terminal of its own, as session leader.
#[derive(Debug)]
pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    line: OwnedFd,
    before: String,
}

impl Terminal {
    /// Runs `mysup ARGUMENTS` on a new terminal of this size.
    #[track_caller]
    pub(crate) fn run(sandbox: &Sandbox, arguments: &[&str], rows: u16, columns: u16) -> Terminal {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("the host has ptys");
        rustix::pty::grantpt(&master).expect("it is our pty");
        rustix::pty::unlockpt(&master).expect("it is our pty");
        termios::tcsetwinsize(&master, size(rows, columns)).expect("it is a terminal");
        let open = || open_line(&master);
        let line = open();
        let before = settings(&line);
        let mut call = Command::new("setsid");
        call.arg("-c").arg(sandbox.program()).args(arguments).env("TERM", "xterm");
        call.envs(sandbox.environment())
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()));
        let child = call.spawn().expect("setsid of util-linux is there");
        sandbox.adopt_client(i32::try_from(child.id()).expect("pids are small"));
        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().expect("a descriptor can be doubled");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                shared.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
            }
        });
        Terminal { child, keyboard, screen, line, before }
    }

    /// The pid of the client.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("pids are small")
    }

    /// Types.
    #[track_caller]
    pub(crate) fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal is open");
    }

    /// What was printed so far.
    pub(crate) fn screen(&self) -> String {
        self.read().replace(LAST, "")
    }

    fn read(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until this was printed.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        let seen = holds_within(super::PATIENCE, || self.screen().contains(text) || !self.is_running());
        let seen = seen && holds_within(std::time::Duration::from_secs(1), || self.screen().contains(text));
        assert!(seen, "{text:?} did not appear on the terminal; it shows:\n{:?}", self.screen());
    }

    /// Makes the window another size; the kernel tells the client.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        termios::tcsetwinsize(&self.keyboard, size(rows, columns)).expect("it is a terminal");
    }

    /// Sends the client a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }

    /// Whether the client has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end of the client, and until all that it wrote is on the screen; gives its code (`None`: killed by a
    /// signal).
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let ended = holds_within(super::PATIENCE, || !self.is_running());
        assert!(ended, "the client on the terminal did not end; it shows:\n{:?}", self.screen());
        // With its session leader the line was hung up for who had it open.
        rustix::io::write(open_line(&self.keyboard), LAST.as_bytes()).expect("the terminal is open");
        wait_until("all is on the screen", || self.read().contains(LAST));
        self.child.wait().expect("it has ended").code()
    }

    /// Fails unless the line settings are what they were before the client came.
    #[track_caller]
    pub(crate) fn expect_restored(&self) {
        wait_until("the terminal is restored", || settings(&self.line) == self.before);
    }

    /// Whether the client has put the line into raw mode.
    pub(crate) fn is_raw(&self) -> bool {
        settings(&self.line) != self.before
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Errors mean that it has ended, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open_line(master: impl AsFd) -> OwnedFd {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    rustix::pty::ioctl_tiocgptpeer(master, flags).expect("the pty has a peer")
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn settings(line: &OwnedFd) -> String {
    let all = termios::tcgetattr(line).expect("it is a terminal");
    format!("{:?} {:?} {:?} {:?}", all.input_modes, all.output_modes, all.control_modes, all.local_modes)
}
