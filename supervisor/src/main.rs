//! `mysup`: a container supervisor with a docker-like command line. One program is both the client and, as
//! `mysup start --foreground`, the supervisor.

mod cli;
mod config;
mod daemon;
mod error;
mod images;
mod log;
mod registry;
mod sealed;
mod shim_link;
mod sys;
mod volumes;

use std::process::ExitCode;

use cli::Outcome;

fn main() -> ExitCode {
    sys::end_on_faults();
    match cli::run(std::env::args_os()) {
        Ok(Outcome::Code(code)) => ExitCode::from(code),
        Ok(Outcome::Serve(config)) => match daemon::run(config, daemon::Ready::from_environment()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                cli::complain_of(&error);
                ExitCode::FAILURE
            }
        },
        Err(failure) => {
            cli::complain_of(&*failure.error);
            ExitCode::from(failure.code)
        }
    }
}
