//! What is seen of a commit under way; whoever is killed in the middle of it: no half image is listed, nothing leaks, the
//! container goes on.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    changing::{self, BASE},
    instant::is_frozen,
};
use crate::{
    harness::{Case, Sandbox, processes, terminal::Terminal, wait_until},
    no_space::Disk,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        killed_supervisor_leaves_no_half_image,
        killed_shim_leaves_no_half_image,
        killed_client_leaves_no_half_image,
        interrupted_commit_leaves_no_half_image,
        commit_onto_a_full_disk_is_refused_and_leaves_nothing,
        commit_shows_how_far_it_is,
    ]
}

/// Times between the beginning of a commit and the kill.
const ROUNDS: u32 = 8;

/// Commits a container with many files, and kills somebody after a part of the time that it takes.
#[track_caller]
fn killed(sandbox: &Sandbox, kill: impl Fn(&Sandbox, i32)) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    for directory in 0..20 {
        let place = root.join(format!("many/{directory}"));
        fs::create_dir_all(&place).expect("mkdir");
        for file in 0..100 {
            fs::write(place.join(file.to_string()), vec![1; 2000]).expect("write");
        }
    }
    let id = sandbox.ok(&["inspect", "-f", "{{.Id}}", "one"]);
    let began = Instant::now();
    sandbox.ok(&["commit", "one", "measured"]);
    let whole = began.elapsed();
    sandbox.ok(&["rmi", "measured"]);
    let mut listed = 0;
    for round in 0..ROUNDS {
        let client = sandbox.call(&["commit", "one", "made"]).start();
        let pid = client.pid();
        let at = Instant::now() + whole * round / ROUNDS;
        while Instant::now() < at {
            std::thread::sleep(Duration::from_micros(100));
        }
        kill(sandbox, pid);
        let code = client.wait().code;
        wait_until("the container goes on", || {
            sandbox.ok(&["ps", "-q"]);
            !is_frozen(&id)
        });
        assert_eq!(sandbox.status("one"), "running");
        let names = sandbox.ok(&["images", "-q", "made"]);
        assert!(code != 0 || names.lines().count() == 1, "who was told of it has it");
        let verified = sandbox.ok(&["image", "verify"]);
        assert!(verified.lines().all(|line| line.ends_with(": whole")), "{verified}");
        if !names.is_empty() {
            listed += 1;
            assert_eq!(
                sandbox.ok(&["run", "--rm", "made", "sh", "-c", "find /many -type f | wc -l"]),
                "2000"
            );
            sandbox.ok(&["rmi", "made"]);
        }
        wait_until("nothing half done is in the store", || {
            fs::read_dir(sandbox.root().join("layers")).expect("ours").count() == 1
        });
    }
    assert!(listed < ROUNDS, "nobody was killed in the middle");
}

fn killed_supervisor_leaves_no_half_image(sandbox: &Sandbox) {
    killed(sandbox, |sandbox, _| sandbox.kill_supervisor());
}

fn killed_shim_leaves_no_half_image(sandbox: &Sandbox) {
    killed(sandbox, |sandbox, _| {
        let shim = sandbox.shim_pid("one");
        processes::signal(shim, Signal::KILL);
    });
}

fn killed_client_leaves_no_half_image(sandbox: &Sandbox) {
    killed(sandbox, |_, client| {
        processes::signal(client, Signal::KILL);
    });
}

/// Ctrl-C.
fn interrupted_commit_leaves_no_half_image(sandbox: &Sandbox) {
    killed(sandbox, |_, client| {
        processes::signal(client, Signal::INT);
    });
}

fn commit_onto_a_full_disk_is_refused_and_leaves_nothing(sandbox: &Sandbox) {
    let disk = Disk::tmpfs(sandbox);
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    // There is no room for it twice.
    fs::write(root.join("large"), vec![7; 18 << 20]).expect("there is room for it once");
    let words = ["no space left", "free some space and try again"];
    sandbox.refused(&["commit", "one", "made"], 1, &words);
    assert_eq!(sandbox.ok(&["images", "-q"]).lines().count(), 1);
    wait_until("what was made is gone", || {
        fs::read_dir(sandbox.root().join("layers")).expect("ours").count() == 1
            && fs::read_dir(sandbox.root().join("trash")).expect("ours").count() == 0
    });
    fs::remove_file(root.join("large")).expect("rm");
    fs::write(root.join("new"), "x").expect("there is room again");
    sandbox.ok(&["commit", "one", "made"]);
    sandbox.ok(&["rm", "-f", "one"]);
    disk.remove(sandbox);
}

fn commit_shows_how_far_it_is(sandbox: &Sandbox) {
    changing::import(sandbox);
    let root = changing::start(sandbox, "one", BASE, &[]);
    fs::write(root.join("large"), vec![7; 4 << 20]).expect("write");
    let tar = sandbox.place("whole.tar").to_string_lossy().into_owned();
    let shown = |arguments: &[&str], words: &[&str]| {
        let mut terminal = Terminal::run(sandbox, arguments, 30, 100);
        // What was printed last comes last.
        words.iter().for_each(|word| terminal.wait_for(word));
        assert_eq!(terminal.wait(), Some(0), "{}", terminal.screen());
        terminal.screen()
    };
    shown(&["commit", "one", "made"], &["layer", "Written", "4.0", "MiB", "sha256:"]);
    shown(&["commit", "-o", &tar, "one"], &["file system", "Written", "MiB"]);
    let quiet = shown(&["commit", "-q", "one", "made"], &["sha256:"]);
    assert!(!quiet.contains("MiB") && quiet.trim().lines().count() == 1, "{quiet}");
    assert_eq!(shown(&["commit", "-q", "-o", &tar, "one"], &[]), "");
    // Without a terminal there is a line now and then only.
    let output = sandbox.mysup(&["commit", "one", "made"]).expect_code(0);
    assert_eq!((output.text().lines().count(), output.errors().as_str()), (1, ""));
    sandbox.ok(&["rm", "-f", "one"]);
}
