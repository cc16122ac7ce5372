//! What was asked for and the image become a plan: pure, nothing is looked up on the disk.

use std::path::PathBuf;

use mysup_ipc::{
    container::{ContainerConfig, ImageSource},
    error::{ErrorCode, WireError},
    id::ContainerId,
    plan::{
        AttachPlan, ContainerPlan, Lifetime, MountPlan, MountSource, ProcessPlan, Rlimit, RootfsPlan,
        StopPlan,
    },
};

use super::{
    capabilities,
    record::{Program, Record},
};
use crate::{
    config::{Config, text},
    images::ImageConfig,
    sys::{self, OpenFilesLimit},
};

/// Where programs are looked up when neither the image nor the user says so.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// SIGTERM.
const STOP_SIGNAL: u8 = 15;
/// Seconds between the stop signal and the kill, as docker.
const STOP_TIMEOUT: i64 = 10;
/// The first real-time signal as glibc and musl programs see it (signal(7)).
const REAL_TIME_FIRST: u8 = 34;
/// The last signal.
const SIGNAL_LAST: u8 = 64;

/// What this machine gives every container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// The capabilities that can be given.
    pub(crate) capabilities: capabilities::Available,
    /// RLIMIT_NOFILE of whoever started the supervisor.
    pub(crate) open_files: OpenFilesLimit,
}

/// Merges command line and image by docker's rules, and checks all that can be checked without a container.
pub(crate) fn merge(
    id: &ContainerId,
    config: &ContainerConfig,
    image: &ImageConfig,
    own: &Config,
) -> Result<Program, WireError> {
    for text in config.command.iter().chain(config.entrypoint.iter().flatten()).chain(&config.env) {
        if text.contains('\0') {
            return Err(invalid("a NUL byte cannot be part of an argument or a variable"));
        }
    }
    check_mounts(&config.mounts, own)?;
    if let ImageSource::Directory(directory) = &config.image
        && !is_plain_absolute(directory)
    {
        return Err(invalid(format!("invalid rootfs \"{directory}\": it must be an absolute path")));
    }
    Ok(Program {
        args: arguments(config, image)?,
        env: environment(id, config, image)?,
        workdir: working_directory(config, image)?,
        user: config.user.clone().unwrap_or_else(|| image.user.clone()),
        stop: StopPlan {
            signal: stop_signal(config, image)?,
            grace_ms: grace(config.stop_timeout.unwrap_or(STOP_TIMEOUT)),
        },
    })
}

/// Seconds as typed to milliseconds; below zero waits for ever.
pub(crate) fn grace(seconds: i64) -> Option<u64> {
    u64::try_from(seconds).ok().map(|seconds| seconds.saturating_mul(1000))
}

fn arguments(config: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>, WireError> {
    // An entrypoint on the command line takes the image's CMD away too, even an empty one.
    let (entrypoint, command): (&[String], &[String]) = match &config.entrypoint {
        Some(own) if own.iter().all(String::is_empty) => (&[], &config.command),
        Some(own) => (own, &config.command),
        None if config.command.is_empty() => (&image.entrypoint, &image.cmd),
        None => (&image.entrypoint, &config.command),
    };
    let arguments: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    if arguments.is_empty() {
        return Err(invalid("No command specified"));
    }
    Ok(arguments)
}

fn environment(
    id: &ContainerId,
    config: &ContainerConfig,
    image: &ImageConfig,
) -> Result<Vec<String>, WireError> {
    let mut merged = vec![PATH.to_owned(), format!("HOSTNAME={}", hostname(id, config))];
    if config.terminal.is_some() {
        merged.push("TERM=xterm".to_owned());
    }
    for variable in image.env.iter().chain(&config.env) {
        let Some((name, _)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(invalid(format!(
                "invalid environment variable \"{variable}\": it must be NAME=VALUE"
            )));
        };
        let same = |known: &&mut String| known.split_once('=').is_some_and(|(other, _)| other == name);
        match merged.iter_mut().find(same) {
            Some(known) => known.clone_from(variable),
            None => merged.push(variable.clone()),
        }
    }
    Ok(merged)
}

fn hostname(id: &ContainerId, config: &ContainerConfig) -> String {
    config.hostname.clone().unwrap_or_else(|| id.short().to_owned())
}

fn working_directory(config: &ContainerConfig, image: &ImageConfig) -> Result<String, WireError> {
    let typed = config.workdir.as_deref().unwrap_or(&image.workdir);
    if typed.is_empty() {
        return Ok("/".to_owned());
    }
    if !typed.starts_with('/') {
        let message = format!("the working directory '{typed}' is invalid, it needs to be an absolute path");
        return Err(invalid(message));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in typed.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

fn stop_signal(config: &ContainerConfig, image: &ImageConfig) -> Result<u8, WireError> {
    match config.stop_signal {
        Some(signal) if (1..=SIGNAL_LAST).contains(&signal) => Ok(signal),
        Some(signal) => Err(invalid(format!("invalid signal: {signal}"))),
        // The image is data: one that makes no sense is no reason not to run.
        None => Ok(image.stop_signal.as_deref().and_then(parse_signal).unwrap_or(STOP_SIGNAL)),
    }
}

/// `TERM`, `SIGTERM`, `15`, `RTMIN+3`, `RTMAX-1`.
fn parse_signal(typed: &str) -> Option<u8> {
    let upper = typed.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = if let Ok(number) = name.parse::<u8>() {
        number
    } else if let Some(rest) = name.strip_prefix("RTMIN") {
        let offset = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? };
        REAL_TIME_FIRST.checked_add(offset)?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        let offset = if rest.is_empty() { 0 } else { rest.strip_prefix('-')?.parse().ok()? };
        SIGNAL_LAST.checked_sub(offset)?
    } else {
        sys::signal_number(name)?
    };
    (1..=SIGNAL_LAST).contains(&number).then_some(number)
}

fn is_plain_absolute(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|part| part == "." || part == "..") && !path.contains('\0')
}

fn check_mounts(mounts: &[MountPlan], own: &Config) -> Result<(), WireError> {
    for (index, mount) in mounts.iter().enumerate() {
        let destination = mount.destination.trim_end_matches('/');
        if !is_plain_absolute(&mount.destination) {
            return Err(invalid(format!(
                "invalid mount destination \"{}\": it must be an absolute path without \"..\"",
                mount.destination
            )));
        }
        if destination.is_empty() {
            return Err(invalid("invalid mount: the destination cannot be \"/\""));
        }
        if mounts[..index].iter().any(|other| other.destination.trim_end_matches('/') == destination) {
            return Err(invalid(format!("Duplicate mount point: {destination}")));
        }
        match &mount.source {
            MountSource::Tmpfs { .. } | MountSource::Volume(_) => {}
            MountSource::Bind { path, .. } => check_bind(path, own)?,
        }
    }
    Ok(())
}

/// The early, textual half of the check: the shim checks the opened directories again, links and all.
fn check_bind(path: &str, own: &Config) -> Result<(), WireError> {
    if !is_plain_absolute(path) {
        return Err(invalid(format!(
            "invalid volume \"{path}\": it must be an absolute path without \"..\""
        )));
    }
    let source = PathBuf::from(path);
    for root in [&own.root, &own.run_root] {
        if source.starts_with(root) || root.starts_with(&source) {
            return Err(invalid(format!(
                "invalid volume \"{path}\": it is, contains or lies in mysup's own data ({})",
                root.display()
            )));
        }
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::Invalid, message)
}

/// The client that comes along with a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attach {
    /// None.
    Nobody,
    /// One that only reads.
    Output,
    /// One that gives input too.
    Both,
}

/// The plan of a recorded container; `layers` are the read-only ones, top first.
pub(crate) fn build(
    record: &Record,
    layers: Vec<PathBuf>,
    attach: Attach,
    own: &Config,
    machine: Machine,
) -> Result<ContainerPlan, WireError> {
    let config = &record.config;
    let places = own.places(&record.id);
    let wish =
        capabilities::Wish { privileged: config.privileged, add: &config.cap_add, drop: &config.cap_drop };
    Ok(ContainerPlan {
        id: record.id.clone(),
        state_dir: text(&places.state),
        run_dir: text(&places.run),
        trash_dir: text(&places.trash),
        own_roots: vec![text(&own.root), text(&own.run_root)],
        lifetime: lifetime(config),
        rootfs: RootfsPlan {
            driver: config.storage_driver,
            layers: layers.iter().map(|layer| text(layer)).collect(),
            read_only: config.read_only,
        },
        mounts: with_directories(config.clone(), own).mounts,
        hostname: hostname(&record.id, config),
        process: ProcessPlan {
            args: record.program.args.clone(),
            env: record.program.env.clone(),
            cwd: record.program.workdir.clone(),
            user: record.program.user.clone(),
            terminal: config.terminal,
            stdin: config.interactive,
            capabilities: capabilities::keep(wish, machine.capabilities)?,
            no_new_privileges: config.no_new_privileges,
            rlimits: rlimits(&config.rlimits, machine.open_files),
            init: config.init,
        },
        network: config.network,
        privileged: config.privileged,
        limits: config.limits.clone(),
        log: config.log,
        stop: record.program.stop,
        attach: match attach {
            Attach::Nobody => None,
            Attach::Output => Some(AttachPlan { stdin: false }),
            Attach::Both => Some(AttachPlan { stdin: true }),
        },
    })
}

/// The same, and where its volumes are.
pub(crate) fn with_directories(mut config: ContainerConfig, own: &Config) -> ContainerConfig {
    for mount in &mut config.mounts {
        if let MountSource::Volume(volume) = &mut mount.source {
            volume.directory = text(&own.volumes().join(&volume.name));
        }
    }
    config
}

/// What remains of a container after its end.
pub(crate) fn lifetime(config: &ContainerConfig) -> Lifetime {
    match (config.remove, config.keep) {
        (true, _) => Lifetime::Nothing,
        (false, true) => Lifetime::WriteLayer,
        (false, false) => Lifetime::Record,
    }
}

/// The supervisor has raised its own limit of open files; the container gets what was before.
fn rlimits(asked: &[Rlimit], open_files: OpenFilesLimit) -> Vec<Rlimit> {
    let mut all = asked.to_vec();
    if !all.iter().any(|limit| limit.resource == OpenFilesLimit::RESOURCE) {
        all.push(Rlimit { resource: OpenFilesLimit::RESOURCE, soft: open_files.soft, hard: open_files.hard });
    }
    all
}

#[cfg(test)]
mod tests;
