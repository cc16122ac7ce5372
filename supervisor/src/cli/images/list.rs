//! `images`.

use mysup_ipc::{
    api::{ImageInfo, Request},
    images::{ImageDetails, ImageRequest, ImageResponse},
};
use serde_json::{Value, json};

use super::{ask, filter::Filters};
use crate::cli::{
    args::image::ImagesArgs, client::Instance, describe, error::CliError, output, table::Listing,
};

const LISTING: Listing = Listing {
    columns: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    heads: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("Digest", "DIGEST"),
    ],
};
/// The same with `--digests`.
const WITH_DIGESTS: Listing = Listing {
    columns: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    ..LISTING
};

/// What docker shows for an image without a name.
const NO_NAME: &str = "<none>";

/// `images`.
///
/// # Errors
/// If the format makes no sense or the supervisor cannot be reached.
pub(crate) fn images(instance: &Instance, args: &ImagesArgs) -> Result<u8, CliError> {
    let filters = Filters::parse(&args.filters, args.name.as_deref())?;
    let mut client = instance.connect()?;
    let ImageResponse::Images(all) = ask(&mut client, &Request::Image(ImageRequest::List))? else {
        return Err(CliError::WrongAnswer);
    };
    let bounds = filters.bounds(&mut client)?;
    let chosen: Vec<ImageDetails> = all
        .into_iter()
        .filter(|image| bounds.take(&image.info) && filters.take(image))
        .map(|image| filters.with_fitting_names(image))
        .collect();
    if args.quiet && args.format.is_none() {
        for image in &chosen {
            output::print_line(shown_id(&image.info, args.no_trunc))?;
        }
        return Ok(0);
    }
    let now = describe::now();
    let rows: Vec<Value> = chosen.iter().flat_map(|image| rows(image, now, args.no_trunc)).collect();
    let listing = if args.digests { WITH_DIGESTS } else { LISTING };
    listing.print(&rows, args.format.as_deref())?;
    Ok(0)
}

fn shown_id(image: &ImageInfo, whole: bool) -> &str {
    if whole { image.id.as_str() } else { image.id.short() }
}

/// One row for each name; one for an image without any.
fn rows(details: &ImageDetails, now: u64, whole: bool) -> Vec<Value> {
    let image = &details.info;
    let row = |repository: &str, tag: &str| {
        json!({
            "Repository": repository,
            "Tag": tag,
            "ID": shown_id(image, whole),
            "CreatedSince": describe::ago(image.created_at, now),
            "CreatedAt": describe::date(image.created_at),
            "Size": describe::size(image.size),
            "Digest": details.manifest.as_ref().map_or(NO_NAME, |digest| digest.as_str()),
        })
    };
    if image.names.is_empty() {
        return vec![row(NO_NAME, NO_NAME)];
    }
    let split = |name: &str| match name.rsplit_once(':') {
        // The name of a digest.
        Some((named, _)) if named.contains('@') => row(named.split('@').next().unwrap_or(named), NO_NAME),
        // A colon before a slash belongs to a registry's port.
        Some((repository, tag)) if !tag.contains('/') => row(repository, tag),
        _ => row(name, "latest"),
    };
    image.names.iter().map(|name| split(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(info: ImageInfo) -> ImageDetails {
        let (labels, directories) = (vec![], vec![]);
        ImageDetails { info, labels, manifest: None, configuration: String::new(), directories }
    }

    #[test]
    fn each_name_has_a_row() {
        let image = ImageInfo {
            id: format!("sha256:{}", "ab".repeat(32)).parse().expect("digest"),
            names: vec!["busybox:latest".to_owned(), "host:5000/bb:1".to_owned()],
            created_at: 0,
            size: 4_262_000,
            layers: vec![],
        };
        let shown: Vec<String> = rows(&details(image.clone()), 0, false)
            .iter()
            .map(|row| {
                format!("{} {} {} {}", row["Repository"], row["Tag"], row["ID"], row["Size"]).replace('"', "")
            })
            .collect();
        assert_eq!(shown, ["busybox latest abababababab 4.26MB", "host:5000/bb 1 abababababab 4.26MB"]);
        let nameless = ImageInfo { names: vec![], ..image };
        assert_eq!(rows(&details(nameless), 0, true)[0]["Repository"], "<none>");
    }
}
