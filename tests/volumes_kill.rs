//! Deaths, full disks and doctors around mysup's own volumes: nothing half is ever seen, nothing is left over, and no byte of
//! a volume changes.

use std::{fs, path::PathBuf, thread, time::Duration};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    harness::{
        Case, Sandbox, processes,
        random::Random,
        tree::{self, Tree, plant_data},
        wait_until,
    },
    named_volumes::{import, names},
    no_space::{Disk, Full},
};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = crate::cases![
        volumes_of_rm_at_exit_go_whoever_dies,
        rm_v_cut_anywhere_removes_all_or_can_be_repeated,
        volume_creation_cut_anywhere_leaves_a_volume_or_nothing,
        full_disk_at_the_first_use_leaves_an_empty_volume,
        volumes_are_removed_from_a_full_disk,
        doctor_names_what_is_wrong_with_volumes,
        healthy_volumes_are_no_finding,
    ];
    for (word, shim, supervisor) in [("shim", true, false), ("supervisor", false, true), ("both", true, true)]
    {
        let name = format!("volumes_kill::first_use_is_whole_when_{word}_dies");
        cases.push(Case::new(name, move |sandbox| first_use(sandbox, shim, supervisor)));
    }
    cases
}

fn volume(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.root().join("volumes").join(name)
}

/// The busybox image with this many files of this many bytes below /content.
fn large(sandbox: &Sandbox, files: usize, bytes: usize) {
    import(sandbox, "large", &[], |writer| {
        writer.directory("content", 0o755);
        for number in 0..files {
            writer.file(&format!("content/{number}"), 0o644, &vec![7; bytes]);
        }
    });
}

/// The shim of the only container that is being started.
fn starting_shim(sandbox: &Sandbox) -> Option<i32> {
    let entries = fs::read_dir(sandbox.root().join("containers")).into_iter().flatten().flatten();
    entries.filter_map(|entry| processes::lock_holder(&entry.path().join("lock"))).next()
}

fn first_use(sandbox: &Sandbox, kill_shim: bool, kill_supervisor: bool) {
    const FILES: usize = 1500;
    large(sandbox, FILES, 4096);
    let script = "ls /content | wc -l";
    let line = ["run", "--rm", "-v", "data:/content", "large", "sh", "-c", script];
    let mut cut = 0;
    for round in 0..6_u64 {
        let client = sandbox.call(&line).start();
        sandbox.adopt_client(client.pid());
        let copy = volume(sandbox, "data").join("_data.new");
        let caught = crate::harness::holds_within(Duration::from_secs(5), || copy.exists());
        thread::sleep(Duration::from_micros(round * 700));
        let shim = starting_shim(sandbox).filter(|_| kill_shim);
        let supervisor = sandbox.supervisor_pid().filter(|_| kill_supervisor);
        for pid in [shim, supervisor].into_iter().flatten() {
            processes::signal(pid, Signal::KILL);
        }
        let pid = client.pid();
        // It may have come through; what it says is not the matter.
        client.wait();
        sandbox.forget_client(pid);
        sandbox.ok(&["ps"]);
        wait_until("the container is gone", || {
            let all = sandbox.ok(&["ps", "-a", "-q"]);
            if !all.is_empty() {
                sandbox.mysup(&["rm", "-f", &all]);
            }
            all.is_empty()
        });
        let files = fs::read_dir(volume(sandbox, "data").join("_data")).expect("a volume").count();
        assert!(files == 0 || files == FILES, "round {round}: {files} files are neither nothing nor all");
        cut += usize::from(caught && files == 0);
        assert_eq!(sandbox.ok(&line), FILES.to_string());
        assert!(!copy.exists(), "the half copy is gone with the next use");
        sandbox.ok(&["volume", "rm", "data"]);
    }
    if kill_shim {
        assert!(cut > 0, "no copy was ever cut: the test is too slow");
    }
}

fn volumes_of_rm_at_exit_go_whoever_dies(sandbox: &Sandbox) {
    sandbox.ok(&["volume", "create", "named"]);
    let before = plant_data(&volume(sandbox, "named").join("_data"), "precious");
    for victims in ["supervisor", "shim", "supervisor shim", "supervisor shim init"] {
        sandbox.start("one", &["--rm", "-v", "/d", "-v", "named:/n"], "echo x > /d/file; sleep 1000");
        assert_eq!(names(sandbox).len(), 2);
        let (supervisor, shim, init) =
            (sandbox.supervisor(), sandbox.shim_pid("one"), sandbox.init_pid("one"));
        let pids = [("supervisor", supervisor), ("shim", shim), ("init", init)];
        for (_, pid) in pids.iter().filter(|(word, _)| victims.split(' ').any(|victim| victim == *word)) {
            processes::signal(*pid, Signal::KILL);
        }
        if victims == "supervisor" {
            // Its shim takes it down alone; the volume is found later.
            processes::signal(init, Signal::KILL);
            wait_until("the shim is gone", || !processes::is_alive(shim));
        } else {
            sandbox.ok(&["ps"]);
            sandbox.mysup(&["rm", "-f", "one"]);
        }
        wait_until("the container is gone", || sandbox.status("one") == "absent");
        wait_until("its volume is gone", || names(sandbox) == ["named"]);
        before.expect_unchanged(&volume(sandbox, "named").join("_data"));
    }
}

fn rm_v_cut_anywhere_removes_all_or_can_be_repeated(sandbox: &Sandbox) {
    let mut random = Random::new(7, "rm -v");
    sandbox.ok(&["volume", "create", "named"]);
    let before = plant_data(&volume(sandbox, "named").join("_data"), "precious");
    for _ in 0..12 {
        let flags = ["--name", "one", "-v", "/a", "-v", "/b", "-v", "named:/n"];
        sandbox.run(&flags, &["sh", "-c", "echo x > /a/file; echo y > /b/file"]).expect_code(0);
        let supervisor = sandbox.supervisor();
        let client = sandbox.call(&["rm", "-v", "one"]).start();
        thread::sleep(Duration::from_micros(u64::try_from(random.between(0, 6000)).expect("not negative")));
        processes::signal(supervisor, Signal::KILL);
        wait_until("the supervisor is dead", || !processes::is_alive(supervisor));
        let promised = client.wait().code == 0;
        let there = sandbox.status("one") != "absent";
        assert!(!(promised && there), "it was said to be removed");
        if there {
            sandbox.ok(&["rm", "-v", "one"]);
        }
        assert_eq!(names(sandbox), ["named"], "no volume is left without its container");
        before.expect_unchanged(&volume(sandbox, "named").join("_data"));
    }
}

fn volume_creation_cut_anywhere_leaves_a_volume_or_nothing(sandbox: &Sandbox) {
    let mut random = Random::new(9, "volume create");
    for _ in 0..15 {
        let supervisor = sandbox.supervisor();
        let client = sandbox.call(&["volume", "create", "--label", "a=b"]).start();
        thread::sleep(Duration::from_micros(u64::try_from(random.between(0, 4000)).expect("not negative")));
        processes::signal(supervisor, Signal::KILL);
        wait_until("the supervisor is dead", || !processes::is_alive(supervisor));
        let told = client.wait();
        let listed = names(sandbox);
        if told.code == 0 {
            assert_eq!(listed, [told.text()], "what was told is there");
        }
        for name in &listed {
            let shown = sandbox.ok(&["volume", "inspect", "--format", "{{.Labels.a}} {{.Error}}", name]);
            assert_eq!(shown.trim(), "b", "whole or not there");
            sandbox.ok(&["volume", "rm", name]);
        }
        wait_until("nothing is left", || tree::paths(&sandbox.root().join("volumes"), &[]).is_empty());
    }
}

fn full_disk_at_the_first_use_leaves_an_empty_volume(sandbox: &Sandbox) {
    let disk = Disk::tmpfs(sandbox);
    large(sandbox, 11, 1 << 20);
    let run = |name: &str| {
        let volume = format!("{name}:/content");
        sandbox.mysup(&["run", "--rm", "-v", &volume, "large", "sh", "-c", "ls /content | wc -l"])
    };
    assert_eq!(run("one").expect_code(0).text(), "11");
    let refused = run("two").expect_code(125);
    let errors = refused.errors();
    assert!(
        errors.contains("two") && errors.contains("/content") && errors.to_lowercase().contains("no space"),
        "{refused}"
    );
    assert_eq!(fs::read_dir(volume(sandbox, "two").join("_data")).expect("a volume").count(), 0);
    assert!(!volume(sandbox, "two").join("_data.new").exists(), "it does not keep the disk full");
    sandbox.ok(&["volume", "rm", "one"]);
    assert_eq!(run("two").expect_code(0).text(), "11", "it is still to be filled");
    sandbox.ok(&["volume", "rm", "two"]);
    disk.remove(sandbox);
}

fn volumes_are_removed_from_a_full_disk(sandbox: &Sandbox) {
    let disk = Disk::tmpfs(sandbox);
    sandbox.ok(&["volume", "create", "named"]);
    sandbox.run(&["--name", "one", "-v", "/d"], &["sh", "-c", "echo x > /d/file"]).expect_code(0);
    for full in [Full::Bytes, Full::Inodes] {
        disk.fill(&[full]);
        let output = sandbox.mysup(&["volume", "create", "another"]);
        assert!(output.code == 1 && output.errors().to_lowercase().contains("no space"), "{output}");
        disk.free();
    }
    disk.fill(&[Full::Bytes, Full::Inodes]);
    sandbox.ok(&["volume", "rm", "named"]);
    disk.fill(&[Full::Bytes, Full::Inodes]);
    sandbox.ok(&["rm", "-v", "one"]);
    assert!(names(sandbox).is_empty());
    disk.free();
    wait_until("nothing is left of them", || {
        tree::paths(&sandbox.root().join("volumes"), &[]).is_empty()
            && tree::paths(&sandbox.root().join("trash"), &[]).is_empty()
    });
    disk.remove(sandbox);
}

/// Kind and place of each finding.
fn diagnosis(sandbox: &Sandbox, flags: &[&str]) -> Vec<(String, String)> {
    let output = sandbox.mysup(&[&["doctor", "--format", "json"], flags].concat());
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list");
    let mut found: Vec<(String, String)> = findings
        .iter()
        .map(|finding| {
            let place = finding["Where"][0].as_str().unwrap_or_default().to_owned();
            let volumes = format!("{}/", sandbox.root().join("volumes").display());
            (
                finding["Kind"].as_str().unwrap_or_default().to_owned(),
                place.strip_prefix(&volumes).unwrap_or(&place).to_owned(),
            )
        })
        .collect();
    found.sort();
    found
}

fn doctor_names_what_is_wrong_with_volumes(sandbox: &Sandbox) {
    sandbox.ok(&["volume", "create", "good"]);
    sandbox.ok(&["volume", "create", "damaged"]);
    sandbox.ok(&["volume", "create", "cut"]);
    sandbox.ok(&["volume", "create", "lost"]);
    sandbox.start("one", &["--rm", "-v", "/d"], "sleep 1000");
    let list = names(sandbox);
    let owed = list.iter().find(|name| name.len() == 64).expect("an anonymous one").clone();
    let (shim, init) = (sandbox.shim_pid("one"), sandbox.init_pid("one"));
    sandbox.ok(&["shutdown"]);
    processes::signal(init, Signal::KILL);
    wait_until("the shim is gone", || !processes::is_alive(shim));
    let place = |name: &str| sandbox.root().join("volumes").join(name);
    fs::write(place("damaged/volume.json"), "nonsense").expect("the sandbox is ours");
    fs::create_dir_all(place("cut/_data.new/half")).expect("the sandbox is ours");
    fs::remove_dir(place("lost/_data")).expect("the sandbox is ours");
    fs::create_dir_all(place(".new-begun/_data")).expect("the sandbox is ours");
    fs::create_dir(place("not a volume")).expect("the sandbox is ours");
    fs::write(place("file"), "x").expect("the sandbox is ours");
    fs::write(place("good/stranger"), "x").expect("the sandbox is ours");
    let before = Tree::read(&place("not a volume"));
    let pair = |kind: &str, place: &str| (kind.to_owned(), place.to_owned());
    let mut wanted = vec![
        pair("damaged-volume", "damaged/volume.json"),
        pair("damaged-volume", "lost/_data"),
        pair("unknown-entry", "file"),
        pair("unknown-entry", "good/stranger"),
        pair("unknown-entry", "not a volume"),
        pair("volume", ".new-begun"),
        pair("volume", "cut/_data.new"),
        pair("volume", &owed),
    ];
    wanted.sort();
    assert_eq!(diagnosis(sandbox, &[]), wanted);
    diagnosis(sandbox, &["--fix"]);
    wanted.retain(|(kind, _)| kind != "volume");
    assert_eq!(
        diagnosis(sandbox, &[]),
        wanted,
        "what is proven to be rubbish is gone, the rest is as it was"
    );
    before.expect_unchanged(&place("not a volume"));
    assert_eq!(fs::read(place("file")).expect("it stays"), b"x");
    fs::remove_file(place("file")).expect("the sandbox is ours");
    fs::remove_file(place("good/stranger")).expect("the sandbox is ours");
    fs::remove_dir(place("not a volume")).expect("the sandbox is ours");
    sandbox.ok(&["volume", "rm", "damaged", "lost", "cut", "good"]);
}

fn healthy_volumes_are_no_finding(sandbox: &Sandbox) {
    sandbox.ok(&["volume", "create", "named"]);
    sandbox.start("one", &["-v", "used:/u", "-v", "/d"], "sleep 1000");
    sandbox.start("two", &["--rm", "-v", "/d"], "sleep 1000");
    sandbox.run(&["--name", "three", "-v", "/d"], &["true"]).expect_code(0);
    sandbox.ok(&["rm", "three"]);
    assert_eq!(diagnosis(sandbox, &[]), []);
}
