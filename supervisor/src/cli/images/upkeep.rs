//! `tag`, `rmi`, `image prune`, `image verify`.

use mysup_ipc::{
    api::{Request, Response},
    images::{ImageRequest, ImageResponse},
};

use super::ask;
use crate::cli::{
    args::image::{PruneArgs, RemoveImageArgs, TagArgs, VerifyArgs},
    client::Instance,
    confirm, describe,
    error::CliError,
    output,
};

/// `tag`.
///
/// # Errors
/// If the image is not there or the name is none.
pub(crate) fn tag(instance: &Instance, args: &TagArgs) -> Result<u8, CliError> {
    let request = ImageRequest::Tag { image: args.image.clone(), name: args.name.clone() };
    instance.connect()?.demand(&Request::Image(request))?;
    Ok(0)
}

/// `rmi`; errors are printed as they come.
///
/// # Errors
/// If the supervisor cannot be reached.
pub(crate) fn remove(instance: &Instance, args: &RemoveImageArgs) -> Result<u8, CliError> {
    let mut client = instance.connect()?;
    let mut code = 0;
    for image in &args.images {
        let request = Request::RemoveImage { image: image.clone(), force: args.force };
        match client.ask(&request) {
            Ok(Response::Removed(lines)) => {
                for line in lines {
                    output::print_line(&line)?;
                }
            }
            Ok(_) => return Err(CliError::WrongAnswer),
            Err(error @ CliError::Refused(_)) => {
                output::complain_of(&error);
                code = 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(code)
}

/// `image prune`; asks first.
///
/// # Errors
/// If nobody can be asked, the supervisor cannot be reached or the file system fails.
pub(crate) fn prune(instance: &Instance, args: &PruneArgs) -> Result<u8, CliError> {
    if !args.force && !confirm::is_wanted(what(args.all))? {
        return Ok(0);
    }
    let request = Request::Image(ImageRequest::Prune { all: args.all });
    let ImageResponse::Pruned(lines, reclaimed) = ask(&mut instance.connect()?, &request)? else {
        return Err(CliError::WrongAnswer);
    };
    if !lines.is_empty() {
        output::print(&format!("Deleted Images:\n{}\n\n", lines.join("\n")))?;
    }
    output::print_line(&format!("Total reclaimed space: {}", describe::size(reclaimed)))?;
    Ok(0)
}

fn what(all: bool) -> &'static str {
    match all {
        true => "This will remove all images without at least one container associated to them.",
        false => "This will remove all dangling images.",
    }
}

/// `image verify`; the code is 1 if any image is not what it was.
///
/// # Errors
/// If an image is not there.
pub(crate) fn verify(instance: &Instance, args: &VerifyArgs) -> Result<u8, CliError> {
    let request = Request::Image(ImageRequest::Verify { images: args.images.clone() });
    let ImageResponse::Verified(verdicts) = ask(&mut instance.connect()?, &request)? else {
        return Err(CliError::WrongAnswer);
    };
    let mut code = 0;
    for (image, faults) in &verdicts {
        let name = image.names.first().map_or(image.id.as_str(), String::as_str);
        match faults.as_slice() {
            [] if args.quiet => {}
            [] => output::print_line(&format!("{name}: whole"))?,
            faults => {
                code = 1;
                for fault in faults {
                    output::print_line(&format!("{name}: damaged: {fault}"))?;
                }
            }
        }
    }
    Ok(code)
}
