//! `commit`, `export`, `diff`: what a container has changed. The supervisor reads it and writes; the client gives it the
//! descriptor.

use mysup_ipc::{
    api::{Request, Response},
    commits::CommitRequest,
};

use super::{
    args::commit::{CommitArgs, DiffArgs, ExportArgs},
    client::Instance,
    error::CliError,
    images::{Place, write_out},
    output,
    progress::{self, Screen, Style},
    values::Invalid,
};

/// `commit`; prints the image's id.
///
/// # Errors
/// If the container is not there or cannot be paused, or its changes cannot be in an image.
pub(crate) fn commit(instance: &Instance, args: &CommitArgs) -> Result<u8, CliError> {
    let pause = args.pause && !args.no_pause;
    let container = args.container.clone();
    let mut screen = Screen::new(if args.quiet { Style::Nothing } else { Style::Seldom });
    if let Some(output) = &args.output {
        let is_image = args.name.is_some()
            || !args.changes.is_empty()
            || !args.author.is_empty()
            || !args.message.is_empty();
        if is_image {
            let reason = "a tar has no name, author, message or changes: leave them out, or -o";
            return Err(CliError::Flag { flag: "--output", reason: Invalid::new(reason) });
        }
        let request = Request::Commit(CommitRequest::Export { container, pause });
        return write_out(instance, &request, output, Place::NoTerminal, &mut screen);
    }
    let request = Request::Commit(CommitRequest::Commit {
        container,
        name: args.name.clone(),
        author: args.author.clone(),
        message: args.message.clone(),
        changes: args.changes.clone(),
        pause,
    });
    let mut client = instance.connect()?;
    let answer = progress::while_told(&mut screen, |told| {
        client.send(&request, &told.into_iter().collect::<Vec<_>>())?;
        client.receive()
    })?;
    let Response::Image(image) = answer else { return Err(CliError::WrongAnswer) };
    output::print_line(image.id.as_str())?;
    Ok(0)
}

/// `export`. A file is there when it is whole, or not at all.
///
/// # Errors
/// If the container is not there, or the output cannot be written.
pub(crate) fn export(instance: &Instance, args: &ExportArgs) -> Result<u8, CliError> {
    let request = CommitRequest::Export { container: args.container.clone(), pause: false };
    write_out(instance, &Request::Commit(request), &args.output, Place::NoTerminal, &mut silent())
}

/// `diff`; prints a line for each changed file.
///
/// # Errors
/// If the container is not there.
pub(crate) fn diff(instance: &Instance, args: &DiffArgs) -> Result<u8, CliError> {
    let request = CommitRequest::Diff { container: args.container.clone() };
    write_out(instance, &Request::Commit(request), "-", Place::Any, &mut silent())
}

/// docker's say nothing either.
fn silent() -> Screen {
    Screen::new(Style::Nothing)
}
