//! `inspect`: everything about containers, in docker's shape, with mysup's own `Teardown` and `State.Leftover`.

use mysup_ipc::{
    container::{ContainerConfig, ContainerInfo, ContainerState},
    exit::ExitStatus,
    layout,
    plan::{MountPlan, MountSource, StorageDriver, VolumeMount},
    teardown::{Outcome, TeardownReport},
};
use serde_json::{Value, json, ser::PrettyFormatter};

use super::{
    args::InspectArgs,
    client::Instance,
    describe,
    error::CliError,
    output, ps, table,
    template::Template,
    values::{signal, ulimit},
};

/// Prints an array of what was found, or a template's text for each.
///
/// # Errors
/// If the format makes no sense or the supervisor cannot be reached.
pub(crate) fn inspect(instance: &Instance, args: &InspectArgs) -> Result<u8, CliError> {
    let shape = Shape::parse(args.format.as_deref())?;
    let mut client = instance.connect()?;
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for container in &args.containers {
        match client.inspect(container) {
            Ok(info) => found.push(document(&info)),
            Err(error @ CliError::Refused(_)) => errors.push(error),
            Err(error) => return Err(error),
        }
    }
    shape.print(found, &errors)
}

/// How documents are shown: as an array, or by a template's text for each.
#[derive(Debug)]
pub(crate) struct Shape {
    template: Option<Template>,
    dense: bool,
}

impl Shape {
    /// What `--format` asks for.
    ///
    /// # Errors
    /// If it makes no sense.
    pub(crate) fn parse(format: Option<&str>) -> Result<Self, CliError> {
        let text = format.filter(|format| !format.is_empty() && *format != "json");
        let template = text.map(|text| Template::parse(&table::unescape(text))).transpose()?;
        Ok(Self { template, dense: format == Some("json") })
    }

    /// Prints what was found, then complains of what was not; the exit code says whether there was any.
    ///
    /// # Errors
    /// If it cannot be printed, or the template does not fit.
    pub(crate) fn print(&self, found: Vec<Value>, errors: &[CliError]) -> Result<u8, CliError> {
        match &self.template {
            Some(template) => {
                for value in &found {
                    output::print_line(&template.render(value)?)?;
                }
            }
            None if self.dense => output::print_line(&Value::Array(found).to_string())?,
            None => output::print_line(&pretty(&Value::Array(found)))?,
        }
        for error in errors {
            output::complain_of(error);
        }
        Ok(u8::from(!errors.is_empty()))
    }
}

/// JSON with docker's indent of four.
pub(crate) fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    match serde::Serialize::serialize(value, &mut serializer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        // A value always has a text; without the indent it is the same one.
        Err(_) => value.to_string(),
    }
}

/// One container in docker's shape.
pub(crate) fn document(info: &ContainerInfo) -> Value {
    let (path, args) = match info.args.split_first() {
        Some((path, args)) => (path.as_str(), args),
        None => ("", &[][..]),
    };
    let log_path = format!("{}/{}", info.state_dir, layout::LOG);
    json!({
        "Id": info.id.as_str(),
        "Created": describe::timestamp(Some(info.created_at)),
        "Path": path,
        "Args": args,
        "State": state(info),
        "Image": ps::image_id(info),
        "Name": info.name.as_ref().map_or(String::new(), |name| format!("/{name}")),
        "RestartCount": 0,
        "Driver": info.config.as_ref().map_or("", |config| driver(config.storage_driver)),
        "Platform": "linux",
        "LogPath": log_path,
        "HostConfig": info.config.as_ref().map_or(Value::Null, host_config),
        "Mounts": info.config.as_ref().map_or_else(Vec::new, |config| config.mounts.iter().map(mount).collect()),
        "Config": info.config.as_ref().map_or(Value::Null, |config| program_config(info, config)),
        "NetworkSettings": {"Ports": {}, "Networks": {}},
        "Teardown": info.teardown.as_ref().map_or_else(Vec::new, teardown),
    })
}

fn driver(driver: StorageDriver) -> &'static str {
    match driver {
        StorageDriver::Overlay => "overlay",
        StorageDriver::Aufs => "aufs",
    }
}

fn state(info: &ContainerInfo) -> Value {
    let since = match &info.state {
        ContainerState::Running { since, .. } | ContainerState::Stopping { since, .. } => Some(*since),
        ContainerState::Created
        | ContainerState::Starting
        | ContainerState::TearingDown
        | ContainerState::Exited
        | ContainerState::Leftover
        | ContainerState::Unreachable
        | ContainerState::Damaged(_) => None,
    };
    let running = info.state.is_running();
    // What is told of the last end does not count while it runs again.
    let exit = info.exit.as_ref().filter(|_| !running);
    let mut error = exit.map_or(String::new(), |report| report.error.clone());
    if let ContainerState::Damaged(reason) = &info.state {
        error = reason.clone();
    }
    let unknown = exit.is_some_and(|report| report.status == ExitStatus::Unknown);
    if unknown && error.is_empty() {
        error = "the exit status is not known: nothing that saw the end has survived".to_owned();
    }
    json!({
        "Status": info.state.word(),
        "Running": running,
        "Paused": false,
        "Restarting": false,
        "OOMKilled": exit.is_some_and(|report| report.oom_killed),
        "Dead": matches!(info.state, ContainerState::Damaged(_)),
        "Pid": info.state.pid().unwrap_or(0),
        "ExitCode": exit.map_or(0, |report| report.status.shell_code()),
        "ExitStatusKnown": !unknown,
        "Error": error,
        "StartedAt": describe::timestamp(since.or_else(|| exit.and_then(|report| report.started_at))),
        "FinishedAt": describe::timestamp(info.exit.as_ref().map(|report| report.finished_at)),
        "Leftover": ps::leftover(info),
    })
}

fn host_config(config: &ContainerConfig) -> Value {
    let binds: Vec<String> = config.mounts.iter().filter_map(bind_text).collect();
    let tmpfs: serde_json::Map<String, Value> = config
        .mounts
        .iter()
        .filter_map(|mount| Some((mount.destination.clone(), Value::from(tmpfs_text(mount)?))))
        .collect();
    let ulimits: Vec<Value> = config
        .rlimits
        .iter()
        .map(|limit| {
            // docker shows unlimited as -1.
            let shown = |value: u64| i64::try_from(value).unwrap_or(-1);
            json!({"Name": ulimit::name(limit.resource), "Soft": shown(limit.soft), "Hard": shown(limit.hard)})
        })
        .collect();
    let security: &[&str] = if config.no_new_privileges { &["no-new-privileges"] } else { &[] };
    json!({
        "Binds": binds,
        "Tmpfs": tmpfs,
        "Memory": config.limits.memory.unwrap_or(0),
        "MemorySwap": config.limits.memory_swap.unwrap_or(0),
        "NanoCpus": config.limits.nano_cpus.unwrap_or(0),
        "CpuShares": config.limits.cpu_shares.unwrap_or(0),
        "CpusetCpus": config.limits.cpuset_cpus.as_deref().unwrap_or(""),
        "PidsLimit": config.limits.pids,
        "AutoRemove": config.remove,
        "Keep": config.keep,
        "NetworkMode": ps::network_name(config.network),
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "LogConfig": {
            "Type": "local",
            "Config": {"max-size": config.log.max_size.to_string(), "max-file": config.log.max_files.to_string()},
        },
        "Privileged": config.privileged,
        "ReadonlyRootfs": config.read_only,
        "CapAdd": config.cap_add,
        "CapDrop": config.cap_drop,
        "SecurityOpt": security,
        "Ulimits": ulimits,
        "Init": config.init,
        "StorageDriver": driver(config.storage_driver),
    })
}

fn mode(read_only: bool) -> &'static str {
    if read_only { "ro" } else { "rw" }
}

fn bind_text(mount: &MountPlan) -> Option<String> {
    match &mount.source {
        MountSource::Bind { path, .. } => {
            Some(format!("{path}:{}:{}", mount.destination, mode(mount.read_only)))
        }
        MountSource::Volume(volume) if !volume.anonymous => {
            Some(format!("{}:{}:{}", volume.name, mount.destination, mode(mount.read_only)))
        }
        MountSource::Volume(_) | MountSource::Tmpfs { .. } => None,
    }
}

fn tmpfs_text(mount: &MountPlan) -> Option<String> {
    match &mount.source {
        MountSource::Bind { .. } | MountSource::Volume(_) => None,
        MountSource::Tmpfs { size, mode: bits, exec } => {
            let size = size.map_or(String::new(), |size| format!(",size={size}"));
            let exec = if *exec { "exec" } else { "noexec" };
            Some(format!("{},mode={bits:o},{exec}{size}", mode(mount.read_only)))
        }
    }
}

fn mount(mount: &MountPlan) -> Value {
    let (kind, source) = match &mount.source {
        MountSource::Bind { path, .. } => ("bind", path.as_str()),
        MountSource::Tmpfs { .. } => ("tmpfs", ""),
        MountSource::Volume(volume) => return volume_mount(mount, volume),
    };
    json!({
        "Type": kind,
        "Source": source,
        "Destination": mount.destination,
        "Mode": if mount.read_only { "ro" } else { "" },
        "RW": !mount.read_only,
        "Propagation": if kind == "bind" { "rprivate" } else { "" },
    })
}

fn volume_mount(mount: &MountPlan, volume: &VolumeMount) -> Value {
    json!({
        "Type": "volume",
        "Name": volume.name,
        "Source": format!("{}/{}", volume.directory, layout::VOLUME_DATA),
        "Destination": mount.destination,
        "Driver": "local",
        "Mode": if mount.read_only { "ro" } else { "" },
        "RW": !mount.read_only,
        "Propagation": "",
    })
}

fn program_config(info: &ContainerInfo, config: &ContainerConfig) -> Value {
    let labels: serde_json::Map<String, Value> =
        config.labels.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    json!({
        "Hostname": config.hostname.as_deref().unwrap_or(info.id.short()),
        "User": config.user.as_deref().unwrap_or(""),
        "Tty": config.terminal.is_some(),
        "OpenStdin": config.interactive,
        "Env": info.env,
        "Cmd": config.command,
        "Entrypoint": config.entrypoint,
        "Image": config.image.label(),
        "WorkingDir": info.workdir,
        "Labels": labels,
        "StopSignal": config.stop_signal.map_or("SIGTERM".to_owned(), signal::name),
        "StopTimeout": config.stop_timeout,
    })
}

fn teardown(report: &TeardownReport) -> Vec<Value> {
    report
        .steps
        .iter()
        .map(|step| {
            let (result, holders) = match &step.outcome {
                Outcome::Done => ("done", Vec::new()),
                Outcome::Failed { error, holders } => (error.as_str(), holders.iter().collect()),
            };
            let holders: Vec<Value> =
                holders.iter().map(|holder| json!({"Pid": holder.pid, "Program": holder.program})).collect();
            json!({
                "Step": step.kind.name(),
                "Target": step.target,
                "StartedAt": describe::timestamp(Some(step.at)),
                "Duration": step.took,
                "Result": result,
                "Holders": holders,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use mysup_ipc::{
        exit::ExitReport,
        teardown::{StepKind, TeardownStep},
    };

    use super::{super::ps::tests::sample, *};

    #[test]
    fn fields_that_scripts_read() {
        let mut info = sample('a', "c1", ContainerState::Exited);
        info.exit = Some(ExitReport {
            status: ExitStatus::Signal(9),
            oom_killed: true,
            started_at: Some(info.created_at),
            finished_at: info.created_at + 5,
            error: String::new(),
        });
        info.teardown = Some(TeardownReport {
            steps: vec![TeardownStep {
                kind: StepKind::Rootfs,
                target: "/mnt".to_owned(),
                at: 0,
                took: 12,
                outcome: Outcome::Done,
            }],
        });
        let value = document(&info);
        let cases = [
            ("{{.Name}} {{.Path}} {{.Args}}", "/c1 sleep [1 0]"),
            ("{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}", "exited 137 true"),
            ("{{.State.FinishedAt}}", "2023-11-14T22:13:20.000000005Z"),
            ("{{.Config.Image}} {{index .Config.Labels \"tier\"}}", "busybox web"),
            ("{{.HostConfig.NetworkMode}} {{.HostConfig.Memory}}", "none 0"),
            ("{{range .Teardown}}{{.Step}} {{.Duration}} {{.Result}}{{end}}", "rootfs 12 done"),
            ("{{.LogPath}}", "/var/lib/mysup/containers/x/log"),
        ];
        for (text, wanted) in cases {
            let template = Template::parse(text).expect("valid");
            assert_eq!(template.render(&value).expect("renders"), wanted);
        }
        assert!(pretty(&json!([{"Id": 1}])).starts_with("[\n    {\n        \"Id\": 1"));
        assert_eq!(pretty(&json!([])), "[]");
    }

    #[test]
    fn an_unknown_status_is_255_with_a_reason() {
        let mut info = sample('a', "c1", ContainerState::Exited);
        info.exit = Some(ExitReport {
            status: ExitStatus::Unknown,
            oom_killed: false,
            started_at: None,
            finished_at: 0,
            error: String::new(),
        });
        let value = document(&info);
        assert_eq!(value["State"]["ExitCode"], 255);
        assert_ne!(value["State"]["Error"], "");
        assert_eq!(value["State"]["StartedAt"], "0001-01-01T00:00:00Z");
    }
}
