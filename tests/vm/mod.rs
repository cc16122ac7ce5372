//! A whole virtual machine: Debian's kernel 6.1, which lacks what newer ones have, on pure cgroup v2 and on pure v1.
//!
//! The machine boots into an initramfs that has `mysup`, its shim, busybox and this very program; the disk holds what must
//! outlive a boot. Inside, the core cases of the suite are run. Then containers are left running while promises are made
//! over the serial line (an id was printed, a code was told, a record was synced), the machine is killed in the middle of
//! it and booted again on the same disk, and every promise is held against what is found.
//!
//! `tests/vm/run` does it by command, and the suite does it once for each layout of cgroups.

mod accelerator;
mod guest;
mod initramfs;
mod kernel;
mod machine;
mod options;
mod promise;
mod trial;

use std::{
    env, fmt,
    io::{self, Write},
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use self::{options::Options, trial::Trouble};
use crate::harness::{Case, Sandbox, leaks, random::Random, skip};

/// Which hierarchies of cgroups the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// Only the unified tree.
    V2,
    /// Only hierarchies of version 1, one for each controller, as cgroupfs-mount makes them.
    V1,
}

impl fmt::Display for Cgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cgroups::V2 => "v2",
            Cgroups::V1 => "v1",
        })
    }
}

/// What is run inside. All stand for a promise of the README, and most for a call that this kernel does not have.
const CORE: &[&str] = &[
    "lifecycle::detached_run_prints_the_full_id_and_goes_on",
    "lifecycle::stop_sends_term_and_the_code_of_the_program_is_kept",
    "lifecycle::rm_force_of_running_container_kills_it",
    "exit_status::every_deadly_signal_from_inside_is_128_and_n",
    "volumes::volume_keeps_every_byte_when_the_container_is_killed",
    "limits::memory_limit_kills_and_says_so",
    "limits::pids_limit_stops_a_fork_bomb",
    "terminal::keys_reach_the_program_and_its_code_comes_back",
    "restart::containers_run_on_when_the_supervisor_is_killed",
    "adoption::container_of_a_dead_shim_runs_on_and_keeps_its_code",
    "adoption::init_of_dead_shim_and_dead_supervisor_is_adopted",
    "init_status::code_of_an_end_that_nobody_saw_is_true_with_init",
    "shim_kill::shims_killed_ten_at_once_are_all_settled",
    "teardown::second_copy_of_the_overlay_is_unmounted_too",
    "doctor::healthy_instance_is_clean",
    "images_load::image_of_thirty_layers_is_joined",
];

/// Those in which cgroups matter: enough, in the suite, for the layout that is going away.
const OF_CGROUPS: &[&str] = &[
    "lifecycle::rm_force_of_running_container_kills_it",
    "limits::memory_limit_kills_and_says_so",
    "limits::pids_limit_stops_a_fork_bomb",
    "adoption::container_of_a_dead_shim_runs_on_and_keeps_its_code",
    "shim_kill::shims_killed_ten_at_once_are_all_settled",
    "doctor::healthy_instance_is_clean",
];

pub(crate) fn cases() -> Vec<Case> {
    [Cgroups::V2, Cgroups::V1]
        .into_iter()
        .map(|cgroups| {
            Case::new(
                format!("vm::core_scenarios_and_a_power_cut_on_an_older_kernel_with_cgroup_{cgroups}"),
                move |sandbox| in_the_suite(sandbox, cgroups),
            )
        })
        .collect()
}

/// One machine at a time: each uses all processors.
static TURN: Mutex<()> = Mutex::new(());

fn in_the_suite(sandbox: &Sandbox, cgroups: Cgroups) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = u64::try_from(sandbox.exit_code()).unwrap_or(1);
    let core = match cgroups {
        Cgroups::V2 => CORE,
        Cgroups::V1 => OF_CGROUPS,
    };
    let options = Options { cgroups: vec![cgroups], core, ..Options::of(seed) };
    sandbox.new_directory("vm");
    match trial::run(&options, cgroups, &sandbox.place("vm"), &mut |_| {}) {
        Ok(_) => {}
        Err(Trouble::Impossible(reason)) => skip(reason),
        Err(Trouble::Failed(text)) => {
            panic!("{text}\nagain: tests/vm/run --cgroup {cgroups} --seed {seed}")
        }
    }
}

/// Runs what the command line says in place of the suite: `vm FLAGS`, or inside the machine `vm-guest PHASE`.
pub(crate) fn command() -> Option<ExitCode> {
    let mut arguments = env::args().skip(1);
    match arguments.next()?.as_str() {
        "vm" => Some(match Options::parse(arguments) {
            Ok(options) => by_command(&options),
            Err(error) => {
                say(&error);
                ExitCode::from(2)
            }
        }),
        "vm-guest" => Some(guest::phase(&arguments.next().unwrap_or_default())),
        _ => None,
    }
}

fn by_command(options: &Options) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for cgroups in &options.cgroups {
        let place = Sandbox::new("vm", Random::new(options.seed, "vm"));
        place.new_directory("vm");
        let result = trial::run(options, *cgroups, &place.place("vm"), &mut say);
        match result {
            Ok(figures) => say(&format!("ok: {figures}")),
            Err(Trouble::Impossible(reason)) => say(&format!("SKIP: {reason}")),
            Err(Trouble::Failed(text)) => {
                say(&format!("FAILED: cgroup {cgroups}, seed {}\n{text}", options.seed));
                code = ExitCode::FAILURE;
            }
        }
        place.sweep(false);
    }
    leaks::remove_base();
    code
}

fn say(line: &str) {
    // Nobody reads it: then nobody misses it.
    let _ = writeln!(io::stdout().lock(), "{line}");
}
