//! What is done while the victim is looked at: each scenario is a preparation, which nobody disturbs, and one command.

use std::{fmt, fs, path::Path};

use rustix::fs::Mode;

use super::tracer::{Target, Tracer};
use crate::harness::{
    Sandbox,
    command::{self, Call, Client, Output},
    image, wait_until,
};

/// Whose system calls are the boundaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    /// The container's shim.
    Shim,
    /// The supervisor, all of its threads.
    Supervisor,
    /// What empties the trash.
    Sweep,
}

/// What is swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scenario {
    /// `run -d`, until the program has begun.
    RunDetached,
    /// `run` in the foreground, until the client has ended.
    RunForeground,
    /// A program with two nested volumes ends by itself.
    Exit,
    /// `stop` of a program that does not heed SIGTERM.
    Stop,
    /// `rm` of an ended container with a write layer.
    Remove,
    /// `rm -f` of a running container.
    RemoveRunning,
    /// Another supervisor takes over a running container.
    Restart,
    /// `import` of a tar.
    Import,
    /// `commit` of a running container.
    Commit,
}

/// All pairs of what is swept and who dies.
pub(super) const SWEEPS: &[(Scenario, Victim)] = &[
    (Scenario::RunDetached, Victim::Shim),
    (Scenario::RunForeground, Victim::Shim),
    (Scenario::Exit, Victim::Shim),
    (Scenario::Stop, Victim::Shim),
    (Scenario::RemoveRunning, Victim::Shim),
    (Scenario::Restart, Victim::Shim),
    (Scenario::RunDetached, Victim::Supervisor),
    (Scenario::RunForeground, Victim::Supervisor),
    (Scenario::Exit, Victim::Supervisor),
    (Scenario::Stop, Victim::Supervisor),
    (Scenario::Remove, Victim::Supervisor),
    (Scenario::RemoveRunning, Victim::Supervisor),
    (Scenario::Restart, Victim::Supervisor),
    (Scenario::Import, Victim::Supervisor),
    (Scenario::Remove, Victim::Sweep),
    (Scenario::Commit, Victim::Shim),
    (Scenario::Commit, Victim::Supervisor),
];

impl Victim {
    /// Its word on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Victim::Shim => "shim",
            Victim::Supervisor => "supervisor",
            Victim::Sweep => "sweep",
        }
    }
}

impl Scenario {
    /// Its word on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Scenario::RunDetached => "run-d",
            Scenario::RunForeground => "run",
            Scenario::Exit => "exit",
            Scenario::Stop => "stop",
            Scenario::Remove => "rm",
            Scenario::RemoveRunning => "rm-f",
            Scenario::Restart => "restart",
            Scenario::Import => "import",
            Scenario::Commit => "commit",
        }
    }

    /// Whether there is a container before the swept command.
    pub(super) fn has_container_before(self) -> bool {
        match self {
            Scenario::Exit
            | Scenario::Stop
            | Scenario::Remove
            | Scenario::RemoveRunning
            | Scenario::Restart
            | Scenario::Commit => true,
            Scenario::RunDetached | Scenario::RunForeground | Scenario::Import => false,
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The only container, and the only image that `import` makes.
pub(crate) const NAME: &str = "one";
/// The image that the scenario `import` makes.
pub(crate) const IMPORTED: &str = "imported";

/// The image that the scenario `commit` makes.
pub(super) const COMMITTED: &str = "committed";

/// What the swept command said; nothing where there was none.
#[derive(Debug)]
pub(super) struct Done {
    /// The last words of the command.
    pub(super) told: Option<Output>,
    /// A supervisor that the scenario itself started in the foreground, as its parent: it ends with this.
    #[expect(dead_code, reason = "held, not read")]
    pub(super) supervisor: Option<Client>,
}

/// The program of each scenario: it proves on a volume how far it came, whatever mysup says.
fn script(scenario: Scenario, code: i32) -> String {
    let end = format!("echo {code} > /proof/code; exit {code}");
    let trap = match scenario {
        Scenario::Stop => "trap 'echo told > /proof/told' TERM".to_owned(),
        Scenario::RunDetached
        | Scenario::RunForeground
        | Scenario::Exit
        | Scenario::Remove
        | Scenario::RemoveRunning
        | Scenario::Restart
        | Scenario::Import
        | Scenario::Commit => format!("trap '{end}' TERM"),
    };
    let work = match scenario {
        Scenario::RunForeground | Scenario::Remove => "echo mine > /file; sleep 0.05; echo last".to_owned(),
        Scenario::RunDetached
        | Scenario::Exit
        | Scenario::Stop
        | Scenario::RemoveRunning
        | Scenario::Restart
        | Scenario::Commit
        | Scenario::Import => "while [ ! -e /proof/go ]; do sleep 0.02; done".to_owned(),
    };
    let change = if scenario == Scenario::Commit { "echo mine > /file; rm /etc/plain; " } else { "" };
    format!("{trap}; {change}echo x > /proof/started; echo up; {work}; {end}")
}

/// A volume that is nobody's to remove, and its place.
const KEPT_AT: &str = "kept:/kept";
/// Its name.
pub(super) const KEPT: &str = "kept";

/// `mysup run FLAGS` with two nested volumes and the proof.
fn run(sandbox: &Sandbox, scenario: Scenario, code: i32, flags: &[&str]) -> Output {
    let volume = |name: &str, to: &str| format!("{}:{to}", sandbox.place(name).display());
    // The inner one first: the order is mysup's business.
    let volumes = [volume("b", "/a/b"), volume("a", "/a"), volume("proof", "/proof")];
    let mut line = vec!["run", "--name", NAME];
    line.extend_from_slice(flags);
    volumes.iter().for_each(|volume| line.extend(["-v", volume]));
    // mysup's own: one that stays, and one without a name, which is filled with what the image has there.
    line.extend(["-v", KEPT_AT]);
    if scenario != Scenario::Commit {
        // What is changed in a volume is in no image.
        line.extend(["-v", "/etc"]);
    }
    let script = script(scenario, code);
    line.extend([image::NAME, "sh", "-c", &script]);
    sandbox.mysup(&line)
}

/// Whether the program said that it is up.
pub(super) fn is_up(sandbox: &Sandbox) -> bool {
    sandbox.place("proof/started").exists() && sandbox.mysup(&["logs", NAME]).text().contains("up")
}

/// Brings everything to where the swept command begins; gives whom to trace.
#[track_caller]
pub(super) fn prepare(sandbox: &Sandbox, scenario: Scenario, victim: Victim, code: i32) -> Target {
    sandbox.use_program(command::program().to_owned());
    if scenario.has_container_before() {
        let flags: &[&str] = if scenario == Scenario::Remove { &["-d", "--keep"] } else { &["-d"] };
        run(sandbox, scenario, code, flags).expect_code(0);
        wait_until("the program is up", || is_up(sandbox));
    }
    if scenario == Scenario::Remove {
        sandbox.ok(&["wait", NAME]);
        sandbox.wait_status(NAME, "exited");
    }
    match (scenario, victim) {
        // Its predecessor is killed last: any command would start another one.
        (Scenario::Restart, Victim::Supervisor) => Target::Gate(make_gate(sandbox)),
        (Scenario::RunDetached | Scenario::RunForeground, Victim::Shim) => at_gate(sandbox, "run"),
        (_, Victim::Sweep) => at_gate(sandbox, "sweep"),
        (_, Victim::Shim) => Target::Running(sandbox.shim_pid(NAME)),
        (_, Victim::Supervisor) => Target::Running(sandbox.supervisor()),
    }
}

/// Starts an instance whose first shim with this word waits at a gate.
fn at_gate(sandbox: &Sandbox, word: &str) -> Target {
    sandbox.ok(&["shutdown"]);
    let gate = make_gate(sandbox);
    wrap_shim(sandbox, &gate, word);
    sandbox.ok(&["info"]);
    Target::Gate(gate)
}

/// The swept command, and what waits for all that it sets going.
pub(super) fn act(sandbox: &Sandbox, scenario: Scenario, victim: Victim, code: i32, tracer: &Tracer) -> Done {
    let mut supervisor = None;
    let told = match scenario {
        Scenario::RunDetached => {
            let told = run(sandbox, scenario, code, &["-d"]);
            if told.code == 0 && !tracer.is_done() {
                wait_until("the program has begun", || sandbox.place("proof/started").exists());
            }
            Some(told)
        }
        Scenario::RunForeground => Some(run(sandbox, scenario, code, &[])),
        Scenario::Exit => {
            fs::write(sandbox.place("proof/go"), "").expect("the sandbox is ours");
            wait_until("the program ends", || sandbox.place("proof/code").exists());
            Some(sandbox.mysup(&["wait", NAME]))
        }
        Scenario::Stop => Some(sandbox.mysup(&["stop", "-t", "1", NAME])),
        Scenario::Remove => Some(sandbox.mysup(&["rm", "-v", NAME])),
        Scenario::RemoveRunning => Some(sandbox.mysup(&["rm", "-f", "-v", NAME])),
        Scenario::Restart if victim == Victim::Supervisor => {
            sandbox.kill_supervisor();
            let started = start_at_gate(sandbox);
            let socket = sandbox.run_root().join(mysup_ipc::layout::SUPERVISOR_SOCKET);
            // The socket's name may be that of the killed one: what counts is that somebody answers. The tracer says
            // whether it lives: to ask as its parent would take a stop from the tracer, who is of the same process.
            wait_until("the supervisor listens, or is dead", || {
                tracer.is_done() || std::os::unix::net::UnixStream::connect(&socket).is_ok()
            });
            wait_until("the victim is the supervisor, or dead", || {
                tracer.is_done() || sandbox.supervisor_pid() == Some(started.pid())
            });
            supervisor = Some(started);
            Some(sandbox.mysup(&["ps"]))
        }
        Scenario::Restart => {
            sandbox.kill_supervisor();
            Some(sandbox.mysup(&["ps"]))
        }
        Scenario::Import => {
            let tar = extra_tar(sandbox);
            Some(sandbox.mysup(&["import", &tar, IMPORTED]))
        }
        Scenario::Commit => Some(sandbox.mysup(&["commit", NAME, COMMITTED])),
    };
    if victim == Victim::Sweep {
        wait_until("the trash is empty, or the victim dead", || tracer.is_done());
    }
    tracer.wait_for_quiet();
    Done { told, supervisor }
}

/// A directory in which a process waits until it is traced.
pub(crate) fn make_gate(sandbox: &Sandbox) -> std::path::PathBuf {
    let gate = sandbox.place("gate");
    fs::create_dir_all(&gate).expect("the sandbox is ours");
    for name in ["once", "pid", "go"] {
        // Not there the first time.
        let _ = fs::remove_file(gate.join(name));
    }
    rustix::fs::mknodat(rustix::fs::CWD, gate.join("go"), rustix::fs::FileType::Fifo, Mode::RWXU, 0)
        .expect("the sandbox is ours");
    gate
}

/// Shell words that wait at the gate. No child: its death would be a signal while nobody follows yet. The line with the
/// pid is whole when it has its end.
fn waiting(gate: &Path) -> String {
    let gate = gate.display();
    format!("echo $$ > '{gate}/pid'; read -r _ < '{gate}/go'")
}

/// A `mysup` whose first `mysup-shim WORD` waits at the gate. What takes a dead one's place does not.
pub(crate) fn wrap_shim(sandbox: &Sandbox, gate: &Path, word: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(gate.join("word"), format!("{word}\n")).expect("the sandbox is ours");
    let directory = sandbox.place("bin");
    let real = command::program().with_file_name("mysup-shim");
    if !directory.join("mysup").exists() {
        fs::create_dir_all(&directory).expect("the sandbox is ours");
        fs::copy(command::program(), directory.join("mysup")).expect("mysup is built");
        let script = format!(
            "#!/bin/sh\nread -r word < '{gate}/word'\nif [ \"$1\" = \"$word\" ] && [ ! -e '{gate}/once' ]; then : > '{gate}/once'; {}; fi\nexec '{real}' \"$@\"\n",
            waiting(gate),
            gate = gate.display(),
            real = real.display(),
        );
        let wrapper = directory.join("mysup-shim");
        fs::write(&wrapper, script).expect("the sandbox is ours");
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("the sandbox is ours");
    }
    sandbox.use_program(directory.join("mysup"));
}

/// Where a supervisor in the foreground writes its log.
pub(super) fn foreground_log(sandbox: &Sandbox) -> std::path::PathBuf {
    sandbox.place("foreground.log")
}

fn start_at_gate(sandbox: &Sandbox) -> Client {
    let script = format!(
        "{}; exec '{}' start --foreground 2>> '{}'",
        waiting(&sandbox.place("gate")),
        command::program().display(),
        foreground_log(sandbox).display(),
    );
    let mut call = Call::new(Path::new("/bin/sh"), ["-c", &script]);
    for (name, value) in sandbox.environment() {
        call = call.env(name, value);
    }
    call.start()
}

/// Takes away the proofs of an earlier cell.
pub(super) fn forget_proofs(sandbox: &Sandbox) {
    for name in ["started", "code", "told", "go"] {
        // Not there in most cells.
        let _ = fs::remove_file(sandbox.place("proof").join(name));
    }
}

/// A tar with a layer that no other image has.
#[track_caller]
pub(crate) fn extra_tar(sandbox: &Sandbox) -> String {
    let path = sandbox.place("extra.tar");
    if !path.exists() {
        let bytes = image::tar_bytes(&[("etc/extra", "extra\n")]);
        fs::write(&path, bytes).expect("the sandbox is ours");
    }
    path.to_string_lossy().into_owned()
}
