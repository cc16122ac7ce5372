//! From the flags of `run` and `create` to the container that is asked for: values are checked, paths made absolute,
//! the archive opened.

use std::{
    fs::File,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use mysup_ipc::{
    container::{ContainerConfig, ImageSource},
    plan::{Limits, MountPlan, Network, StorageDriver},
};
use nix::fcntl::OFlag;

use super::{
    args::container::ContainerArgs,
    error::CliError,
    terminal,
    values::{Invalid, capability, environment, mount, number, path, signal, size, ulimit, word},
};

/// Names of archives that are taken for files even without a `/`.
const ARCHIVE_ENDINGS: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".tar.zst"];

/// A container to be made.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// What the supervisor is asked for.
    pub(crate) config: Box<ContainerConfig>,
    /// The image's archive, when it is one.
    pub(crate) archive: Option<File>,
}

/// Makes sense of the flags.
///
/// # Errors
/// One line that says which flag is wrong and what is allowed.
pub(crate) fn resolve(args: &ContainerArgs, verb: &'static str) -> Result<Resolved, CliError> {
    let cwd = std::env::current_dir()
        .map_err(|source| CliError::Call { action: "find the working directory", source })?;
    if args.rm && args.keep {
        return Err(Invalid::new("conflicting options: cannot specify both --keep and --rm").into());
    }
    let (image, archive, command) = image(args, &cwd, verb)?;
    let flag = |flag: &'static str| move |reason: Invalid| CliError::Flag { flag, reason };
    let config = ContainerConfig {
        name: args.name.as_deref().map(str::parse).transpose().map_err(|error: mysup_ipc::id::IdError| {
            CliError::Flag { flag: "--name", reason: Invalid::new(error.to_string()) }
        })?,
        image,
        command,
        entrypoint: args
            .entrypoint
            .as_ref()
            .map(|program| if program.is_empty() { Vec::new() } else { vec![program.clone()] }),
        env: environment::merge(&args.env_file, &args.env, environment::of_caller).map_err(flag("--env"))?,
        workdir: optional(args.workdir.as_deref(), path::working_directory).map_err(flag("--workdir"))?,
        user: args.user.clone().filter(|user| !user.is_empty()),
        hostname: optional(args.hostname.as_deref(), word::hostname).map_err(flag("--hostname"))?,
        terminal: args.tty.then(terminal::size),
        interactive: args.interactive,
        remove: args.rm,
        keep: args.keep,
        init: args.init,
        mounts: mounts(args, &cwd)?,
        read_only: args.read_only,
        network: optional(args.network.as_deref(), word::network)
            .map_err(flag("--network"))?
            .unwrap_or(Network::None),
        storage_driver: optional(args.storage_driver.as_deref(), word::storage_driver)
            .map_err(flag("--storage-driver"))?
            .unwrap_or(StorageDriver::Overlay),
        privileged: args.privileged,
        cap_add: each(&args.cap_add, capability::parse).map_err(flag("--cap-add"))?,
        cap_drop: each(&args.cap_drop, capability::parse).map_err(flag("--cap-drop"))?,
        no_new_privileges: each(&args.security_options, word::no_new_privileges)
            .map_err(flag("--security-opt"))?
            .last()
            .copied()
            .unwrap_or(false),
        limits: limits(args)?,
        rlimits: each(&args.ulimits, ulimit::parse).map_err(flag("--ulimit"))?,
        labels: each(&args.labels, word::label).map_err(flag("--label"))?,
        stop_signal: optional(args.stop_signal.as_deref(), signal::parse).map_err(flag("--stop-signal"))?,
        stop_timeout: optional(args.stop_timeout.as_deref(), number::seconds)
            .map_err(flag("--stop-timeout"))?,
        log: word::log_plan(&args.log_options).map_err(flag("--log-opt"))?,
    };
    Ok(Resolved { config: Box::new(config), archive })
}

fn optional<T>(text: Option<&str>, parse: impl Fn(&str) -> Result<T, Invalid>) -> Result<Option<T>, Invalid> {
    text.map(parse).transpose()
}

fn each<T>(texts: &[String], parse: impl Fn(&str) -> Result<T, Invalid>) -> Result<Vec<T>, Invalid> {
    texts.iter().map(|text| parse(text)).collect()
}

fn mounts(args: &ContainerArgs, cwd: &Path) -> Result<Vec<MountPlan>, CliError> {
    let flag = |flag: &'static str| move |reason: Invalid| CliError::Flag { flag, reason };
    let mut mounts = each(&args.volumes, |text| mount::volume(text, cwd)).map_err(flag("--volume"))?;
    mounts.extend(each(&args.mounts, |text| mount::mount(text, cwd)).map_err(flag("--mount"))?);
    mounts.extend(each(&args.tmpfs, mount::tmpfs).map_err(flag("--tmpfs"))?);
    mount::refuse_duplicates(&mounts)?;
    Ok(mounts)
}

fn limits(args: &ContainerArgs) -> Result<Limits, CliError> {
    let flag = |flag: &'static str| move |reason: Invalid| CliError::Flag { flag, reason };
    let mut limits = Limits::default();
    size::memory(&mut limits, args.memory.as_deref(), args.memory_swap.as_deref())
        .map_err(flag("--memory"))?;
    limits.nano_cpus = optional(args.cpus.as_deref(), number::nano_cpus).map_err(flag("--cpus"))?.flatten();
    limits.cpu_shares =
        optional(args.cpu_shares.as_deref(), number::cpu_shares).map_err(flag("--cpu-shares"))?.flatten();
    limits.cpuset_cpus =
        optional(args.cpuset_cpus.as_deref(), number::cpu_list).map_err(flag("--cpuset-cpus"))?;
    limits.pids = optional(args.pids_limit.as_deref(), number::pids).map_err(flag("--pids-limit"))?.flatten();
    Ok(limits)
}

/// Source of the image, its archive, and the command.
fn image(
    args: &ContainerArgs,
    cwd: &Path,
    verb: &'static str,
) -> Result<(ImageSource, Option<File>, Vec<String>), CliError> {
    if let Some(directory) = &args.rootfs {
        if directory.is_empty() {
            let reason = Invalid::new("invalid directory \"\": the path of a directory is allowed");
            return Err(CliError::Flag { flag: "--rootfs", reason });
        }
        if args.words.is_empty() && args.entrypoint.as_deref().unwrap_or_default().is_empty() {
            let argument = "a COMMAND with --rootfs".to_owned();
            return Err(CliError::MissingArgument { argument, verb: verb.to_owned() });
        }
        return Ok((ImageSource::Directory(path::host(directory, cwd)?), None, args.words.clone()));
    }
    let Some((image, command)) = args.words.split_first() else {
        let argument = "at least 1 argument: IMAGE".to_owned();
        return Err(CliError::MissingArgument { argument, verb: verb.to_owned() });
    };
    if !is_archive(image) {
        if image.trim().is_empty() {
            return Err(
                Invalid::new("invalid image \"\": a name, an id, or the path of a tar is allowed").into()
            );
        }
        return Ok((ImageSource::Named(image.clone()), None, command.to_vec()));
    }
    let archive = open_archive(Path::new(image))?;
    if !archive.1.is_file() {
        return Err(not_an_archive(image));
    }
    Ok((ImageSource::Archive(image.clone()), Some(archive.0), command.to_vec()))
}

fn not_an_archive(image: &str) -> CliError {
    Invalid::new(format!(
        "{image} is no regular file: a root file system tar is allowed (--rootfs DIR takes a directory)"
    ))
    .into()
}

fn is_archive(image: &str) -> bool {
    ["/", "./", "../"].iter().any(|start| image.starts_with(start))
        || ARCHIVE_ENDINGS.iter().any(|ending| image.ends_with(ending)) && Path::new(image).is_file()
}

/// Opens a file for reading without waiting for a writer, should it be a FIFO.
///
/// # Errors
/// As open(2).
pub(crate) fn open_archive(path: &Path) -> Result<(File, std::fs::Metadata), CliError> {
    let failed = |source| CliError::File { action: "open", path: PathBuf::from(path), source };
    // std opens close-on-exec.
    let file =
        File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    Ok((file, metadata))
}
