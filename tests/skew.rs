//! Old shims under a new supervisor, new shims under an old one, and upgrades and downgrades in place.
//!
//! `MYSUP_NEXT_BIN` names a directory with both programs built with `--features mysup-ipc/next`, which speak as a later
//! version would (`ipc/src/next.rs`); `tests/run` builds them. `MYSUP_OLD_BIN` may name one with those of an older version.

use std::{
    env,
    path::{Path, PathBuf},
};

use mysup_ipc::frame::{self, Kind};
use rustix::process::Signal;

use crate::{
    adoption::replace_shim,
    harness::{Case, Sandbox, command, processes, skip, terminal::Terminal, tree::plant_data, wait_until},
};

const OTHERS: [(&str, &str); 2] = [("next", "MYSUP_NEXT_BIN"), ("old", "MYSUP_OLD_BIN")];

type Check = fn(&Sandbox, &Path);

pub(crate) fn cases() -> Vec<Case> {
    let checks: [(&str, Check); 4] = [
        ("shim_under_our_supervisor_does_everything", their_shim),
        ("supervisor_over_our_shim_does_everything", their_supervisor),
        ("version_takes_over_and_gives_back", takes_over),
        ("client_and_our_supervisor_understand_each_other", their_client),
    ];
    let mut cases = vec![
        Case::new("skew::next_version_says_more_than_ours", says_more),
        Case::new("skew::effect_of_a_newer_version_is_not_forgotten", unknown_effect),
    ];
    for (other, variable) in
        OTHERS.into_iter().filter(|(other, variable)| *other == "next" || env::var_os(variable).is_some())
    {
        cases.extend(checks.map(|(name, check)| {
            Case::new(format!("skew::{other}_{name}"), move |sandbox| check(sandbox, &directory(variable)))
        }));
    }
    cases
}

fn directory(variable: &str) -> PathBuf {
    match env::var_os(variable) {
        Some(directory) => PathBuf::from(directory),
        None => skip(format!("{variable} is not set")),
    }
}

fn ours() -> &'static Path {
    command::program().parent().expect("it is in a directory")
}

/// An installation with the supervisor of one version and the shim of another.
fn install(sandbox: &Sandbox, name: &str, supervisor: &Path, shim: &Path) -> PathBuf {
    let directory = PathBuf::from(sandbox.new_directory(name));
    // Not by a write of ours: a fork in another test's thread would keep the file busy for exec.
    let mut copy = std::process::Command::new("cp");
    copy.arg(supervisor.join("mysup")).arg(shim.join("mysup-shim")).arg(&directory);
    assert!(copy.status().is_ok_and(|status| status.success()), "{copy:?}");
    directory.join("mysup")
}

fn their_shim(sandbox: &Sandbox, theirs: &Path) {
    sandbox.use_program(install(sandbox, "mixed", ours(), theirs));
    everything(sandbox);
}

fn their_supervisor(sandbox: &Sandbox, theirs: &Path) {
    sandbox.use_program(install(sandbox, "mixed", theirs, ours()));
    everything(sandbox);
}

fn everything(sandbox: &Sandbox) {
    ends(sandbox);
    stops_and_deaths(sandbox);
    unseen_end(sandbox);
    sandbox.ok(&["shutdown", "--containers"]);
}

/// Create, run, input, output, codes, failures, rm.
fn ends(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    let echo = format!("read line; echo got $line; exit {code}");
    let line = sandbox.run_line(&["--rm", "-i"], &["sh", "-c", &echo]);
    let output = sandbox.call(&line).input(b"this\n").run().expect_code(code);
    assert_eq!(output.text(), "got this");
    assert_eq!(sandbox.run(&[], &["no-such-program"]).code, 127);
    let image = sandbox.image();
    sandbox.ok(&["create", "--name", "made", image, "sh", "-c", &format!("exit {code}")]);
    sandbox.ok(&["start", "made"]);
    assert_eq!(sandbox.ok(&["wait", "made"]), code.to_string());
    sandbox.wait_status("made", "exited");
    sandbox.ok(&["rm", "made"]);
    let line = sandbox.run_line(&["-ti", "--rm"], &["sh"]);
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    terminal.type_keys("stty size; exit 9\n");
    assert_eq!(terminal.wait(), Some(9), "{}", terminal.screen());
    assert!(terminal.screen().contains("24 80"));
}

/// Signal, stop, kill, wait, logs -f, attached input and output, over the deaths of shim and supervisor.
fn stops_and_deaths(sandbox: &Sandbox) {
    let volume = sandbox.new_directory("v");
    let before = plant_data(&sandbox.place("v"), "precious");
    let code = sandbox.exit_code();
    let script =
        format!("trap 'echo usr' USR1; trap 'exit {code}' TERM; echo up; while :; do sleep 0.02; done");
    sandbox.start("one", &["-v", &format!("{volume}:/v")], &script);
    let mut follower = sandbox.call(&["logs", "-f", "one"]).start();
    let waiter = sandbox.call(&["wait", "one"]).start();
    follower.wait_for("up");
    sandbox.ok(&["kill", "-s", "USR1", "one"]);
    follower.wait_for("usr");
    let line = sandbox.run_line(
        &["-t", "--name", "two"],
        &["sh", "-c", "echo up; trap 'exit 4' TERM; while :; do sleep 0.02; done"],
    );
    let mut client = sandbox.call(&line).start();
    client.wait_for("up");
    let init = sandbox.init_pid("one");
    for name in ["one", "two"] {
        replace_shim(sandbox, name);
    }
    sandbox.kill_supervisor();
    assert_eq!((sandbox.status("one").as_str(), sandbox.init_pid("one")), ("running", init));
    sandbox.ok(&["kill", "-s", "USR1", "one"]);
    wait_until("it has heard", || sandbox.ok(&["logs", "one"]).matches("usr").count() == 2);
    sandbox.ok(&["stop", "one", "two"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
    client.wait().expect_code(4);
    // Its supervisor died under it.
    waiter.wait();
    follower.wait();
    sandbox.ok(&["rm", "one", "two"]);
    before.expect_unchanged(&sandbox.place("v"));
    sandbox.start("three", &[], "sleep 1000");
    sandbox.ok(&["kill", "three"]);
    assert_eq!(sandbox.ok(&["wait", "three"]), "137");
}

fn unseen_end(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    sandbox.start_obedient("four", &["--init"], code);
    let (init, shim) = (sandbox.init_pid("four"), sandbox.shim_pid("four"));
    sandbox.kill_supervisor();
    processes::signal(shim, Signal::KILL);
    wait_until("both are dead", || !processes::is_alive(shim));
    processes::signal(init, Signal::TERM);
    wait_until("the program has ended", || !processes::is_alive(init));
    assert_eq!(sandbox.ok(&["wait", "four"]), code.to_string());
}

/// A running instance of ours is replaced by theirs, and theirs by ours again; what runs does not notice, and is then
/// stopped, adopted and removed by the other one.
fn takes_over(sandbox: &Sandbox, theirs: &Path) {
    let (own, their) = (install(sandbox, "ours", ours(), ours()), install(sandbox, "theirs", theirs, theirs));
    sandbox.use_program(own.clone());
    let line = sandbox.run_line(&["-ti", "--name", "terminal"], &["sh"]);
    let mut terminal = Terminal::run(sandbox, &line, 24, 80);
    terminal.type_keys("echo first$((1+1))\n");
    terminal.wait_for("first2");
    let echo = "while read line; do echo got $line; done; exit 8";
    let line = sandbox.run_line(&["-i", "--name", "pipe"], &["sh", "-c", echo]);
    let mut pipe = sandbox.call(&line).open_input().start();
    pipe.write(b"first\n");
    pipe.wait_for("got first");
    for (round, next) in [&their, &own, &their].into_iter().enumerate() {
        sandbox.start_obedient(&format!("c{round}"), &[], 7);
        let inits = ["terminal", "pipe"].map(|name| sandbox.init_pid(name));
        sandbox.use_program(next.clone());
        sandbox.ok(&["start", "--replace"]);
        terminal.type_keys(&format!("echo round$(({round}+10))\n"));
        terminal.wait_for(&format!("round{}", round + 10));
        pipe.write(format!("{round}\n").as_bytes());
        pipe.wait_for(&format!("got {round}"));
        assert_eq!(inits, ["terminal", "pipe"].map(|name| sandbox.init_pid(name)));
        if round == 1 {
            replace_shim(sandbox, "terminal");
            terminal.type_keys("echo shim$((1+1))\n");
            terminal.wait_for("shim2");
        }
    }
    for round in 0..3 {
        let name = format!("c{round}");
        replace_shim(sandbox, &name);
        sandbox.ok(&["stop", &name]);
        assert_eq!(sandbox.ok(&["wait", &name]), "7");
        sandbox.ok(&["rm", &name]);
    }
    pipe.close_input();
    pipe.wait().expect_code(8);
    terminal.type_keys("exit 9\n");
    assert_eq!(terminal.wait(), Some(9));
    sandbox.ok(&["shutdown", "--containers"]);
}

/// Requests and answers with more in them than the other side knows.
fn their_client(sandbox: &Sandbox, theirs: &Path) {
    let (own, their) = (install(sandbox, "ours", ours(), ours()), install(sandbox, "theirs", theirs, theirs));
    for (server, client) in [(&own, &their), (&their, &own)] {
        sandbox.use_program(server.clone());
        sandbox.ok(&["start"]);
        sandbox.use_program(client.clone());
        sandbox.run(&["--rm", "-m", "64m", "--pids-limit", "64"], &["sh", "-c", "exit 6"]).expect_code(6);
        let code = sandbox.exit_code();
        sandbox.start_obedient("one", &["--label", "a=b", "-e", "A=b"], code);
        assert!(sandbox.ok(&["ps", "--filter", "label=a=b"]).contains("Up "));
        assert_eq!(sandbox.ok(&["inspect", "--format", "{{.Config.Labels.a}}", "one"]), "b");
        assert!(sandbox.ok(&["top", "one"]).contains("sleep"));
        sandbox.ok(&["stop", "one"]);
        assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
        assert!(sandbox.ok(&["images"]).contains("busybox"));
        sandbox.ok(&["rm", "one"]);
        sandbox.ok(&["shutdown"]);
    }
}

/// The programs of the next version are what they are taken for: their shim keeps its plan with the field more.
fn says_more(sandbox: &Sandbox) {
    let theirs = directory(OTHERS[0].1);
    for (name, shim, more) in [("next", &*theirs, true), ("own", ours(), false)] {
        sandbox.use_program(install(sandbox, name, ours(), shim));
        let id = sandbox.start(name, &[], "sleep 1000");
        let plan = sandbox.run_root().join("containers").join(id).join("plan");
        let plan = std::fs::read(plan).expect("it is there while the container runs");
        assert_eq!(plan.windows(8).any(|window| window == b"NEXTNEXT"), more, "the shim of {name}");
        sandbox.ok(&["rm", "-f", name]);
        sandbox.ok(&["shutdown"]);
    }
}

/// A newer shim's journal has an effect that ours cannot undo: everything else is undone, and its journal stays until a
/// version that can (here: until the entry is gone).
fn unknown_effect(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    let (init, shim) = (sandbox.init_pid("one"), sandbox.shim_pid("one"));
    let journal = sandbox.run_root().join("containers").join(&id).join("journal");
    let known = std::fs::read(&journal).expect("a running container has one");
    let unknown = frame::encode(Kind::Journal, &[0xff; 12]).expect("short");
    std::fs::write(&journal, [&unknown[..], &known].concat()).expect("the sandbox is ours");
    sandbox.kill_supervisor();
    for pid in [shim, init] {
        processes::signal(pid, Signal::KILL);
    }
    wait_until("all are dead", || !processes::is_alive(init) && !processes::is_alive(shim));
    sandbox.ok(&["start"]);
    sandbox.wait_status("one", "leftover");
    sandbox.refused(&["rm", "one"], 1, &["newer version"]);
    assert!(!sandbox.root().join("containers").join(&id).join("upper").exists(), "what is known is undone");
    assert!(journal.exists());
    std::fs::write(&journal, known).expect("the sandbox is ours");
    sandbox.ok(&["shutdown"]);
    let shim = sandbox.shim_pid("one");
    processes::signal(shim, Signal::KILL);
    wait_until("it is dead", || !processes::is_alive(shim));
    sandbox.ok(&["rm", "one"]);
}
