//! `login` and `logout`. What is typed here, `mysup-registry` tries and keeps.

use std::{
    io::{self, BufRead, IsTerminal, Read, Write},
    os::fd::AsFd,
};

use mysup_ipc::registry::{FromRegistry, ToRegistry};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};

use super::program::Program;
use crate::cli::{
    args::registry::{LoginArgs, LogoutArgs},
    error::CliError,
    output,
    progress::{Screen, Style},
    signals::Signals,
    terminal,
    values::Invalid,
};

/// Bytes of a password; more are another file by mistake.
const LONGEST: u64 = 64 << 10;

/// Signals that do not end the question for a password.
const HARMLESS: [i32; 2] = [Signal::SIGWINCH as i32, Signal::SIGCONT as i32];

/// `login`.
///
/// # Errors
/// If the registry refuses the credentials, or they cannot be kept.
pub(crate) fn login(args: &LoginArgs) -> Result<u8, CliError> {
    let trust = super::trust(&args.trust)?;
    let server = args.server.clone().unwrap_or_default();
    let (user, secret) = typed(args)?;
    let order = ToRegistry::Login { server: server.clone(), user, secret, trust };
    demand(&server, &order)
}

/// `logout`.
///
/// # Errors
/// If the credentials cannot be removed.
pub(crate) fn logout(args: &LogoutArgs) -> Result<u8, CliError> {
    let server = args.server.clone().unwrap_or_default();
    demand(&server, &ToRegistry::Logout { server: server.clone() })
}

fn demand(server: &str, order: &ToRegistry) -> Result<u8, CliError> {
    let mut program = Program::start(server)?;
    program.send(order, &[])?;
    let FromRegistry::Done(line) = program.receive(&mut Screen::new(Style::Nothing))? else {
        return Err(CliError::WrongAnswer);
    };
    output::print_line(&line).map(|()| 0)
}

/// A line, unless a signal comes first.
fn line_or_signal(signals: &Signals) -> Result<String, CliError> {
    let failed = |source| CliError::Call { action: "read standard input", source };
    let stdin = io::stdin();
    loop {
        let mut waiting =
            [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(failed(error.into())),
        }
        match signals.next().map(i32::from) {
            // A window of another size, or a terminal that is there again.
            Some(signal) if HARMLESS.contains(&signal) => {}
            Some(_) => return Err(Invalid::new("interrupted").into()),
            None => {
                let mut line = String::new();
                stdin.lock().read_line(&mut line).map_err(failed)?;
                return Ok(line.trim_end_matches(['\n', '\r']).to_owned());
            }
        }
    }
}

fn typed(args: &LoginArgs) -> Result<(String, String), CliError> {
    let read = |source| CliError::Call { action: "read standard input", source };
    if args.password_stdin {
        let Some(user) = args.username.clone() else {
            return Err(Invalid::new("Must provide --username with --password-stdin").into());
        };
        if args.password.is_some() {
            return Err(Invalid::new("--password and --password-stdin are mutually exclusive").into());
        }
        let mut secret = String::new();
        io::stdin().lock().take(LONGEST).read_to_string(&mut secret).map_err(read)?;
        return Ok((user, secret.trim_end_matches(['\n', '\r']).to_owned()));
    }
    if (args.username.is_none() || args.password.is_none()) && !io::stdin().is_terminal() {
        let reason = "credentials are typed at a terminal: use -u NAME --password-stdin elsewhere";
        return Err(Invalid::new(reason).into());
    }
    let ask = |what: &str| {
        let prompt = io::stderr().write_all(format!("{what}: ").as_bytes());
        let mut line = String::new();
        prompt.and_then(|()| io::stdin().lock().read_line(&mut line)).map_err(read)?;
        Ok::<String, CliError>(line.trim_end_matches(['\n', '\r']).to_owned())
    };
    let user = args.username.clone().map_or_else(|| ask("Username"), Ok)?;
    let secret = match args.password.clone() {
        Some(secret) => secret,
        None => {
            let silent = terminal::Silent::set().map_err(read)?;
            // As data, so that ctrl-C does not leave a terminal that shows nothing.
            let signals = Signals::take().map_err(read)?;
            let prompt = io::stderr().write_all(b"Password: ");
            let secret = prompt.map_err(read).and_then(|()| line_or_signal(&signals));
            drop((silent, signals));
            // The newline was not shown either; who does not see it misses nothing.
            let _ = io::stderr().write_all(b"\n");
            secret?
        }
    };
    if user.is_empty() || secret.is_empty() {
        return Err(Invalid::new("a username and a password are needed").into());
    }
    Ok((user, secret))
}
