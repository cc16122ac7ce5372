//! The verbs about volumes.

pub(crate) mod filter;
mod list;
pub(crate) mod prune;

use mysup_ipc::{
    api::{Request, Response},
    error::{ErrorCode, WireError},
    storage::{StorageRequest, StorageResponse, VolumeInfo},
};
use serde_json::{Map, Value, json};

use super::{
    args::storage::{CreateVolumeArgs, InspectVolumeArgs, RemoveVolumesArgs, VolumeArgs, VolumeVerb},
    client::{Client, Instance},
    describe,
    error::CliError,
    inspect::Shape,
    output,
    values::{Invalid, word},
};

/// `volume VERB`.
///
/// # Errors
/// As the verb.
pub(crate) fn volume(instance: &Instance, args: &VolumeArgs) -> Result<u8, CliError> {
    match &args.verb {
        VolumeVerb::Create(args) => create(instance, args),
        VolumeVerb::Ls(args) => list::list(instance, args),
        VolumeVerb::Inspect(args) => inspect(instance, args),
        VolumeVerb::Rm(args) => remove(instance, args),
        VolumeVerb::Prune(args) => prune::prune(instance, args),
    }
}

/// Asks something about volumes or the disk.
pub(crate) fn ask(client: &mut Client, request: StorageRequest) -> Result<StorageResponse, CliError> {
    let Response::StorageAnswer(answer) = client.ask(&Request::Storage(request))? else {
        return Err(CliError::WrongAnswer);
    };
    Ok(answer)
}

/// All volumes, by name.
pub(crate) fn all(client: &mut Client) -> Result<Vec<VolumeInfo>, CliError> {
    volumes(ask(client, StorageRequest::ListVolumes)?)
}

fn volumes(answer: StorageResponse) -> Result<Vec<VolumeInfo>, CliError> {
    let StorageResponse::Volumes(volumes) = answer else { return Err(CliError::WrongAnswer) };
    Ok(volumes)
}

/// Prints the name, also of a volume that was there.
fn create(instance: &Instance, args: &CreateVolumeArgs) -> Result<u8, CliError> {
    let flag = |flag: &'static str| move |reason: Invalid| CliError::Flag { flag, reason };
    if args.driver != "local" {
        let reason = format!("volume driver \"{}\" does not exist: only local is there", args.driver);
        return Err(flag("--driver")(Invalid::new(reason)));
    }
    let labels = args.labels.iter().map(|label| word::label(label)).collect::<Result<_, _>>();
    let labels = labels.map_err(flag("--label"))?;
    let request = StorageRequest::CreateVolume { name: args.name.clone(), labels };
    for made in volumes(ask(&mut instance.connect()?, request)?)? {
        output::print_line(made.name.as_str())?;
    }
    Ok(0)
}

/// Prints an array of what was found, or a template's text for each.
fn inspect(instance: &Instance, args: &InspectVolumeArgs) -> Result<u8, CliError> {
    let shape = Shape::parse(args.format.as_deref())?;
    let mut client = instance.connect()?;
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for volume in &args.volumes {
        match ask(&mut client, StorageRequest::InspectVolume { volume: volume.clone() }) {
            Ok(answer) => found.extend(volumes(answer)?.iter().map(document)),
            Err(error @ CliError::Refused(_)) => errors.push(error),
            Err(error) => return Err(error),
        }
    }
    shape.print(found, &errors)
}

fn document(volume: &VolumeInfo) -> Value {
    let labels: Map<String, Value> =
        volume.labels.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    let created = volume.damage.is_none().then_some(volume.created_at);
    let users: Vec<Value> =
        volume.users.iter().map(|user| json!({"Id": user.id.as_str(), "Name": user.name})).collect();
    json!({
        "CreatedAt": describe::timestamp(created),
        "Driver": "local",
        "Labels": labels,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name.as_str(),
        "Options": null,
        "Scope": "local",
        "Anonymous": volume.anonymous,
        "UsedBy": users,
        "Error": volume.damage.as_deref().unwrap_or_default(),
    })
}

/// Each name is printed when it is gone; errors are printed as they come.
fn remove(instance: &Instance, args: &RemoveVolumesArgs) -> Result<u8, CliError> {
    let mut client = instance.connect()?;
    let mut code = 0;
    for volume in &args.volumes {
        let request = Request::Storage(StorageRequest::RemoveVolume { volume: volume.clone() });
        match client.demand(&request) {
            Ok(()) => output::print_line(volume)?,
            Err(CliError::Refused(WireError { code: ErrorCode::NotFound, .. })) if args.force => {
                output::print_line(volume)?;
            }
            Err(error @ CliError::Refused(_)) => {
                output::complain_of(&error);
                code = 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(code)
}
