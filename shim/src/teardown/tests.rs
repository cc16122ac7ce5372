//! The undo journal as a whole: every prefix of it, undone once and again; newest first; and on after errors.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use mysup_ipc::point::Step;

use super::*;
use crate::teardown::journal::Journal;

/// The directories of one container, and plain directories in the place of its cgroups.
struct Laboratory {
    base: PathBuf,
    places: Places,
}

impl Laboratory {
    fn new(name: &str) -> Self {
        let base = std::env::temp_dir().join(format!("mysup-undo-{name}-{}", std::process::id()));
        let place = |name: &str| base.join(name).to_str().expect("ASCII").to_owned();
        for name in ["state", "run", "trash", "groups/a", "groups/b"] {
            fs::create_dir_all(base.join(name)).expect("mkdir");
        }
        for name in ["a", "b"] {
            fs::remove_dir(base.join("groups").join(name)).expect("rmdir");
        }
        let places = Places { state_dir: place("state"), run_dir: place("run"), trash_dir: place("trash") };
        Self { base, places }
    }

    /// One of each kind, in the order of the shim.
    fn journal(&self, lifetime: Lifetime) -> Vec<JournalEntry> {
        let cgroup = |name: &str| JournalEntry::Cgroup {
            path: self.base.join("groups").join(name).to_str().expect("ASCII").to_owned(),
        };
        vec![
            JournalEntry::Begin { boot_id: boot_id(), lifetime },
            cgroup("a"),
            cgroup("b"),
            JournalEntry::WriteLayer,
            JournalEntry::Mountpoint,
            JournalEntry::Released { init_pid: u32::MAX, at: 0, init_start: 0 },
        ]
    }

    /// The effect of an entry. A new kind does not compile without one.
    fn make(&self, entry: &JournalEntry) {
        let (run, state) = (Path::new(&self.places.run_dir), Path::new(&self.places.state_dir));
        match entry {
            JournalEntry::Begin { .. } => {
                for name in [layout::PLAN, layout::SHIM_SOCKET] {
                    fs::write(run.join(name), "").expect("write");
                }
            }
            JournalEntry::Cgroup { path } => fs::create_dir(path).expect("mkdir"),
            JournalEntry::WriteLayer => {
                for name in [layout::WRITE_LAYER, layout::WORK, layout::INIT_LAYER, layout::STAGE] {
                    fs::create_dir_all(state.join(name).join("deep/er")).expect("mkdir");
                }
            }
            JournalEntry::Mountpoint => fs::create_dir(run.join(layout::MOUNTPOINT)).expect("mkdir"),
            JournalEntry::Unknown => unreachable!("never written"),
            JournalEntry::Released { .. } => {
                for name in [layout::STDIN, layout::STDOUT, layout::STDERR] {
                    fs::write(run.join(name), "").expect("write");
                }
            }
        }
    }

    /// Writes the journal and makes the effects of `entries`, of the last one only if `last` says so.
    fn play(&self, entries: &[JournalEntry], last: bool) {
        let run = fs::File::open(&self.places.run_dir).expect("open");
        let mut journal = Journal::create(run.as_fd()).expect("create");
        for (at, entry) in entries.iter().enumerate() {
            journal.append(entry).expect("append");
            if last || at + 1 < entries.len() {
                self.make(entry);
            }
        }
    }

    /// A teardown by somebody who has nothing but the journal.
    fn teardown(&self) -> Teardown {
        let entries = match fs::File::open(&self.places.run_dir) {
            Ok(run) => journal::read(run.as_fd()).expect("read"),
            Err(_) => Vec::new(),
        };
        let proc = fs::File::open("/proc").expect("open");
        Teardown::new(self.places.clone(), &entries, proc.into(), None, Vec::new(), OwedRecord::default())
            .expect("new")
    }

    /// Everything there is, but the trash itself.
    fn left(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut queue = vec![self.base.clone()];
        while let Some(directory) = queue.pop() {
            for entry in fs::read_dir(&directory).expect("read").flatten() {
                let path = entry.path();
                found.insert(path.strip_prefix(&self.base).expect("below").display().to_string());
                if path.is_dir() {
                    queue.push(path);
                }
            }
        }
        found.retain(|path| !["groups", "trash"].contains(&path.as_str()));
        found
    }
}

impl Drop for Laboratory {
    fn drop(&mut self) {
        let base = fs::File::open(&self.base).expect("open");
        assert_eq!(sweep::empty(base.as_fd()), []);
        fs::remove_dir(&self.base).expect("rmdir");
    }
}

/// Undoes until done; the steps in the order in which they were taken.
fn undo(teardown: &mut Teardown) -> (bool, Vec<StepKind>) {
    let mut steps = Vec::new();
    let done = teardown.attempt(&mut |step| steps.push(step.kind));
    (done, steps)
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_journal_of_these_tests_has_every_kind() {
    let laboratory = Laboratory::new("kinds");
    let kinds: BTreeSet<Step> =
        laboratory.journal(Lifetime::Record).iter().filter_map(Step::of_entry).collect();
    let all: BTreeSet<Step> = Step::ALL.iter().copied().filter(|step| step.is_journaled()).collect();
    assert_eq!(kinds, all);
}

#[test]
fn every_prefix_is_undone_and_undone_again() {
    for (lifetime, name, stays) in [
        (Lifetime::Record, "record", names(&["state"])),
        (Lifetime::Nothing, "nothing", names(&[])),
        (
            Lifetime::WriteLayer,
            "keep",
            names(&["state", "state/upper", "state/upper/deep", "state/upper/deep/er"]),
        ),
    ] {
        let full = Laboratory::new("length").journal(lifetime).len();
        for length in 0..=full {
            for last in [false, true] {
                let laboratory = Laboratory::new(name);
                let entries = laboratory.journal(lifetime);
                laboratory.play(&entries[..length], last);
                let mut teardown = laboratory.teardown();
                let mut late = laboratory.teardown();
                assert!(undo(&mut teardown).0, "{length} {last}: {:?}", teardown.report());
                // Without its first entry nothing is known of the container but that it has a run directory.
                let made_layers = length > 4 || length == 4 && last;
                let expected = match length {
                    0 => names(&["state"]),
                    _ if lifetime == Lifetime::WriteLayer && !made_layers => names(&["state"]),
                    _ => stays.clone(),
                };
                assert_eq!(laboratory.left(), expected, "{length} {last}");
                // By the same, by one who had read the journal before, and by one who finds none.
                for mut again in [teardown, late_attempt(&mut late), laboratory.teardown()] {
                    assert!(undo(&mut again).0, "again {length} {last}: {:?}", again.report());
                    assert_eq!(laboratory.left(), expected, "again {length} {last}");
                }
            }
        }
    }
}

/// Takes it out of its place.
fn late_attempt(late: &mut Teardown) -> Teardown {
    let proc = fs::File::open("/proc").expect("open");
    let places = late.places.clone();
    let empty =
        Teardown::new(places, &[], proc.into(), None, Vec::new(), OwedRecord::default()).expect("new");
    std::mem::replace(late, empty)
}

#[test]
fn the_newest_effect_is_undone_first() {
    let laboratory = Laboratory::new("order");
    laboratory.play(&laboratory.journal(Lifetime::Nothing), true);
    let (done, steps) = undo(&mut laboratory.teardown());
    assert!(done);
    // Of which effect each step is the undo, as its place in the journal.
    let place = |kind: StepKind| match kind {
        StepKind::Processes => 4,
        StepKind::Volume | StepKind::Rootfs | StepKind::Mountpoint => 3,
        StepKind::WriteLayer => 2,
        StepKind::Cgroups => 1,
        StepKind::RunDirectory | StepKind::StateDirectory => 0,
        StepKind::Unknown => unreachable!("no step of ours"),
    };
    let places: Vec<i32> = steps.iter().map(|kind| place(*kind)).collect();
    assert!(places.is_sorted_by(|one, next| one >= next), "{steps:?}");
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), 5, "{steps:?}");
}

#[test]
fn a_cgroup_that_resists_keeps_itself_and_the_journal_only() {
    let laboratory = Laboratory::new("cgroup");
    laboratory.play(&laboratory.journal(Lifetime::Record), true);
    // In the newer one, which goes first: a plain directory with a file cannot be removed by rmdir(2).
    let obstacle = laboratory.base.join("groups/b/file");
    fs::write(&obstacle, "").expect("write");
    let mut teardown = laboratory.teardown();
    assert!(!undo(&mut teardown).0);
    let run_files =
        ["run", "run/journal", "run/plan", "run/shim.sock", "run/stdin", "run/stdout", "run/stderr"];
    let stays = |more: &[&str]| names(&[&run_files[..], &["state"], more].concat());
    let left = laboratory.left();
    assert!(left.is_superset(&stays(&["groups/b", "groups/b/file"])), "{left:?}");
    assert!(!left.contains("groups/a") && !left.iter().any(|path| path.starts_with("state/")), "{left:?}");
    fs::remove_file(obstacle).expect("rm");
    assert!(undo(&mut teardown).0, "{:?}", teardown.report());
    assert_eq!(laboratory.left(), names(&["state"]));
}

#[test]
fn a_mountpoint_that_resists_keeps_what_lies_below_it_only() {
    let laboratory = Laboratory::new("mountpoint");
    laboratory.play(&laboratory.journal(Lifetime::Record), true);
    let obstacle = laboratory.base.join("run/mnt/foreign");
    fs::write(&obstacle, "bytes").expect("write");
    let mut teardown = laboratory.teardown();
    let (done, steps) = undo(&mut teardown);
    assert!(
        !done && steps.contains(&StepKind::Cgroups) && !steps.contains(&StepKind::WriteLayer),
        "{steps:?}"
    );
    let left = laboratory.left();
    assert!(left.contains("state/upper") && left.contains("run/journal"), "{left:?}");
    assert!(!left.contains("groups/a") && !left.contains("groups/b"), "{left:?}");
    assert_eq!(fs::read(&obstacle).expect("read"), b"bytes");
    fs::remove_file(obstacle).expect("rm");
    assert!(undo(&mut laboratory.teardown()).0);
    assert_eq!(laboratory.left(), names(&["state"]));
}

#[test]
fn one_layer_that_resists_does_not_keep_the_others() {
    let laboratory = Laboratory::new("layer");
    laboratory.play(&laboratory.journal(Lifetime::Record), true);
    // In the trash a layer has the name of the container before its own: `.init` and `.work` fit into 255 bytes,
    // `.stage` and `.upper` do not.
    let long = laboratory.base.join("x".repeat(250));
    fs::rename(&laboratory.places.state_dir, &long).expect("rename");
    let state_dir = long.to_str().expect("ASCII").to_owned();
    let result = layers::remove_layers(&Places { state_dir, ..laboratory.places.clone() }, Lifetime::Record);
    assert!(result.is_err());
    fs::rename(&long, &laboratory.places.state_dir).expect("rename");
    let left = laboratory.left();
    assert!(left.contains("state/stage") && left.contains("state/upper"), "{left:?}");
    assert!(!left.contains("state/init") && !left.contains("state/work"), "{left:?}");
    assert!(undo(&mut laboratory.teardown()).0);
    assert_eq!(laboratory.left(), names(&["state"]));
}

#[test]
fn a_foreign_directory_in_the_run_directory_keeps_itself_and_the_journal_only() {
    let laboratory = Laboratory::new("foreign");
    laboratory.play(&laboratory.journal(Lifetime::Record), true);
    let obstacle = laboratory.base.join("run/foreign");
    fs::create_dir(&obstacle).expect("mkdir");
    fs::write(obstacle.join("file"), "bytes").expect("write");
    // A file may be one of a newer shim's, and goes.
    fs::write(laboratory.base.join("run/file"), "bytes").expect("write");
    assert!(!undo(&mut laboratory.teardown()).0);
    assert_eq!(laboratory.left(), names(&["run", "run/foreign", "run/foreign/file", "run/journal", "state"]));
    fs::remove_file(obstacle.join("file")).expect("rm");
    fs::remove_dir(obstacle).expect("rmdir");
    assert!(undo(&mut laboratory.teardown()).0);
    assert_eq!(laboratory.left(), names(&["state"]));
}
