//! `system prune` and `container prune`: what would go is said first, and only that goes.

use mysup_ipc::{
    api::{Request, Response},
    container::{ContainerInfo, ContainerState},
    images::{ImageRequest, ImageResponse},
    storage::{StorageRequest, StorageResponse},
};

use crate::cli::{
    args::storage::{PruneContainersArgs, PruneSystemArgs},
    client::{Client, Instance},
    confirm, describe,
    error::CliError,
    output,
    volumes::{
        self,
        filter::Prunes,
        prune::{remove_unused, unused},
    },
};

/// `container prune`.
///
/// # Errors
/// If a flag makes no sense, nobody can be asked, or the supervisor cannot be reached.
pub(super) fn containers(instance: &Instance, args: &PruneContainersArgs) -> Result<u8, CliError> {
    let filters = Prunes::parse(&args.filters, describe::now())?;
    let mut client = instance.connect()?;
    let idle = idle(&mut client, &filters)?;
    let what = format!("This will remove all stopped containers{}", confirm::listed(&labels(&idle)));
    if !args.force && !confirm::is_wanted(&what)? {
        return Ok(0);
    }
    let bytes = remove(&mut client, &idle)?;
    output::print_line(&format!("Total reclaimed space: {}", describe::size(bytes)))?;
    Ok(0)
}

/// `system prune`.
///
/// # Errors
/// As [`containers`], and if volumes must not be removed since a record cannot be read.
pub(super) fn system(instance: &Instance, args: &PruneSystemArgs) -> Result<u8, CliError> {
    let filters = Prunes::parse(&args.filters, describe::now())?;
    let mut client = instance.connect()?;
    let idle = idle(&mut client, &filters)?;
    let names = match args.volumes {
        true => unused(&volumes::all(&mut client)?, false, &filters, &idle),
        false => Vec::new(),
    };
    let mut what =
        format!("This will remove:\n  - all stopped containers{}", confirm::listed(&labels(&idle)));
    if args.volumes {
        what.push_str("\n  - all anonymous volumes not used by at least one container");
        what.push_str(&confirm::listed(&names));
    }
    what.push_str(match args.all {
        true => "\n  - all images without at least one container associated to them",
        false => "\n  - all dangling images",
    });
    if !args.force && !confirm::is_wanted(&what)? {
        return Ok(0);
    }
    let mut bytes = remove(&mut client, &idle)?;
    if args.volumes {
        let (gone, freed) = remove_unused(&mut client, names)?;
        print_removed("Deleted Volumes", &gone)?;
        bytes += freed;
    }
    let answer = client.ask(&Request::Image(ImageRequest::Prune { all: args.all }))?;
    let Response::ImageAnswer(ImageResponse::Pruned(lines, freed)) = answer else {
        return Err(CliError::WrongAnswer);
    };
    print_removed("Deleted Images", &lines)?;
    output::print_line(&format!("Total reclaimed space: {}", describe::size(bytes + freed)))?;
    Ok(0)
}

fn print_removed(title: &str, lines: &[String]) -> Result<(), CliError> {
    if lines.is_empty() {
        return Ok(());
    }
    output::print(&format!("{title}:\n{}\n\n", lines.join("\n")))
}

/// Containers that have ended, or were never started.
fn idle(client: &mut Client, filters: &Prunes) -> Result<Vec<ContainerInfo>, CliError> {
    let Response::Containers(all) = client.ask(&Request::List)? else { return Err(CliError::WrongAnswer) };
    let is_idle = |info: &ContainerInfo| {
        let labels = info.config.as_ref().map_or(&[][..], |config| &config.labels);
        matches!(info.state, ContainerState::Created | ContainerState::Exited)
            && filters.take(labels, info.created_at)
    };
    Ok(all.into_iter().filter(is_idle).collect())
}

fn labels(containers: &[ContainerInfo]) -> Vec<String> {
    let label = |info: &ContainerInfo| {
        let name = info.name.as_ref().map_or("", |name| name.as_str());
        format!("{} ({name})", info.id.short())
    };
    containers.iter().map(label).collect()
}

/// Removes them one after the other; one that was started meanwhile stays. The bytes that they had.
fn remove(client: &mut Client, containers: &[ContainerInfo]) -> Result<u64, CliError> {
    if containers.is_empty() {
        return Ok(0);
    }
    let answer = volumes::ask(client, StorageRequest::DiskUsage)?;
    let StorageResponse::DiskUsage(usage) = answer else { return Err(CliError::WrongAnswer) };
    let (mut gone, mut bytes) = (Vec::new(), 0);
    for info in containers {
        let request =
            Request::Remove { container: info.id.as_str().to_owned(), force: false, volumes: false };
        match client.demand(&request) {
            Ok(()) => {
                gone.push(info.id.as_str().to_owned());
                let size = usage.containers.iter().find(|one| one.id == info.id);
                bytes += size.map_or(0, |one| one.size);
            }
            Err(error @ CliError::Refused(_)) => output::complain_of(&error),
            Err(error) => return Err(error),
        }
    }
    print_removed("Deleted Containers", &gone)?;
    Ok(bytes)
}
