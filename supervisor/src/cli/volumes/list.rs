//! `volume ls`.

use mysup_ipc::storage::VolumeInfo;
use serde_json::{Value, json};

use super::{all, filter::Filters};
use crate::cli::{args::storage::ListVolumesArgs, client::Instance, error::CliError, output, table::Listing};

const LISTING: Listing = Listing {
    columns: "{{.Driver}}\t{{.Name}}",
    heads: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Scope", "SCOPE"),
        ("Size", "SIZE"),
        ("Anonymous", "ANONYMOUS"),
        ("Error", "ERROR"),
    ],
};

/// Prints the list.
///
/// # Errors
/// If a flag makes no sense or the supervisor cannot be reached.
pub(super) fn list(instance: &Instance, args: &ListVolumesArgs) -> Result<u8, CliError> {
    let filters = Filters::parse(&args.filters)?;
    let volumes = all(&mut instance.connect()?)?;
    let chosen = volumes.iter().filter(|volume| filters.take(volume));
    if args.quiet && args.format.is_none() {
        for volume in chosen {
            output::print_line(volume.name.as_str())?;
        }
        return Ok(0);
    }
    let rows: Vec<Value> = chosen.map(row).collect();
    LISTING.print(&rows, args.format.as_deref())?;
    Ok(0)
}

fn row(volume: &VolumeInfo) -> Value {
    let labels: Vec<String> = volume.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "Driver": "local",
        "Name": volume.name.as_str(),
        "Labels": labels.join(","),
        "Links": volume.users.len().to_string(),
        "Mountpoint": volume.mountpoint,
        "Scope": "local",
        "Size": "N/A",
        "Anonymous": volume.anonymous,
        "Error": volume.damage.as_deref().unwrap_or_default(),
    })
}
