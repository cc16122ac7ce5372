//! The command line of `tests/vm/run`.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{CORE, Cgroups, accelerator::Accelerator};

const HELP: &str = "\
usage: tests/vm/run [--cgroup v2|v1|both] [--accel auto|kvm|tcg] [--cuts N] [--seed S] [--all | FILTER...]
  --cuts   how often the machine is killed and booted again
  --all    every case of the suite in place of the core ones; or only those that a FILTER is part of";

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Each has machines of its own.
    pub(super) cgroups: Vec<Cgroups>,
    /// Nothing: the best that works.
    pub(super) accelerator: Option<Accelerator>,
    /// How often the power is cut.
    pub(super) cuts: usize,
    /// Decides when.
    pub(super) seed: u64,
    /// What is run inside.
    pub(super) core: &'static [&'static str],
    /// In place of these the cases whose name contains one of these, or all.
    pub(super) filters: Option<Vec<String>>,
}

impl Options {
    /// The core cases and one cut, with cgroup version 2.
    pub(super) fn of(seed: u64) -> Options {
        Options { cgroups: vec![Cgroups::V2], accelerator: None, cuts: 1, seed, core: CORE, filters: None }
    }

    /// Reads the arguments.
    ///
    /// # Errors
    /// One line that says what is wrong, or the help that was asked for.
    pub(super) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
        let mut options = Options { cgroups: vec![Cgroups::V2, Cgroups::V1], ..Options::of(seed) };
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().ok_or_else(|| format!("error: {argument} needs a value\n{HELP}"));
            match argument.as_str() {
                "--cgroup" => {
                    options.cgroups = match value()?.as_str() {
                        "v2" => vec![Cgroups::V2],
                        "v1" => vec![Cgroups::V1],
                        "both" => vec![Cgroups::V2, Cgroups::V1],
                        other => {
                            return Err(format!("error: no layout of cgroups is called {other}\n{HELP}"));
                        }
                    }
                }
                "--accel" => {
                    options.accelerator = match value()?.as_str() {
                        "auto" => None,
                        "kvm" => Some(Accelerator::Kvm),
                        "tcg" => Some(Accelerator::Tcg),
                        other => return Err(format!("error: no accelerator is called {other}\n{HELP}")),
                    }
                }
                "--cuts" => options.cuts = number(&value()?)?,
                "--seed" => options.seed = number(&value()?)?,
                "--all" => options.filters = Some(Vec::new()),
                "--help" => return Err(HELP.to_owned()),
                flag if flag.starts_with('-') => return Err(format!("error: unknown flag {flag}\n{HELP}")),
                filter => options.filters.get_or_insert_default().push(filter.to_owned()),
            }
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("error: not a number: {text}\n{HELP}"))
}
