//! `ps`: the list of containers.

use mysup_ipc::{
    api::{Request, Response},
    container::{ContainerInfo, ContainerState, ImageSource},
    exit::ExitStatus,
    plan::{MountSource, Network},
};
use serde_json::{Value, json};

use super::{
    args::PsArgs, client::Instance, describe, error::CliError, filter::Filters, output, table::Listing,
};

/// Characters of a command in the table.
const COMMAND_WIDTH: usize = 20;

const LISTING: Listing = Listing {
    columns: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    heads: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("RunningFor", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Status", "STATUS"),
        ("State", "STATE"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("Networks", "NETWORKS"),
        ("Size", "SIZE"),
        ("LocalVolumes", "LOCAL VOLUMES"),
    ],
};

/// Prints the list.
///
/// # Errors
/// If a flag makes no sense or the supervisor cannot be reached.
pub(crate) fn ps(instance: &Instance, args: &PsArgs) -> Result<u8, CliError> {
    let filters = Filters::parse(&args.filters)?;
    let Response::Containers(all) = instance.connect()?.ask(&Request::List)? else {
        return Err(CliError::WrongAnswer);
    };
    let chosen = choose(&all, args, &filters)?;
    let now = describe::now();
    if args.quiet && args.format.is_none() {
        for info in chosen {
            output::print_line(if args.no_trunc { info.id.as_str() } else { info.id.short() })?;
        }
        return Ok(0);
    }
    let rows: Vec<Value> = chosen.into_iter().map(|info| row(info, now, args.no_trunc)).collect();
    LISTING.print(&rows, args.format.as_deref())?;
    Ok(0)
}

fn choose<'a>(
    all: &'a [ContainerInfo],
    args: &PsArgs,
    filters: &Filters,
) -> Result<Vec<&'a ContainerInfo>, CliError> {
    let last = match args.last {
        _ if args.latest => Some(1),
        // docker takes -1 for no limit.
        Some(last) => usize::try_from(last).ok(),
        None => None,
    };
    let every = args.all || last.is_some() || filters.ask_for_state();
    let mut chosen = Vec::new();
    for info in all {
        if (every || is_shown_by_default(&info.state)) && filters.take(info, all)? {
            chosen.push(info);
        }
    }
    chosen.truncate(last.unwrap_or(usize::MAX));
    Ok(chosen)
}

/// What runs, and what needs attention.
fn is_shown_by_default(state: &ContainerState) -> bool {
    state.is_running() || matches!(state, ContainerState::Leftover)
}

fn row(info: &ContainerInfo, now: u64, whole: bool) -> Value {
    let config = info.config.as_ref();
    let image = config.map_or("", |config| config.image.label());
    let command = command(&info.args);
    let command = if whole { command } else { ellipsis(&command, COMMAND_WIDTH) };
    let labels: Vec<String> = config
        .map(|config| config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect())
        .unwrap_or_default();
    let mounts: Vec<&str> = config
        .map(|config| config.mounts.iter().filter_map(|mount| mount_label(&mount.source)).collect())
        .unwrap_or_default();
    json!({
        "ID": if whole { info.id.as_str() } else { info.id.short() },
        "Image": image,
        "Command": quoted(&command),
        "CreatedAt": describe::date(info.created_at),
        "RunningFor": describe::ago(info.created_at, now),
        "Status": status(info, now),
        "State": info.state.word(),
        "Ports": "",
        "Names": info.name.as_ref().map_or("", |name| name.as_str()),
        "Labels": labels.join(","),
        "Mounts": mounts.join(","),
        "Networks": config.map_or("", |config| network_name(config.network)),
        "Size": "0B",
        "LocalVolumes": config
            .map_or(0, |config| config.mounts.iter().filter(|mount| mount.volume().is_some()).count())
            .to_string(),
    })
}

/// A row as in the list, with a size.
pub(crate) fn sized_row(info: &ContainerInfo, now: u64, size: u64) -> Value {
    let mut row = row(info, now, false);
    row["Size"] = Value::from(describe::size(size));
    row
}

fn mount_label(source: &MountSource) -> Option<&str> {
    match source {
        MountSource::Bind { path, .. } => Some(path),
        MountSource::Volume(volume) => Some(&volume.name),
        MountSource::Tmpfs { .. } => None,
    }
}

/// docker's name of a network.
pub(crate) fn network_name(network: Network) -> &'static str {
    match network {
        Network::None => "none",
        Network::Host => "host",
    }
}

/// The image as shown where an id is wanted: its digest, or the directory.
pub(crate) fn image_id(info: &ContainerInfo) -> String {
    match (&info.image, info.config.as_ref().map(|config| &config.image)) {
        (Some(digest), _) => digest.as_str().to_owned(),
        (None, Some(ImageSource::Directory(path))) => path.clone(),
        (None, Some(ImageSource::Named(_) | ImageSource::Archive(_)) | None) => String::new(),
    }
}

/// Program and arguments in one line; arguments with blanks in single quotes, as docker does.
fn command(args: &[String]) -> String {
    let mut words = args.iter();
    let program = words.next().cloned().unwrap_or_default();
    words.fold(program, |line, word| {
        if word.contains(' ') { format!("{line} '{word}'") } else { format!("{line} {word}") }
    })
}

fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width - 1).collect();
    format!("{kept}…")
}

/// In double quotes, on one line.
fn quoted(text: &str) -> String {
    let mut line = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            '\n' => line.push_str("\\n"),
            '\t' => line.push_str("\\t"),
            '\r' => line.push_str("\\r"),
            // Whatever could do something to a terminal.
            control if control.is_control() => line.push_str(&format!("\\x{:02x}", u32::from(control))),
            other => line.push(other),
        }
    }
    line.push('"');
    line
}

/// docker's words for the state, and three of our own.
pub(crate) fn status(info: &ContainerInfo, now: u64) -> String {
    match &info.state {
        ContainerState::Created | ContainerState::Starting => "Created".to_owned(),
        ContainerState::Running { since, .. } | ContainerState::Stopping { since, .. } => {
            let up = format!("Up {}", describe::span(now.saturating_sub(*since)));
            with_reason(up, &leftover(info))
        }
        ContainerState::TearingDown => "Removal In Progress".to_owned(),
        ContainerState::Exited => match &info.exit {
            Some(report) => {
                let code = match report.status {
                    ExitStatus::Unknown => "unknown".to_owned(),
                    status @ (ExitStatus::Code(_) | ExitStatus::Signal(_)) => status.shell_code().to_string(),
                };
                format!("Exited ({code}) {}", describe::ago(report.finished_at, now))
            }
            None => "Exited (unknown)".to_owned(),
        },
        ContainerState::Leftover => with_reason("Leftover".to_owned(), &leftover(info)),
        ContainerState::Unreachable => with_reason("Unreachable".to_owned(), &leftover(info)),
        ContainerState::Damaged(_) => "Dead".to_owned(),
    }
}

fn with_reason(status: String, reason: &str) -> String {
    if reason.is_empty() { status } else { format!("{status} ({reason})") }
}

/// Why the teardown is not finished, or cannot begin; empty if it is, or none was.
pub(crate) fn leftover(info: &ContainerInfo) -> String {
    let failures = info.teardown.iter().flat_map(|report| report.failures());
    failures.map(describe::failure).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
pub(crate) mod tests {
    use mysup_ipc::{
        container::ContainerConfig,
        exit::ExitReport,
        plan::{Limits, LogPlan, StorageDriver},
        teardown::{Holder, Outcome, StepKind, TeardownReport, TeardownStep},
    };

    use super::*;

    /// A container for tests.
    pub(crate) fn sample(digit: char, name: &str, state: ContainerState) -> ContainerInfo {
        let config = ContainerConfig {
            name: name.parse().ok(),
            image: ImageSource::Named("busybox".to_owned()),
            command: vec!["sleep".to_owned(), "1 0".to_owned()],
            entrypoint: None,
            env: vec![],
            workdir: None,
            user: None,
            hostname: None,
            terminal: None,
            interactive: false,
            remove: false,
            keep: false,
            init: false,
            mounts: vec![],
            read_only: false,
            network: Network::None,
            storage_driver: StorageDriver::Overlay,
            privileged: false,
            cap_add: vec![],
            cap_drop: vec![],
            no_new_privileges: false,
            limits: Limits::default(),
            rlimits: vec![],
            labels: vec![("tier".to_owned(), "web".to_owned())],
            stop_signal: None,
            stop_timeout: None,
            log: LogPlan::default(),
        };
        ContainerInfo {
            id: digit.to_string().repeat(64).parse().expect("hexadecimal"),
            name: name.parse().ok(),
            created_at: 1_700_000_000_000_000_000,
            args: config.command.clone(),
            config: Some(config),
            image: Some(format!("sha256:{}", "e".repeat(64)).parse().expect("digest")),
            env: vec!["PATH=/bin".to_owned()],
            workdir: "/".to_owned(),
            state,
            exit: None,
            teardown: None,
            state_dir: "/var/lib/mysup/containers/x".to_owned(),
            run_dir: "/run/mysup/containers/x".to_owned(),
        }
    }

    const NOW: u64 = 1_700_000_240_000_000_000;

    fn ended(status: ExitStatus) -> ContainerInfo {
        let mut info = sample('a', "c1", ContainerState::Exited);
        info.exit = Some(ExitReport {
            status,
            oom_killed: false,
            started_at: Some(info.created_at),
            finished_at: info.created_at,
            error: String::new(),
        });
        info
    }

    #[test]
    fn status_texts() {
        let up = sample('a', "c1", ContainerState::Running { pid: 5, since: NOW - 240_000_000_000 });
        assert_eq!(status(&up, NOW), "Up 4 minutes");
        assert_eq!(status(&ended(ExitStatus::Code(3)), NOW), "Exited (3) 4 minutes ago");
        assert_eq!(status(&ended(ExitStatus::Signal(9)), NOW), "Exited (137) 4 minutes ago");
        assert_eq!(status(&ended(ExitStatus::Unknown), NOW), "Exited (unknown) 4 minutes ago");
        let mut stuck = sample('a', "c1", ContainerState::Leftover);
        let holders = vec![Holder { pid: 7, program: "sh".to_owned() }];
        stuck.teardown = Some(TeardownReport {
            steps: vec![TeardownStep {
                kind: StepKind::Volume,
                target: "/data".to_owned(),
                at: 0,
                took: 0,
                outcome: Outcome::Failed { error: "busy".to_owned(), holders },
            }],
        });
        assert_eq!(status(&stuck, NOW), "Leftover (volume /data: busy; held by pid 7 (sh))");
    }

    #[test]
    fn commands_are_quoted_and_cut() {
        let row = row(&sample('a', "c1", ContainerState::Created), NOW, false);
        assert_eq!(row["Command"], "\"sleep '1 0'\"");
        assert_eq!(ellipsis("sh -c 'echo hello world'", 20), "sh -c 'echo hello w…");
        assert_eq!(quoted("a\"b\n\x1b"), "\"a\\\"b\\n\\x1b\"");
    }

    #[test]
    fn plain_ps_shows_what_runs_and_what_needs_attention() {
        let all = [
            sample('a', "run", ContainerState::Running { pid: 1, since: 0 }),
            sample('b', "left", ContainerState::Leftover),
            sample('c', "done", ContainerState::Exited),
        ];
        let args = |all, last, filters: &[&str]| PsArgs {
            all,
            quiet: false,
            latest: false,
            last,
            no_trunc: false,
            filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
            format: None,
        };
        let count = |args: PsArgs| {
            let filters = Filters::parse(&args.filters).expect("valid");
            choose(&all, &args, &filters).expect("chosen").len()
        };
        assert_eq!(count(args(false, None, &[])), 2);
        assert_eq!(count(args(true, None, &[])), 3);
        assert_eq!(count(args(false, Some(3), &[])), 3);
        assert_eq!(count(args(false, Some(1), &[])), 1);
        assert_eq!(count(args(false, None, &["status=exited"])), 1);
    }
}
