//! `system df`, `system prune` and `container prune`: what uses the disk, and what of it nobody needs.

mod df;
mod prune;

use super::{
    args::storage::{ContainersArgs, ContainersVerb, SystemArgs, SystemVerb},
    client::Instance,
    error::CliError,
};

/// `system VERB`.
///
/// # Errors
/// As the verb.
pub(crate) fn system(instance: &Instance, args: &SystemArgs) -> Result<u8, CliError> {
    match &args.verb {
        SystemVerb::Df(args) => df::usage(instance, args),
        SystemVerb::Prune(args) => prune::system(instance, args),
    }
}

/// `container VERB`.
///
/// # Errors
/// As the verb.
pub(crate) fn container(instance: &Instance, args: &ContainersArgs) -> Result<u8, CliError> {
    match &args.verb {
        ContainersVerb::Prune(args) => prune::containers(instance, args),
    }
}
