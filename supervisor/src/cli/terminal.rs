//! The user's terminal: its size, raw mode, and the keys that detach from it.

use std::{io, os::fd::AsFd};

use mysup_ipc::plan::TerminalSize;
use rustix::termios::{self, OptionalActions, Termios};

/// What a terminal is taken for when none tells its size.
const DEFAULT_SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80 };
/// ctrl-p ctrl-q, docker's keys.
const DETACH_KEYS: [u8; 2] = [16, 17];

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    termios::isatty(io::stdin())
}

/// Size of the user's terminal.
pub(crate) fn size() -> TerminalSize {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    for stream in [stdout.as_fd(), stdin.as_fd(), stderr.as_fd()] {
        if let Ok(size) = termios::tcgetwinsize(stream)
            && size.ws_row > 0
            && size.ws_col > 0
        {
            return TerminalSize { rows: size.ws_row, columns: size.ws_col };
        }
    }
    DEFAULT_SIZE
}

/// Standard input in raw mode; it is as it was when this is dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Sets raw mode.
    ///
    /// # Errors
    /// As tcsetattr(3).
    pub(crate) fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mode = Self { before };
        mode.apply()?;
        Ok(mode)
    }

    /// Sets raw mode again, after a shell had the terminal for itself.
    ///
    /// # Errors
    /// As tcsetattr(3).
    pub(crate) fn apply(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        Ok(termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to restore.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Standard input without what is typed being shown; it is as it was when this is dropped.
#[derive(Debug)]
pub(crate) struct Silent {
    before: Termios,
}

impl Silent {
    /// Shows nothing from now on.
    ///
    /// # Errors
    /// As tcsetattr(3).
    pub(crate) fn set() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(termios::LocalModes::ECHO);
        termios::tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // As above.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Finds the detach keys in what is typed. The first key is held back until the next one is known.
#[derive(Debug, Default)]
pub(crate) struct DetachKeys {
    held: usize,
}

/// What typed bytes mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// These bytes are for the program.
    Input(Vec<u8>),
    /// The user wants to leave; these bytes came before the keys.
    Detach(Vec<u8>),
}

impl DetachKeys {
    /// Looks at bytes that were typed.
    pub(crate) fn look(&mut self, bytes: &[u8]) -> Typed {
        let mut input = Vec::with_capacity(bytes.len() + self.held);
        for &byte in bytes {
            if byte == DETACH_KEYS[self.held] {
                self.held += 1;
                if self.held == DETACH_KEYS.len() {
                    self.held = 0;
                    return Typed::Detach(input);
                }
                continue;
            }
            input.extend_from_slice(&DETACH_KEYS[..self.held]);
            self.held = usize::from(byte == DETACH_KEYS[0]);
            if self.held == 0 {
                input.push(byte);
            }
        }
        Typed::Input(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_across_reads() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.look(b"ab\x10"), Typed::Input(b"ab".to_vec()));
        assert_eq!(keys.look(b"\x11rest"), Typed::Detach(Vec::new()));
        assert_eq!(keys.look(b"x\x10y"), Typed::Input(b"x\x10y".to_vec()));
        assert_eq!(keys.look(b"\x10\x10\x11"), Typed::Detach(b"\x10".to_vec()));
        assert_eq!(keys.look(b"\x11\x11"), Typed::Input(b"\x11\x11".to_vec()));
    }
}
