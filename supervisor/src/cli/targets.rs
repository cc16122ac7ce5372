//! Verbs that do one thing to many containers: each name is printed as typed when it was done, an error ends none of
//! the others, and the exit code is 1 if there was one.

use std::sync::atomic::{AtomicBool, Ordering};

use mysup_ipc::{
    api::{Request, Response},
    error::{ErrorCode, WireError},
    exit::ExitStatus,
};

use super::{
    args::{KillArgs, RemoveArgs, RenameArgs, RestartArgs, StopArgs, TargetArgs},
    client::{Client, Instance},
    error::CliError,
    output,
    values::{Invalid, number, signal},
};

/// How many are under way at once; docker's number.
const AT_ONCE: usize = 50;

/// `stop`.
///
/// # Errors
/// If a flag is wrong or the supervisor cannot be reached.
pub(crate) fn stop(instance: &Instance, args: &StopArgs) -> Result<u8, CliError> {
    let timeout = seconds(args.timeout.as_deref())?;
    let signal = args.signal.as_deref().map(signal::parse).transpose().map_err(for_flag("--signal"))?;
    each(instance, &args.containers, |container| Request::Stop {
        container: container.to_owned(),
        signal,
        timeout,
    })
}

/// `restart`.
///
/// # Errors
/// As [`stop`].
pub(crate) fn restart(instance: &Instance, args: &RestartArgs) -> Result<u8, CliError> {
    let timeout = seconds(args.timeout.as_deref())?;
    each(instance, &args.containers, |container| Request::Restart {
        container: container.to_owned(),
        timeout,
    })
}

/// `kill`.
///
/// # Errors
/// As [`stop`].
pub(crate) fn kill(instance: &Instance, args: &KillArgs) -> Result<u8, CliError> {
    let signal = signal::parse(&args.signal).map_err(for_flag("--signal"))?;
    each(instance, &args.containers, |container| Request::Kill { container: container.to_owned(), signal })
}

/// `rm`. With `-f`, one that does not exist is no error.
///
/// # Errors
/// As [`stop`].
pub(crate) fn remove(instance: &Instance, args: &RemoveArgs) -> Result<u8, CliError> {
    let request = |container: &str| Request::Remove {
        container: container.to_owned(),
        force: args.force,
        volumes: args.volumes,
    };
    ask_each(instance, &args.containers, request, |container, answer| match answer {
        Err(CliError::Refused(error @ WireError { code: ErrorCode::NotFound, .. })) if args.force => {
            output::complain(&error.to_string());
            Ok(())
        }
        answer => print_name(container, answer?),
    })
}

/// `wait`: one code on each line.
///
/// # Errors
/// As [`stop`].
pub(crate) fn wait(instance: &Instance, args: &TargetArgs) -> Result<u8, CliError> {
    let request = |container: &str| Request::Wait { container: container.to_owned() };
    let unknown = AtomicBool::new(false);
    let code = ask_each(instance, &args.containers, request, |container, answer| {
        let Response::Exited { status, error } = answer? else { return Err(CliError::WrongAnswer) };
        if status == ExitStatus::Unknown {
            let reason = if error.is_empty() { String::new() } else { format!(": {error}") };
            output::complain(&format!("the exit status of container {container} is not known{reason}"));
            unknown.store(true, Ordering::Relaxed);
        } else if !error.is_empty() {
            // It could not be started: the code says so, and this why.
            output::complain(&error);
        }
        output::print_line(&status.shell_code().to_string())
    })?;
    Ok(if unknown.into_inner() { ExitStatus::Unknown.shell_code() } else { code })
}

/// `rename`; prints nothing.
///
/// # Errors
/// If it was refused.
pub(crate) fn rename(instance: &Instance, args: &RenameArgs) -> Result<u8, CliError> {
    let request = Request::Rename { container: args.container.clone(), name: args.name.clone() };
    instance.connect()?.demand(&request)?;
    Ok(0)
}

/// Asks for each container and prints its name when it was done.
///
/// # Errors
/// If the supervisor cannot be reached.
pub(crate) fn each(
    instance: &Instance,
    containers: &[String],
    request: impl Fn(&str) -> Request,
) -> Result<u8, CliError> {
    ask_each(instance, containers, request, |container, answer| print_name(container, answer?))
}

fn print_name(container: &str, answer: Response) -> Result<(), CliError> {
    if let Response::Created { warnings, .. } = answer {
        for warning in warnings {
            output::complain(&format!("warning: {warning}"));
        }
    } else if answer != Response::Done {
        return Err(CliError::WrongAnswer);
    }
    output::print_line(container)
}

/// Asks for many at once, one connection each, and hears the answers in the order of the names.
fn ask_each(
    instance: &Instance,
    containers: &[String],
    request: impl Fn(&str) -> Request,
    mut answered: impl FnMut(&str, Result<Response, CliError>) -> Result<(), CliError>,
) -> Result<u8, CliError> {
    let mut code = 0;
    for some in containers.chunks(AT_ONCE) {
        let mut open: Vec<(&String, Result<Client, CliError>)> = Vec::with_capacity(some.len());
        for container in some {
            let mut client = instance.connect()?;
            let sent = client.send(&request(container), &[]);
            open.push((container, sent.map(|()| client)));
        }
        for (container, client) in open {
            let answer = match client.and_then(|mut client| client.receive()) {
                Err(CliError::Unread) => {
                    instance.connect().and_then(|mut next| next.ask_with(&request(container), &[]))
                }
                answer => answer,
            };
            match answered(container, answer) {
                Ok(()) => {}
                Err(error @ CliError::ReaderGone) => return Err(error),
                Err(error) => {
                    output::complain_of(&error);
                    code = 1;
                }
            }
        }
    }
    Ok(code)
}

fn seconds(text: Option<&str>) -> Result<Option<i64>, CliError> {
    let wrong = |reason: Invalid| CliError::FlagSyntax {
        flag: "--timeout".to_owned(),
        given: text.unwrap_or_default().to_owned(),
        reason: reason.to_string(),
    };
    text.map(number::seconds).transpose().map_err(wrong)
}

fn for_flag(flag: &'static str) -> impl Fn(Invalid) -> CliError {
    move |reason| CliError::Flag { flag, reason }
}
