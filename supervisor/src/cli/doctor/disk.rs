//! What the two roots say: the directories of containers and their records. Read only; a lock is never tried.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use mysup_ipc::{
    codec::Message,
    exit::ExitReport,
    frame::Decoder,
    id::ContainerId,
    layout, record as ipc_record,
    shim::ToShim,
    teardown::{JournalEntry, TeardownReport},
};

use crate::{
    cli::error::CliError,
    registry::record::{self, Record},
};

/// The most bytes of a journal that are looked at: it has a dozen short entries.
const JOURNAL_BOUND: u64 = 1 << 20;

/// A container's directory below the state root.
#[derive(Debug)]
pub(super) struct StateDirectory {
    /// Where.
    pub(super) path: PathBuf,
    /// What is in it.
    pub(super) names: BTreeSet<String>,
    /// What was asked for.
    pub(super) record: Result<Record, String>,
    /// How it ended.
    pub(super) exit: Result<Option<ExitReport>, String>,
    /// Its last teardown.
    pub(super) teardown: Result<Option<TeardownReport>, String>,
}

impl StateDirectory {
    /// Reads all that is in it.
    pub(super) fn read(path: PathBuf, id: &ContainerId) -> Self {
        let named = |name: &str| path.join(name);
        let exit = ipc_record::read(&named(layout::EXIT)).map_err(|error| chain(&error));
        let teardown = ipc_record::read(&named(layout::TEARDOWN)).map_err(|error| chain(&error));
        Self { names: names_or_none(&path), record: record::read(&path, id), exit, teardown, path }
    }

    /// Whoever asked for this container got no answer: nothing in it was ever finished.
    pub(super) fn was_never_told_of(&self) -> bool {
        self.names.iter().all(|name| record::is_temporary(name.as_ref()))
    }

    /// Whether the kernel's table of locks has an exclusive one of the container's lock file.
    pub(super) fn is_in(&self, table: &str) -> bool {
        is_locked(&self.path.join(layout::LOCK), table)
    }

    /// The layers that were to go with its end and are still there.
    pub(super) fn layers(&self, keep: bool) -> Vec<PathBuf> {
        let write_layer = (!keep).then_some(layout::WRITE_LAYER);
        [layout::WORK, layout::INIT_LAYER, layout::STAGE]
            .into_iter()
            .chain(write_layer)
            .filter(|name| self.names.contains(*name))
            .map(|name| self.path.join(name))
            .collect()
    }
}

/// A container's directory below the run root.
#[derive(Debug)]
pub(super) struct RunDirectory {
    /// Where.
    pub(super) path: PathBuf,
    /// What is in it.
    pub(super) names: BTreeSet<String>,
    /// The effects of its shim that are to be undone, oldest first.
    pub(super) journal: Vec<JournalEntry>,
    /// Whether the plan, by which another shim could go on, is whole or not there.
    pub(super) plan: Result<(), String>,
}

impl RunDirectory {
    /// Reads all that is in it.
    pub(super) fn read(path: PathBuf) -> Self {
        let plan = ipc_record::read::<ToShim>(&path.join(layout::PLAN));
        let plan = plan.map(|_| ()).map_err(|error| chain(&error));
        Self { names: names_or_none(&path), journal: journal(&path.join(layout::JOURNAL)), plan, path }
    }

    /// Whether its program was let go.
    pub(super) fn was_released(&self) -> bool {
        self.journal.iter().any(|entry| matches!(entry, JournalEntry::Released { .. }))
    }

    /// Whether it is of a boot before this one.
    pub(super) fn is_of_another_boot(&self, now: &str) -> bool {
        self.journal
            .iter()
            .any(|entry| matches!(entry, JournalEntry::Begin { boot_id, .. } if boot_id != now))
    }
}

/// Entries up to what is torn: that was not acted on yet.
fn journal(path: &Path) -> Vec<JournalEntry> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(JOURNAL_BOUND).read_to_end(&mut bytes));
    let mut entries = Vec::new();
    if read.is_err() {
        return entries;
    }
    let mut decoder = Decoder::new();
    decoder.push(&bytes);
    while let Ok(Some(frame)) = decoder.next_frame() {
        match JournalEntry::from_frame(&frame) {
            Ok(entry) => entries.push(entry),
            Err(_) => break,
        }
    }
    entries
}

/// What is in one of our directories, with its path. One that is not there is empty; one that cannot be read is an
/// error: nobody may be told that all is well.
///
/// # Errors
/// If it cannot be read.
pub(super) fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>, CliError> {
    let failed = |source: io::Error| CliError::File {
        action: "read the directory",
        path: directory.to_owned(),
        source,
    };
    let read = match fs::read_dir(directory) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in read {
        let entry = entry.map_err(failed)?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    found.sort();
    Ok(found)
}

/// The id of a container's directory; `None` if it is something else.
pub(super) fn container_id(name: &str, path: &Path) -> Option<ContainerId> {
    let is_directory = path.symlink_metadata().is_ok_and(|status| status.is_dir());
    if is_directory { name.parse().ok() } else { None }
}

/// One container's directory that cannot be listed shows as a record that cannot be read.
fn names_or_none(directory: &Path) -> BTreeSet<String> {
    let listed = entries(directory).unwrap_or_default();
    listed.into_iter().map(|(name, _)| name).collect()
}

/// Whether the kernel's table of locks has an exclusive flock of a file or directory.
pub(super) fn is_locked(path: &Path, table: &str) -> bool {
    let Ok(lock) = path.symlink_metadata() else { return false };
    // proc_locks(5): major and minor number of the device in hexadecimal, then the inode.
    let (major, minor) = (rustix::fs::major(lock.dev()), rustix::fs::minor(lock.dev()));
    let file = format!(" {major:02x}:{minor:02x}:{} ", lock.ino());
    table.lines().any(|line| line.contains(" FLOCK ") && line.contains(" WRITE ") && line.contains(&file))
}

/// All locks of this machine, proc_locks(5).
pub(super) fn lock_table() -> String {
    fs::read_to_string("/proc/locks").unwrap_or_default()
}

/// The boot that this machine is in; random(4).
pub(super) fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// An error with its causes as one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
