//! `doctor`: what is left of this instance that should not be there, as the kernel and the disk show it. It asks no
//! supervisor and works without one.
//!
//! ```text
//! territory ──▶ processes, mounts, disk ──▶ snapshot ──▶ containers, leavings, images, volumes ──▶ findings ──▶ repair
//! what is ours   what is there               one look      what is wrong
//! ```
//!
//! Nothing here changes anything: `--fix` lets a supervisor recover. What cannot be proven to be this instance's is
//! neither touched nor, where it lies outside of our directories, told.

mod containers;
mod disk;
mod finding;
mod holders;
mod images;
mod leavings;
mod mounts;
mod processes;
mod repair;
mod snapshot;
mod territory;
mod volumes;

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::unistd;
use serde_json::Value;

use self::{
    finding::{Fate, Finding},
    snapshot::Snapshot,
    territory::Territory,
};
use super::{args::DoctorArgs, client::Instance, error::CliError, inspect, output, values::Invalid};
use crate::config::Config;

/// What goes away by itself within this time was on its way and is no finding: a container that starts or ends.
const SETTLING: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Blocks for people.
    Text,
    /// An array for scripts.
    Json,
}

/// `doctor`: 0 if all is well, 1 if something was found or, with `--fix`, stays.
///
/// # Errors
/// If the format is none, not root, or a directory of ours cannot be read.
pub(crate) fn doctor(instance: &Instance, args: &DoctorArgs) -> Result<u8, CliError> {
    let format = match args.format.as_deref() {
        None => Format::Text,
        Some("json") => Format::Json,
        Some(other) => {
            let reason = Invalid::new(format!("\"{other}\" is no format of doctor: only json is allowed"));
            return Err(CliError::Flag { flag: "--format", reason });
        }
    };
    if !unistd::geteuid().is_root() {
        return Err(CliError::NotRoot);
    }
    let doctor = Doctor { config: &instance.config, territory: Territory::of(&instance.config) };
    let found = doctor.settled()?;
    let told = if args.fix && !found.is_empty() {
        repair::repair(instance, &doctor, found)?
    } else {
        found.into_iter().map(|finding| (finding, Fate::Found)).collect()
    };
    match format {
        Format::Text => output::print(&text(&told, args.fix))?,
        Format::Json => {
            let documents = told.iter().map(|(finding, fate)| finding.document(fate)).collect();
            output::print_line(&inspect::pretty(&Value::Array(documents)))?;
        }
    }
    let is_clean = told.iter().all(|(_, fate)| *fate == Fate::Repaired);
    Ok(if is_clean { 0 } else { 1 })
}

/// Looks at one instance.
struct Doctor<'a> {
    config: &'a Config,
    territory: Territory,
}

impl Doctor<'_> {
    /// What is wrong at this moment, in a fixed order.
    fn look(&self) -> Result<Vec<Finding>, CliError> {
        let seen = Snapshot::take(self.config, &self.territory)?;
        let mut found = containers::findings(&seen);
        found.extend(leavings::findings(self.config, &self.territory, &seen));
        found.extend(images::findings(self.config, &seen)?);
        found.extend(volumes::findings(self.config, &seen)?);
        Ok(found)
    }

    /// What stays wrong: seen at every look until nothing is left or the time is over.
    fn settled(&self) -> Result<Vec<Finding>, CliError> {
        let deadline = Instant::now() + SETTLING;
        let mut found = self.look()?;
        while !found.is_empty() && Instant::now() < deadline {
            thread::sleep(LOOK);
            let before = found;
            found = self.look()?;
            found.retain(|finding| before.iter().any(|other| other.is_same(finding)));
        }
        Ok(found)
    }

    /// The supervisor of the instance, if one runs.
    fn supervisor(&self) -> Result<Option<u32>, CliError> {
        let seen = Snapshot::take(self.config, &self.territory)?;
        Ok(seen.supervisor().map(|supervisor| supervisor.pid))
    }
}

fn text(told: &[(Finding, Fate)], fix: bool) -> String {
    if told.is_empty() {
        return "all is well: nothing is there that should not be\n".to_owned();
    }
    let blocks: Vec<String> = told.iter().map(|(finding, fate)| finding.block(fate)).collect();
    let stays = told.iter().filter(|(_, fate)| *fate != Fate::Repaired).count();
    let last = if fix {
        format!("{} repaired, {stays} left", told.len() - stays)
    } else {
        format!("{stays} found; mysup doctor --fix repairs what it can")
    };
    format!("{}\n{last}\n", blocks.join("\n"))
}
