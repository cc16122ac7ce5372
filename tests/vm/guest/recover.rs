//! After the power cut: every promise is kept, nothing is left, and no stranger was touched.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Command},
};

use super::{super::promise::Promise, sandbox, say};
use crate::harness::{
    Sandbox, inspect, processes,
    tree::{Tree, sha256},
    wait_until,
};

/// Judges what the boot before has left.
pub(super) fn run(promises: &[Promise]) {
    let sandbox = sandbox();
    if !processes::cgroup_roots().iter().any(|root| root.join("cgroup.controllers").exists()) {
        // With one of the layouts as on most machines, where /run is in memory; with the other it survives.
        let gone = Command::new("rm").arg("-rf").arg(sandbox.run_root()).status();
        assert!(gone.is_ok_and(|status| status.success()), "the run directory can be removed");
    }
    let strangers = strangers(promises);
    sandbox.ok(&["start"]);
    say("ok started again");
    for (name, fate) in fates(promises) {
        expect_fate(&sandbox, name, fate);
    }
    promises.iter().for_each(|promise| expect_kept(&sandbox, promise));
    say("ok promises");
    expect_clean(&sandbox);
    for mut stranger in strangers {
        let pid = stranger.id();
        assert!(matches!(stranger.try_wait(), Ok(None)), "the stranger {pid} was killed");
        let state = processes::stat(i32::try_from(pid).expect("pids are small")).map(|stat| stat.state);
        assert!(state == Some('S'), "the stranger {pid} is in state {state:?}");
        stranger.kill().and_then(|()| stranger.wait()).expect("it is our child");
    }
    say("ok strangers");
    go_on(&sandbox);
    sandbox.finish();
    sandbox.sweep(false);
}

/// Programs that have the pids which ours had before: whoever trusts a pid of another boot kills one.
fn strangers(promises: &[Promise]) -> Vec<Child> {
    let mut found = Vec::new();
    for promise in promises {
        let Promise::Pid(pid) = promise else { continue };
        // The next process gets the number above; another may be quicker, or the number may be taken.
        for _ in 0..20 {
            fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("we are root");
            let mut child = Command::new("sleep").arg("10000").spawn().expect("busybox is there");
            if i32::try_from(child.id()) == Ok(*pid) {
                found.push(child);
                break;
            }
            child.kill().and_then(|()| child.wait()).expect("it is our child");
            if processes::stat(*pid).is_some() {
                break;
            }
        }
    }
    assert!(found.len() > 5, "only {} pids could be given to strangers", found.len());
    found
}

/// What became of a container as far as anybody was told.
#[derive(Debug, Clone, Copy)]
enum Fate<'a> {
    /// It was made, and ends with the code if it comes to that.
    Made(&'a str, Option<i32>),
    /// Its end was told.
    Ended(i32),
    /// It is removed.
    Gone,
}

/// The last word about each container.
fn fates(promises: &[Promise]) -> BTreeMap<&str, Fate<'_>> {
    let mut fates = BTreeMap::new();
    for promise in promises {
        match promise {
            Promise::Made { name, id, code } => fates.insert(name.as_str(), Fate::Made(id, *code)),
            Promise::Ended { name, code } => fates.insert(name, Fate::Ended(*code)),
            Promise::Gone { name } => fates.insert(name, Fate::Gone),
            Promise::Image(_) | Promise::Wrote(_) | Promise::Tree { .. } | Promise::Pid(_) => None,
        };
    }
    fates
}

fn expect_fate(sandbox: &Sandbox, name: &str, fate: Fate<'_>) {
    if let Fate::Gone = fate {
        assert_eq!(sandbox.status(name), "absent", "{name} was removed");
        return;
    }
    let container = sandbox.inspect(name);
    let status = inspect::text(&container, "State.Status");
    let code = inspect::number(&container, "State.ExitCode");
    let known = inspect::text(&container, "State.ExitStatusKnown") == "true";
    match fate {
        Fate::Made(id, _) if name == "created" => {
            assert_eq!((inspect::text(&container, "Id").as_str(), status.as_str()), (id, "created"));
        }
        Fate::Made(id, promised) => {
            assert_eq!((inspect::text(&container, "Id").as_str(), status.as_str()), (id, "exited"), "{name}");
            let unknown = !known && code == 255 && !inspect::text(&container, "State.Error").is_empty();
            assert!(
                unknown || known && Some(code) == promised.map(i64::from),
                "{name} ends with {promised:?} or unknown, not {code}: {container:#}"
            );
            if unknown {
                assert!(sandbox.ok(&["ps", "-a", "--filter", &format!("name={name}")]).contains("unknown"));
            }
            sandbox.mysup(&["wait", name]).expect_code(if unknown { 255 } else { 0 });
        }
        Fate::Ended(promised) => {
            assert!(known && code == i64::from(promised), "{name}: {promised} was told, and now {code}");
            assert_eq!(sandbox.ok(&["wait", name]), promised.to_string());
        }
        Fate::Gone => {}
    }
}

fn expect_kept(sandbox: &Sandbox, promise: &Promise) {
    match promise {
        Promise::Image(id) => assert_eq!(&sandbox.ok(&["images", "-q", "--no-trunc"]), id),
        Promise::Wrote(count) => {
            let text = fs::read_to_string(sandbox.place("v/records")).expect("records were promised");
            let expected: String = (1..=*count).map(|number| format!("record {number}\n")).collect();
            assert!(text.starts_with(&expected), "{count} records were synced, and there is {text:?}");
        }
        Promise::Tree { place, digest } => {
            let tree = Tree::read(&sandbox.place(place));
            assert_eq!(&sha256(format!("{tree:?}").as_bytes()), digest, "{place} changed: {tree:#?}");
        }
        Promise::Made { .. } | Promise::Ended { .. } | Promise::Gone { .. } | Promise::Pid(_) => {}
    }
}

/// Nothing runs, nothing of another boot lies about, and the doctor says so too.
fn expect_clean(sandbox: &Sandbox) {
    assert_eq!(sandbox.ok(&["ps", "-q"]), "", "nothing runs after a boot");
    let entries = |path: std::path::PathBuf| fs::read_dir(path).into_iter().flatten().flatten().count();
    wait_until("no run directory and no trash is left", || {
        entries(sandbox.run_root().join("containers")) == 0 && entries(sandbox.root().join("trash")) == 0
    });
    for line in sandbox.ok(&["ps", "-a", "-q", "--no-trunc"]).lines() {
        let container = sandbox.inspect(line);
        let keeps = ["/kept", "/created"].contains(&inspect::text(&container, "Name").as_str());
        let upper = sandbox.root().join("containers").join(line).join("upper");
        assert!(keeps || !upper.exists(), "a write layer is left: {}", upper.display());
    }
    assert!(processes::cgroup_directories().is_empty(), "no cgroup is made for what is dead");
    sandbox.mysup(&["doctor"]).expect_code(0);
    say("ok clean");
}

/// The instance is as good as before.
fn go_on(sandbox: &Sandbox) {
    sandbox.mysup(&["start", "-a", "kept"]).expect_code(7);
    sandbox.mysup(&["start", "-a", "created"]).expect_code(8);
    sandbox.ok(&["rm", "plain"]);
    let code = sandbox.exit_code();
    let script = format!("cat /data/data; exit {code}");
    let flags = ["--name", "plain", "-v", "/tmp/power/w/data:/data:ro"];
    let output = sandbox.run(&flags, &["sh", "-c", &script]).expect_code(code);
    assert_eq!(output.text(), "data");
    say("ok goes on");
}
