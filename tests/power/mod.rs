//! The machine that proves it, part 2: the power is cut at every instant, and the next boot must be as if it had been told
//! the truth.
//!
//! `tests/power/run` does it by command; samples are cases of the suite. Both roots are on an ext4 in a file. The power is
//! cut in three ways: by the log of a disk that remembers every write (every prefix of it, and any part of what was not
//! flushed missing), by the same in the middle of a recovery, and by the shutdown of the file system before a chosen
//! system call. Then everything is killed, the boot id is another one, a supervisor starts, and the oracle judges.

mod boot;
mod campaign;
mod decoys;
mod device;
mod disk;
mod facts;
mod options;
mod oracle;
mod recording;
mod shutdown;
mod shutdown_cell;
mod states;
mod story;

use std::{env, io::Write, process::ExitCode};

use self::{
    boot::Machine,
    campaign::Campaign,
    options::{Kind, Options},
    recording::Volumes,
};
use crate::harness::{Case, Sandbox, skip};

/// Runs a campaign in place of the suite if the command line says so: `power FLAGS`.
pub(crate) fn command() -> Option<ExitCode> {
    let mut arguments = env::args().skip(1);
    (arguments.next()? == "power").then(|| match Options::parse(arguments) {
        Ok(options) => campaign::run(&options),
        Err(error) => {
            // Nobody reads it: then nobody misses it.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    })
}

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        disk_cut_at_a_sample_of_instants,
        recovery_cut_at_a_sample_of_instants,
        file_system_shut_down_before_a_sample_of_calls,
        what_a_journal_of_another_boot_names_is_left_alone,
    ]
}

fn disk_cut_at_a_sample_of_instants(sandbox: &Sandbox) {
    sample(sandbox, Kind::Disk, 40);
}

fn recovery_cut_at_a_sample_of_instants(sandbox: &Sandbox) {
    sample(sandbox, Kind::Recovery, 24);
}

fn file_system_shut_down_before_a_sample_of_calls(sandbox: &Sandbox) {
    sample(sandbox, Kind::Shutdown, 15);
}

fn what_a_journal_of_another_boot_names_is_left_alone(sandbox: &Sandbox) {
    disk::apart(|| decoys::stand_where_an_old_journal_points(&Machine::new(sandbox)));
}

fn sample(sandbox: &Sandbox, kind: Kind, sample: usize) {
    disk::apart(|| sample_apart(sandbox, kind, sample));
}

fn sample_apart(sandbox: &Sandbox, kind: Kind, sample: usize) {
    let seed = u64::try_from(sandbox.exit_code()).unwrap_or(1);
    let options = Options { kinds: vec![kind], sample, ..Options::of(seed) };
    let machine = Machine::new(sandbox);
    let volumes = Volumes::plant(sandbox);
    let campaign = Campaign::prepare(&machine, &options);
    if let Ok(campaign) = &campaign {
        campaign.try_all(&machine, &volumes);
    }
    machine.places.close();
    match campaign.as_ref().map(Campaign::skipped) {
        Ok([]) => {}
        Ok(reasons) => skip(reasons.join("; ")),
        Err(reason) => skip(reason.clone()),
    }
}
