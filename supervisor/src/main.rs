//! `mysup`: a container supervisor with a docker-like command line. One program is both the client and, as
//! `mysup start --foreground`, the supervisor.

mod cli;
mod config;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        Ok(cli::Outcome::Code(code)) => ExitCode::from(code),
        Ok(cli::Outcome::Serve(_config)) => ExitCode::FAILURE,
        Err(failure) => {
            cli::complain_of(&*failure.error);
            ExitCode::from(failure.code)
        }
    }
}
