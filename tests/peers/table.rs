//! The table as text.

use std::fmt;

use super::{
    engine::Engine,
    matrix::{Case, Outcome, Tally, Victim},
};

/// All engines.
#[derive(Debug)]
pub(crate) struct Table {
    rounds: usize,
    engines: Vec<(String, Outcome)>,
    skips: Vec<String>,
    /// Engines of which something is counted even if nobody is killed.
    doubts: Vec<&'static str>,
}

impl Table {
    /// An empty one.
    pub(crate) fn new(rounds: usize) -> Table {
        Table { rounds, engines: Vec::new(), skips: Vec::new(), doubts: Vec::new() }
    }

    /// Adds what was measured.
    pub(crate) fn add(&mut self, engine: &dyn Engine, outcome: Outcome) {
        if let Some(error) = &outcome.given_up {
            self.skips.push(format!("{}: {error}", engine.name()));
        }
        let trusted = |tally: &Tally| tally.right == tally.cells && tally.leaking == 0;
        let control = outcome.rows.iter().find(|(case, _)| case.victim == Victim::Nobody);
        if !control.is_some_and(|(_, tally)| trusted(tally)) {
            self.doubts.push(engine.name());
        }
        let head = format!("{}: {} ({})", engine.name(), engine.about(), outcome.versions);
        self.engines.push((head, outcome));
    }

    /// An engine that could not be measured.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        self.skips.push(format!("{name}: {reason}"));
    }
}

fn title(case: Case) -> String {
    let victim = match case.victim {
        Victim::Nobody => return "nobody killed".to_owned(),
        Victim::Monitor => "monitor",
        Victim::Daemon => "daemon",
        Victim::Both => "both",
    };
    format!("{victim} killed {}", if case.ending { "around the exit" } else { "while running" })
}

const WIDTHS: [usize; 13] = [5, 8, 8, 5, 7, 6, 5, 7, 6, 9, 7, 5, 7];
const COLUMNS: [&str; 13] = [
    "cells",
    "lived on",
    "ps wrong",
    "right",
    "unknown",
    "silent",
    "wrong",
    "refused",
    "mounts",
    "processes",
    "cgroups",
    "paths",
    "leaking",
];

fn row(f: &mut fmt::Formatter<'_>, title: &str, cells: &[String]) -> fmt::Result {
    write!(f, "{title:<32}")?;
    for (cell, width) in cells.iter().zip(WIDTHS) {
        write!(f, " {cell:>width$}")?;
    }
    writeln!(f)
}

fn cells(case: Case, tally: &Tally) -> Vec<String> {
    let lived = if case.ending { "-".to_owned() } else { tally.lived.to_string() };
    let mut cells = vec![tally.cells.to_string(), lived];
    let rest = [
        tally.shown_wrong,
        tally.right,
        tally.unknown,
        tally.silent,
        tally.wrong,
        tally.refused,
        tally.mounts,
        tally.processes,
        tally.cgroups,
        tally.paths,
        tally.leaking,
    ];
    cells.extend(rest.iter().map(usize::to_string));
    cells
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, &format!("{} rounds", self.rounds), &COLUMNS.map(str::to_owned))?;
        for (head, outcome) in &self.engines {
            writeln!(f, "{head}")?;
            for (case, tally) in &outcome.rows {
                row(f, &format!("  {}", title(*case)), &cells(*case, tally))?;
            }
        }
        if !self.doubts.is_empty() {
            writeln!(f, "not clean with nobody killed, so not to be trusted: {}", self.doubts.join(", "))?;
        }
        write!(f, "not measured: {}", self.skips.len())?;
        self.skips.iter().try_for_each(|skip| write!(f, "\n  {skip}"))
    }
}
