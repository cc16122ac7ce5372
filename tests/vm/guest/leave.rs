//! Containers of every kind are left running, and others come and go, until the power is cut.

use std::{collections::BTreeSet, thread, time::Duration};

use super::{super::promise::Promise, sandbox, say};
use crate::harness::{
    Sandbox,
    tree::{plant_data, sha256},
};

/// Those that run when the power is cut, and their flags.
const RUNNING: &[(&str, &[&str])] = &[
    ("plain", &["-v", "/tmp/power/w/data:/data"]),
    ("reaped", &["--init"]),
    ("limited", &["-m", "64m", "--pids-limit", "32"]),
    ("terminal", &["-t"]),
    ("ephemeral", &["--rm"]),
];

/// Its write layer outlives it: the second start finds what the first has synced.
const KEPT: &str = "if [ -e /kept ]; then exit 7; fi; echo x > /kept; sync /kept; echo up; sleep 1000";

/// It says a number when that record is on the disk.
const WRITER: &str = "n=0; while :; do n=$((n+1)); echo record $n >> /v/records; sync /v/records; echo $n; \
                      usleep 20000; done";

fn promise(promise: &Promise) {
    say(&promise.to_string());
}

/// Does not return unless something is wrong.
pub(super) fn run() {
    let sandbox = sandbox();
    sandbox.image();
    promise(&Promise::Image(sandbox.ok(&["images", "-q", "--no-trunc"])));
    plant(&sandbox);
    for (name, flags) in RUNNING {
        start(&sandbox, name, flags, "sleep 1000");
    }
    start(&sandbox, "kept", &["--keep"], KEPT);
    crate::harness::wait_until("its write layer is on the disk", || sandbox.ok(&["logs", "kept"]) == "up");
    sandbox.new_directory("v");
    start(&sandbox, "writer", &["-v", "/tmp/power/w/v:/v"], WRITER);
    promise(&Promise::Pid(sandbox.supervisor()));
    let id = sandbox.ok(&["create", "--name", "created", sandbox.image(), "sh", "-c", "exit 8"]);
    promise(&Promise::Made { name: "created".to_owned(), id, code: None });
    thread::scope(|scope| {
        scope.spawn(|| tell_records(&sandbox));
        come_and_go(&sandbox);
    });
}

/// Directories of the user's that must not change, and are on the disk.
fn plant(sandbox: &Sandbox) {
    for name in ["data", "decoy"] {
        sandbox.new_directory(name);
        let tree = plant_data(&sandbox.place(name), name);
        rustix::fs::sync();
        promise(&Promise::Tree { place: name.to_owned(), digest: sha256(format!("{tree:?}").as_bytes()) });
    }
}

fn start(sandbox: &Sandbox, name: &str, flags: &[&str], script: &str) {
    let id = sandbox.start(name, flags, script);
    if flags.contains(&"--rm") {
        promise(&Promise::Gone { name: name.to_owned() });
    } else {
        promise(&Promise::Made { name: name.to_owned(), id, code: None });
    }
    for pid in BTreeSet::from([sandbox.init_pid(name), sandbox.shim_pid(name)]) {
        promise(&Promise::Pid(pid));
    }
}

fn tell_records(sandbox: &Sandbox) {
    let mut client = sandbox.call(&["logs", "-f", "writer"]).start();
    let mut told = 0;
    while client.is_running() {
        let text = client.stdout();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for record in whole.lines().skip(told) {
            promise(&Promise::Wrote(record.parse().expect("the writer writes numbers")));
            told += 1;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// One container after the other, of which each step is told when it is done.
fn come_and_go(sandbox: &Sandbox) {
    for number in 0_usize.. {
        let name = format!("guest{number}");
        let code = sandbox.exit_code();
        let script = format!("exit {code}");
        if number.is_multiple_of(3) {
            sandbox.run(&["--name", &name], &["sh", "-c", &script]).expect_code(code);
        } else {
            let id = sandbox.start(&name, &["-v", "/tmp/power/w/data:/data"], &script);
            promise(&Promise::Made { name: name.clone(), id, code: Some(code) });
            assert_eq!(sandbox.ok(&["wait", &name]), code.to_string());
        }
        promise(&Promise::Ended { name: name.clone(), code });
        if number % 3 == 2 {
            sandbox.ok(&["rm", &name]);
            promise(&Promise::Gone { name });
        }
    }
}
