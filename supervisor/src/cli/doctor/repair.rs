//! `--fix`: lets a supervisor do what it does at every start, waits, and looks again. Nothing is removed, unmounted or
//! killed here.

use std::{
    fs,
    time::{Duration, Instant},
};

use mysup_ipc::api::Request;

use super::{
    Doctor,
    finding::{Cure, Fate, Finding, Kind, people},
};
use crate::cli::{client::Instance, error::CliError};

/// How long a supervisor may take to recover: killed inits may take ten seconds to end.
const RECOVERY: Duration = Duration::from_secs(20);
/// How long a shim that tries again each second is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one that runs may take to repair what it can.
const HEALING: Duration = Duration::from_secs(3);
/// How long the supervisor may take to end.
const SHUTDOWN: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// What was done about the findings.
struct Done {
    recovery: Result<(), String>,
    began: Instant,
}

/// Repairs what can be repaired, and says of each finding what became of it.
///
/// # Errors
/// If a directory cannot be read.
pub(super) fn repair(
    instance: &Instance,
    doctor: &Doctor<'_>,
    found: Vec<Finding>,
) -> Result<Vec<(Finding, Fate)>, CliError> {
    let is_wanted = found.iter().any(|finding| finding.cure == Cure::Recovery);
    let recovery = if is_wanted { recover(instance, doctor)? } else { Ok(()) };
    let done = Done { recovery, began: Instant::now() };
    while done.is_worth_waiting(&doctor.look()?) {
        std::thread::sleep(LOOK);
    }
    let left = doctor.settled()?;
    let is_left = |finding: &Finding| left.iter().any(|other| other.is_same(finding));
    let mut told: Vec<(Finding, Fate)> = found
        .into_iter()
        .filter(|finding| !is_left(finding))
        .map(|finding| (finding, Fate::Repaired))
        .collect();
    told.extend(left.iter().map(|finding| (finding.clone(), Fate::Stays(done.why(instance, finding)))));
    Ok(told)
}

impl Done {
    fn is_worth_waiting(&self, left: &[Finding]) -> bool {
        let limit = left.iter().map(|finding| match finding.cure {
            Cure::Recovery if self.recovery.is_ok() => RECOVERY,
            Cure::Patience => PATIENCE,
            Cure::Recovery | Cure::Person => Duration::ZERO,
        });
        limit.max().is_some_and(|limit| self.began.elapsed() < limit)
    }

    fn why(&self, instance: &Instance, finding: &Finding) -> String {
        match (finding.cure, &self.recovery) {
            (Cure::Recovery, Err(reason)) => reason.clone(),
            (Cure::Recovery, Ok(())) => {
                let log = instance.config.run_root.join("supervisor.log");
                format!("the supervisor was started and has not removed it; {} may say why", log.display())
            }
            (Cure::Patience, _) if finding.holders.is_empty() => "its shim still works on it".to_owned(),
            (Cure::Patience, _) => format!("it is held by {}", people(&finding.holders)),
            (Cure::Person, _) => match finding.kind {
                Kind::MountInTheWay | Kind::UnknownEntry | Kind::ForeignLock => {
                    "it cannot be proven to be mysup's, so it is not touched".to_owned()
                }
                Kind::DamagedRecord | Kind::DamagedImage | Kind::DamagedVolume => {
                    "what it said is lost; nothing is made up".to_owned()
                }
                Kind::Stopped => "whoever stopped it may have a reason".to_owned(),
                Kind::Trash => "nothing is removed below a mount".to_owned(),
                Kind::OrphanShim
                | Kind::Init
                | Kind::Leftover
                | Kind::Mount
                | Kind::Cgroup
                | Kind::RunDirectory
                | Kind::WriteLayer
                | Kind::Directory
                | Kind::UnknownEnd
                | Kind::Layer
                | Kind::Volume
                | Kind::Socket => "its journal is gone, and without one nothing is undone".to_owned(),
            },
        }
    }
}

/// A starting supervisor recovers, and one that runs can do most of it. Where that is not enough it is ended first, which no
/// container notices. The text says why that could not be done.
fn recover(instance: &Instance, doctor: &Doctor<'_>) -> Result<Result<(), String>, CliError> {
    if let Some(pid) = doctor.supervisor()? {
        if heal(instance, doctor)? {
            return Ok(Ok(()));
        }
        if is_managed(pid) {
            let reason =
                "the supervisor is run by a service manager: restart it there, it recovers when it starts";
            return Ok(Err(reason.to_owned()));
        }
        if let Err(error) = end(instance) {
            return Ok(Err(format!("the supervisor cannot be restarted: {error}")));
        }
    }
    Ok(instance.connect().map(|_client| ()).map_err(|error| error.to_string()))
}

/// Whether the supervisor that runs could repair it all.
fn heal(instance: &Instance, doctor: &Doctor<'_>) -> Result<bool, CliError> {
    let Ok(Some(client)) = instance.connect_running() else { return Ok(false) };
    // One that is older, or does not answer, is started anew.
    if client.asked_once().ask_within(&Request::Heal, HEALING).is_err() {
        return Ok(false);
    }
    let deadline = Instant::now() + HEALING;
    loop {
        let is_healed = doctor.look()?.iter().all(|finding| finding.cure != Cure::Recovery);
        if is_healed || Instant::now() >= deadline {
            return Ok(is_healed);
        }
        std::thread::sleep(LOOK);
    }
}

fn end(instance: &Instance) -> Result<(), CliError> {
    let Some(client) = instance.connect_running()? else { return Ok(()) };
    // Another connection would be one to another supervisor.
    let mut client = client.asked_once();
    client.ask_within(&Request::Shutdown { containers: false }, SHUTDOWN)?;
    client.wait_for_end();
    Ok(())
}

/// sd_notify(3): whoever waits for a word of it starts it again by itself.
fn is_managed(pid: u32) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|word| word.starts_with(b"NOTIFY_SOCKET="))
}
