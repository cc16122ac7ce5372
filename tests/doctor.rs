//! `mysup doctor`: each planted fault is found, named and, with `--fix`, repaired where mysup may; nothing else is told,
//! and nothing of anybody else is touched.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Case, Sandbox, inspect,
    plant::{self, Bind, Decoys, Holder},
    processes,
    random::Random,
    tree::plant_data,
    wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        healthy_instance_is_clean,
        instance_without_anything_is_clean_and_stays_so,
        instance_whose_containers_come_and_go_is_clean,
        init_without_shim_is_found_and_given_to_a_new_shim,
        cgroups_and_run_directory_of_a_dead_container_are_removed,
        cgroup_without_a_journal_goes_only_with_its_container,
        mount_in_another_namespace_is_found_with_its_holder,
        busy_volume_is_named_with_its_holder_and_heals,
        leavings_on_disk_are_found_and_removed,
        end_that_nobody_recorded_is_recorded_as_unknown,
        damaged_records_are_named_and_left_alone,
        things_of_others_are_named_and_left_alone,
        shim_whose_directory_was_moved_away_is_an_orphan,
        stopped_shim_is_named_and_left_alone,
        lock_of_another_program_is_named_and_left_alone,
        running_supervisor_repairs_what_it_can_and_stays,
        another_instance_is_never_mentioned,
        wrong_format_is_refused,
    ]
}

/// What `mysup doctor` says: its exit code and its findings.
#[derive(Debug)]
struct Diagnosis {
    code: i32,
    findings: Vec<Value>,
}

impl Diagnosis {
    #[track_caller]
    fn of(sandbox: &Sandbox, flags: &[&str]) -> Diagnosis {
        let output = sandbox.mysup(&[&["doctor", "--format", "json"], flags].concat());
        assert_eq!(output.errors(), "", "{output}");
        let findings =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{output}"));
        Diagnosis { code: output.code, findings }
    }

    fn kinds(&self) -> BTreeSet<&str> {
        self.findings.iter().filter_map(|finding| finding["Kind"].as_str()).collect()
    }

    /// The only finding of a kind, whole as a finding must be.
    #[track_caller]
    fn one(&self, kind: &str) -> &Value {
        let mut all = self.findings.iter().filter(|finding| finding["Kind"] == kind);
        let finding = all.next().unwrap_or_else(|| panic!("no {kind} in {self:#?}"));
        assert!(all.next().is_none(), "more than one {kind} in {self:#?}");
        for field in ["What", "Remedy"] {
            assert!(
                finding[field].as_str().is_some_and(|text| !text.is_empty()),
                "no {field} in {finding:#}"
            );
        }
        assert!(finding["Where"].is_array() && finding["Holders"].is_array(), "{finding:#}");
        finding
    }

    #[track_caller]
    fn expect_kinds(&self, kinds: &[&str]) {
        assert_eq!(self.kinds(), kinds.iter().copied().collect(), "{self:#?}");
        assert_eq!(self.code, 1, "findings are exit code 1: {self:#?}");
    }

    #[track_caller]
    fn expect_repaired(&self) {
        assert_eq!(self.code, 0, "all is repaired: {self:#?}");
        assert!(self.findings.iter().all(|finding| finding["Repaired"] == true), "{self:#?}");
    }
}

#[track_caller]
fn expect_clean(sandbox: &Sandbox) {
    let diagnosis = Diagnosis::of(sandbox, &[]);
    assert!(diagnosis.code == 0 && diagnosis.findings.is_empty(), "not clean: {diagnosis:#?}");
}

fn kill_with_supervisor(sandbox: &Sandbox, pids: &[i32]) {
    sandbox.kill_supervisor();
    for pid in pids {
        processes::signal(*pid, Signal::KILL);
        wait_until("a killed process is dead", || !processes::is_alive(*pid));
    }
}

fn holds(finding: &Value, pid: u32, program: &str) -> bool {
    let mut holders = finding["Holders"].as_array().into_iter().flatten();
    holders.any(|holder| holder["Pid"] == pid && holder["Program"] == program)
}

fn state_directory(sandbox: &Sandbox, id: &str) -> PathBuf {
    sandbox.root().join("containers").join(id)
}

fn healthy_instance_is_clean(sandbox: &Sandbox) {
    let volume = format!("{}:/v", sandbox.new_directory("v"));
    sandbox.start_obedient("one", &["-v", &volume, "-m", "64m"], 3);
    sandbox.start_obedient("two", &["--init", "--keep"], 3);
    sandbox.start_obedient("three", &["--rm", "--read-only"], 3);
    sandbox.run(&["--name", "ended"], &["sh", "-c", "exit 4"]).expect_code(4);
    sandbox.run(&["--keep"], &["touch", "/x"]).expect_code(0);
    let image = sandbox.image();
    sandbox.ok(&["create", "--name", "made", image, "true"]);
    expect_clean(sandbox);
    assert_eq!(sandbox.ok(&["doctor"]), "all is well: nothing is there that should not be");
    sandbox.ok(&["shutdown"]);
    expect_clean(sandbox);
    assert_eq!(sandbox.supervisor_pid(), None, "a look starts no supervisor");
}

fn instance_without_anything_is_clean_and_stays_so(sandbox: &Sandbox) {
    expect_clean(sandbox);
    Diagnosis::of(sandbox, &["--fix"]).expect_repaired();
    assert!(!sandbox.root().exists() && !sandbox.run_root().exists(), "a look makes nothing");
}

fn instance_whose_containers_come_and_go_is_clean(sandbox: &Sandbox) {
    sandbox.image();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let goes_on = |_: &u32| !over.load(Ordering::Relaxed);
            (0..200).take_while(goes_on).for_each(|_| drop(sandbox.run(&["--rm"], &["true"]).expect_code(0)));
        });
        let seen: Vec<Diagnosis> = (0..8).map(|_| Diagnosis::of(sandbox, &[])).collect();
        over.store(true, Ordering::Relaxed);
        assert!(seen.iter().all(|one| one.code == 0 && one.findings.is_empty()), "not clean: {seen:#?}");
    });
}

fn init_without_shim_is_found_and_given_to_a_new_shim(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let id = sandbox.start_obedient("one", &[], code);
    let (init, shim) = (sandbox.init_pid("one"), sandbox.shim_pid("one"));
    kill_with_supervisor(sandbox, &[shim]);
    let found = Diagnosis::of(sandbox, &[]);
    found.expect_kinds(&["init", "mount", "cgroup", "run-directory", "socket"]);
    let pid = u32::try_from(init).expect("pids are positive");
    for kind in ["init", "mount", "cgroup"] {
        let finding = found.one(kind);
        assert!(holds(finding, pid, "sh"), "the program is named: {finding:#}");
        assert_eq!(inspect::text(finding, "Container.Name"), "one");
        assert_eq!(inspect::text(finding, "Container.ShortId"), id[..12]);
    }
    let text = sandbox.mysup(&["doctor"]).text();
    assert!(text.contains("init of container") && text.contains(&format!("pid {init} (sh)")), "{text}");
    assert_eq!(sandbox.supervisor_pid(), None, "a look starts no supervisor");
    Diagnosis::of(sandbox, &["--fix"]).expect_repaired();
    expect_clean(sandbox);
    assert_eq!((sandbox.status("one").as_str(), sandbox.init_pid("one")), ("running", init));
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
}

fn cgroups_and_run_directory_of_a_dead_container_are_removed(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let before = plant_data(Path::new(&source), "precious");
    let id = sandbox.start_obedient("one", &["-v", &format!("{source}:/v"), "-m", "64m"], 3);
    let decoys = Decoys::beside(sandbox, &id);
    let (init, shim) = (sandbox.init_pid("one"), sandbox.shim_pid("one"));
    kill_with_supervisor(sandbox, &[shim, init]);
    let found = Diagnosis::of(sandbox, &[]);
    found.expect_kinds(&["cgroup", "run-directory", "socket", "unknown-entry"]);
    let cgroups = found.one("cgroup")["Where"].as_array().expect("a list");
    assert!(
        !cgroups.is_empty()
            && cgroups.iter().all(|path| path.as_str().is_some_and(|path| path.ends_with(&id)))
    );
    let what = found.one("run-directory")["What"].to_string();
    assert!(["journal", "shim.sock", "stdout"].iter().all(|name| what.contains(name)), "{what}");
    let after = Diagnosis::of(sandbox, &["--fix"]);
    let is_right = |one: &Value| (one["Repaired"] == true) != (one["Kind"] == "unknown-entry");
    assert!(after.findings.iter().all(is_right) && after.code == 1, "{after:#?}");
    decoys.expect_untouched();
    before.expect_unchanged(Path::new(&source));
    expect_clean(sandbox);
    sandbox.wait_status("one", "exited");
}

fn cgroup_without_a_journal_goes_only_with_its_container(sandbox: &Sandbox) {
    let id = sandbox.start_obedient("one", &[], 3);
    let (init, shim) = (sandbox.init_pid("one"), sandbox.shim_pid("one"));
    kill_with_supervisor(sandbox, &[shim, init]);
    let run_directory = sandbox.run_root().join("containers").join(&id);
    let homes =
        [(run_directory, sandbox.place("run")), (state_directory(sandbox, &id), sandbox.place("state"))];
    for (home, away) in &homes {
        fs::rename(home, away).expect("the sandbox is ours");
    }
    // Nothing proves that it is ours.
    Diagnosis::of(sandbox, &[]).expect_kinds(&["socket"]);
    fs::rename(&homes[1].1, &homes[1].0).expect("the sandbox is ours");
    let after = Diagnosis::of(sandbox, &["--fix"]);
    let cgroup = after.one("cgroup");
    let paths = cgroup["Where"].as_array().expect("a list");
    assert!(!paths.is_empty() && paths.iter().all(|path| !Path::new(path.as_str().unwrap_or("/")).exists()));
    assert_eq!(cgroup["Repaired"], true, "{after:#?}");
    sandbox.ok(&["shutdown"]);
    fs::rename(&homes[0].1, &homes[0].0).expect("the sandbox is ours");
    Diagnosis::of(sandbox, &["--fix"]).expect_repaired();
    expect_clean(sandbox);
}

/// A process of the host inside a container's mount namespace, which so outlives all of the container.
struct Intruder(std::process::Child);

impl Intruder {
    fn enter(init: i32) -> Intruder {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &init.to_string(), "-m", "sleep", "1000"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let intruder = Intruder(command.spawn().expect("nsenter is part of util-linux"));
        let pid = i32::try_from(intruder.0.id()).expect("pids are small");
        wait_until("it is inside", || processes::stat(pid).is_some_and(|stat| stat.program == "sleep"));
        intruder
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        // Errors mean that it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mount_in_another_namespace_is_found_with_its_holder(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 3);
    let (init, shim) = (sandbox.init_pid("one"), sandbox.shim_pid("one"));
    let mut holder = Intruder::enter(init);
    kill_with_supervisor(sandbox, &[shim, init]);
    let found = Diagnosis::of(sandbox, &[]);
    found.expect_kinds(&["mount", "cgroup", "run-directory", "socket"]);
    let mount = found.one("mount");
    assert!(holds(mount, holder.0.id(), "sleep"), "{mount:#}");
    assert!(mount["Remedy"].to_string().contains(&holder.0.id().to_string()), "{mount:#}");
    let after = Diagnosis::of(sandbox, &["--fix"]);
    let stays = after.one("leftover");
    assert_eq!(after.code, 1, "{after:#?}");
    assert!(
        stays["Repaired"] == false && stays["Why"].as_str().is_some_and(|why| !why.is_empty()),
        "{stays:#}"
    );
    assert!(holds(stays, holder.0.id(), "sleep"), "{stays:#}");
    assert!(holder.0.try_wait().is_ok_and(|ended| ended.is_none()), "a holder is never killed");
    drop(holder);
    Diagnosis::of(sandbox, &["--fix"]).expect_repaired();
    expect_clean(sandbox);
    sandbox.wait_status("one", "exited");
}

fn busy_volume_is_named_with_its_holder_and_heals(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let before = plant_data(Path::new(&source), "precious");
    sandbox.start_obedient("one", &["-v", &format!("{source}:/v")], 3);
    let holder = Holder::sit_in(&plant::in_shim(sandbox, "one", "/v").join("deep"));
    sandbox.stop_unfinished("one");
    sandbox.wait_status("one", "leftover");
    let found = Diagnosis::of(sandbox, &[]);
    found.expect_kinds(&["leftover"]);
    let leftover = found.one("leftover");
    assert!(holds(leftover, holder.pid(), "sleep"), "{leftover:#}");
    assert!(leftover["Where"].to_string().contains("/mnt/v in mnt:["), "{leftover:#}");
    assert!(leftover["What"].to_string().contains("volume /mnt/v"), "the report is read: {leftover:#}");
    let after = Diagnosis::of(sandbox, &["--fix"]);
    assert_eq!((after.code, &after.one("leftover")["Repaired"]), (1, &Value::Bool(false)));
    holder.leave();
    Diagnosis::of(sandbox, &["--fix"]);
    expect_clean(sandbox);
    sandbox.wait_status("one", "exited");
    before.expect_unchanged(Path::new(&source));
}

fn leavings_on_disk_are_found_and_removed(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one"], &["true"]).expect_code(0);
    let id = inspect::text(&sandbox.inspect("one"), "Id");
    sandbox.ok(&["shutdown"]);
    let root = sandbox.root();
    let trees = [
        root.join("trash/containers-old"),
        sandbox.run_root().join("trash/old"),
        root.join("layers/import-00ff00ff00ff00ff"),
        root.join("layers").join("cd".repeat(32)),
        state_directory(sandbox, &id).join("work"),
        state_directory(sandbox, &id).join("upper"),
    ];
    for tree in &trees {
        plant_data(tree, "waste");
    }
    let unborn = state_directory(sandbox, &"ab".repeat(32));
    let stale = sandbox.run_root().join("containers").join("ef".repeat(32));
    for directory in [&unborn, &stale] {
        fs::create_dir(directory).expect("the sandbox is ours");
    }
    fs::write(unborn.join("config.json.tmp"), "{").expect("the sandbox is ours");
    let torn = root.join("images").join(format!("{}.json.tmp", "cd".repeat(32)));
    fs::write(&torn, "{").expect("the sandbox is ours");

    let found = Diagnosis::of(sandbox, &[]);
    found.expect_kinds(&["trash", "layer", "write-layer", "directory", "run-directory"]);
    let text = format!("{found:?}");
    let mut planted = trees.iter().chain([&unborn, &stale, &torn]);
    assert!(planted.all(|path| text.contains(&path.display().to_string())), "{found:#?}");
    assert_eq!(inspect::text(found.one("write-layer"), "Container.Name"), "one");
    Diagnosis::of(sandbox, &["--fix"]).expect_repaired();
    assert!(
        !trees.iter().chain([&unborn, &stale, &torn]).any(|path| path.exists()),
        "something is still there"
    );
    expect_clean(sandbox);
}

fn end_that_nobody_recorded_is_recorded_as_unknown(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "true");
    sandbox.wait_status("one", "exited");
    sandbox.ok(&["shutdown"]);
    fs::remove_file(state_directory(sandbox, &id).join("exit")).expect("it was recorded");
    Diagnosis::of(sandbox, &[]).expect_kinds(&["unknown-end"]);
    Diagnosis::of(sandbox, &["--fix"]).expect_repaired();
    let output = sandbox.mysup(&["wait", "one"]);
    assert!(output.text() == "255" && output.errors().contains("not known"), "{output}");
}

fn damaged_records_are_named_and_left_alone(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "true");
    sandbox.wait_status("one", "exited");
    sandbox.ok(&["shutdown"]);
    let state = state_directory(sandbox, &id);
    let images = fs::read_dir(sandbox.root().join("images")).expect("there are images");
    let mut records: Vec<PathBuf> = images.flatten().map(|entry| entry.path()).collect();
    records.extend(["config.json", "exit", "teardown"].map(|name| state.join(name)));
    let whole: Vec<Vec<u8>> = records.iter().map(|path| fs::read(path).expect("a record")).collect();
    let damaged: Vec<Vec<u8>> =
        whole.iter().map(|bytes| [&bytes[..bytes.len() - 3], b"xyz"].concat()).collect();
    for (path, bytes) in records.iter().zip(&damaged) {
        fs::write(path, bytes).expect("the sandbox is ours");
    }
    let found = Diagnosis::of(sandbox, &[]);
    found.expect_kinds(&["damaged-record", "damaged-image"]);
    assert_eq!(found.findings.len(), 4, "{found:#?}");
    let text = format!("{found:?}");
    assert!(records.iter().all(|path| text.contains(&path.display().to_string())), "{text}");
    let after = Diagnosis::of(sandbox, &["--fix"]);
    assert!(
        after.code == 1 && after.findings.iter().all(|finding| finding["Repaired"] == false),
        "{after:#?}"
    );
    for ((path, bytes), whole) in records.iter().zip(&damaged).zip(&whole) {
        assert_eq!(&fs::read(path).expect("it is there"), bytes, "{} was touched", path.display());
        fs::write(path, whole).expect("the sandbox is ours");
    }
    expect_clean(sandbox);
}

fn things_of_others_are_named_and_left_alone(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one"], &["true"]).expect_code(0);
    let source = sandbox.place("theirs");
    let before = plant_data(&source, "precious");
    let entry = sandbox.root().join("containers/decoy");
    let entry_before = plant_data(&entry, "decoy");
    let place = sandbox.root().join("trash/decoy");
    let bind = Bind::new(&source, &place.join("inner"));
    let found = Diagnosis::of(sandbox, &[]);
    found.expect_kinds(&["unknown-entry", "mount-in-the-way", "trash"]);
    assert_eq!(found.one("unknown-entry")["Where"][0], entry.display().to_string());
    assert_eq!(found.one("mount-in-the-way")["Where"][0], place.join("inner").display().to_string());
    let after = Diagnosis::of(sandbox, &["--fix"]);
    assert!(
        after.code == 1 && after.findings.iter().all(|finding| finding["Repaired"] == false),
        "{after:#?}"
    );
    before.expect_unchanged(&source);
    entry_before.expect_unchanged(&entry);
    bind.remove();
    fs::rename(&entry, sandbox.place("decoy")).expect("the sandbox is ours");
    Diagnosis::of(sandbox, &["--fix"]).expect_repaired();
    before.expect_unchanged(&source);
    expect_clean(sandbox);
}

fn shim_whose_directory_was_moved_away_is_an_orphan(sandbox: &Sandbox) {
    let id = sandbox.start_obedient("one", &[], 3);
    let shim = u32::try_from(sandbox.shim_pid("one")).expect("pids are positive");
    sandbox.ok(&["shutdown"]);
    let home = state_directory(sandbox, &id);
    for away in [sandbox.place("away"), sandbox.root().join("trash").join(format!("containers-{id}-17"))] {
        fs::rename(&home, &away).expect("the sandbox is ours");
        let found = Diagnosis::of(sandbox, &[]);
        let orphan = found.one("orphan-shim");
        assert!(holds(orphan, shim, "mysup-shim"), "{orphan:#}");
        assert!(orphan["Container"]["Id"] == id.as_str() && found.code == 1, "{orphan:#}");
        fs::rename(&away, &home).expect("the sandbox is ours");
        expect_clean(sandbox);
    }
    let (run_directory, away) = (sandbox.run_root().join("containers").join(&id), sandbox.place("away"));
    fs::rename(&run_directory, &away).expect("the sandbox is ours");
    let found = Diagnosis::of(sandbox, &[]);
    assert!(found.one("orphan-shim")["What"].to_string().contains("nobody can reach it"), "{found:#?}");
    fs::rename(&away, &run_directory).expect("the sandbox is ours");
    expect_clean(sandbox);
}

fn stopped_shim_is_named_and_left_alone(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 3);
    let shim = sandbox.shim_pid("one");
    processes::signal(shim, Signal::STOP);
    let is_stopped = || processes::stat(shim).is_some_and(|stat| stat.state == 'T');
    wait_until("it is stopped", is_stopped);
    for flags in [&[][..], &["--fix"]] {
        let found = Diagnosis::of(sandbox, flags);
        found.expect_kinds(&["stopped"]);
        assert!(found.one("stopped")["Remedy"].to_string().contains(&format!("kill -CONT {shim}")));
    }
    assert!(is_stopped(), "somebody stopped it for a reason");
    processes::signal(shim, Signal::CONT);
    expect_clean(sandbox);
}

fn lock_of_another_program_is_named_and_left_alone(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "true");
    sandbox.wait_status("one", "exited");
    let lock = fs::File::open(state_directory(sandbox, &id).join("lock")).expect("its shim made it");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("nobody has it");
    let found = Diagnosis::of(sandbox, &["--fix"]);
    let finding = found.one("foreign-lock");
    assert_eq!(
        (found.code, &finding["Holders"][0]["Pid"]),
        (1, &Value::from(std::process::id())),
        "{finding:#}"
    );
    drop(lock);
    expect_clean(sandbox);
}

fn running_supervisor_repairs_what_it_can_and_stays(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 3);
    let (init, shim, supervisor) = (sandbox.init_pid("one"), sandbox.shim_pid("one"), sandbox.supervisor());
    plant_data(&sandbox.root().join("trash/old"), "waste");
    fs::create_dir(sandbox.run_root().join("containers").join("ab".repeat(32))).expect("it is ours");
    Diagnosis::of(sandbox, &[]).expect_kinds(&["run-directory", "trash"]);
    Diagnosis::of(sandbox, &["--fix"]).expect_repaired();
    assert_eq!(sandbox.supervisor(), supervisor);
    assert_eq!((sandbox.init_pid("one"), sandbox.shim_pid("one")), (init, shim));
    expect_clean(sandbox);
}

fn another_instance_is_never_mentioned(sandbox: &Sandbox) {
    let other = Sandbox::new("another instance", Random::new(1, "another"));
    let id = other.start_obedient("theirs", &[], 3);
    sandbox.start_obedient("ours", &[], 3);
    let (init, shim) = (other.init_pid("theirs"), other.shim_pid("theirs"));
    kill_with_supervisor(&other, &[shim]);
    plant_data(&other.root().join("trash/old"), "waste");
    expect_clean(sandbox);
    let ours = sandbox.shim_pid("ours");
    kill_with_supervisor(sandbox, &[ours]);
    let text = format!("{:?}", Diagnosis::of(sandbox, &[]));
    assert!(!text.contains(&id) && !text.contains(&other.mark()), "{text}");
    Diagnosis::of(sandbox, &["--fix"]).expect_repaired();
    assert!(processes::is_alive(init) && other.root().join("trash/old").exists(), "theirs is theirs");
    let theirs = Diagnosis::of(&other, &["--fix"]);
    theirs.expect_repaired();
    assert!(theirs.kinds().contains("init") && theirs.kinds().contains("trash"), "{theirs:#?}");
    expect_clean(sandbox);
    other.finish();
    other.sweep(false);
}

fn wrong_format_is_refused(sandbox: &Sandbox) {
    sandbox.refused(&["doctor", "--format", "table"], 1, &["--format", "table", "json"]);
    sandbox.refused(&["doctor", "nothing"], 1, &["nothing"]);
}
