//! What must be true after a cell.
//!
//! The program's own proof on a volume is the truth. Its exit status is the true one wherever anything that saw its end
//! has survived; else it is unknown, and said to be. What a living shim has made, it takes down alone.

use std::{fs, time::Duration};

use mysup_ipc::layout;

use super::{
    cell::Cell,
    scenario::{self, KEPT, RENAMED, Scenario},
    victims::{FollowUp, Present, Victims},
};
use crate::{
    harness::{Sandbox, command::Output, holds_within, inspect, leaks, processes},
    sweep::{IMPORTED, NAME, changed_by_recovery, expect_no_panic, extra_tar},
};

/// A state that does not heal within this is stuck.
const SETTLED: Duration = Duration::from_secs(20);

/// What was done to a container, as far as its truth depends on it.
#[derive(Debug)]
pub(super) struct Fate {
    scenario: Scenario,
    /// What the program ends with by itself.
    code: i32,
    /// The test has killed its init.
    init_killed: bool,
    /// A shim that was answerable for the container was not killed.
    shim_survives: bool,
    /// Nobody who saw its end has survived, and no record of it.
    unseen: bool,
    /// The supervisor, if it was not killed.
    pub(super) supervisor: Option<i32>,
}

impl Fate {
    /// Nobody was killed but by the scenario itself.
    pub(super) fn unharmed(scenario: Scenario, code: i32) -> Fate {
        Fate {
            scenario,
            code,
            init_killed: scenario.kills(),
            shim_survives: true,
            unseen: scenario == Scenario::Reboot,
            supervisor: None,
        }
    }

    /// What a cell is about to do to those who are present.
    pub(super) fn of(sandbox: &Sandbox, cell: &Cell, code: i32, present: Present, id: Option<&str>) -> Fate {
        let scenario = cell.place.scenario;
        let dies = |victims: &[Victims]| victims.contains(&cell.victims);
        let shim_dies = dies(&[Victims::Shim, Victims::Both, Victims::All]);
        let supervisor =
            present.supervisor.filter(|_| !dies(&[Victims::Supervisor, Victims::Both, Victims::All]));
        let supervisor_stays = supervisor.is_some() && cell.follow_up == FollowUp::AtOnce;
        let shim_survives = present.shim_is_in_charge && !shim_dies;
        let init_dies = dies(&[Victims::Init, Victims::All]);
        let lives_on = present.init.is_some() && !init_dies && cell.follow_up == FollowUp::AtOnce;
        let exit = id.map(|id| sandbox.root().join(layout::CONTAINERS).join(id).join(layout::EXIT));
        let recorded = exit.is_some_and(|exit| exit.exists());
        Fate {
            scenario,
            code,
            init_killed: scenario.kills() || init_dies,
            shim_survives,
            unseen: scenario == Scenario::Reboot
                || !shim_survives && !supervisor_stays && !lives_on && !recorded,
            supervisor,
        }
    }
}

/// What the program proved of itself.
#[derive(Debug)]
struct Proof {
    started: bool,
    code: String,
}

impl Proof {
    fn read(sandbox: &Sandbox) -> Proof {
        let code = fs::read_to_string(sandbox.place("proof/code")).unwrap_or_default();
        Proof { started: scenario::has_started(sandbox), code: code.trim().to_owned() }
    }
}

/// All have ended and no supervisor runs: a shim that was not killed has left nothing but the record.
#[track_caller]
pub(super) fn expect_shim_ended_alone(sandbox: &Sandbox, fate: &Fate, id: Option<&str>) {
    let mut left = Vec::new();
    let clean = holds_within(Duration::from_secs(5), || {
        left = leaks::find(sandbox);
        left.retain(|line| match line.split_once(' ') {
            // Its clients may still be on their way out.
            Some(("process", _)) => false,
            Some(("mount" | "socket", _)) => true,
            Some(("cgroup", _)) => fate.shim_survives,
            Some(("file", path)) => fate.shim_survives && id.is_some_and(|id| !may_stay(fate, id, path)),
            Some(_) | None => true,
        });
        left.is_empty()
    });
    assert!(clean, "without a supervisor this is left:\n{}", left.join("\n"));
}

/// Of the files of a container: its record, and what `create` promises to keep. Of others nothing is said here.
fn may_stay(fate: &Fate, id: &str, path: &str) -> bool {
    let Some((place, name)) = path.split_once(id) else { return true };
    let record = ["", "/config.json", "/exit", "/teardown", "/lock", "/log"];
    let layer = fate.scenario == Scenario::CreateStart && name.starts_with("/upper");
    place == "root/containers/" && fate.scenario != Scenario::Ephemeral && (layer || record.contains(&name))
}

/// Waits until the container is at rest; its program was let go.
#[track_caller]
pub(super) fn settle(sandbox: &Sandbox, scenario: Scenario) -> String {
    let running = || fs::read_dir(sandbox.run_root().join(layout::CONTAINERS));
    let mut status = String::new();
    let settled = holds_within(SETTLED, || {
        status = sandbox.status(NAME);
        match status.as_str() {
            "absent" => true,
            // With --rm it is on its way to nothing.
            "exited" | "created" if scenario == Scenario::Ephemeral => false,
            "exited" => true,
            // With a run directory it is on its way to something.
            "created" => running().is_ok_and(|mut entries| entries.next().is_none()),
            _ => false,
        }
    });
    assert!(settled, "after {SETTLED:?} it is still {status}\n{}", sandbox.mysup(&["inspect", NAME]));
    status
}

/// Judges what is left, under a supervisor; afterwards there is no container any more. Gives what a second recovery
/// changed, so that the caller can look for worse first.
#[track_caller]
pub(super) fn judge(sandbox: &Sandbox, fate: &Fate, told: Option<&Output>) -> Option<String> {
    if let Some(told) = told {
        assert!(told.code == 0 || told.errors().lines().count() == 1, "neither done nor refused\n{told}");
    }
    if fate.scenario.has_container() {
        judge_container(sandbox, fate, told);
    } else {
        judge_image(sandbox, fate, told);
    }
    let changed = changed_by_recovery(sandbox);
    if fate.scenario.has_container() {
        sandbox.mysup(&["rm", "-f", "-v", NAME]).expect_code(0);
        expect_volumes(sandbox, &[KEPT]);
        leaks::expect_no_volume_but_listed(sandbox);
    }
    sandbox.run(&["--rm", "--name", NAME], &["true"]).expect_code(0);
    expect_no_panic(sandbox);
    changed
}

fn judge_container(sandbox: &Sandbox, fate: &Fate, told: Option<&Output>) {
    if fate.scenario == Scenario::Rename {
        let renamed = sandbox.status(RENAMED) != "absent";
        assert!(
            renamed || told.is_some_and(|told| told.code != 0),
            "rename succeeded, and it has the old name"
        );
        if renamed {
            assert_eq!(sandbox.status(NAME), "absent", "the container has two names");
            sandbox.ok(&["rename", RENAMED, NAME]);
        }
    }
    let status = settle(sandbox, fate.scenario);
    let proof = Proof::read(sandbox);
    match status.as_str() {
        "exited" => judge_end(sandbox, fate, &proof),
        "absent" if fate.scenario == Scenario::Ephemeral || fate.scenario == Scenario::Remove => {
            // What went took its anonymous volume along, and nothing else.
            expect_volumes(sandbox, &[KEPT]);
        }
        "created" => {
            assert!(!proof.started, "a container that ran is only created: {proof:?} {}", shown(told))
        }
        _ => assert!(
            may_be_absent(fate, told, &proof),
            "the container is {status}: {proof:?} {fate:?} {}",
            shown(told)
        ),
    }
    let promised = told.is_some_and(|told| told.code == 0);
    match fate.scenario {
        Scenario::Remove if promised => assert_eq!(status, "absent", "rm succeeded"),
        // Stopped early, `create-start` has not come to its `start`.
        Scenario::CreateStart if told.is_some_and(|told| told.shown.contains("create")) => {}
        Scenario::Life | Scenario::Ephemeral | Scenario::CreateStart if promised => {
            let ran = proof.started || fate.init_killed;
            assert!(ran, "the program never ran, and it was said to be started: {}", shown(told));
        }
        Scenario::Failing => assert!(!promised, "a program that is not there was started: {}", shown(told)),
        Scenario::Life
        | Scenario::Ephemeral
        | Scenario::CreateStart
        | Scenario::Remove
        | Scenario::Rename
        | Scenario::Adopt
        | Scenario::TakeDown
        | Scenario::Reboot
        | Scenario::Import
        | Scenario::RemoveImage => {}
    }
}

/// No other volumes than these, and with what is in them.
#[track_caller]
fn expect_volumes(sandbox: &Sandbox, names: &[&str]) {
    let mut listed = String::new();
    let as_expected = holds_within(SETTLED, || {
        listed = sandbox.ok(&["volume", "ls", "-q"]);
        listed.lines().all(|name| names.contains(&name))
    });
    assert!(as_expected, "these volumes are there, and only {names:?} may be:\n{listed}");
}

fn shown(told: Option<&Output>) -> String {
    told.map_or_else(|| "no command".to_owned(), Output::to_string)
}

fn may_be_absent(fate: &Fate, told: Option<&Output>, proof: &Proof) -> bool {
    let refused = told.is_some_and(|told| told.code != 0);
    match fate.scenario {
        Scenario::Ephemeral | Scenario::Remove => true,
        Scenario::Life | Scenario::Failing | Scenario::CreateStart => refused && !proof.started,
        Scenario::Rename
        | Scenario::Adopt
        | Scenario::TakeDown
        | Scenario::Reboot
        | Scenario::Import
        | Scenario::RemoveImage => false,
    }
}

/// The exit status is the true one, or said to be unknown where nobody can know it; no line of output is lost.
fn judge_end(sandbox: &Sandbox, fate: &Fate, proof: &Proof) {
    let container = sandbox.inspect(NAME);
    let shown = inspect::number(&container, "State.ExitCode");
    let error = inspect::text(&container, "State.Error");
    let said = !error.is_empty() && error != "null";
    let truths: &[i64] = match (proof.started, proof.code.is_empty(), fate.init_killed) {
        (true, false, false) => &[i64::from(fate.code)],
        (true, false, true) => &[i64::from(fate.code), 137],
        (true, true, true) => &[137],
        // Nobody kills a program.
        (true, true, false) => &[],
        (false, _, true) => &[137, 128],
        (false, _, false) if fate.scenario == Scenario::Failing => &[127, 128],
        (false, _, false) => &[128],
    };
    let is_true = truths.contains(&shown) && (proof.started || said || shown == 137);
    assert!(
        is_true || fate.unseen && shown == 255 && said,
        "exit code {shown} (error {error:?}), but the program proved {proof:?} {fate:?}"
    );
    let waited = sandbox.mysup(&["wait", NAME]);
    assert!(waited.text() == shown.to_string(), "inspect says {shown}\n{waited}");
    if !proof.code.is_empty() && !fate.unseen {
        let logs = sandbox.ok(&["logs", NAME]);
        assert!(logs == "up\nlast" || fate.init_killed && logs == "up", "the log is {logs:?} {fate:?}");
    }
}

/// Imported or not, removed or not: whole or not at all; trying again works, and removing leaves nothing.
fn judge_image(sandbox: &Sandbox, fate: &Fate, told: Option<&Output>) {
    let done = told.is_some_and(|told| told.code == 0);
    let listed = sandbox.ok(&["images"]).contains(IMPORTED);
    let wanted = fate.scenario == Scenario::Import;
    assert!(!done || listed == wanted, "the image is listed: {listed} {}", shown(told));
    if listed {
        assert_eq!(sandbox.ok(&["run", "--rm", IMPORTED, "cat", "/etc/extra"]), "extra");
    }
    sandbox.ok(&["import", &extra_tar(sandbox), IMPORTED]);
    assert_eq!(sandbox.ok(&["run", "--rm", IMPORTED, "cat", "/etc/extra"]), "extra");
    sandbox.ok(&["rmi", IMPORTED]);
}

/// What is left of a whole run, on the host.
pub(super) fn left_by_us(before: &leaks::Host) -> Vec<String> {
    let base = format!("{}/", crate::harness::sandbox::base().display());
    let ids = crate::harness::sandbox::all_ids();
    let ours = |line: &String| line.contains(&base) || ids.iter().any(|id| line.contains(&id[..12]));
    let mut left: Vec<String> = leaks::Host::settled_difference(before).into_iter().filter(ours).collect();
    left.extend(processes::bearing(&[base]).into_iter().map(processes::describe));
    left
}
