//! Drives the built `mysup` as a user would: every test on an instance of its own, the leak oracle after each.
//!
//! `tests/run` builds the release binaries and calls this. By hand: `cargo test -p mysup-tests -- FILTER`, with `MYSUP_BIN`
//! naming another `mysup`, `MYSUP_TEST_SEED` repeating a run and `MYSUP_TEST_KEEP=1` keeping the files of a failed test.

mod adoption;
mod cgroup_layouts;
mod cli;
mod create_start;
mod doctor;
mod exec_errors;
mod exit_status;
mod fallbacks;
mod harness;
mod images;
mod isolation;
mod lifecycle;
mod limits;
mod listing;
mod logs;
mod names;
mod protocol;
mod restart;
mod setup;
mod shim_kill;
mod storm;
mod supervisor;
mod supervisor_kill;
mod teardown;
mod teardown_busy;
mod terminal;
mod tidy;
mod user;
mod volumes;
mod volumes_refused;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [
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
        volumes::cases(),
        volumes_refused::cases(),
        limits::cases(),
        isolation::cases(),
        user::cases(),
        logs::cases(),
        terminal::cases(),
        teardown::cases(),
        teardown_busy::cases(),
        restart::cases(),
        doctor::cases(),
        adoption::cases(),
        protocol::cases(),
        cgroup_layouts::cases(),
        fallbacks::cases(),
        supervisor_kill::cases(),
        shim_kill::cases(),
        storm::cases(),
        setup::cases(),
    ];
    harness::runner::main(cases.into_iter().flatten().collect())
}
