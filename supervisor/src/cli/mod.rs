//! The command line: docker's verbs, flags, texts and exit codes.
//!
//! Typed words become [`args`], values are checked in [`values`], and each verb turns them into requests to the
//! supervisor and answers into text. Nothing is decided here, and nothing is kept.

mod args;
mod attach;
mod client;
mod commits;
mod confirm;
mod describe;
mod disk;
mod doctor;
mod error;
mod filter;
mod images;
mod inspect;
mod launch;
mod logs;
mod output;
mod progress;
mod ps;
mod registry;
mod replace;
mod resolve;
mod run;
mod signals;
mod system;
mod table;
mod targets;
mod template;
mod terminal;
mod top;
mod values;
mod volumes;
mod volumes_from;

use std::ffi::OsString;

pub(crate) use self::output::complain_of;
use self::{
    args::{
        CommandLine, Verb,
        parse::{self, Parsed},
    },
    client::Instance,
    error::{CliError, Rule},
};
use crate::config::Config;

/// What is left to do for `main`.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing but to end with this code.
    Code(u8),
    /// Be the supervisor of this instance, here (`start --foreground`).
    Serve(Config),
}

/// A command that failed: the exit code, and why.
#[derive(Debug)]
pub(crate) struct Failure {
    /// docker's code for it.
    pub(crate) code: u8,
    /// Why; its chain is one line.
    pub(crate) error: Box<dyn std::error::Error>,
}

/// Does what argv says, program name included.
///
/// # Errors
/// If it could not be done and nothing was said about it yet.
pub(crate) fn run(argv: impl IntoIterator<Item = OsString>) -> Result<Outcome, Failure> {
    let fail =
        |rule: Rule| move |error: CliError| Failure { code: error.exit_code(rule), error: Box::new(error) };
    let line = match parse::parse(argv).map_err(fail(Rule::Other))? {
        Parsed::Command(line) => line,
        Parsed::Text(text) => {
            return swallow_reader_gone(output::print(&text).map(|()| Outcome::Code(0)))
                .map_err(fail(Rule::Other));
        }
    };
    let rule = match &line.verb {
        Verb::Run(_) => Rule::Run,
        Verb::Create(_) => Rule::Create,
        Verb::Start(_)
        | Verb::Stop(_)
        | Verb::Kill(_)
        | Verb::Restart(_)
        | Verb::Wait(_)
        | Verb::Rm(_)
        | Verb::Rename(_)
        | Verb::Ps(_)
        | Verb::Logs(_)
        | Verb::Inspect(_)
        | Verb::Top(_)
        | Verb::Import(_)
        | Verb::Images(_)
        | Verb::Rmi(_)
        | Verb::Load(_)
        | Verb::Save(_)
        | Verb::Pull(_)
        | Verb::Push(_)
        | Verb::Login(_)
        | Verb::Logout(_)
        | Verb::Tag(_)
        | Verb::History(_)
        | Verb::Image(_)
        | Verb::Volume(_)
        | Verb::System(_)
        | Verb::Container(_)
        | Verb::Commit(_)
        | Verb::Export(_)
        | Verb::Diff(_)
        | Verb::Info(_)
        | Verb::Version(_)
        | Verb::Doctor(_)
        | Verb::Shutdown(_) => Rule::Other,
    };
    swallow_reader_gone(dispatch(&line)).map_err(fail(rule))
}

/// Nobody reads our output any more: that is how `mysup ps | head -1` ends, and no failure.
fn swallow_reader_gone(result: Result<Outcome, CliError>) -> Result<Outcome, CliError> {
    match result {
        Err(CliError::ReaderGone) => Ok(Outcome::Code(0)),
        other => other,
    }
}

fn dispatch(line: &CommandLine) -> Result<Outcome, CliError> {
    let mut instance = Instance::from_args(&line.roots)?;
    if let Verb::Start(args) = &line.verb {
        instance.config.image_limits = system::image_limits(args)?;
    }
    let instance = &instance;
    let code = match &line.verb {
        Verb::Run(args) => run::run(instance, args)?,
        Verb::Create(args) => run::create(instance, args)?,
        Verb::Start(args) if args.foreground => {
            if let Some(container) = args.containers.first() {
                let verb = "mysup start --foreground".to_owned();
                return Err(CliError::ExtraArgument { argument: container.clone(), verb });
            }
            return Ok(Outcome::Serve(instance.config.clone()));
        }
        Verb::Start(args) if args.containers.is_empty() && args.replace => replace::replace(instance)?,
        Verb::Start(args) if args.containers.is_empty() => system::start(instance)?,
        Verb::Start(args) => run::start(instance, args)?,
        Verb::Stop(args) => targets::stop(instance, args)?,
        Verb::Kill(args) => targets::kill(instance, args)?,
        Verb::Restart(args) => targets::restart(instance, args)?,
        Verb::Wait(args) => targets::wait(instance, args)?,
        Verb::Rm(args) => targets::remove(instance, args)?,
        Verb::Rename(args) => targets::rename(instance, args)?,
        Verb::Ps(args) => ps::ps(instance, args)?,
        Verb::Logs(args) => logs::logs(instance, args)?,
        Verb::Inspect(args) => inspect::inspect(instance, args)?,
        Verb::Top(args) => top::top(instance, args)?,
        Verb::Import(args) => images::import(instance, args)?,
        Verb::Images(args) => images::images(instance, args)?,
        Verb::Rmi(args) => images::remove(instance, args)?,
        Verb::Load(args) => images::load(instance, args)?,
        Verb::Save(args) => images::save(instance, args)?,
        Verb::Pull(args) => registry::pull(instance, args)?,
        Verb::Push(args) => registry::push(instance, args)?,
        Verb::Login(args) => registry::login(args)?,
        Verb::Logout(args) => registry::logout(args)?,
        Verb::Tag(args) => images::tag(instance, args)?,
        Verb::History(args) => images::history(instance, args)?,
        Verb::Image(args) => images::image(instance, args)?,
        Verb::Volume(args) => volumes::volume(instance, args)?,
        Verb::System(args) => disk::system(instance, args)?,
        Verb::Container(args) => disk::container(instance, args)?,
        Verb::Commit(args) => commits::commit(instance, args)?,
        Verb::Export(args) => commits::export(instance, args)?,
        Verb::Diff(args) => commits::diff(instance, args)?,
        Verb::Info(args) => system::info(instance, args)?,
        Verb::Version(args) => system::version(instance, args)?,
        Verb::Doctor(args) => doctor::doctor(instance, args)?,
        Verb::Shutdown(args) => system::shutdown(instance, args)?,
    };
    Ok(Outcome::Code(code))
}
