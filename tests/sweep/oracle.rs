//! What must be true after the death of one process at one system call, and after one system call that failed.
//!
//! The program's own proof on a volume is the truth; what mysup says is compared with it. After a death the rules are
//! strict: one death never costs an exit status, an output line or a program. After an error of the kernel a refusal is
//! as good as success, and an end that could not be learned may be called unknown.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use super::scenario::{self, COMMITTED, Done, IMPORTED, KEPT, NAME, Scenario, Victim};
use crate::commit::instant::is_frozen;
use crate::harness::{Sandbox, command::Output, holds_within, inspect, tree, wait_until};

/// What was done to the victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It was killed, or nothing was done at all.
    Death,
    /// A system call failed.
    Error,
}

/// What is to be judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    /// What was going on.
    pub(super) scenario: Scenario,
    /// To whom.
    pub(super) victim: Victim,
    /// What was done.
    pub(super) fault: Fault,
    /// The exit code that the program has when it ends by itself.
    pub(super) code: i32,
}

/// A state that does not heal within this is stuck.
const SETTLED: Duration = Duration::from_secs(20);
/// A container that stays created for so long is not on its way to anything.
const STILL: Duration = Duration::from_millis(60);

/// What the program proved of itself.
#[derive(Debug)]
struct Proof {
    started: bool,
    told: bool,
    code: String,
}

impl Proof {
    fn read(sandbox: &Sandbox) -> Proof {
        let place = |name: &str| sandbox.place("proof").join(name);
        let code = fs::read_to_string(place("code")).unwrap_or_default();
        Proof {
            started: place("started").exists(),
            told: place("told").exists(),
            code: code.trim().to_owned(),
        }
    }
}

/// Judges what the scenario left; afterwards there is no container any more. Gives what a second recovery changed, so
/// that the caller can look for worse first.
#[track_caller]
pub(super) fn judge(sandbox: &Sandbox, question: Question, done: &Done) -> Option<String> {
    if question.scenario == Scenario::Import {
        judge_import(sandbox, done);
    } else {
        if question.scenario == Scenario::Commit {
            judge_commit(sandbox, question, done);
        }
        judge_container(sandbox, question, done);
    }
    let mut before = settled_snapshot(sandbox);
    if question.fault == Fault::Error {
        // What could not be swept is swept at the next start.
        before.retain(|path| !path.starts_with("trash/"));
    }
    let changed = changed_since(sandbox, &before);
    if question.scenario != Scenario::Import {
        sandbox.mysup(&["rm", "-f", "-v", NAME]).expect_code(0);
        let volumes = sandbox.ok(&["volume", "ls", "-q"]);
        assert!(volumes.lines().all(|name| name == KEPT), "volumes without a container:\n{volumes}");
        sandbox.run(&["--rm", "--name", NAME], &["true"]).expect_code(0);
    }
    expect_no_panic(sandbox);
    changed
}

fn judge_container(sandbox: &Sandbox, question: Question, done: &Done) {
    let told = done.told.as_ref().expect("every scenario has a command");
    let first = settle(sandbox, |status| status != "running" || may_run(question, told));
    judge_words(question, told, &Proof::read(sandbox), &first, sandbox);
    if first == "running" {
        // After an error the log may lack what it could not take.
        let may_be_mute = question.fault == Fault::Error;
        wait_until("the program is up", || {
            scenario::is_up(sandbox) || may_be_mute && Proof::read(sandbox).started
        });
        sandbox.mysup(&["stop", "-t", "1", NAME]).expect_code(0);
    }
    let last = settle(sandbox, |status| status != "running");
    let proof = Proof::read(sandbox);
    match last.as_str() {
        "exited" => judge_end(sandbox, question, &proof),
        "created" => assert!(!proof.started, "a container that ran is only created: {proof:?}\n{told}"),
        _ => {
            let removed = matches!(question.scenario, Scenario::Remove | Scenario::RemoveRunning);
            assert!(removed || !proof.started, "a container that ran is {last}: {proof:?}\n{told}");
            let never = question.scenario.has_container_before() && !removed;
            assert!(!never, "the container is {last}\n{told}");
        }
    }
}

/// Whether a program may go on after the swept command.
fn may_run(question: Question, told: &Output) -> bool {
    match question.scenario {
        Scenario::RunDetached | Scenario::Restart | Scenario::Commit => true,
        Scenario::Stop | Scenario::RemoveRunning => told.code != 0,
        Scenario::RunForeground | Scenario::Exit | Scenario::Remove | Scenario::Import => false,
    }
}

/// Waits until the container is in a state that lasts.
#[track_caller]
fn settle(sandbox: &Sandbox, lasts: impl Fn(&str) -> bool) -> String {
    let mut status = String::new();
    let mut since = Instant::now();
    let settled = holds_within(SETTLED, || {
        let now = sandbox.status(NAME);
        if now != status {
            status = now;
            since = Instant::now();
        }
        match status.as_str() {
            "absent" | "running" | "exited" => lasts(&status),
            "created" => since.elapsed() >= STILL,
            _ => false,
        }
    });
    assert!(
        settled,
        "after {SETTLED:?} the container is still {status}\n{}\n{}",
        sandbox.mysup(&["inspect", "-f", "{{json .State}} {{json .Teardown}}", NAME]),
        sandbox.mysup(&["ps", "-a"])
    );
    status
}

/// What the user was told agrees with what is.
fn judge_words(question: Question, told: &Output, proof: &Proof, status: &str, sandbox: &Sandbox) {
    let one_line = told.errors().lines().count() == 1;
    let refused = told.code != 0 && one_line;
    let strict = question.fault == Fault::Death;
    let right = match question.scenario {
        Scenario::RunDetached => {
            if told.code == 0 {
                assert!(
                    status == "running",
                    "run -d succeeded, but the container is {status}: {proof:?}\n{told}"
                );
            }
            told.code == 0 || refused
        }
        Scenario::RunForeground if proof.started => {
            let whole = told.code == question.code && told.text() == "up\nlast";
            if status == "exited" && (strict || whole) {
                let logs = sandbox.mysup(&["logs", NAME]).expect_code(0);
                let said = !strict && logs.errors().contains("bytes of output lost");
                assert!(said || logs.text() == "up\nlast", "the log is not whole\n{logs}\n{told}");
            }
            whole || !strict && refused
        }
        Scenario::RunForeground => refused && told.code >= 125,
        Scenario::Exit => {
            let true_code = told.code == 0 && told.text() == question.code.to_string();
            let may_refuse = question.victim == Victim::Supervisor || !strict;
            true_code || may_refuse && refused && (told.stdout.is_empty() || !strict)
        }
        Scenario::Stop | Scenario::RemoveRunning if question.victim == Victim::Shim && strict => {
            told.code == 0
        }
        Scenario::Restart if question.victim == Victim::Shim && strict => told.code == 0,
        Scenario::Stop
        | Scenario::RemoveRunning
        | Scenario::Remove
        | Scenario::Restart
        | Scenario::Import
        | Scenario::Commit => told.code == 0 || refused,
    };
    assert!(
        right,
        "the container is {status}, {proof:?}, and the user was told {}, {:?}, {:?}\n{told}",
        told.code,
        told.text(),
        told.errors()
    );
    if told.code == 0 && matches!(question.scenario, Scenario::Remove | Scenario::RemoveRunning) {
        assert!(status == "absent", "rm succeeded, but the container is {status}\n{told}");
    }
}

/// The exit status is the true one.
fn judge_end(sandbox: &Sandbox, question: Question, proof: &Proof) {
    let container = sandbox.inspect(NAME);
    let shown = inspect::number(&container, "State.ExitCode");
    let error = inspect::text(&container, "State.Error");
    let said = !error.is_empty() && error != "null";
    let strict = question.fault == Fault::Death;
    let was_stopped = matches!(question.scenario, Scenario::Stop | Scenario::RemoveRunning);
    let right = if !proof.code.is_empty() {
        shown == i64::from(question.code) || !strict && shown == 255 && said
    } else if proof.started {
        // It never came to its end: it was killed, and only a stop may do that.
        was_stopped && shown == 137 || !strict && said && (shown == 255 || shown == 137)
    } else {
        said && ((125..=128).contains(&shown) || !strict && (shown == 255 || shown == 137))
    };
    assert!(
        right,
        "exit code {shown} (error {error:?}), but the program proved {proof:?}; by itself it ends with {}",
        question.code
    );
    if question.scenario == Scenario::Stop && strict {
        assert!(proof.told, "the program was killed without being told");
    }
    let waited = sandbox.mysup(&["wait", NAME]);
    assert!(waited.text() == shown.to_string(), "inspect says {shown}\n{waited}");
}

/// Imported or not, whole or not at all; trying again works, and removing leaves nothing.
fn judge_import(sandbox: &Sandbox, done: &Done) {
    let told = done.told.as_ref().expect("every scenario has a command");
    assert!(told.code == 0 || told.errors().lines().count() == 1, "neither done nor refused\n{told}");
    let listed = sandbox.ok(&["images"]).contains(IMPORTED);
    assert!(listed || told.code != 0, "import succeeded and the image is not there\n{told}");
    if listed {
        sandbox.mysup(&["run", "--rm", IMPORTED, "cat", "/etc/extra"]).expect_code(0);
    }
    let tar = scenario::extra_tar(sandbox);
    sandbox.ok(&["import", &tar, IMPORTED]);
    assert_eq!(sandbox.ok(&["run", "--rm", IMPORTED, "cat", "/etc/extra"]), "extra");
    sandbox.ok(&["rmi", IMPORTED]);
}

/// Committed or not, whole or not at all; the container goes on, and trying again works.
fn judge_commit(sandbox: &Sandbox, question: Question, done: &Done) {
    let told = done.told.as_ref().expect("every scenario has a command");
    let listed = sandbox.ok(&["images"]).contains(COMMITTED);
    assert!(listed || told.code != 0, "commit succeeded and the image is not there\n{told}");
    let expect_whole = || {
        let script = "cat /file; ls /etc/plain 2>&1 | grep -c 'No such'";
        assert_eq!(sandbox.ok(&["run", "--rm", COMMITTED, "sh", "-c", script]), "mine\n1");
    };
    if listed {
        expect_whole();
    }
    if settle(sandbox, |_| true) == "running" {
        let id = sandbox.ok(&["inspect", "-f", "{{.Id}}", NAME]);
        wait_until("the container goes on", || !is_frozen(&id));
        sandbox.ok(&["commit", NAME, COMMITTED]);
        expect_whole();
    } else {
        assert!(question.fault == Fault::Error, "a commit ends no container\n{told}");
    }
    let verified = sandbox.ok(&["image", "verify"]);
    assert!(verified.lines().all(|line| line.ends_with(": whole")), "{verified}");
    if sandbox.ok(&["images"]).contains(COMMITTED) {
        sandbox.ok(&["rmi", COMMITTED]);
    }
    sandbox.ok(&["image", "prune", "-f"]);
}

/// Everything on disk by name, and what `inspect` says.
fn snapshot(sandbox: &Sandbox) -> Vec<String> {
    let mut paths = tree::paths(&sandbox.root(), &[]);
    paths.retain(|path| !path.starts_with("layers/") || path.matches('/').count() == 1);
    paths.extend(tree::paths(&sandbox.run_root(), &[]));
    paths.extend(sandbox.mysup(&["inspect", NAME]).text().lines().map(str::to_owned));
    paths
}

/// A second recovery finds nothing to do; what it changed all the same.
pub(crate) fn changed_by_recovery(sandbox: &Sandbox) -> Option<String> {
    changed_since(sandbox, &settled_snapshot(sandbox))
}

fn changed_since(sandbox: &Sandbox, before: &[String]) -> Option<String> {
    sandbox.kill_supervisor();
    sandbox.ok(&["ps"]);
    let mut after = settled_snapshot(sandbox);
    let same = holds_within(Duration::from_secs(3), || {
        let same = after == before;
        if !same {
            after = snapshot(sandbox);
        }
        same
    });
    let beyond = |all: &[String], others: &[String]| {
        let missing: Vec<String> = all.iter().filter(|line| !others.contains(line)).cloned().collect();
        missing.join("\n  ")
    };
    (!same).then(|| {
        let (gone, new) = (beyond(before, &after), beyond(&after, before));
        format!("a second recovery changed something: gone\n  {gone}\nnew\n  {new}")
    })
}

/// Two equal looks with a pause between them: sweeps of the trash may be on their way.
fn settled_snapshot(sandbox: &Sandbox) -> Vec<String> {
    let mut last = snapshot(sandbox);
    holds_within(Duration::from_secs(3), || {
        thread::sleep(Duration::from_millis(10));
        let now = snapshot(sandbox);
        let same = now == last && !now.iter().any(|path| path.starts_with("trash/"));
        last = now;
        same
    });
    last
}

/// Where supervisors and shims write what they have to say.
pub(super) fn logs(sandbox: &Sandbox) -> Vec<PathBuf> {
    vec![sandbox.run_root().join("supervisor.log"), scenario::foreground_log(sandbox)]
}

#[track_caller]
pub(crate) fn expect_no_panic(sandbox: &Sandbox) {
    for log in logs(sandbox) {
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("panicked")).collect();
        assert!(lines.is_empty(), "a panic:\n{}", lines.join("\n"));
    }
}
