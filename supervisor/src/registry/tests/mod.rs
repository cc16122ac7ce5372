//! Cases of the registry: with directories of its own, and a shim that is a script of the test.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use mysup_ipc::{
    container::{ContainerConfig, ContainerState},
    exit::{ExitReport, ExitStatus},
    layout,
};
use tokio::sync::Notify;

use super::{
    plan::{self, Attach, Machine},
    record::tests::{config, record},
    recover::Boot,
    *,
};
use crate::{error::chain, sys::OpenFilesLimit};

/// Both roots of one test, gone at its end.
struct Roots {
    base: PathBuf,
    config: Arc<Config>,
}

impl Roots {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("mysup-registry-{}-{number}", std::process::id()));
        let config = Config { root: base.join("root"), run_root: base.join("run"), ..Config::default() };
        let trashes = [config.trash(), config.run_trash()];
        for directory in
            [config.containers(), config.run_containers(), config.volumes()].iter().chain(&trashes)
        {
            fs::create_dir_all(directory).unwrap();
        }
        Self { base, config: Arc::new(config) }
    }

    /// A registry whose shim is this shell script.
    fn registry(&self, shim: &str) -> Handle {
        let program = self.base.join("mysup-shim");
        fs::write(&program, format!("#!/bin/sh\n{shim}\n")).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
        let means = Means {
            config: Arc::clone(&self.config),
            spawner: Spawner::find_near(&self.base).unwrap(),
            children: Arc::new(Children::default()),
            sweeper: Sweeper::default(),
            freed: Arc::new(Notify::new()),
            volumes: Store::open(&self.config, Sweeper::default()).unwrap(),
        };
        let found = recover::scan(&self.config, Boot::Same).unwrap();
        let (registry, handle) = Registry::new(means, found);
        drop(tokio::spawn(registry.run()));
        handle
    }

    fn trashed(&self) -> usize {
        fs::read_dir(self.config.trash()).unwrap().count()
    }
}

impl Drop for Roots {
    #[expect(clippy::disallowed_methods, reason = "a test's own directory, in which nothing is ever mounted")]
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.base);
    }
}

fn id(pair: &str) -> ContainerId {
    pair.repeat(32).parse().unwrap()
}

fn draft(id: ContainerId, name: Option<&str>) -> Draft {
    let config = ContainerConfig { name: name.map(|name| name.parse().unwrap()), ..config() };
    Draft { id, config, image: None, program: record().program, launch: false, random: [7; 32] }
}

async fn start(roots: &Roots, handle: &Handle, id: &ContainerId) -> Result<(), WireError> {
    let record = handle.look(id).await?.record.unwrap();
    let machine =
        Machine { capabilities: capabilities::Available(0), open_files: OpenFilesLimit { soft: 1, hard: 1 } };
    let plan = plan::build(&record, vec![], Attach::Nobody, &roots.config, machine)?;
    handle.start(id, StartOrder { plan, attach: None }).await
}

#[tokio::test]
async fn ids_names_and_prefixes_are_resolved_in_this_order() {
    let roots = Roots::new();
    let handle = roots.registry("exit 1");
    handle.create(draft(id("ab"), Some("cd"))).await.unwrap();
    handle.create(draft(id("cd"), Some("c2"))).await.unwrap();
    handle.create(draft(id("ce"), None)).await.unwrap();
    for (typed, expected) in
        [("ab", "ab"), ("cd", "ab"), ("cdc", "cd"), ("c2", "cd"), ("/c2", "cd"), ("ce", "ce")]
    {
        assert_eq!(handle.resolve(typed).await.unwrap(), id(expected), "{typed}");
    }
    let error = handle.resolve("c").await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (ErrorCode::Ambiguous, "Multiple IDs found with provided prefix: c")
    );
    for typed in ["x", "", "/", "../ab"] {
        let error = handle.resolve(typed).await.unwrap_err();
        assert_eq!((error.code, error.message), (ErrorCode::NotFound, format!("No such container: {typed}")));
    }
}

#[tokio::test]
async fn a_name_is_one_containers_and_free_after_a_removal_or_a_rename() {
    let roots = Roots::new();
    let handle = roots.registry("exit 1");
    handle.create(draft(id("ab"), Some("c1"))).await.unwrap();
    let error = handle.create(draft(id("cd"), Some("c1"))).await.unwrap_err();
    let expected = format!(
        "Conflict. The container name \"/c1\" is already in use by container \"{}\". You have to remove (or rename) \
         that container to be able to reuse that name.",
        id("ab")
    );
    assert_eq!((error.code, error.message), (ErrorCode::Conflict, expected));
    assert_eq!(handle.list().await.unwrap().len(), 1);

    handle.rename(&id("ab"), "c2".parse().unwrap()).await.unwrap();
    assert_eq!(handle.resolve("c2").await.unwrap(), id("ab"));
    let written = record::read(&roots.config.places(&id("ab")).state, &id("ab")).unwrap();
    assert_eq!(written.name.as_str(), "c2");
    handle.create(draft(id("cd"), Some("c1"))).await.unwrap();
    assert!(handle.rename(&id("cd"), "c2".parse().unwrap()).await.is_err());

    handle.remove(&id("ab"), Anonymous::Stay).await.unwrap();
    assert!(!roots.config.places(&id("ab")).state.exists());
    assert_eq!(roots.trashed(), 1);
    handle.create(draft(id("ef"), Some("c2"))).await.unwrap();
}

#[tokio::test]
async fn a_start_whose_shim_dies_is_told_recorded_and_can_be_tried_again() {
    let roots = Roots::new();
    let places = roots.config.places(&id("ab"));
    // Each `run` dies before it says anything; `teardown` removes the run directory as a real one does.
    let shim = format!("test $1 = run || rmdir {}", places.run.display());
    let handle = roots.registry(&shim);
    handle.create(draft(id("ab"), Some("c1"))).await.unwrap();
    for _ in 0..2 {
        let error = start(&roots, &handle, &id("ab")).await.unwrap_err();
        assert_eq!(error.message, "the shim was killed while it prepared the container");
        let info = handle.inspect(&id("ab")).await.unwrap();
        assert_eq!(info.state, ContainerState::Created);
        assert_eq!(info.exit.unwrap().status, ExitStatus::Code(128));
        assert!(!places.run.exists());
        let recorded: Option<ExitReport> = mysup_ipc::record::read(&places.state.join(layout::EXIT)).unwrap();
        assert_eq!(recorded.unwrap().started_at, None);
    }
    assert_eq!(handle.wait(&id("ab")).await.unwrap().status, ExitStatus::Code(128));
    handle.remove(&id("ab"), Anonymous::Stay).await.unwrap();
}

#[tokio::test]
async fn a_container_with_rm_whose_start_fails_is_gone_when_that_is_told() {
    let roots = Roots::new();
    let handle =
        roots.registry(&format!("test $1 = run || rmdir {}", roots.config.places(&id("ab")).run.display()));
    let mut draft = draft(id("ab"), Some("c1"));
    draft.config.remove = true;
    handle.create(draft).await.unwrap();
    start(&roots, &handle, &id("ab")).await.unwrap_err();
    assert!(handle.resolve("c1").await.is_err());
    assert!(!roots.config.places(&id("ab")).state.exists());
}

#[tokio::test]
async fn what_does_not_run_is_stopped_and_cannot_be_killed() {
    let roots = Roots::new();
    let handle = roots.registry("exit 1");
    handle.create(draft(id("ab"), Some("c1"))).await.unwrap();
    handle.stop(&id("ab"), None, None).await.unwrap();
    let error = handle.kill(&id("ab"), 9).await.unwrap_err();
    let expected = format!("Cannot kill container: c1: container {} is not running", id("ab"));
    assert_eq!((error.code, error.message), (ErrorCode::Conflict, expected));
}

#[tokio::test]
async fn who_waits_for_what_never_ran_is_answered_and_for_what_is_removed_told_so() {
    let roots = Roots::new();
    let handle = roots.registry("exit 1");
    handle.create(draft(id("ab"), None)).await.unwrap();
    assert_eq!(handle.wait(&id("ab")).await.unwrap().status, ExitStatus::Code(0));
    handle.remove(&id("ab"), Anonymous::Stay).await.unwrap();
    assert_eq!(handle.wait(&id("ab")).await.unwrap_err().code, ErrorCode::NotFound);
}

/// Writes a record as an earlier supervisor left it, with the directories of a write layer.
fn leave(roots: &Roots, pair: &str, change: impl FnOnce(&mut record::Record)) -> PathBuf {
    let mut record = record::Record { id: id(pair), name: format!("c{pair}").parse().unwrap(), ..record() };
    change(&mut record);
    let directory = roots.config.places(&record.id).state;
    fs::create_dir(&directory).unwrap();
    record.write(&directory).unwrap();
    if record.launched {
        for name in [layout::WRITE_LAYER, layout::WORK, layout::INIT_LAYER] {
            fs::create_dir(directory.join(name)).unwrap();
        }
    }
    directory
}

#[test]
fn after_a_reboot_ends_are_unknown_layers_go_and_what_was_to_stay_stays() {
    let roots = Roots::new();
    leave(&roots, "aa", |record| record.launched = false);
    let ended = leave(&roots, "ab", |_| ());
    let kept = leave(&roots, "ac", |record| record.config.keep = true);
    let ephemeral = leave(&roots, "ad", |record| record.config.remove = true);
    fs::create_dir(roots.config.places(&id("ab")).run).unwrap();
    let found = recover::scan(&roots.config, Boot::Other).unwrap();
    let states: Vec<_> = {
        let mut states: Vec<_> = found.iter().map(|found| (found.id.short(), &found.state)).collect();
        states.sort_by_key(|(id, _)| *id);
        states
    };
    let (aa, ab, ac) = (id("aa"), id("ab"), id("ac"));
    assert_eq!(
        states,
        [(aa.short(), &State::Created), (ab.short(), &State::Exited), (ac.short(), &State::Exited)]
    );
    assert!(found.iter().all(|found| found.entry.is_none()), "nothing of another boot is acted on");
    assert!(!roots.config.places(&id("ab")).run.exists());
    let exit = found.iter().find(|found| found.id == ab).unwrap().exit.clone().unwrap();
    assert_eq!((exit.status, exit.error.as_str()), (ExitStatus::Unknown, "the machine was restarted"));
    assert!(!ended.join(layout::WRITE_LAYER).exists() && !ended.join(layout::WORK).exists());
    assert!(kept.join(layout::WRITE_LAYER).exists() && !kept.join(layout::WORK).exists());
    assert!(!ephemeral.exists());

    let again = recover::scan(&roots.config, Boot::Same).unwrap();
    let exit_again = again.iter().find(|found| found.id == ab).unwrap().exit.clone();
    assert_eq!(exit_again, Some(exit), "the first durable value stays");
}

#[test]
fn records_that_a_power_cut_has_emptied_are_mended_or_go() {
    let roots = Roots::new();
    let ended = leave(&roots, "aa", |_| ());
    for name in [layout::EXIT, layout::TEARDOWN] {
        fs::write(ended.join(name), b"").unwrap();
    }
    let ephemeral = leave(&roots, "ab", |record| record.config.remove = true);
    fs::write(ephemeral.join(layout::EPHEMERAL_CONFIG), b"").unwrap();
    let made = leave(&roots, "ac", |record| {
        record.config.remove = true;
        record.launched = false;
    });
    let found = recover::scan(&roots.config, Boot::Other).unwrap();
    assert_eq!(found.len(), 2, "what was to leave nothing has left nothing");
    assert!(!ephemeral.exists() && made.exists());
    let exit = found.iter().find(|found| found.id == id("aa")).unwrap().exit.clone().unwrap();
    assert_eq!(exit.status, ExitStatus::Unknown);
    assert!(exit.error.contains("damaged"), "{}", exit.error);
    let recorded: Option<ExitReport> = mysup_ipc::record::read(&ended.join(layout::EXIT)).unwrap();
    assert_eq!(recorded, Some(exit));
    assert!(!ended.join(layout::TEARDOWN).exists());
}

#[test]
fn a_damaged_record_costs_one_container_and_strangers_are_left_alone() {
    let roots = Roots::new();
    leave(&roots, "aa", |record| record.launched = false);
    let damaged = leave(&roots, "ab", |record| record.launched = false);
    fs::write(damaged.join(layout::CONFIG), b"\0\0\0").unwrap();
    let stranger = roots.config.containers().join("lost+found");
    fs::create_dir(&stranger).unwrap();
    let broken_off = roots.config.places(&id("ac")).state;
    fs::create_dir(&broken_off).unwrap();
    fs::write(broken_off.join("config.json.tmp"), b"half").unwrap();
    let mut found = recover::scan(&roots.config, Boot::Same).unwrap();
    found.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(found.len(), 2);
    assert!(found[0].record.is_ok());
    assert!(found[1].record.as_ref().unwrap_err().contains("cut short"));
    assert!(stranger.exists());
    assert!(!broken_off.exists(), "nobody was told of it");
}

#[test]
fn run_directories_without_a_container_go_or_are_taken_down() {
    let roots = Roots::new();
    fs::create_dir(roots.config.places(&id("aa")).run).unwrap();
    let full = roots.config.places(&id("ab"));
    fs::create_dir(&full.run).unwrap();
    fs::write(full.run.join(layout::JOURNAL), b"").unwrap();
    let found = recover::scan(&roots.config, Boot::Same).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, id("ab"));
    assert!(found[0].entry.is_some() && full.state.exists());
    assert!(!roots.config.places(&id("aa")).run.exists());
}
