//! What is going on when somebody stops at a point: a preparation, which nobody disturbs, and then commands or deaths.

use std::{collections::VecDeque, fmt, fs, path::Path};

use mysup_ipc::{codec::Message, frame::Decoder, layout, teardown::JournalEntry};

use super::victims::{self, id_on_disk};
use crate::{
    harness::{
        Sandbox,
        command::{Client, Output},
        image, processes, wait_until,
    },
    sweep::{IMPORTED, NAME, extra_tar},
};

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scenario {
    /// `run -d` with nested volumes, to the end of the teardown.
    Life,
    /// The same with `--rm`.
    Ephemeral,
    /// `run -d` of a program that is not there.
    Failing,
    /// `create`, then `start`.
    CreateStart,
    /// `rm -v` of an ended container with a write layer and an anonymous volume.
    Remove,
    /// `rename` of a running container.
    Rename,
    /// The shim is dead, another one adopts, to the end of the teardown.
    Adopt,
    /// Shim and init are dead, another shim takes down what is left.
    TakeDown,
    /// A supervisor starts in another boot, after the end of all.
    Reboot,
    /// `import` of a tar.
    Import,
    /// `rmi` of an image.
    RemoveImage,
}

/// The volume that is nobody's to remove.
pub(super) const KEPT: &str = "kept";

/// The other name of `rename`.
pub(super) const RENAMED: &str = "two";

impl Scenario {
    /// All of them.
    pub(super) const EACH: [Scenario; 11] = [
        Scenario::Life,
        Scenario::Ephemeral,
        Scenario::Failing,
        Scenario::CreateStart,
        Scenario::Remove,
        Scenario::Rename,
        Scenario::Adopt,
        Scenario::TakeDown,
        Scenario::Reboot,
        Scenario::Import,
        Scenario::RemoveImage,
    ];

    /// Its word on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Scenario::Life => "life",
            Scenario::Ephemeral => "rm-at-exit",
            Scenario::Failing => "failing",
            Scenario::CreateStart => "create-start",
            Scenario::Remove => "rm",
            Scenario::Rename => "rename",
            Scenario::Adopt => "adopt",
            Scenario::TakeDown => "take-down",
            Scenario::Reboot => "reboot",
            Scenario::Import => "import",
            Scenario::RemoveImage => "rmi",
        }
    }

    /// Whether a shim may be at work: only then it matters when the next supervisor comes.
    pub(super) fn has_shim(self) -> bool {
        match self {
            Scenario::Life
            | Scenario::Ephemeral
            | Scenario::Failing
            | Scenario::CreateStart
            | Scenario::Rename
            | Scenario::Adopt
            | Scenario::TakeDown => true,
            Scenario::Remove | Scenario::Reboot | Scenario::Import | Scenario::RemoveImage => false,
        }
    }

    /// Whether it is about a container at all.
    pub(super) fn has_container(self) -> bool {
        !matches!(self, Scenario::Import | Scenario::RemoveImage)
    }

    /// Whether a container exists, and its user was told so, before the first point.
    pub(super) fn has_container_before(self) -> bool {
        match self {
            Scenario::Remove | Scenario::Rename | Scenario::Adopt | Scenario::TakeDown | Scenario::Reboot => {
                true
            }
            Scenario::Life
            | Scenario::Ephemeral
            | Scenario::Failing
            | Scenario::CreateStart
            | Scenario::Import
            | Scenario::RemoveImage => false,
        }
    }

    /// Whether the scenario itself kills the program.
    pub(super) fn kills(self) -> bool {
        matches!(self, Scenario::TakeDown | Scenario::Reboot)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The words of `run` or `create` with the volumes and the program, which ends with `code` when it may go on.
fn words(sandbox: &Sandbox, verb: &[&str], code: i32, scenario: Scenario) -> Vec<String> {
    let mut words: Vec<String> = [verb, &["--name", NAME]].concat().into_iter().map(str::to_owned).collect();
    // The inner one first: the order is mysup's business.
    for (name, to) in [("b", "/a/b"), ("a", "/a"), ("proof", "/proof")] {
        words.extend(["-v".to_owned(), format!("{}:{to}", sandbox.place(name).display())]);
    }
    // mysup's own: one that stays, and one without a name, which is filled with what the image has there.
    for volume in [format!("{KEPT}:/kept"), "/etc".to_owned()] {
        words.extend(["-v".to_owned(), volume]);
    }
    words.push(image::NAME.to_owned());
    if scenario == Scenario::Failing {
        words.push("/not/there".to_owned());
        return words;
    }
    let script = format!(
        "echo mine > /file; echo x > /proof/started; echo up; while [ ! -e /proof/go ]; do sleep 0.02; done; \
         echo last; echo {code} > /proof/code; exit {code}"
    );
    words.extend(["sh".to_owned(), "-c".to_owned(), script]);
    words
}

/// Lets the program go on to its end.
pub(super) fn let_go(sandbox: &Sandbox) {
    fs::write(sandbox.place("proof/go"), "").expect("the sandbox is ours");
}

/// Whether the program has begun.
pub(super) fn has_started(sandbox: &Sandbox) -> bool {
    sandbox.place("proof/started").exists()
}

/// Brings everything to where the scenario begins.
#[track_caller]
pub(super) fn prepare(sandbox: &Sandbox, scenario: Scenario, code: i32) {
    for name in ["started", "code", "go"] {
        // Not there in most cells.
        let _ = fs::remove_file(sandbox.place("proof").join(name));
    }
    sandbox.ok(&["info"]);
    if scenario.has_container_before() {
        let verb: &[&str] =
            if scenario == Scenario::Remove { &["run", "-d", "--keep"] } else { &["run", "-d"] };
        start(sandbox, &words(sandbox, verb, code, scenario)).wait().expect_code(0);
        wait_until("the program has begun", || has_started(sandbox));
    }
    match scenario {
        Scenario::Remove => {
            let_go(sandbox);
            sandbox.wait_status(NAME, "exited");
        }
        Scenario::Reboot => reboot(sandbox),
        Scenario::RemoveImage => drop(sandbox.ok(&["import", &extra_tar(sandbox), IMPORTED])),
        Scenario::Life
        | Scenario::Ephemeral
        | Scenario::Failing
        | Scenario::CreateStart
        | Scenario::Rename
        | Scenario::Adopt
        | Scenario::TakeDown
        | Scenario::Import => {}
    }
}

/// What a power cut does to all that is not on a disk, and a boot id that is another one's.
#[track_caller]
fn reboot(sandbox: &Sandbox) {
    let id = id_on_disk(sandbox).expect("a container runs");
    let (supervisor, shim) = (sandbox.supervisor(), sandbox.shim_pid(NAME));
    let init = victims::init(&id).expect("a container runs");
    victims::kill_at_once(&[supervisor, shim, init]);
    let gone = || {
        let mut cgroups = processes::cgroup_directories().into_iter().filter(|path| path.ends_with(&id));
        cgroups.all(|path| fs::remove_dir(path).is_ok())
    };
    wait_until("the cgroups of the boot before are gone", gone);
    fs::write(sandbox.run_root().join("boot-id"), "the boot before\n").expect("the sandbox is ours");
    age_journal(&sandbox.run_root().join(layout::CONTAINERS).join(&id).join(layout::JOURNAL));
}

/// Makes it one of another boot.
#[track_caller]
fn age_journal(path: &Path) {
    let mut decoder = Decoder::new();
    decoder.push(&fs::read(path).expect("a container ran"));
    let mut aged = Vec::new();
    while let Some(frame) = decoder.next_frame().expect("a shim wrote it") {
        let mut entry = JournalEntry::from_frame(&frame).expect("a shim wrote it");
        if let JournalEntry::Begin { boot_id, .. } = &mut entry {
            "the boot before".clone_into(boot_id);
        }
        aged.extend(entry.to_frame().expect("it was one before"));
    }
    fs::write(path, aged).expect("the sandbox is ours");
}

fn call(sandbox: &Sandbox, words: &[String]) -> Client {
    let client = start(sandbox, words);
    // `mysup start NAME` looks like a supervisor to those who look for one.
    sandbox.adopt_client(client.pid());
    client
}

fn start(sandbox: &Sandbox, words: &[String]) -> Client {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    sandbox.call(&words).start()
}

/// A scenario under way.
pub(super) struct Play<'a> {
    sandbox: &'a Sandbox,
    client: Option<Client>,
    /// Commands that follow, as long as nobody has stopped.
    next: VecDeque<Vec<String>>,
}

impl<'a> Play<'a> {
    /// Begins it.
    #[track_caller]
    pub(super) fn begin(sandbox: &'a Sandbox, scenario: Scenario, code: i32) -> Play<'a> {
        let line = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
        let lines = match scenario {
            Scenario::Life | Scenario::Failing => vec![words(sandbox, &["run", "-d"], code, scenario)],
            Scenario::Ephemeral => vec![words(sandbox, &["run", "-d", "--rm"], code, scenario)],
            Scenario::CreateStart => {
                vec![words(sandbox, &["create"], code, scenario), line(&["start", NAME])]
            }
            Scenario::Remove => vec![line(&["rm", "-v", NAME])],
            Scenario::Rename => vec![line(&["rename", NAME, RENAMED])],
            Scenario::Reboot => vec![line(&["ps"])],
            Scenario::Import => vec![line(&["import", &extra_tar(sandbox), IMPORTED])],
            Scenario::RemoveImage => vec![line(&["rmi", IMPORTED])],
            Scenario::Adopt | Scenario::TakeDown => Vec::new(),
        };
        let mut play = Play { sandbox, client: None, next: lines.into() };
        play.client = play.next.pop_front().map(|words| call(sandbox, &words));
        if matches!(scenario, Scenario::Adopt | Scenario::TakeDown) {
            let id = id_on_disk(sandbox).expect("a container runs");
            let init = victims::init(&id).filter(|_| scenario == Scenario::TakeDown);
            let pids: Vec<i32> = [Some(sandbox.shim_pid(NAME)), init].into_iter().flatten().collect();
            victims::kill_at_once(&pids);
        }
        play
    }

    /// Does what comes next, if it is time for it.
    pub(super) fn go_on(&mut self) {
        let ended = self.client.as_mut().is_none_or(|client| !client.is_running());
        if ended && let Some(words) = self.next.pop_front() {
            self.end_client();
            self.client = Some(call(self.sandbox, &words));
        }
    }

    /// Whether all commands were given and have ended.
    pub(super) fn is_over(&mut self) -> bool {
        self.next.is_empty() && self.client.as_mut().is_none_or(|client| !client.is_running())
    }

    /// What the last command said; nothing if there was none. Those that follow are given up.
    #[track_caller]
    pub(super) fn finish(mut self) -> Option<Output> {
        self.end_client()
    }

    fn end_client(&mut self) -> Option<Output> {
        let client = self.client.take()?;
        let pid = client.pid();
        let told = client.wait();
        self.sandbox.forget_client(pid);
        Some(told)
    }
}
