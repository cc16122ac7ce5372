//! The verbs about images.

mod archives;
mod filter;
mod history;
mod inspect;
mod list;
mod upkeep;

use mysup_ipc::{
    api::{Request, Response},
    images::ImageResponse,
};

pub(crate) use self::{
    archives::{Place, import, load, save, write_out},
    history::history,
    list::images,
    upkeep::{remove, tag},
};
use super::{
    args::image::{ImageArgs, ImageVerb},
    client::{Client, Instance},
    error::CliError,
    registry,
};

/// `image VERB`.
///
/// # Errors
/// As the verb.
pub(crate) fn image(instance: &Instance, args: &ImageArgs) -> Result<u8, CliError> {
    match &args.verb {
        ImageVerb::Ls(args) => images(instance, args),
        ImageVerb::Import(args) => import(instance, args),
        ImageVerb::Load(args) => load(instance, args),
        ImageVerb::Save(args) => save(instance, args),
        ImageVerb::Pull(args) => registry::pull(instance, args),
        ImageVerb::Push(args) => registry::push(instance, args),
        ImageVerb::Tag(args) => tag(instance, args),
        ImageVerb::Rm(args) => remove(instance, args),
        ImageVerb::Inspect(args) => inspect::inspect(instance, args),
        ImageVerb::History(args) => history(instance, args),
        ImageVerb::Prune(args) => upkeep::prune(instance, args),
        ImageVerb::Verify(args) => upkeep::verify(instance, args),
    }
}

/// Asks something about images.
fn ask(client: &mut Client, request: &Request) -> Result<ImageResponse, CliError> {
    let Response::ImageAnswer(answer) = client.ask(request)? else { return Err(CliError::WrongAnswer) };
    Ok(answer)
}
