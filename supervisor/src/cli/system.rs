//! The supervisor itself: `start` without a container, `shutdown`, `info`, `version`.

use std::time::{Duration, Instant};

use mysup_ipc::api::{Request, SupervisorInfo};
use serde_json::{Value, json};

use super::{
    args::{FormatArgs, ShutdownArgs, StartArgs},
    client::Instance,
    describe,
    error::CliError,
    inspect,
    launch::{self, Launched},
    output, table,
    template::Template,
    values::Invalid,
};
use crate::images::Limits;

/// Starts the supervisor in the background and returns when it answers.
///
/// # Errors
/// If one runs already, naming its pid; or it cannot be started.
pub(crate) fn start(instance: &Instance) -> Result<u8, CliError> {
    let deadline = Instant::now() + DYING;
    loop {
        // One that was just killed still accepts for a moment, and answers nothing.
        if let Some(client) = instance.connect_running()?
            && let Ok(info) = client.asked_once().info()
        {
            return Err(CliError::AlreadyRunning { pid: info.pid });
        }
        match launch::in_background(instance)? {
            Launched::Ready => return Ok(0),
            Launched::Refused(reason) if Instant::now() >= deadline => {
                return Err(CliError::Launch { reason });
            }
            // Its lock ends a moment after its socket; or another start was faster, and will answer.
            Launched::Refused(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// The limits for images of a supervisor that is about to start.
///
/// # Errors
/// If there is no such limit, or it cannot be that much.
pub(crate) fn image_limits(args: &StartArgs) -> Result<Limits, CliError> {
    let setting = args.image_limits.as_deref().unwrap_or_default();
    setting.parse().map_err(|error: crate::images::InvalidLimits| CliError::Flag {
        flag: "--image-limits",
        reason: Invalid::new(error.to_string()),
    })
}

/// How long a supervisor that was killed may keep its lock.
const DYING: Duration = Duration::from_secs(5);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Ends the supervisor; returns when it is gone. Without one there is nothing to do.
///
/// # Errors
/// If it refuses or cannot be reached.
pub(crate) fn shutdown(instance: &Instance, args: &ShutdownArgs) -> Result<u8, CliError> {
    let Some(client) = instance.connect_running()? else {
        output::complain("no supervisor is running");
        return Ok(0);
    };
    let mut client = client.asked_once();
    match client.demand(&Request::Shutdown { containers: args.containers }) {
        // It says so just before its end; the end is when it hangs up.
        Ok(()) => client.wait_for_end(),
        // It was ending already.
        Err(CliError::Unread) => {}
        Err(error) => return Err(error),
    }
    Ok(0)
}

/// `info`.
///
/// # Errors
/// If the format makes no sense or the supervisor cannot be reached.
pub(crate) fn info(instance: &Instance, args: &FormatArgs) -> Result<u8, CliError> {
    let info = instance.connect()?.info()?;
    let value = info_document(&info);
    if let Some(format) = args.format.as_deref() {
        return formatted(&value, format);
    }
    let counts: Vec<String> =
        info.containers.iter().map(|(state, count)| format!(" {state}: {count}\n")).collect();
    let total: u32 = info.containers.iter().map(|(_, count)| count).sum();
    output::print(&format!(
        "Containers: {total}\n{}Images: {}\nSupervisor Version: {}\nSupervisor Pid: {}\nStarted: {}\n\
         Storage Drivers: {}\nCgroup Version: {}\nKernel Version: {}\nRoot Dir: {}\nRun Root Dir: {}\n",
        counts.concat(),
        info.images,
        info.version,
        info.pid,
        describe::ago(info.started_at, describe::now()),
        info.storage_drivers.join(" "),
        info.cgroup_version,
        info.kernel,
        info.root,
        info.run_root,
    ))?;
    Ok(0)
}

fn info_document(info: &SupervisorInfo) -> Value {
    let states: serde_json::Map<String, Value> =
        info.containers.iter().map(|(state, count)| (state.clone(), Value::from(*count))).collect();
    let of = |state: &str| {
        info.containers.iter().filter(|(known, _)| known == state).map(|(_, count)| count).sum::<u32>()
    };
    let total: u32 = info.containers.iter().map(|(_, count)| count).sum();
    json!({
        "Containers": total,
        "ContainersRunning": of("running"),
        "ContainersStopped": total - of("running"),
        "ContainersByState": states,
        "Images": info.images,
        "ServerVersion": info.version,
        "Pid": info.pid,
        "StartedAt": describe::timestamp(Some(info.started_at)),
        "Driver": info.storage_drivers.first(),
        "StorageDrivers": info.storage_drivers,
        "CgroupVersion": info.cgroup_version,
        "KernelVersion": info.kernel,
        "RootDir": info.root,
        "RunRootDir": info.run_root,
    })
}

/// `version`.
///
/// # Errors
/// As [`info`].
pub(crate) fn version(instance: &Instance, args: &FormatArgs) -> Result<u8, CliError> {
    let info = instance.connect()?.info()?;
    let client = env!("CARGO_PKG_VERSION");
    if let Some(format) = args.format.as_deref() {
        let server = json!({"Version": info.version, "Pid": info.pid, "KernelVersion": info.kernel});
        return formatted(&json!({"Client": {"Version": client}, "Server": server}), format);
    }
    output::print(&format!(
        "Client:\n Version:   {client}\n\nSupervisor:\n Version:   {}\n Pid:       {}\n Kernel:    {}\n",
        info.version, info.pid, info.kernel
    ))?;
    Ok(0)
}

fn formatted(value: &Value, format: &str) -> Result<u8, CliError> {
    match format {
        "json" => output::print_line(&value.to_string())?,
        "pretty" => output::print_line(&inspect::pretty(value))?,
        template => output::print_line(&Template::parse(&table::unescape(template))?.render(value)?)?,
    }
    Ok(0)
}
