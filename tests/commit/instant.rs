//! A running container stands still while it is committed, and always goes on again.

use std::{
    fs::{self, File},
    io::{Read, Write},
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Signal,
};

use super::changing::{self, BASE};
use crate::harness::{Case, Sandbox, command::Client, image, processes, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        commit_of_a_writer_is_one_instant,
        commit_without_a_pause_does_not_stop_the_writer,
        container_goes_on_when_the_committing_client_is_killed,
        container_goes_on_when_the_supervisor_is_killed,
        container_goes_on_when_the_shim_is_killed,
        container_goes_on_when_both_are_killed,
        container_that_is_killed_in_the_middle_is_not_committed,
        stop_with_its_grace_ends_a_pause,
        two_commits_at_once_are_both_whole,
    ]
}

/// Whether a container stands still, or is about to.
pub(crate) fn is_frozen(id: &str) -> bool {
    let directories = processes::cgroup_directories();
    directories.iter().filter(|path| path.to_string_lossy().ends_with(id)).any(|path| {
        let read = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
        read("cgroup.freeze").trim() == "1" || read("freezer.state").trim().starts_with("FR")
    })
}

/// A commit into a FIFO that nobody reads: it waits with the container paused.
pub(crate) struct Waiting {
    pub(crate) client: Client,
    pub(crate) id: String,
    reader: File,
}

/// A FIFO of the sandbox, made once.
fn make_fifo(sandbox: &Sandbox) -> String {
    let path = sandbox.place("fifo");
    if !path.exists() {
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("mkfifo");
    }
    path.to_string_lossy().into_owned()
}

impl Waiting {
    #[track_caller]
    pub(crate) fn begin(sandbox: &Sandbox, name: &str) -> Waiting {
        let path = make_fifo(sandbox);
        let id = sandbox.ok(&["inspect", "-f", "{{.Id}}", name]);
        let client = sandbox.call(&["commit", "-o", &path, name]).start();
        let reader = File::open(&path).expect("the client opens the other end");
        wait_until("the container stands still", || is_frozen(&id));
        // It is frozen before that is told, and only then something is read of it.
        wait_until("it is read", || rustix::io::ioctl_fionread(&reader).is_ok_and(|count| count > 0));
        Waiting { client, id, reader }
    }

    /// Reads all of it, and then its end.
    #[track_caller]
    pub(crate) fn read(mut self) -> crate::harness::command::Output {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).expect("a pipe can be read");
        self.client.wait()
    }
}

/// Writes a line to `/w/a`, and then to `/w/z`, again and again.
const WRITER: &str = "i=0; while :; do i=$((i+1)); echo $i >> /w/a; echo $i >> /w/z; done";

#[track_caller]
fn start_writer(sandbox: &Sandbox) {
    changing::import(sandbox);
    sandbox.ok(&["run", "-d", "--name", "one", BASE, "sh", "-c", &format!("mkdir /w; {WRITER}")]);
    let root = changing::root_of(sandbox, "one");
    wait_until("it writes", || fs::metadata(root.join("w/z")).is_ok_and(|data| data.len() > 100));
    // Read between the two.
    let filler = File::create(root.join("w/m")).expect("it can be written");
    for _ in 0..48 {
        (&filler).write_all(&vec![1; 1 << 20]).expect("there is room");
    }
}

fn lines(sandbox: &Sandbox, image: &str, path: &str) -> usize {
    let text = sandbox.ok(&["run", "--rm", image, "sh", "-c", &format!("wc -l < {path}")]);
    text.trim().parse().expect("a number")
}

fn commit_of_a_writer_is_one_instant(sandbox: &Sandbox) {
    start_writer(sandbox);
    for round in 0..5 {
        let image = format!("made:{round}");
        sandbox.ok(&["commit", "one", &image]);
        let (first, second) = (lines(sandbox, &image, "/w/a"), lines(sandbox, &image, "/w/z"));
        assert!(first == second || first == second + 1, "{first} and {second} are of two instants");
    }
    let before = lines(sandbox, "made:0", "/w/a");
    assert!(lines(sandbox, "made:4", "/w/a") > before, "it went on in between");
}

fn commit_without_a_pause_does_not_stop_the_writer(sandbox: &Sandbox) {
    start_counter(sandbox);
    let root = changing::root_of(sandbox, "one");
    let size = || fs::metadata(root.join("count")).map_or(0, |data| data.len());
    let id = sandbox.ok(&["inspect", "-f", "{{.Id}}", "one"]);
    for flag in ["--no-pause", "--pause=false", "-p=false"] {
        let path = make_fifo(sandbox);
        let client = sandbox.call(&["commit", flag, "-o", &path, "one"]).start();
        let mut reader = File::open(&path).expect("the client opens the other end");
        reader.read_exact(&mut [0; 512]).expect("it has begun");
        let before = size();
        wait_until("the program goes on while it is read", || size() > before);
        assert!(!is_frozen(&id));
        std::io::copy(&mut reader, &mut std::io::sink()).expect("a pipe can be read");
        client.wait().expect_code(0);
        assert!(sandbox.ok(&["commit", flag, "one", "made"]).starts_with("sha256:"));
    }
}

/// The container runs, and the program in it, too.
#[track_caller]
fn expect_going_on(sandbox: &Sandbox, id: &str) {
    wait_until("the container goes on", || !is_frozen(id));
    let root = changing::root_of(sandbox, "one");
    let size = || fs::metadata(root.join("count")).map_or(0, |data| data.len());
    let before = size();
    wait_until("its program goes on", || size() > before);
    assert_eq!(sandbox.status("one"), "running");
}

#[track_caller]
fn start_counter(sandbox: &Sandbox) {
    changing::import(sandbox);
    let script = "while :; do echo x >> /count; sleep 0.01; done";
    sandbox.ok(&["run", "-d", "--name", "one", BASE, "sh", "-c", script]);
}

fn container_goes_on_when_the_committing_client_is_killed(sandbox: &Sandbox) {
    start_counter(sandbox);
    let waiting = Waiting::begin(sandbox, "one");
    waiting.client.signal(Signal::KILL);
    expect_going_on(sandbox, &waiting.id);
}

fn container_goes_on_when_the_supervisor_is_killed(sandbox: &Sandbox) {
    start_counter(sandbox);
    let waiting = Waiting::begin(sandbox, "one");
    let id = waiting.id.clone();
    sandbox.kill_supervisor();
    // By its shim, without a new supervisor.
    wait_until("the container goes on", || !is_frozen(&id));
    assert_ne!(waiting.read().code, 0);
    expect_going_on(sandbox, &id);
}

fn container_goes_on_when_the_shim_is_killed(sandbox: &Sandbox) {
    start_counter(sandbox);
    let waiting = Waiting::begin(sandbox, "one");
    let id = waiting.id.clone();
    processes::signal(sandbox.shim_pid("one"), Signal::KILL);
    expect_going_on(sandbox, &id);
    waiting.read().expect_refusal(1, &["went on", "try again"]);
}

fn container_goes_on_when_both_are_killed(sandbox: &Sandbox) {
    start_counter(sandbox);
    let waiting = Waiting::begin(sandbox, "one");
    let id = waiting.id.clone();
    let (shim, supervisor) = (sandbox.shim_pid("one"), sandbox.supervisor_pid().expect("it runs"));
    processes::signal(supervisor, Signal::STOP);
    processes::signal(shim, Signal::KILL);
    processes::signal(supervisor, Signal::KILL);
    assert_ne!(waiting.read().code, 0);
    sandbox.ok(&["ps"]);
    expect_going_on(sandbox, &id);
}

fn container_that_is_killed_in_the_middle_is_not_committed(sandbox: &Sandbox) {
    start_counter(sandbox);
    let waiting = Waiting::begin(sandbox, "one");
    sandbox.ok(&["kill", "one"]);
    sandbox.wait_status("one", "exited");
    waiting.read().expect_refusal(1, &["ended in the middle"]);
    sandbox.refused(&["commit", "one"], 1, &["has ended", "--keep"]);
}

fn stop_with_its_grace_ends_a_pause(sandbox: &Sandbox) {
    start_counter(sandbox);
    let waiting = Waiting::begin(sandbox, "one");
    sandbox.ok(&["stop", "-t", "1", "one"]);
    assert_eq!(sandbox.status("one"), "exited");
    waiting.read().expect_refusal(1, &["ended in the middle"]);
}

fn two_commits_at_once_are_both_whole(sandbox: &Sandbox) {
    start_counter(sandbox);
    let waiting = Waiting::begin(sandbox, "one");
    // The pause goes on when one of two ends.
    let id = sandbox.ok(&["commit", "one", "made"]);
    assert!(id.starts_with("sha256:") && is_frozen(&waiting.id));
    let id = waiting.id.clone();
    assert_eq!(waiting.read().code, 0);
    expect_going_on(sandbox, &id);
    assert!(sandbox.ok(&["run", "--rm", "made", "cat", "/count"]).starts_with('x'));
    assert_ne!(image::NAME, BASE);
}
