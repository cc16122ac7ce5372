//! Whom to kill at a point, and what is done then.

use std::{fmt, time::Duration};

use rustix::process::Signal;

use crate::harness::{Sandbox, holds_within, processes, sandbox::is_id, wait_until};

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Victims {
    /// The supervisor.
    Supervisor,
    /// The shim.
    Shim,
    /// The container's init.
    Init,
    /// Supervisor and shim at once.
    Both,
    /// Supervisor, shim and init at once.
    All,
}

impl Victims {
    /// All sets.
    pub(super) const EACH: [Victims; 5] =
        [Victims::Supervisor, Victims::Shim, Victims::Init, Victims::Both, Victims::All];

    /// Its word on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Victims::Supervisor => "supervisor",
            Victims::Shim => "shim",
            Victims::Init => "init",
            Victims::Both => "supervisor+shim",
            Victims::All => "all",
        }
    }

    /// Whether all of `others` are among them.
    pub(super) fn includes(self, others: Victims) -> bool {
        self.members().into_iter().zip(others.members()).all(|(ours, theirs)| ours || !theirs)
    }

    /// Whether supervisor, shim and init are among them.
    fn members(self) -> [bool; 3] {
        match self {
            Victims::Supervisor => [true, false, false],
            Victims::Shim => [false, true, false],
            Victims::Init => [false, false, true],
            Victims::Both => [true, true, false],
            Victims::All => [true, true, true],
        }
    }
}

/// What is done after the death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FollowUp {
    /// There is a supervisor at once: the one that was not killed, or another one.
    AtOnce,
    /// The next supervisor comes when the container has ended. One that was not killed is asked to end (SIGTERM).
    AfterEnd,
    /// No supervisor comes: what the shim does alone is looked at. (One comes in the end, for what nobody else can do.)
    Never,
}

impl FollowUp {
    /// All of them.
    pub(super) const EACH: [FollowUp; 3] = [FollowUp::AtOnce, FollowUp::AfterEnd, FollowUp::Never];

    /// Its word on the command line.
    pub(super) fn word(self) -> &'static str {
        match self {
            FollowUp::AtOnce => "at-once",
            FollowUp::AfterEnd => "after-end",
            FollowUp::Never => "never",
        }
    }
}

impl fmt::Display for Victims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for FollowUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Who lives while somebody is stopped at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Present {
    /// The supervisor.
    pub(super) supervisor: Option<i32>,
    /// The container's shim.
    pub(super) shim: Option<i32>,
    /// It has the lock of the container: from here on it is answerable for all of it.
    pub(super) shim_is_in_charge: bool,
    /// The container's init.
    pub(super) init: Option<i32>,
}

impl Present {
    /// Looks. `id` is the container's, if there is one.
    pub(super) fn look(sandbox: &Sandbox, arrived: i32, id: Option<&str>) -> Present {
        let lock = id.map(|id| sandbox.root().join("containers").join(id).join(mysup_ipc::layout::LOCK));
        let mut in_charge = None;
        // /proc/locks is no snapshot: while others come and go, a line may be missed.
        holds_within(Duration::from_millis(20), || {
            in_charge = lock.as_deref().and_then(processes::lock_holder);
            in_charge.is_some()
        });
        let is_shim = processes::link(arrived, "exe").is_some_and(|exe| exe.ends_with("/mysup-shim"));
        Present {
            supervisor: if is_shim { sandbox.supervisor_pid() } else { Some(arrived) },
            shim: if is_shim { Some(arrived) } else { in_charge },
            shim_is_in_charge: in_charge.is_some(),
            init: id.and_then(init),
        }
    }

    fn list(self) -> [Option<i32>; 3] {
        [self.supervisor, self.shim, self.init]
    }

    /// Whether all of these victims are there.
    pub(super) fn has(self, victims: Victims) -> bool {
        let there = self.list().into_iter().zip(victims.members());
        there.into_iter().all(|(pid, wanted)| pid.is_some() || !wanted)
    }

    /// Kills them, in one instant as they see it: all are stopped first.
    #[track_caller]
    pub(super) fn kill(self, victims: Victims) {
        let pids: Vec<i32> = self
            .list()
            .into_iter()
            .zip(victims.members())
            .filter_map(|(pid, dies)| pid.filter(|_| dies))
            .collect();
        kill_at_once(&pids);
    }
}

/// Kills processes so that none sees another one's death.
#[track_caller]
pub(super) fn kill_at_once(pids: &[i32]) {
    for signal in [Signal::STOP, Signal::KILL] {
        for pid in pids {
            // One that has just ended is dead, too.
            processes::signal(*pid, signal);
        }
    }
    wait_until("the killed are dead", || !pids.iter().any(|pid| processes::is_alive(*pid)));
}

/// PID 1 of a container: the process of its cgroup whose parent is not in it.
pub(super) fn init(id: &str) -> Option<i32> {
    let inside = cgroup_members(id);
    inside
        .iter()
        .copied()
        .filter(|pid| processes::is_alive(*pid))
        .find(|pid| processes::stat(*pid).is_some_and(|stat| !inside.contains(&stat.parent)))
}

fn cgroup_members(id: &str) -> Vec<i32> {
    let all = processes::cgroup_directories().into_iter().filter(|path| path.ends_with(id));
    let read =
        |path: std::path::PathBuf| std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    all.flat_map(|path| read(path).lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()).collect()
}

/// The id of the only container, as the disk has it.
pub(super) fn id_on_disk(sandbox: &Sandbox) -> Option<String> {
    let places = [sandbox.root(), sandbox.run_root()].map(|root| root.join(mysup_ipc::layout::CONTAINERS));
    let entries = places.into_iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).find(|name| is_id(name))
}
