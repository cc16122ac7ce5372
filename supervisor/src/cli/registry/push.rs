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
    let others: Vec<String> = found.into_iter().flat_map(|image| image.info.names).collect();
    let order = PushOrder { reference: name.clone(), others, trust };
    let request = Request::Image(ImageRequest::Manifest { image: name.clone() });
    let manifest = match instance.connect()?.ask(&request) {
        Ok(Response::ImageAnswer(ImageResponse::Manifest(manifest))) => manifest,
        // An older supervisor keeps none.
        Ok(_) | Err(_) => None,
    };
    let mut screen = Screen::new(if args.quiet { Style::Nothing } else { Style::Steps });
    screen.head(&format!("The push refers to repository [{}]", split(&name).0));
    // Of what the registry has, nothing is made anew.
    if let Some(manifest) = manifest {
        let mut program = Program::start(&name)?;
        program.send(&ToRegistry::Bring { order: order.clone(), manifest }, &[])?;
        match program.receive(&mut screen)? {
            FromRegistry::Lacking => {}
            answer @ FromRegistry::Pushed { .. } => return report(args, &name, answer),
            FromRegistry::Layers(_)
            | FromRegistry::Progress(_)
            | FromRegistry::Pulled(_)
            | FromRegistry::Done(_)
            | FromRegistry::Failed(_)
            | FromRegistry::Unknown => return Err(CliError::WrongAnswer),
        }
    }
    let spool = spool::make(instance)?;
    let (format, compression) = (ArchiveFormat::Oci, ArchiveCompression::Gzip);
    let request = Request::Image(ImageRequest::Save { images: vec![name.clone()], format, compression });
    let saved = progress::while_told(&mut screen, |told| {
        let descriptors: Vec<_> = [spool.as_fd()].into_iter().chain(told).collect();
        client.ask_with(&request, &descriptors)
    })?;
    let Response::Done = saved else { return Err(CliError::WrongAnswer) };
    let mut program = Program::start(&name)?;
    program.send(&ToRegistry::Push(order), &[spool.as_fd()])?;
    let answer = program.receive(&mut screen)?;
    report(args, &name, answer)
}

fn report(args: &PushArgs, name: &str, answer: FromRegistry) -> Result<u8, CliError> {
    let FromRegistry::Pushed { name: whole, digest, size } = answer else {
        return Err(CliError::WrongAnswer);
    };
    if args.quiet {
        output::print_line(&whole)?;
    } else {
        let tag = split(name).1.unwrap_or("latest");
        output::print_line(&format!("{tag}: digest: {digest} size: {size}"))?;
    }
    Ok(0)
}
