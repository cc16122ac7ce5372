//! Drives the built `mysup` as a user would: every test on an instance of its own, the leak oracle after each.
//!
//! `tests/run` builds the release binaries and calls this. By hand: `cargo test -p mysup-tests -- FILTER`, with `MYSUP_BIN`
//! naming another `mysup`, `MYSUP_TEST_SEED` repeating a run, `MYSUP_TEST_KEEP=1` keeping the files of a failed test and
//! `MYSUP_TEST_DIR` naming the place of the sandboxes.

mod adoption;
mod cgroup_layouts;
mod chaos_found;
mod chaos_run;
mod chaos_short;
mod cli;
mod commit;
mod create_start;
mod damaged_records;
mod disk_usage;
mod doctor;
mod exec_errors;
mod exit_status;
mod fallbacks;
mod found_by_review;
mod found_by_review_output;
mod found_by_review_races;
mod found_by_review_shim;
mod found_by_review_supervisor;
mod harness;
mod images;
mod images_hostile;
mod images_load;
mod images_peers;
mod init_status;
mod isolation;
mod kill_points;
mod lifecycle;
mod limits;
mod listing;
mod logs;
mod named_volumes;
mod names;
mod no_hang;
mod no_hang_server;
mod no_space;
mod power;
mod protocol;
mod registries;
mod registries_peers;
mod registries_refuse;
mod restart;
mod setup;
mod shim_kill;
mod skew;
mod storm;
mod supervisor;
mod supervisor_kill;
mod sweep;
mod teardown;
mod teardown_busy;
mod terminal;
mod tidy;
mod user;
mod vm;
mod volumes;
mod volumes_kill;
mod volumes_refused;
mod volumes_shared;

use std::process::ExitCode;

fn main() -> ExitCode {
    let commands = [sweep::command, kill_points::command, vm::command, power::command];
    if let Some(code) = commands.iter().find_map(|command| command()) {
        return code;
    }
    let cases = vec![
        // First, since it takes longest.
        vm::cases(),
        tidy::cases(),
        supervisor::cases(),
        lifecycle::cases(),
        create_start::cases(),
        exit_status::cases(),
        exec_errors::cases(),
        cli::cases(),
        names::cases(),
        listing::cases(),
        images::cases(),
        images_hostile::cases(),
        images_load::cases(),
        images_peers::cases(),
        commit::cases(),
        registries::cases(),
        registries_peers::cases(),
        registries_refuse::cases(),
        volumes::cases(),
        volumes_refused::cases(),
        named_volumes::cases(),
        volumes_shared::cases(),
        volumes_kill::cases(),
        disk_usage::cases(),
        limits::cases(),
        isolation::cases(),
        user::cases(),
        logs::cases(),
        terminal::cases(),
        teardown::cases(),
        teardown_busy::cases(),
        restart::cases(),
        doctor::cases(),
        damaged_records::cases(),
        adoption::cases(),
        init_status::cases(),
        skew::cases(),
        protocol::cases(),
        cgroup_layouts::cases(),
        fallbacks::cases(),
        found_by_review_supervisor::cases(),
        found_by_review_races::cases(),
        supervisor_kill::cases(),
        shim_kill::cases(),
        storm::cases(),
        kill_points::cases(),
        sweep::cases(),
        setup::cases(),
        power::cases(),
        no_hang::cases(),
        no_hang_server::cases(),
        no_space::cases(),
        chaos_found::cases(),
        found_by_review::cases(),
        found_by_review_output::cases(),
        found_by_review_shim::cases(),
        chaos_short::cases(),
    ];
    harness::runner::main(cases.into_iter().flatten().collect())
}
