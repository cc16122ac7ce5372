//! `system df`. Sizes are those of disk blocks; a layer that several images have counts once.

use mysup_ipc::{
    api::{Request, Response},
    container::ContainerInfo,
    storage::{ContainerUsage, DiskUsage, StorageRequest, StorageResponse, VolumeInfo},
};
use serde_json::{Value, json};

use crate::cli::{
    args::storage::DiskUsageArgs, client::Instance, describe, error::CliError, output, ps, table::Listing,
    volumes,
};

const SUMMARY: Listing = Listing {
    columns: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    heads: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
};
const IMAGES: Listing = Listing {
    columns: "{{.Repository}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    heads: &[
        ("Repository", "IMAGE"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ],
};
const CONTAINERS: Listing = Listing {
    columns: "{{.ID}}\t{{.Image}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    heads: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Size", "SIZE"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Names", "NAMES"),
    ],
};
const VOLUMES: Listing = Listing {
    columns: "{{.Name}}\t{{.Links}}\t{{.Size}}",
    heads: &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")],
};

/// One line of the summary.
struct Line {
    kind: &'static str,
    count: usize,
    active: usize,
    size: u64,
    reclaimable: u64,
}

/// Prints it.
///
/// # Errors
/// If the format makes no sense or the supervisor cannot be reached.
pub(super) fn usage(instance: &Instance, args: &DiskUsageArgs) -> Result<u8, CliError> {
    let mut client = instance.connect()?;
    let Response::Containers(containers) = client.ask(&Request::List)? else {
        return Err(CliError::WrongAnswer);
    };
    let answer = volumes::ask(&mut client, StorageRequest::DiskUsage)?;
    let StorageResponse::DiskUsage(usage) = answer else { return Err(CliError::WrongAnswer) };
    if args.verbose {
        details(&usage, &containers)?;
        return Ok(0);
    }
    let rows: Vec<Value> = lines(&usage, &containers).iter().map(Line::row).collect();
    SUMMARY.print(&rows, args.format.as_deref())?;
    Ok(0)
}

fn lines(usage: &DiskUsage, containers: &[ContainerInfo]) -> [Line; 3] {
    let runs =
        |one: &ContainerUsage| containers.iter().any(|info| info.id == one.id && info.state.is_running());
    let (active, idle): (Vec<_>, Vec<_>) = usage.containers.iter().partition(|one| runs(one));
    let sum = |some: &[&ContainerUsage]| some.iter().map(|one| one.size).sum::<u64>();
    let size = |volume: &VolumeInfo| volume.size.unwrap_or(0);
    let unused = || usage.volumes.iter().filter(|volume| volume.users.is_empty());
    [
        Line {
            kind: "Images",
            count: usage.images.len(),
            active: usage.images.iter().filter(|image| image.containers > 0).count(),
            size: usage.layers,
            reclaimable: usage.layers.saturating_sub(usage.layers_in_use),
        },
        Line {
            kind: "Containers",
            count: usage.containers.len(),
            active: active.len(),
            size: sum(&active) + sum(&idle),
            reclaimable: sum(&idle),
        },
        Line {
            kind: "Local Volumes",
            count: usage.volumes.len(),
            active: usage.volumes.len() - unused().count(),
            size: usage.volumes.iter().map(size).sum(),
            reclaimable: unused().map(size).sum(),
        },
    ]
}

impl Line {
    fn row(&self) -> Value {
        let percent = match self.size {
            0 => String::new(),
            size => format!(" ({}%)", u128::from(self.reclaimable) * 100 / u128::from(size)),
        };
        json!({
            "Type": self.kind,
            "TotalCount": self.count.to_string(),
            "Active": self.active.to_string(),
            "Size": describe::size(self.size),
            "Reclaimable": format!("{}{percent}", describe::size(self.reclaimable)),
        })
    }
}

fn details(usage: &DiskUsage, containers: &[ContainerInfo]) -> Result<(), CliError> {
    let now = describe::now();
    let images: Vec<Value> = usage
        .images
        .iter()
        .map(|image| {
            json!({
                "Repository": image.info.names.first().map_or("<none>", String::as_str),
                "ID": image.info.id.short(),
                "CreatedSince": describe::ago(image.info.created_at, now),
                "Size": describe::size(image.size),
                "SharedSize": describe::size(image.shared),
                "UniqueSize": describe::size(image.size.saturating_sub(image.shared)),
                "Containers": image.containers.to_string(),
            })
        })
        .collect();
    let size = |info: &ContainerInfo| {
        usage.containers.iter().find(|one| one.id == info.id).map_or(0, |one| one.size)
    };
    let containers: Vec<Value> = containers.iter().map(|info| ps::sized_row(info, now, size(info))).collect();
    let volumes: Vec<Value> = usage
        .volumes
        .iter()
        .map(|volume| {
            json!({
                "Name": volume.name.as_str(),
                "Links": volume.users.len().to_string(),
                "Size": describe::size(volume.size.unwrap_or(0)),
            })
        })
        .collect();
    for (title, listing, rows) in [
        ("Images space usage", IMAGES, images),
        ("Containers space usage", CONTAINERS, containers),
        ("Local Volumes space usage", VOLUMES, volumes),
    ] {
        output::print(&format!("{title}:\n\n"))?;
        listing.print(&rows, None)?;
        output::print("\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mysup_ipc::container::ContainerState;

    use super::*;
    use crate::cli::ps::tests::sample;

    #[test]
    fn what_is_not_in_use_is_reclaimable() {
        let containers = [
            sample('a', "up", ContainerState::Running { pid: 1, since: 0 }),
            sample('b', "down", ContainerState::Exited),
        ];
        let volume = |size| VolumeInfo {
            name: "data".parse().expect("a name"),
            created_at: 0,
            labels: vec![],
            anonymous: false,
            mountpoint: String::new(),
            users: vec![],
            damage: None,
            size: Some(size),
        };
        let usage = DiskUsage {
            layers: 1000,
            layers_in_use: 250,
            images: vec![],
            containers: containers
                .iter()
                .map(|info| ContainerUsage { id: info.id.clone(), size: 10 })
                .collect(),
            volumes: vec![volume(7), volume(5)],
        };
        let shown: Vec<String> = lines(&usage, &containers)
            .iter()
            .map(|line| {
                let row = line.row();
                format!(
                    "{} {} {} {} {}",
                    row["Type"], row["TotalCount"], row["Active"], row["Size"], row["Reclaimable"]
                )
                .replace('"', "")
            })
            .collect();
        assert_eq!(
            shown,
            ["Images 0 0 1kB 750B (75%)", "Containers 2 1 20B 10B (50%)", "Local Volumes 2 0 12B 12B (100%)"]
        );
    }
}
