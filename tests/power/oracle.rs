//! What must be true after the next boot, whatever the cut left on the disk.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::PoisonError};

use serde_json::Value;

use super::{
    boot::Machine,
    facts::{Fact, Life, Told},
    story::{KEPT, Layers},
};
use crate::harness::{
    holds_within, inspect, processes,
    tree::{Tree, paths, sha256},
};

/// How much is asked after one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// What is on the disk and what mysup says.
    Look,
    /// And images are run, another supervisor recovers, and everything is removed.
    Use,
}

/// What was told before the cut, and what was seen while there was power.
#[derive(Debug, Clone, Copy)]
pub(super) struct Truth<'a> {
    /// What was told, and when.
    pub(super) told: &'a Told,
    /// When the power went.
    pub(super) at: usize,
    /// Every layer as it was unpacked.
    pub(super) layers: &'a Layers,
}

/// One container as `inspect` shows it.
struct Shown {
    id: String,
    name: String,
    status: String,
    code: i64,
    error: String,
    all: Value,
}

/// Judges a machine that has just booted; a supervisor runs afterwards.
#[track_caller]
pub(super) fn judge(machine: &Machine<'_>, truth: Truth<'_>, depth: Depth) {
    machine.mysup(&["start"]).expect_code(0);
    let shown = containers(machine);
    let facts = truth.told.by(truth.at);
    judge_containers(&shown, truth.told, &facts);
    judge_images(machine, truth, &facts);
    judge_volumes(machine, &shown, &facts);
    expect_nothing_left(machine, &shown);
    for container in &shown {
        // Its log was never promised; it must be readable as far as it is there.
        machine.sandbox.mysup(&["logs", &container.id]).expect_code(0);
    }
    if let Some(Fact::Container(id, _)) = facts.get(KEPT) {
        let file = machine.sandbox.root().join("containers").join(id).join("upper/kept");
        let bytes = fs::read(&file).unwrap_or_default();
        assert!(bytes == b"kept\n", "what the program has synced is lost: {bytes:?} in {}", file.display());
    }
    machine.mysup(&["doctor"]).expect_code(0);
    if depth == Depth::Use {
        use_it(machine, &shown);
    }
}

#[track_caller]
fn containers(machine: &Machine<'_>) -> Vec<Shown> {
    let all = machine.sandbox.ok(&["ps", "-a", "-q", "--no-trunc"]);
    all.lines()
        .map(|id| {
            let all = machine.sandbox.inspect(id);
            let text = |path: &str| inspect::text(&all, path);
            Shown {
                id: id.to_owned(),
                name: text("Name").trim_start_matches('/').to_owned(),
                status: text("State.Status").to_lowercase(),
                code: inspect::number(&all, "State.ExitCode"),
                error: text("State.Error"),
                all,
            }
        })
        .collect()
}

fn judge_containers(shown: &[Shown], told: &Told, facts: &BTreeMap<&str, &Fact>) {
    for (name, fact) in facts {
        let found = shown.iter().find(|container| container.name == *name);
        match fact {
            Fact::Container(id, _) if *name != KEPT => {
                assert!(found.is_some_and(|found| found.id == *id), "container {name} ({id}) is lost");
            }
            Fact::NoContainer => assert!(found.is_none(), "container {name} is there again"),
            Fact::Container(..) | Fact::Image(_) | Fact::NoImage | Fact::Volume(_) | Fact::NoVolume(_) => {}
        }
    }
    for container in shown {
        let Shown { name, status, code, error, all, .. } = container;
        let fact = match facts.get(name.as_str()) {
            Some(Fact::Container(_, life)) => Some(*life),
            Some(
                Fact::NoContainer | Fact::Image(_) | Fact::NoImage | Fact::Volume(_) | Fact::NoVolume(_),
            )
            | None => None,
        };
        assert!(told.knows(name), "nobody has made container {name:?}: {all:#}");
        let is_unknown = *code == 255 && !error.is_empty() && error != "null";
        let right = match (status.as_str(), fact) {
            ("created", None | Some(Life::Created)) => true,
            ("exited", Some(Life::Ended(known))) => *code == i64::from(known),
            ("exited", None | Some(Life::Started)) => is_unknown || told.may_end(name, *code),
            _ => false,
        };
        assert!(
            right,
            "the user was told {fact:?} of {name}, and it is {status} with {code} {error:?}\n{all:#}"
        );
    }
}

/// What was told is there, and what is listed is whole: its record, and what the image has at /etc, all of it or nothing. One
/// without a name has a container.
fn judge_volumes(machine: &Machine<'_>, shown: &[Shown], facts: &BTreeMap<&str, &Fact>) {
    let sandbox = machine.sandbox;
    let listed = sandbox.ok(&["volume", "ls", "--format", "{{.Name}} {{.Anonymous}} {{.Error}}"]);
    let listed: Vec<Vec<&str>> = listed.lines().map(|line| line.splitn(3, ' ').collect()).collect();
    for fact in facts.values() {
        match fact {
            Fact::Volume(name) => {
                assert!(listed.iter().any(|volume| volume[0] == *name), "volume {name} is lost: {listed:?}");
            }
            Fact::NoVolume(name) => {
                assert!(!listed.iter().any(|volume| volume[0] == *name), "volume {name} is there again");
            }
            Fact::Container(..) | Fact::NoContainer | Fact::Image(_) | Fact::NoImage => {}
        }
    }
    for volume in &listed {
        let (name, anonymous, error) = (volume[0], volume[1], volume.get(2).copied().unwrap_or_default());
        assert!(error.is_empty(), "volume {name} is damaged: {error}");
        let has_it = |container: &&Shown| container.all["Mounts"].to_string().contains(name);
        assert!(anonymous == "false" || shown.iter().any(|one| has_it(&one)), "volume {name} is nobody's");
        let data = sandbox.root().join("volumes").join(name).join("_data");
        let passwd = fs::read_to_string(data.join("passwd")).ok();
        let files = fs::read_dir(&data).map_or(0, |entries| entries.count());
        let is_whole = match passwd {
            Some(text) => {
                text.contains("tester") && data.join("plain").exists() && data.join("group").exists()
            }
            None => files == 0,
        };
        assert!(is_whole, "volume {name} has {files} files, and is neither empty nor whole");
    }
}

/// Whoever is listed is whole: every layer is what was unpacked, byte for byte, mode for mode.
fn judge_images(machine: &Machine<'_>, truth: Truth<'_>, facts: &BTreeMap<&str, &Fact>) {
    let root = machine.sandbox.root();
    let listed = machine.sandbox.ok(&["images", "--no-trunc", "--format", "{{.Repository}} {{.ID}}"]);
    let listed: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once(' ')).collect();
    for (whom, fact) in facts {
        let found = listed.iter().find(|(name, id)| name == whom || id == whom);
        match fact {
            Fact::Image(id) => assert!(
                found.is_some_and(|(_, found)| found == id),
                "image {whom} ({id}) is lost; there are {listed:?}"
            ),
            Fact::NoImage => assert!(found.is_none(), "image {whom} is there again: {listed:?}"),
            Fact::Container(..) | Fact::NoContainer | Fact::Volume(_) | Fact::NoVolume(_) => {}
        }
    }
    if !listed.is_empty() {
        machine.sandbox.ok(&["image", "verify"]);
    }
    let known = truth.layers.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, id) in &listed {
        let record = root.join("images").join(id.trim_start_matches("sha256:")).with_extension("json");
        let record =
            fs::read_to_string(&record).unwrap_or_else(|error| panic!("{}: {error}", record.display()));
        let record: Value = serde_json::from_str(&record).expect("it was just listed");
        let configuration = inspect::text(&record, "image.configuration");
        let configuration: Value = serde_json::from_str(&configuration).expect("it was just listed");
        let layers = configuration["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
        assert!(!layers.is_empty(), "image {name} has no layer: {configuration:#}");
        let mut chain = String::new();
        for layer in &layers {
            let diff_id = layer.as_str().unwrap_or_default();
            chain = match chain.as_str() {
                "" => diff_id.to_owned(),
                below => format!("sha256:{}", sha256(format!("{below} {diff_id}").as_bytes())),
            };
            let digest = chain.trim_start_matches("sha256:").to_owned();
            let unpacked =
                known.get(&digest).unwrap_or_else(|| panic!("nobody has unpacked {digest} of {name}"));
            let found = Tree::read(&root.join("layers").join(&digest).join("tree")).into_unpacked();
            let difference = unpacked.difference(&found);
            assert!(
                difference.is_empty(),
                "image {name} is listed and not whole:\n{}",
                difference.join("\n")
            );
        }
    }
}

/// Nothing of what was under way is left.
#[track_caller]
fn expect_nothing_left(machine: &Machine<'_>, shown: &[Shown]) {
    let (root, run_root) = (machine.sandbox.root(), machine.sandbox.run_root());
    let mut left = Vec::new();
    let clean = holds_within(crate::harness::PATIENCE, || {
        left.clear();
        for place in [root.join("trash"), run_root.join("trash"), run_root.join("containers")] {
            left.extend(names(&place));
        }
        left.extend(
            names(&root.join("images"))
                .into_iter()
                .filter(|path| path.extension().is_some_and(|e| e != "json")),
        );
        left.extend(
            names(&root.join("containers"))
                .into_iter()
                .filter(|path| !shown.iter().any(|container| path.ends_with(&container.id))),
        );
        for container in shown {
            let keeps = inspect::text(&container.all, "HostConfig.Keep") == "true"
                || ["keeps", "made", "renamed", "twice"].contains(&container.name.as_str());
            let layers = ["work", "init", "stage", "upper"];
            let layers = &layers[..if keeps { 3 } else { 4 }];
            let directory = root.join("containers").join(&container.id);
            left.extend(layers.iter().map(|name| directory.join(name)).filter(|path| path.exists()));
        }
        left.is_empty()
    });
    assert!(clean, "left after the start: {left:?}");
}

fn names(directory: &std::path::Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Images run, another start finds nothing to do, everything can be removed, and then nothing is there.
#[track_caller]
fn use_it(machine: &Machine<'_>, shown: &[Shown]) {
    let sandbox = machine.sandbox;
    let images = sandbox.ok(&["images", "--no-trunc", "--format", "{{.ID}}"]);
    for image in images.lines() {
        sandbox.mysup(&["run", "--rm", image, "sh", "-c", "exit 91"]).expect_code(91);
    }
    let before = settled(machine);
    sandbox.kill_supervisor();
    machine.mysup(&["start"]).expect_code(0);
    let after = settled(machine);
    assert!(before == after, "a second start changes something:\n{before:#?}\n{after:#?}");
    for container in shown.iter().filter(|container| container.status == "created") {
        sandbox.mysup(&["start", &container.id]).expect_code(0);
        sandbox.mysup(&["wait", &container.id]).expect_code(0);
    }
    let ids: Vec<&str> = shown.iter().map(|container| container.id.as_str()).collect();
    if !ids.is_empty() {
        sandbox.ok(&[&["rm", "-v"], &ids[..]].concat());
    }
    for volume in sandbox.ok(&["volume", "ls", "-q"]).lines() {
        sandbox.ok(&["volume", "rm", volume]);
    }
    for image in images.lines() {
        sandbox.ok(&["rmi", image]);
    }
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
    assert_eq!(sandbox.ok(&["images", "-q"]), "");
    let mut left = Vec::new();
    let clean = holds_within(crate::harness::PATIENCE, || {
        left = ["containers", "images", "layers", "trash", "volumes"]
            .iter()
            .flat_map(|name| names(&sandbox.root().join(name)))
            .collect();
        left.is_empty()
    });
    assert!(clean, "left after everything was removed: {left:?}");
}

/// Everything on disk and in memory by name, when the sweep is over, and what is said of the containers.
fn settled(machine: &Machine<'_>) -> Vec<String> {
    let sandbox = machine.sandbox;
    let is_swept = || names(&sandbox.root().join("trash")).is_empty();
    holds_within(crate::harness::PATIENCE, || {
        is_swept() && names(&sandbox.run_root().join("containers")).is_empty()
    });
    let mut all = paths(&sandbox.root(), &["layers"]);
    all.extend(names(&sandbox.root().join("layers")).iter().map(|path| path.display().to_string()));
    all.extend(paths(&sandbox.run_root(), &[]));
    all.extend(
        sandbox
            .ok(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}"])
            .lines()
            .map(str::to_owned),
    );
    all
}

/// Ends the boot as a user would; nothing may be left of it in the kernel.
#[track_caller]
pub(super) fn end_of_boot(machine: &Machine<'_>) {
    machine.sandbox.mysup(&["shutdown", "--containers"]).expect_code(0);
    let mut alive = Vec::new();
    let clean = holds_within(crate::harness::PATIENCE, || {
        alive = machine.residents.alive();
        alive.is_empty()
    });
    let words: Vec<String> = alive.iter().map(|pid| processes::describe(*pid)).collect();
    assert!(clean, "processes live on: {words:?}");
    assert!(machine.residents.cgroups().is_empty(), "cgroups are left: {:?}", machine.residents.cgroups());
}
