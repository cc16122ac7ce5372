//! `pull`, and what `run` and `create` pull.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use mysup_ipc::{
    api::{Request, Response},
    container::ImageSource,
    error::{ErrorCode, WireError},
    id::Digest,
    images::{ImageRequest, ImageResponse},
    registry::{FromRegistry, PullOrder, Pulled, ToRegistry, Trust},
};

use super::{program::Program, split, spool};
use crate::cli::{
    args::{container::ContainerArgs, registry::PullArgs},
    client::{Client, Instance},
    error::CliError,
    output,
    progress::{self, Screen, Style},
    resolve,
    values::Invalid,
};

/// So long a supervisor that dies while it unpacks is asked again: what was fetched is here.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// When `run` and `create` pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Each time.
    Always,
    /// What is not here.
    Missing,
    /// Not.
    Never,
}

/// What came.
struct Fetched {
    pulled: Pulled,
    /// Whether it was here before.
    is_old: bool,
}

/// What is to come.
struct Order<'o> {
    reference: &'o str,
    platform: Option<&'o str>,
    trust: Trust,
}

/// `pull`; prints docker's lines.
///
/// # Errors
/// If the registry or the supervisor refuses it. Nothing stays then.
pub(crate) fn pull(instance: &Instance, args: &PullArgs) -> Result<u8, CliError> {
    let (reference, platform) = (args.name.as_str(), args.platform.as_deref());
    let order = Order { reference, platform, trust: super::trust(&args.trust)? };
    let style = if args.quiet { Style::Nothing } else { Style::Steps };
    let Fetched { pulled, is_old } = fetch(instance, &order, style)?;
    if !args.quiet {
        let status = if is_old { "Image is up to date" } else { "Downloaded newer image" };
        output::print_line(&format!("Digest: {}", pulled.digest))?;
        output::print_line(&format!("Status: {status} for {}", args.name))?;
    }
    output::print_line(&pulled.name)?;
    Ok(0)
}

/// What `--pull` says.
///
/// # Errors
/// If it says something else.
pub(crate) fn policy(args: &ContainerArgs) -> Result<Policy, CliError> {
    match args.pull.as_str() {
        "always" => Ok(Policy::Always),
        "missing" => Ok(Policy::Missing),
        "never" => Ok(Policy::Never),
        other => {
            let reason = Invalid::new(format!(
                "invalid pull option \"{other}\": always, missing and never are allowed"
            ));
            Err(CliError::Flag { flag: "--pull", reason })
        }
    }
}

/// Pulls the image of a container that is going to be made.
///
/// # Errors
/// As [`pull`].
pub(crate) fn always(instance: &Instance, args: &ContainerArgs, verb: &'static str) -> Result<(), CliError> {
    match named(args, verb)? {
        Some(name) => fetch_for_run(instance, &name, None).map(drop),
        None => Ok(()),
    }
}

/// After a refusal: pulls the image if it was missing, and that was the reason.
///
/// # Errors
/// The refusal itself, if there was another reason; why it could not be pulled.
pub(crate) fn missing(
    instance: &Instance,
    args: &ContainerArgs,
    verb: &'static str,
    refusal: CliError,
) -> Result<(), CliError> {
    let CliError::Refused(WireError { code: ErrorCode::NotFound, .. }) = &refusal else {
        return Err(refusal);
    };
    let Some(name) = named(args, verb)? else { return Err(refusal) };
    let request = Request::Image(ImageRequest::Inspect { image: name.clone() });
    let asked = instance.connect()?.ask(&request);
    if !matches!(asked, Err(CliError::Refused(WireError { code: ErrorCode::NotFound, .. }))) {
        return Err(refusal);
    }
    let fetched = fetch_for_run(instance, &name, Some(&format!("Unable to find image '{name}' locally")));
    fetched.map(drop).map_err(|source| CliError::NotPulled { name, source: Box::new(source) })
}

/// The image's name, if it is no archive or directory.
fn named(args: &ContainerArgs, verb: &'static str) -> Result<Option<String>, CliError> {
    Ok(match resolve::resolve(args, verb)?.config.image {
        ImageSource::Named(name) => Some(name),
        ImageSource::Archive(_) | ImageSource::Directory(_) => None,
    })
}

/// What is said goes to stderr: stdout is the container's.
fn fetch_for_run(instance: &Instance, name: &str, before: Option<&str>) -> Result<Fetched, CliError> {
    let order = Order { reference: name, platform: None, trust: Trust::default() };
    let said = before.map(ToOwned::to_owned);
    fetch(instance, &order, Style::Aside(said))
}

/// Fetches an image and lets the supervisor unpack it.
fn fetch(instance: &Instance, order: &Order<'_>, style: Style) -> Result<Fetched, CliError> {
    let mut client = instance.connect()?;
    let mut screen = Screen::new(style);
    let (spool, fetched, present) = download(&mut client, instance, order, &mut screen, None)?;
    let names = vec![fetched.pulled.tag.clone().unwrap_or_else(|| fetched.pulled.name.clone())];
    let request = Request::Image(ImageRequest::Receive { names });
    match hand_over(client, instance, &request, &spool, &mut screen) {
        // Somebody may have removed what was here when we began; then everything must come.
        Err(CliError::Refused(WireError { code: ErrorCode::Invalid | ErrorCode::NotFound, .. }))
            if present > 0 =>
        {
            let mut client = instance.connect()?;
            let (spool, fetched, _) = download(&mut client, instance, order, &mut screen, Some(0))?;
            hand_over(client, instance, &request, &spool, &mut screen)?;
            Ok(fetched)
        }
        done => done.map(|()| fetched),
    }
}

/// From the registry into a file; with the number of layers that were here.
fn download(
    client: &mut Client,
    instance: &Instance,
    order: &Order<'_>,
    screen: &mut Screen,
    assumed: Option<u32>,
) -> Result<(std::fs::File, Fetched, u32), CliError> {
    let spool = spool::make(instance)?;
    let mut program = Program::start(order.reference)?;
    let pull = PullOrder {
        reference: order.reference.to_owned(),
        platform: order.platform.map(ToOwned::to_owned),
        trust: order.trust.clone(),
    };
    program.send(&ToRegistry::Pull(pull), &[spool.as_fd()])?;
    let FromRegistry::Layers(layers) = program.receive(screen)? else { return Err(CliError::WrongAnswer) };
    let (repository, tag) = split(order.reference);
    screen.head(&format!("{}: Pulling from {repository}", tag.unwrap_or("latest")));
    let known = known(client)?;
    let in_image =
        |(_, image): &(Digest, Vec<Digest>)| layers.iter().zip(image).take_while(|(a, b)| a == b).count();
    let here = known.iter().map(in_image).max().unwrap_or(0);
    let present = assumed.unwrap_or(u32::try_from(here).unwrap_or(0));
    program.send(&ToRegistry::Present(present), &[])?;
    let FromRegistry::Pulled(pulled) = program.receive(screen)? else { return Err(CliError::WrongAnswer) };
    let is_old = known.iter().any(|(id, _)| *id == pulled.image);
    Ok((spool, Fetched { pulled, is_old }, present))
}

/// The images that are here, with their layers, bottom first.
fn known(client: &mut Client) -> Result<Vec<(Digest, Vec<Digest>)>, CliError> {
    let asked = client.ask(&Request::Image(ImageRequest::List))?;
    let Response::ImageAnswer(ImageResponse::Images(all)) = asked else { return Err(CliError::WrongAnswer) };
    Ok(all.into_iter().map(|image| (image.info.id, image.info.layers)).collect())
}

/// To the supervisor, or to the next one if it dies over it: the same thing twice is once.
fn hand_over(
    mut client: Client,
    instance: &Instance,
    request: &Request,
    spool: &std::fs::File,
    screen: &mut Screen,
) -> Result<(), CliError> {
    let begun = Instant::now();
    loop {
        let answer = progress::while_told(screen, |told| {
            let descriptors: Vec<_> = [spool.as_fd()].into_iter().chain(told).collect();
            client.ask_with(request, &descriptors)
        });
        match answer {
            Err(CliError::NoAnswer | CliError::Connection { .. }) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(PAUSE);
                client = instance.connect()?;
            }
            Ok(Response::ImageAnswer(ImageResponse::Loaded(_))) => return Ok(()),
            Ok(_) => return Err(CliError::WrongAnswer),
            Err(error) => return Err(error),
        }
    }
}
