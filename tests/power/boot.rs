//! The end of everything at once, and the next boot: the same disk, no process, no cgroup, another boot id.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use mysup_ipc::layout;
use rustix::process::Signal;

use super::disk::{Places, RunRoot};
use crate::harness::{
    PATIENCE, Sandbox,
    command::{self, Call, Output},
    holds_within, processes,
    sandbox::is_id,
};

/// One machine, boot after boot.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    /// Whose roots are on its disk.
    pub(super) sandbox: &'a Sandbox,
    /// Where they are.
    pub(super) places: Places,
    /// Who lives on it.
    pub(super) residents: Residents,
    program: PathBuf,
    boot_id: PathBuf,
}

impl<'a> Machine<'a> {
    /// A machine that is off.
    pub(super) fn new(sandbox: &'a Sandbox) -> Machine<'a> {
        let (program, boot_id) = (sandbox.place("booted"), sandbox.place("boot-id"));
        // A program in a mount namespace of its own, in which the kernel gives another boot id. Mounts of the host come
        // and go there, too.
        let script = format!(
            "#!/bin/sh\nexec unshare --mount --propagation slave sh -c 'mount --bind {} \
             /proc/sys/kernel/random/boot_id && exec {} \"$@\"' sh \"$@\"\n",
            boot_id.display(),
            command::program().display()
        );
        fs::write(&program, script).expect("the sandbox is ours");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("the sandbox is ours");
        Machine { sandbox, places: Places::new(sandbox), residents: Residents::of(sandbox), program, boot_id }
    }

    /// Puts a disk in and chooses a boot id: what was in memory is gone.
    ///
    /// # Errors
    /// If the disk cannot be mounted: then the file system itself is damaged.
    pub(super) fn boot(&self, disk: &Path, run_root: RunRoot, number: u64) -> io::Result<()> {
        self.places.set_run_root(run_root);
        self.places.mount(disk, run_root)?;
        fs::write(&self.boot_id, format!("00000000-0000-4000-8000-{number:012x}\n"))
    }

    /// `mysup ARGUMENTS` that sees this boot's id.
    #[track_caller]
    pub(super) fn mysup(&self, arguments: &[&str]) -> Output {
        let mut call = Call::new(&self.program, arguments.iter().copied());
        for (name, value) in self.sandbox.environment() {
            call = call.env(name, value);
        }
        call.run()
    }
}

/// Everything of an instance that lives: known by its marks, without the instance itself.
#[derive(Debug, Clone)]
pub(super) struct Residents {
    mark: String,
    containers: [PathBuf; 2],
    ids: Arc<Mutex<BTreeSet<String>>>,
}

impl Residents {
    /// Of an instance.
    pub(super) fn of(sandbox: &Sandbox) -> Residents {
        let containers = [sandbox.root(), sandbox.run_root()].map(|root| root.join(layout::CONTAINERS));
        Residents { mark: sandbox.mark(), containers, ids: Arc::default() }
    }

    /// Stops every process where it is, clients too.
    pub(super) fn stop(&self) {
        // Twice: one may have been born meanwhile.
        for _ in 0..2 {
            for pid in self.alive() {
                processes::signal(pid, Signal::STOP);
            }
        }
    }

    /// The end of every process and cgroup.
    #[track_caller]
    pub(super) fn kill(&self) {
        let dead = holds_within(PATIENCE, || {
            let alive = self.alive();
            for pid in &alive {
                processes::signal(*pid, Signal::KILL);
            }
            alive.is_empty()
        });
        assert!(dead, "what was killed lives on: {:?}", self.alive());
        let mut cgroups = self.cgroups();
        cgroups.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        for path in cgroups {
            // What resists is seen by the comparison of the host.
            let _ = fs::remove_dir(path);
        }
    }

    fn ids(&self) -> BTreeSet<String> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        for directory in &self.containers {
            let listed = fs::read_dir(directory).into_iter().flatten().flatten();
            ids.extend(
                listed.filter_map(|entry| entry.file_name().into_string().ok()).filter(|id| is_id(id)),
            );
        }
        ids.clone()
    }

    /// The cgroups of the instance's containers.
    pub(super) fn cgroups(&self) -> Vec<PathBuf> {
        let ids = self.ids();
        let is_ours = |path: &PathBuf| ids.iter().any(|id| path.to_string_lossy().contains(id.as_str()));
        processes::cgroup_directories().into_iter().filter(is_ours).collect()
    }

    /// The processes of the instance.
    pub(super) fn alive(&self) -> Vec<i32> {
        let mut marks = vec![self.mark.clone()];
        marks.extend(self.ids());
        let mut alive = processes::bearing(&marks);
        // A shim has no mark but what it holds open.
        alive.extend(processes::all().into_iter().filter(|pid| self.is_shim(*pid)));
        alive
    }

    fn is_shim(&self, pid: i32) -> bool {
        let is_shim = |stat: processes::Stat| {
            stat.program.starts_with("mysup-shim") && !['Z', 'X'].contains(&stat.state)
        };
        processes::stat(pid).is_some_and(is_shim)
            && processes::descriptors(pid).keys().any(|path| path.starts_with(&self.mark))
    }
}
