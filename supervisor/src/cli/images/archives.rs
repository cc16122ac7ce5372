//! `import`, `load`, `save`: what comes in and goes out. The supervisor reads and writes; the client gives it the
//! descriptor.

use std::{
    fs::{File, Metadata},
    io::{self, IsTerminal},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use mysup_ipc::{
    api::{Request, Response},
    images::{ArchiveCompression, ArchiveFormat, ImageRequest, ImageResponse},
};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::cli::{
    args::image::{ImportArgs, LoadArgs, SaveArgs},
    client::{Client, Instance},
    error::CliError,
    output,
    progress::{self, Screen, Style},
    resolve,
    values::Invalid,
};

/// `import`; prints the image's id.
///
/// # Errors
/// If the file cannot be opened or is no archive.
pub(crate) fn import(instance: &Instance, args: &ImportArgs) -> Result<u8, CliError> {
    let request = Request::Image(ImageRequest::Import {
        name: args.name.clone(),
        changes: args.changes.clone(),
        message: args.message.clone(),
    });
    let (file, metadata) = source(&args.file)?;
    if metadata.is_dir() {
        let reason = format!("{} is a directory: a root file system tar is allowed", args.file);
        return Err(Invalid::new(reason).into());
    }
    let mut client = instance.connect()?;
    let mut screen = Screen::new(if args.quiet { Style::Nothing } else { Style::Seldom });
    let answer = ask_with(&mut client, &request, file.as_fd(), &mut screen)?;
    let Response::Image(image) = answer else { return Err(CliError::WrongAnswer) };
    output::print_line(image.id.as_str())?;
    Ok(0)
}

/// A file, a pipe, a directory, or with `-` standard input.
fn source(path: &str) -> Result<(File, Metadata), CliError> {
    if path == "-" {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(Invalid::new("standard input is a terminal: redirect an archive to it").into());
        }
        let failed = |source| CliError::Call { action: "look at standard input", source };
        let file = File::from(stdin.as_fd().try_clone_to_owned().map_err(failed)?);
        let metadata = file.metadata().map_err(failed)?;
        return Ok((file, metadata));
    }
    open(path)
}

fn open(path: &str) -> Result<(File, Metadata), CliError> {
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
    let file = File::open(path);
    let file = file.map_err(|source| CliError::File { action: "open", path: path.into(), source })?;
    Ok((file, metadata))
}

/// `load`; prints docker's lines.
///
/// # Errors
/// If the input cannot be opened or is refused.
pub(crate) fn load(instance: &Instance, args: &LoadArgs) -> Result<u8, CliError> {
    let (file, _) = source(&args.input)?;
    let mut client = instance.connect()?;
    let mut screen = Screen::new(if args.quiet { Style::Nothing } else { Style::Seldom });
    let answer = ask_with(&mut client, &Request::Image(ImageRequest::Load), file.as_fd(), &mut screen)?;
    let Response::ImageAnswer(ImageResponse::Loaded(images)) = answer else {
        return Err(CliError::WrongAnswer);
    };
    for (id, names) in images.iter().filter(|_| !args.quiet) {
        for name in names {
            output::print_line(&format!("Loaded image: {name}"))?;
        }
        if names.is_empty() {
            output::print_line(&format!("Loaded image ID: {id}"))?;
        }
    }
    Ok(0)
}

/// Asks with a descriptor, and shows how far it is.
fn ask_with(
    client: &mut Client,
    request: &Request,
    descriptor: BorrowedFd<'_>,
    screen: &mut Screen,
) -> Result<Response, CliError> {
    progress::while_told(screen, |told| {
        let descriptors: Vec<_> = [descriptor].into_iter().chain(told).collect();
        client.ask_with(request, &descriptors)
    })
}

/// `save`. A file is there when it is whole, or not at all.
///
/// # Errors
/// If an image is not there, or the output cannot be written.
pub(crate) fn save(instance: &Instance, args: &SaveArgs) -> Result<u8, CliError> {
    let flag = |flag: &'static str, reason: String| CliError::Flag { flag, reason: Invalid::new(reason) };
    let format = match args.format.as_str() {
        "docker-archive" => ArchiveFormat::Docker,
        "oci-archive" => ArchiveFormat::Oci,
        "oci-dir" => ArchiveFormat::OciDirectory,
        other => {
            let reason =
                format!("invalid format \"{other}\": docker-archive, oci-archive and oci-dir are allowed");
            return Err(flag("--format", reason));
        }
    };
    let compression = match args.compress.as_deref() {
        None if format == ArchiveFormat::Docker => ArchiveCompression::None,
        None | Some("gzip") => ArchiveCompression::Gzip,
        Some("zstd") => ArchiveCompression::Zstd,
        Some("none") => ArchiveCompression::None,
        Some(other) => {
            let reason = format!("invalid compression \"{other}\": gzip, zstd and none are allowed");
            return Err(flag("--compress", reason));
        }
    };
    let request = Request::Image(ImageRequest::Save { images: args.images.clone(), format, compression });
    let mut screen = Screen::new(if args.quiet { Style::Nothing } else { Style::Seldom });
    let screen = &mut screen;
    match (args.output.as_str(), format) {
        ("-", ArchiveFormat::OciDirectory) => {
            Err(flag("--output", "a directory cannot be written to standard output".to_owned()))
        }
        (path, ArchiveFormat::OciDirectory) => save_to_directory(instance, &request, Path::new(path), screen),
        (output, ArchiveFormat::Docker | ArchiveFormat::Oci) => {
            write_out(instance, &request, output, Place::NoTerminal, screen)
        }
    }
}

fn demand(
    instance: &Instance,
    request: &Request,
    target: &OwnedFd,
    screen: &mut Screen,
) -> Result<(), CliError> {
    let mut client = instance.connect()?;
    let Response::Done = ask_with(&mut client, request, target.as_fd(), screen)? else {
        return Err(CliError::WrongAnswer);
    };
    Ok(())
}

/// What standard output may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Anything.
    Any,
    /// Not a terminal, which an archive would make unusable.
    NoTerminal,
}

/// Has the supervisor write into a file, which is there when it is whole, or with `-` to standard output.
///
/// # Errors
/// If it cannot be written, or what the supervisor says.
pub(crate) fn write_out(
    instance: &Instance,
    request: &Request,
    output: &str,
    place: Place,
    screen: &mut Screen,
) -> Result<u8, CliError> {
    match output {
        "-" => write_to_stdout(instance, request, place),
        path => save_to_file(instance, request, Path::new(path), screen),
    }
}

/// Through a pipe of our own: the supervisor must not make the user's standard output non-blocking, nor wait for it.
fn write_to_stdout(instance: &Instance, request: &Request, place: Place) -> Result<u8, CliError> {
    let stdout = io::stdout();
    if place == Place::NoTerminal && stdout.is_terminal() {
        let reason = "standard output is a terminal: use -o FILE, or redirect it";
        return Err(Invalid::new(reason).into());
    }
    let failed = |source| CliError::Call { action: "write to standard output", source };
    let mut client = instance.connect()?;
    let again = client.again();
    loop {
        let (mut reader, writer) = io::pipe().map_err(failed)?;
        let sent = client.send(request, &[writer.as_fd()]);
        drop(writer);
        let copied = io::copy(&mut reader, &mut stdout.lock());
        drop(reader);
        match copied {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(CliError::ReaderGone),
            Err(source) => return Err(failed(source)),
            Ok(_) => {}
        }
        match sent.and_then(|()| client.receive()) {
            Err(CliError::Unread) => client = again.next()?,
            Ok(Response::Done) => return Ok(0),
            Ok(_) => return Err(CliError::WrongAnswer),
            Err(error) => return Err(error),
        }
    }
}

/// Into a file without a name, which gets it at the end. What is no regular file is written to as it is.
fn save_to_file(
    instance: &Instance,
    request: &Request,
    path: &Path,
    screen: &mut Screen,
) -> Result<u8, CliError> {
    let failed = |action: &'static str| move |source| CliError::File { action, path: path.into(), source };
    if std::fs::metadata(path).is_ok_and(|data| !data.is_file()) {
        let file = File::options().write(true).open(path).map_err(failed("open"))?;
        demand(instance, request, &file.into(), screen)?;
        return Ok(0);
    }
    // The file that a link leads to is replaced, not the link.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_nothing_there| path.into());
    let failed = |action: &'static str| move |source| CliError::File { action, path: path.clone(), source };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let unnamed = File::options()
        .write(true)
        .custom_flags(OFlags::TMPFILE.bits().cast_signed())
        .mode(0o644)
        .open(parent);
    match unnamed {
        Ok(file) => {
            let file = OwnedFd::from(file);
            demand(instance, request, &file, screen)?;
            give_name(&file, path).map_err(failed("write"))?;
        }
        // Not every file system has files without a name.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
            let temporary = beside(path);
            let file =
                File::options().write(true).create_new(true).open(&temporary).map_err(failed("make"))?;
            let done = demand(instance, request, &file.into(), screen)
                .and_then(|()| std::fs::rename(&temporary, path).map_err(failed("write")));
            if done.is_err() {
                // It is told what went wrong; that the rest of it stays would be the lesser news.
                let _ = std::fs::remove_file(&temporary);
            }
            done?;
        }
        Err(source) => return Err(failed("make")(source)),
    }
    Ok(0)
}

/// linkat(2) replaces nothing, rename(2) does.
fn give_name(file: &OwnedFd, path: &Path) -> io::Result<()> {
    let temporary = beside(path);
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, unnamed, CWD, &temporary, AtFlags::SYMLINK_FOLLOW)?;
    std::fs::rename(&temporary, path).inspect_err(|_| {
        // As above.
        let _ = std::fs::remove_file(&temporary);
    })
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

fn save_to_directory(
    instance: &Instance,
    request: &Request,
    path: &Path,
    screen: &mut Screen,
) -> Result<u8, CliError> {
    let failed = |action: &'static str| move |source| CliError::File { action, path: path.into(), source };
    let is_new = match std::fs::create_dir(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(source) => return Err(failed("make")(source)),
    };
    if std::fs::read_dir(path).map_err(failed("read"))?.next().is_some() {
        let reason = format!("{} is not empty: a new or empty directory is allowed", path.display());
        return Err(Invalid::new(reason).into());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed("open")(errno.into()))?;
    let done = demand(instance, request, &directory, screen);
    if done.is_err() && is_new {
        // The supervisor has taken away what it made; what is left says why it could not.
        let _ = std::fs::remove_dir(path);
    }
    done.map(|()| 0)
}
