//! The volumes on disk: what was broken off, what was to go with its container, records that are damaged, and what is no
//! volume. The files of a volume are never looked at.

use std::{collections::BTreeSet, path::Path};

use mysup_ipc::{id::VolumeName, layout};

use super::{
    disk,
    finding::{Cure, Finding, Kind},
    snapshot::Snapshot,
};
use crate::{
    cli::error::CliError,
    config::Config,
    volumes::{NEW, Record, of_mounts},
};

const FIX: &str = "mysup doctor --fix; the next start of the supervisor throws it away";

/// What is wrong with volumes.
///
/// # Errors
/// If their directory cannot be read.
pub(super) fn findings(config: &Config, seen: &Snapshot) -> Result<Vec<Finding>, CliError> {
    let mut found = Vec::new();
    let locks = disk::lock_table();
    for (name, path) in disk::entries(&config.volumes())? {
        let is_directory = path.symlink_metadata().is_ok_and(|status| status.is_dir());
        match name.parse::<VolumeName>() {
            Ok(name) if is_directory => found.extend(volume(&name, &path, seen, &locks)),
            Err(_) if is_directory && name.starts_with(NEW) => {
                let what = "the making of a volume was broken off; nobody was told of it";
                found.push(plain(Kind::Volume, what, &path, Cure::Recovery, FIX));
            }
            Ok(_) | Err(_) => found.push(stranger(&path)),
        }
    }
    Ok(found)
}

fn volume(name: &VolumeName, path: &Path, seen: &Snapshot, locks: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let record = Record::read(path, name);
    match &record {
        Err(reason) => {
            let what =
                format!("the record of volume {name} is damaged ({reason}); its files are served as before");
            let remedy = format!("copy what you need of its files, then mysup volume rm {name}");
            let place = path.join(layout::VOLUME);
            found.push(plain(Kind::DamagedVolume, &what, &place, Cure::Person, &remedy));
        }
        Ok(record) if is_owed(record, seen) => {
            let what = "it was to go with its container (--rm), which is gone";
            found.push(plain(Kind::Volume, what, path, Cure::Recovery, FIX));
        }
        Ok(_) => {}
    }
    let data = path.join(layout::VOLUME_DATA);
    if !data.symlink_metadata().is_ok_and(|status| status.is_dir()) {
        let what = format!(
            "volume {name} has lost the directory of its files; a container with it cannot be started"
        );
        let remedy = format!("put it back, or mysup volume rm {name}");
        found.push(plain(Kind::DamagedVolume, &what, &data, Cure::Person, &remedy));
    }
    let copy = path.join(layout::VOLUME_COPY);
    if copy.symlink_metadata().is_ok() && !disk::is_locked(path, locks) {
        let what = "a copy of an image's content was broken off; no container sees it";
        found.push(plain(Kind::Volume, what, &copy, Cure::Recovery, FIX));
    }
    let temporary = format!("{}.tmp", layout::VOLUME);
    let known = BTreeSet::from([
        layout::VOLUME,
        &temporary,
        layout::VOLUME_DATA,
        layout::VOLUME_COPY,
        layout::VOLUME_FRESH,
    ]);
    let entries = disk::entries(path).unwrap_or_default();
    found.extend(
        entries.iter().filter(|(name, _)| !known.contains(name.as_str())).map(|(_, path)| stranger(path)),
    );
    found
}

/// Whether a supervisor that starts removes it. As long as a container's record cannot be read it removes none.
fn is_owed(record: &Record, seen: &Snapshot) -> bool {
    let is_user = |container: &super::disk::StateDirectory| match &container.record {
        Ok(own) => of_mounts(&own.config.mounts).any(|volume| volume.name == record.name.as_str()),
        Err(_) => true,
    };
    let lives = |id| seen.states.contains_key(id) || seen.runs.contains_key(id);
    record.ephemeral
        && record.made_for.as_ref().is_some_and(|id| !lives(id))
        && !seen.states.values().any(is_user)
}

fn plain(kind: Kind, what: &str, place: &Path, cure: Cure, remedy: &str) -> Finding {
    Finding {
        kind,
        container: None,
        what: what.to_owned(),
        places: vec![place.display().to_string()],
        holders: Vec::new(),
        cure,
        remedy: remedy.to_owned(),
    }
}

fn stranger(path: &Path) -> Finding {
    let what = "this is no volume; mysup did not make it and does not touch it";
    plain(Kind::UnknownEntry, what, path, Cure::Person, "look what it is, and move it away")
}
