//! `import`, `images`, `rmi`.

use std::{
    io::{self, IsTerminal},
    os::fd::AsFd,
    path::Path,
};

use mysup_ipc::api::{ImageInfo, Request, Response};
use serde_json::{Value, json};

use super::{
    args::{ImagesArgs, ImportArgs, RemoveImageArgs},
    client::Instance,
    describe,
    error::CliError,
    output, resolve,
    table::Listing,
    values::Invalid,
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
/// What docker shows for an image without a name.
const NO_NAME: &str = "<none>";

/// `import`; prints the image's id.
///
/// # Errors
/// If the file cannot be opened or is no archive.
pub(crate) fn import(instance: &Instance, args: &ImportArgs) -> Result<u8, CliError> {
    let request = Request::Import { name: args.name.clone() };
    let answer = if args.file == "-" {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(Invalid::new("standard input is a terminal: redirect an archive to it").into());
        }
        let mut client = instance.connect()?;
        client.send(&request, &[stdin.as_fd()])?;
        client.receive()?
    } else {
        let (file, metadata) = open(&args.file)?;
        if metadata.is_dir() {
            let reason = format!("{} is a directory: a root file system tar is allowed", args.file);
            return Err(Invalid::new(reason).into());
        }
        let mut client = instance.connect()?;
        client.send(&request, &[file.as_fd()])?;
        client.receive()?
    };
    let Response::Image(image) = answer else { return Err(CliError::WrongAnswer) };
    output::print_line(image.id.as_str())?;
    Ok(0)
}

fn open(path: &str) -> Result<(std::fs::File, std::fs::Metadata), CliError> {
    if path.starts_with("http://") || path.starts_with("https://") {
        return Err(Invalid::new(format!(
            "cannot import from {path}: a file or - is allowed (curl URL | mysup import - NAME)"
        ))
        .into());
    }
    let metadata = std::fs::metadata(path).map_err(|source| CliError::File {
        action: "open",
        path: path.into(),
        source,
    })?;
    if metadata.is_file() {
        return resolve::open_archive(Path::new(path));
    }
    // A FIFO is waited for, and read by the supervisor as any pipe.
    let file = std::fs::File::open(path);
    let file = file.map_err(|source| CliError::File { action: "open", path: path.into(), source })?;
    Ok((file, metadata))
}

/// `images`.
///
/// # Errors
/// If the format makes no sense or the supervisor cannot be reached.
pub(crate) fn images(instance: &Instance, args: &ImagesArgs) -> Result<u8, CliError> {
    let Response::Images(images) = instance.connect()?.ask(&Request::Images)? else {
        return Err(CliError::WrongAnswer);
    };
    if args.quiet && args.format.is_none() {
        for image in &images {
            output::print_line(shown_id(image, args.no_trunc))?;
        }
        return Ok(0);
    }
    let now = describe::now();
    let rows: Vec<Value> = images.iter().flat_map(|image| rows(image, now, args.no_trunc)).collect();
    LISTING.print(&rows, args.format.as_deref())?;
    Ok(0)
}

fn shown_id(image: &ImageInfo, whole: bool) -> &str {
    if whole { image.id.as_str() } else { image.id.short() }
}

/// One row for each name; one for an image without any.
fn rows(image: &ImageInfo, now: u64, whole: bool) -> Vec<Value> {
    let row = |repository: &str, tag: &str| {
        json!({
            "Repository": repository,
            "Tag": tag,
            "ID": shown_id(image, whole),
            "CreatedSince": describe::ago(image.created_at, now),
            "CreatedAt": describe::date(image.created_at),
            "Size": describe::size(image.size),
            "Digest": NO_NAME,
        })
    };
    if image.names.is_empty() {
        return vec![row(NO_NAME, NO_NAME)];
    }
    let split = |name: &str| match name.rsplit_once(':') {
        // A colon before a slash belongs to a registry's port.
        Some((repository, tag)) if !tag.contains('/') => row(repository, tag),
        _ => row(name, "latest"),
    };
    image.names.iter().map(|name| split(name)).collect()
}

/// `rmi`; errors are printed as they come.
///
/// # Errors
/// If the supervisor cannot be reached.
pub(crate) fn remove(instance: &Instance, args: &RemoveImageArgs) -> Result<u8, CliError> {
    let mut client = instance.connect()?;
    let mut code = 0;
    for image in &args.images {
        let request = Request::RemoveImage { image: image.clone(), force: args.force };
        match client.ask(&request) {
            Ok(Response::Removed(lines)) => {
                for line in lines {
                    output::print_line(&line)?;
                }
            }
            Ok(_) => return Err(CliError::WrongAnswer),
            Err(error @ CliError::Refused(_)) => {
                output::complain_of(&error);
                code = 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_row() {
        let image = ImageInfo {
            id: format!("sha256:{}", "ab".repeat(32)).parse().expect("digest"),
            names: vec!["busybox:latest".to_owned(), "host:5000/bb:1".to_owned()],
            created_at: 0,
            size: 4_262_000,
            layers: vec![],
        };
        let shown: Vec<String> = rows(&image, 0, false)
            .iter()
            .map(|row| {
                format!("{} {} {} {}", row["Repository"], row["Tag"], row["ID"], row["Size"]).replace('"', "")
            })
            .collect();
        assert_eq!(shown, ["busybox latest abababababab 4.26MB", "host:5000/bb 1 abababababab 4.26MB"]);
        let nameless = ImageInfo { names: vec![], ..image };
        assert_eq!(rows(&nameless, 0, true)[0]["Repository"], "<none>");
    }
}
