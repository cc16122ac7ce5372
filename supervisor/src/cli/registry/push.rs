//! `push`.

use std::os::fd::AsFd;

use mysup_ipc::{
    api::{Request, Response},
    images::{ArchiveCompression, ArchiveFormat, ImageRequest, ImageResponse},
    registry::{FromRegistry, PushOrder, ToRegistry},
};

use super::{program::Program, split, spool};
use crate::cli::{
    args::registry::PushArgs,
    client::Instance,
    error::CliError,
    output,
    progress::{self, Screen, Style},
};

/// `push`; prints docker's lines.
///
/// # Errors
/// If there is no such image, or the registry refuses it. The blobs that it has taken until then stay there.
pub(crate) fn push(instance: &Instance, args: &PushArgs) -> Result<u8, CliError> {
    let trust = super::trust(&args.trust)?;
    // docker pushes one tag, too.
    let name = match split(&args.name) {
        (repository, None) => format!("{repository}:latest"),
        _ => args.name.clone(),
    };
    let mut client = instance.connect()?;
    let asked = client.ask(&Request::Image(ImageRequest::Inspect { image: name.clone() }))?;
    let Response::ImageAnswer(ImageResponse::Images(found)) = asked else {
        return Err(CliError::WrongAnswer);
    };
    let others = found.into_iter().flat_map(|image| image.info.names).collect();
    let mut screen = Screen::new(if args.quiet { Style::Nothing } else { Style::Steps });
    screen.head(&format!("The push refers to repository [{}]", split(&name).0));
    let spool = spool::make(instance)?;
    let (format, compression) = (ArchiveFormat::Oci, ArchiveCompression::Gzip);
    let request = Request::Image(ImageRequest::Save { images: vec![name.clone()], format, compression });
    let saved = progress::while_told(&mut screen, |told| {
        let descriptors: Vec<_> = [spool.as_fd()].into_iter().chain(told).collect();
        client.ask_with(&request, &descriptors)
    })?;
    let Response::Done = saved else { return Err(CliError::WrongAnswer) };
    let mut program = Program::start(&name)?;
    program
        .send(&ToRegistry::Push(PushOrder { reference: name.clone(), others, trust }), &[spool.as_fd()])?;
    let FromRegistry::Pushed { name: whole, digest, size } = program.receive(&mut screen)? else {
        return Err(CliError::WrongAnswer);
    };
    if args.quiet {
        output::print_line(&whole)?;
    } else {
        let tag = split(&name).1.unwrap_or("latest");
        output::print_line(&format!("{tag}: digest: {digest} size: {size}"))?;
    }
    Ok(0)
}
