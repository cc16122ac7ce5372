//! `image inspect`: everything about images, in docker's shape.

use mysup_ipc::{
    api::Request,
    images::{ImageDetails, ImageRequest, ImageResponse},
};
use serde_json::{Map, Value, json};

use super::ask;
use crate::cli::{
    args::image::InspectImageArgs, client::Instance, describe, error::CliError, inspect::Shape,
};

/// Fields of docker's `Config` that scripts read, with what they are when the image has none.
const CONFIG: [&str; 12] = [
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
];

/// Prints an array of what was found, or a template's text for each.
///
/// # Errors
/// If the format makes no sense or the supervisor cannot be reached.
pub(super) fn inspect(instance: &Instance, args: &InspectImageArgs) -> Result<u8, CliError> {
    let shape = Shape::parse(args.format.as_deref())?;
    let mut client = instance.connect()?;
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for image in &args.images {
        let request = Request::Image(ImageRequest::Inspect { image: image.clone() });
        match ask(&mut client, &request) {
            Ok(ImageResponse::Images(images)) => found.extend(images.iter().map(document)),
            Ok(_) => return Err(CliError::WrongAnswer),
            Err(error @ CliError::Refused(_)) => errors.push(error),
            Err(error) => return Err(error),
        }
    }
    shape.print(found, &errors)
}

fn document(details: &ImageDetails) -> Value {
    let info = &details.info;
    let whole: Value = serde_json::from_str(&details.configuration).unwrap_or_default();
    let text = |key: &str| whole[key].as_str().unwrap_or_default().to_owned();
    let last = whole["history"].as_array().and_then(|steps| steps.last());
    let comment = last.and_then(|step| step["comment"].as_str()).unwrap_or_default();
    let (pinned, tags): (Vec<String>, Vec<String>) =
        info.names.iter().cloned().partition(|name| name.contains('@'));
    let repository =
        |name: &String| name.rsplit_once(':').map_or(name.clone(), |(repository, _)| repository.to_owned());
    let mut digests = pinned;
    if let Some(digest) = &details.manifest {
        digests.extend(tags.iter().map(|name| format!("{}@{digest}", repository(name))));
    }
    digests.sort();
    digests.dedup();
    let created = match whole["created"].as_str() {
        Some(created) => created.to_owned(),
        None => describe::timestamp(Some(info.created_at)),
    };
    json!({
        "Id": info.id.as_str(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": comment,
        "Created": created,
        "Author": text("author"),
        "Config": config(&whole["config"]),
        "Architecture": text("architecture"),
        "Variant": text("variant"),
        "Os": text("os"),
        "Size": info.size,
        "VirtualSize": info.size,
        "GraphDriver": { "Name": "overlay", "Data": { "LowerDir": details.directories.join(":") } },
        "RootFS": { "Type": "layers", "Layers": info.layers },
        "History": whole["history"],
    })
}

/// What the image has, unknown fields too, and nothing or null for what it has not.
fn config(own: &Value) -> Value {
    let mut fields: Map<String, Value> = own.as_object().cloned().unwrap_or_default();
    for key in CONFIG {
        let nothing = if matches!(key, "User" | "WorkingDir") { json!("") } else { Value::Null };
        fields.entry(key).or_insert(nothing);
    }
    Value::Object(fields)
}
