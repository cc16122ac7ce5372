//! At start: what is on disk, and what each container needs. Reads and renames only; links do the rest later, each
//! with its own deadline, so that one bad shim does not keep the others waiting.
//!
//! | lock held | run directory | | then |
//! |---|---|---|---|
//! | yes | | a shim lives | connect to it |
//! | no | yes | a shim died | give a living init to a new one; else take down what is left |
//! | no | no | nothing is left to undo | exit record: ended; launched without one: end unknown; else: created |

use std::{
    collections::HashSet,
    fs::{self, DirEntry},
    io,
    path::Path,
};

use mysup_ipc::{
    exit::{ExitReport, ExitStatus},
    id::ContainerId,
    layout,
    record::{self as ipc_record, ReadError},
    teardown::TeardownReport,
};

use super::{
    container::ran,
    doomed, jobs,
    record::{self, Record},
    state::{self, Live, State},
    trash,
    volumes::Anonymous,
};
use crate::{
    config::{Config, Places},
    error::{Error, chain},
    shim_link::{alive, cgroups, entry::Entry, journal, lost::record_exit, sweep::Sweeper},
    sys,
};

/// Which boot this is: proc_sys_kernel(5).
pub(crate) const KERNEL_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A container that was found.
pub(crate) struct Found {
    /// Its id: the name of its directory.
    pub(crate) id: ContainerId,
    /// Its record, or what is wrong with it.
    pub(crate) record: Result<Record, String>,
    /// Where it is, as far as the disk knows.
    pub(crate) state: State,
    /// How it ended.
    pub(crate) exit: Option<ExitReport>,
    /// Its last teardown.
    pub(crate) teardown: Option<TeardownReport>,
    /// The link it needs.
    pub(crate) entry: Option<Entry>,
    /// Its removal by force had begun, and what of its volumes was to go with it.
    pub(crate) doomed: Option<Anonymous>,
}

/// Whether the machine was restarted since the run root was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    /// It is this boot's.
    Same,
    /// No pid, path or lock in it means anything.
    Other,
}

/// All containers of both roots. Blocks; one that cannot be read costs only itself.
pub(crate) fn scan(config: &Config, boot: Boot) -> Result<Vec<Found>, Error> {
    if boot == Boot::Other {
        discard_other_boot(config)?;
    }
    let mut found = Vec::new();
    for entry in entries(&config.containers())? {
        match id_of(&entry) {
            Some(id) => found.extend(look(config, id, boot)),
            None => {
                tracing::warn!(path = %entry.path().display(), "not a container, left alone, continuing");
            }
        }
    }
    let known: HashSet<ContainerId> = found.iter().map(|found| found.id.clone()).collect();
    for entry in entries(&config.run_containers())? {
        match id_of(&entry) {
            Some(id) if known.contains(&id) => {}
            Some(id) => found.extend(orphan(config, id)),
            None => {
                tracing::warn!(path = %entry.path().display(), "not a container, left alone, continuing");
            }
        }
    }
    Ok(found)
}

/// All that has a directory in one of the roots. Blocks, and changes nothing.
pub(crate) fn list(config: &Config) -> Result<Vec<ContainerId>, Error> {
    let mut ids: Vec<ContainerId> = entries(&config.containers())?.iter().filter_map(id_of).collect();
    ids.extend(entries(&config.run_containers())?.iter().filter_map(id_of));
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// The containers among these, which no supervisor knows. Blocks.
pub(crate) fn take_in(config: &Config, unknown: Vec<ContainerId>) -> Vec<Found> {
    let take_in = |id: ContainerId| {
        let places = config.places(&id);
        let exists = |path: &Path| path.symlink_metadata().is_ok();
        if exists(&places.state) {
            look(config, id, Boot::Same)
        } else if exists(&places.run) {
            orphan(config, id)
        } else {
            None
        }
    };
    unknown.into_iter().filter_map(take_in).collect()
}

fn entries(directory: &Path) -> Result<Vec<DirEntry>, Error> {
    let read = fs::read_dir(directory).map_err(Error::file("read directory", directory))?;
    read.collect::<io::Result<_>>().map_err(Error::file("read directory", directory))
}

fn id_of(entry: &DirEntry) -> Option<ContainerId> {
    let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
    if is_directory { entry.file_name().to_str()?.parse().ok() } else { None }
}

/// Run directories of another boot: what they stood for went with it. A lock that is held all the same belongs to
/// somebody who lives now, and a journal of this boot outweighs a `boot-id` that somebody has removed.
fn discard_other_boot(config: &Config) -> Result<(), Error> {
    let now = fs::read_to_string(KERNEL_BOOT_ID).map_err(Error::file("read", KERNEL_BOOT_ID))?;
    for entry in entries(&config.run_containers())? {
        let path = entry.path();
        let locked = id_of(&entry).is_some_and(|id| alive::lives(&config.places(&id)));
        if locked {
            tracing::warn!(path = %path.display(), "in use although it is of another boot, left alone, continuing");
        } else if journal::boot(&path).map_or(true, |begun| begun.as_deref() == Some(now.trim())) {
            tracing::warn!(path = %path.display(), "of this boot, although the run root does not say so, continuing");
        } else if let Err(error) = trash::discard(&path, &config.run_trash()) {
            tracing::warn!(%error, path = %path.display(), "cannot discard a run directory of another boot, continuing");
        }
    }
    Ok(())
}

/// What one container's directory says; nothing if it turns out that there is no container.
fn look(config: &Config, id: ContainerId, boot: Boot) -> Option<Found> {
    let places = config.places(&id);
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    let locked = alive::lives(&places);
    if !locked && was_never_told_of(&places) {
        tracing::info!(container = %id, "its creation was broken off, removed");
        discard(&places);
        return None;
    }
    // One that is still there is of this boot.
    if !locked && boot == Boot::Other && !exists(&places.run) && record::is_ephemeral(&places.state) {
        tracing::info!(container = %id, "it was to leave nothing (--rm), and the machine was restarted: removed");
        discard(&places);
        return None;
    }
    let record = record::read(&places.state, &id);
    // Its shim may be at the end of what it does for one with `--rm`, and has been faster than this look.
    if record.is_err() && !exists(&places.state) {
        return if exists(&places.run) { orphan(config, id) } else { None };
    }
    if let Err(reason) = &record {
        tracing::warn!(container = %id, %reason, "its record is damaged, continuing");
    }
    let doomed = doomed::noted(&places);
    let mut found =
        Found { exit: None, id, record, state: State::Created, teardown: None, entry: None, doomed };
    let damage = found.read_records(&places);
    let ran = found.exit.as_ref().is_some_and(ran);
    if locked {
        found.state = State::Unreachable(Live::Starting);
        found.entry = Some(Entry::Reconnect);
    } else if exists(&places.run) {
        // Without a record of its end its init may live, and is then given to a new shim: the start waits for that.
        found.state = match &found.exit {
            Some(_) => State::Live(Live::TearingDown { ran }),
            None => State::Unreachable(Live::Starting),
        };
        found.entry = Some(Entry::TearDown { ending: None });
    } else if boot == Boot::Same && cgroups::exist(&places.id()) {
        // Somebody has removed its run directory, and its program may run. Without a journal nobody can go on with it.
        tracing::warn!(container = %found.id, "its run directory is gone and its cgroups are there, it is taken down, continuing");
        let launched = found.record.as_ref().map_or(true, |record| record.launched);
        let unseen = || launched.then(|| unseen_end(boot, damage.exit.as_deref()));
        let ending = found.exit.clone().or_else(unseen);
        found.state = State::Live(Live::TearingDown { ran: ran || ending.is_some() });
        found.entry = Some(Entry::TearDown { ending });
    } else {
        return at_rest(found, &places, ran, boot, &damage);
    }
    Some(found)
}

/// What is wrong with the records of a container's end: their bytes, not the disk.
#[derive(Debug, Default)]
struct Damage {
    exit: Option<String>,
    teardown: Option<String>,
}

impl Found {
    /// Reads how the container ended and was torn down.
    fn read_records(&mut self, places: &Places) -> Damage {
        let mut damage = Damage::default();
        let id = self.id.clone();
        let warned = |what, error: &ReadError| {
            let reason = chain(error);
            tracing::warn!(container = %id, %reason, "{what} record cannot be read, continuing");
            match error {
                ReadError::Damaged { .. } | ReadError::Short { .. } => Some(reason),
                ReadError::Io { .. } => None,
            }
        };
        match ipc_record::read(&places.state.join(layout::EXIT)) {
            Ok(exit) => self.exit = exit,
            Err(error) => damage.exit = warned("an exit", &error),
        }
        match ipc_record::read(&places.state.join(layout::TEARDOWN)) {
            Ok(teardown) => self.teardown = teardown,
            Err(error) => damage.teardown = warned("a teardown", &error),
        }
        damage
    }
}

/// A directory in which nothing was ever finished: whoever asked for the container got no answer.
fn was_never_told_of(places: &Places) -> bool {
    fs::read_dir(&places.state).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| record::is_temporary(&entry.file_name())))
    })
}

/// A container with nothing to undo but directories. Where its record is whole, those of its end are mended: what they
/// said is not made up.
fn at_rest(mut found: Found, places: &Places, mut ran: bool, boot: Boot, damage: &Damage) -> Option<Found> {
    if let Ok(record) = &found.record {
        if record.launched && record.config.remove {
            discard(places);
            return None;
        }
        if damage.teardown.is_some() {
            // Not synced when it was written: a power cut may leave its name without its bytes. Nothing depends on it.
            throw_away(&places.state.join(layout::TEARDOWN), places);
        }
        if (record.launched || damage.exit.is_some()) && found.exit.is_none() {
            let report = unseen_end(boot, damage.exit.as_deref());
            if let Err(error) = record_exit(places, &report) {
                tracing::warn!(container = %found.id, %error, "cannot record an unknown end, continuing");
            }
            found.exit = Some(report);
            ran = true;
        }
        discard_layers(places, record.config.keep);
    }
    found.state = state::at_rest(ran);
    Some(found)
}

fn unseen_end(boot: Boot, damage: Option<&str>) -> ExitReport {
    let error = match (damage, boot) {
        (Some(reason), _) => format!("the record of its end is damaged ({reason})"),
        (None, Boot::Other) => "the machine was restarted".to_owned(),
        (None, Boot::Same) => "nothing that saw it end has survived".to_owned(),
    };
    ExitReport {
        status: ExitStatus::Unknown,
        oom_killed: false,
        started_at: None,
        finished_at: sys::now(),
        error,
    }
}

/// After a power cut the write layer of an ended container may still be there.
fn discard_layers(places: &Places, keep: bool) {
    let kept = if keep { None } else { Some(layout::WRITE_LAYER) };
    for name in [layout::WORK, layout::INIT_LAYER, layout::STAGE].into_iter().chain(kept) {
        throw_away(&places.state.join(name), places);
    }
}

fn throw_away(path: &Path, places: &Places) {
    if let Err(error) = trash::discard(path, &places.trash) {
        tracing::warn!(%error, path = %path.display(), "cannot discard a part of a container, continuing");
    }
}

fn discard(places: &Places) {
    // A start does not wait for room: the next one, or `doctor --fix`, tries again.
    if let Err(error) = jobs::bury(places, &Sweeper::default()) {
        tracing::warn!(error = %error.message, "cannot discard a container's directory, continuing");
    }
}

/// A run directory whose container has no directory below the state root: its record was removed by force, or its
/// creation was broken off before there was one.
fn orphan(config: &Config, id: ContainerId) -> Option<Found> {
    let places = config.places(&id);
    if fs::remove_dir(&places.run).is_ok() {
        return None;
    }
    tracing::warn!(container = %id, "a container without a record is taken down, continuing");
    // Its shim, or the one that takes it down, needs a place for its lock.
    if let Err(error) = jobs::make_directory(&places.state) {
        tracing::warn!(container = %id, %error, "cannot make its directory, continuing");
        return None;
    }
    Some(Found {
        id,
        record: Err("its directory was removed".into()),
        state: State::Unreachable(Live::Starting),
        exit: None,
        teardown: None,
        // One that still lives holds a lock on a file that has no name any more: only its socket can tell.
        entry: Some(Entry::Reconnect),
        doomed: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_goes_while_it_is_looked_at_is_none() {
        let place = std::env::temp_dir().join(format!("mysup-recover-{}", std::process::id()));
        let config = Config { root: place.join("s"), run_root: place.join("r"), ..Config::default() };
        let id: ContainerId = "7".repeat(64).parse().expect("an id");
        // Its directory was listed, and is gone.
        assert!(look(&config, id.clone(), Boot::Same).is_none());
        // One that is there without its record is not.
        fs::create_dir_all(config.places(&id).state.join("log")).expect("a place for temporary files");
        assert!(look(&config, id.clone(), Boot::Same).is_some_and(|found| found.record.is_err()));
        for directory in config.places(&id).state.join("log").ancestors().take(5) {
            let _ = fs::remove_dir(directory);
        }
    }
}
