//! `volume prune`.

use mysup_ipc::{
    container::ContainerInfo,
    storage::{StorageRequest, StorageResponse, VolumeInfo, VolumeUser},
};

use super::{all, ask, filter::Prunes};
use crate::cli::{
    args::storage::PruneVolumesArgs,
    client::{Client, Instance},
    confirm, describe,
    error::CliError,
    output,
};

/// Removes volumes that no container has: those without a name, or all.
///
/// # Errors
/// If a flag makes no sense, nobody can be asked, or it was refused.
pub(super) fn prune(instance: &Instance, args: &PruneVolumesArgs) -> Result<u8, CliError> {
    let filters = Prunes::parse(&args.filters, describe::now())?;
    let mut client = instance.connect()?;
    let names = unused(&all(&mut client)?, args.all, &filters, &[]);
    let what = match args.all {
        true => "all local volumes not used by at least one container",
        false => "anonymous local volumes not used by at least one container",
    };
    if !args.force && !confirm::is_wanted(&format!("This will remove {what}{}", confirm::listed(&names)))? {
        return Ok(0);
    }
    let (gone, bytes) = remove_unused(&mut client, names)?;
    if !gone.is_empty() {
        output::print(&format!("Deleted Volumes:\n{}\n\n", gone.join("\n")))?;
    }
    output::print_line(&format!("Total reclaimed space: {}", describe::size(bytes)))?;
    Ok(0)
}

/// The names of those that may go once these containers are gone. One whose record is damaged stays.
pub(crate) fn unused(
    volumes: &[VolumeInfo],
    named_too: bool,
    filters: &Prunes,
    gone: &[ContainerInfo],
) -> Vec<String> {
    let is_gone = |user: &VolumeUser| gone.iter().any(|container| container.id == user.id);
    let may_go = |volume: &&VolumeInfo| {
        volume.users.iter().all(is_gone)
            && volume.damage.is_none()
            && (named_too || volume.anonymous)
            && filters.take(&volume.labels, volume.created_at)
    };
    volumes.iter().filter(may_go).map(|volume| volume.name.to_string()).collect()
}

/// Removes them, as far as still nobody has them: what is gone, and the bytes that it had.
///
/// # Errors
/// If it was refused: a record of a container cannot be read.
pub(crate) fn remove_unused(client: &mut Client, names: Vec<String>) -> Result<(Vec<String>, u64), CliError> {
    if names.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let answer = ask(client, StorageRequest::PruneVolumes { volumes: names })?;
    let StorageResponse::Pruned(gone, bytes) = answer else { return Err(CliError::WrongAnswer) };
    Ok((gone, bytes))
}
