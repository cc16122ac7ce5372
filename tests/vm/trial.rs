//! A whole trial: the cases in a first boot, then cut after cut, each judged by the boot that follows.

use std::{
    fmt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use super::{
    Cgroups,
    accelerator::{self, Accelerator},
    initramfs,
    kernel::{self, Kernel},
    machine::{Boot, Machine, Silence},
    options::Options,
    promise::Promise,
};
use crate::harness::random::Random;

/// A machine that says nothing for so long hangs; a busy host makes it slow, too.
const SILENCE: Duration = Duration::from_secs(300);
/// From when containers come and go beside those that run, the power goes after at most so many promises.
const PROMISES: u64 = 80;

/// Why a trial has no figures.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No machine can be had here.
    Impossible(String),
    /// Something is wrong, in words.
    Failed(String),
}

/// What was shown.
#[derive(Debug)]
pub(super) struct Figures {
    kernel: String,
    cgroups: Cgroups,
    accelerator: Accelerator,
    passed: usize,
    skipped: usize,
    cuts: usize,
    promises: usize,
    took: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, cgroup {}, {}: {} cases passed, {} skipped, {} power cuts, {} promises kept, {:.0} s",
            self.kernel,
            self.cgroups,
            self.accelerator,
            self.passed,
            self.skipped,
            self.cuts,
            self.promises,
            self.took.as_secs_f64()
        )
    }
}

/// Runs it; `say` gets every line of the machine. Files go into `place`.
///
/// # Errors
/// If it cannot be tried, or if something is wrong.
pub(super) fn run(
    options: &Options,
    cgroups: Cgroups,
    place: &Path,
    say: &mut dyn FnMut(&str),
) -> Result<Figures, Trouble> {
    let began = Instant::now();
    if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        let reason = "no qemu-system-x86_64: apt-get install qemu-system-x86";
        return Err(Trouble::Impossible(reason.to_owned()));
    }
    let kernel = kernel::get().map_err(|error| Trouble::Impossible(format!("no kernel to boot: {error}")))?;
    let initramfs = initramfs::build(place, &kernel).map_err(Trouble::Failed)?;
    let disk = initramfs::disk(place).map_err(Trouble::Failed)?;
    let accelerator = options.accelerator.unwrap_or_else(|| accelerator::best(&kernel, &initramfs, &disk));
    let mut trial = Trial {
        kernel: &kernel,
        place,
        initramfs: &initramfs,
        disk: &disk,
        random: Random::new(options.seed, "power"),
        said: Vec::new(),
        say,
        figures: Figures {
            kernel: kernel.name.clone(),
            cgroups,
            accelerator,
            passed: 0,
            skipped: 0,
            cuts: options.cuts,
            promises: 0,
            took: Duration::ZERO,
        },
    };
    trial.all(options)?;
    trial.figures.took = began.elapsed();
    Ok(trial.figures)
}

struct Trial<'a> {
    kernel: &'a Kernel,
    place: &'a Path,
    initramfs: &'a Path,
    disk: &'a Path,
    random: Random,
    said: Vec<String>,
    say: &'a mut dyn FnMut(&str),
    figures: Figures,
}

impl Trial<'_> {
    fn all(&mut self, options: &Options) -> Result<(), Trouble> {
        let (phase, task) = match &options.filters {
            None => ("cases", options.core.join(" ")),
            Some(filters) => ("filters", filters.join(" ")),
        };
        let mut promises = self.boot(phase, &task, options.cuts > 0)?;
        if options.filters.is_none() && self.figures.passed != options.core.len() + 1 {
            return Err(self.failed(None, "not every core case was run"));
        }
        for cut in 1..=options.cuts {
            let told: Vec<String> = promises.iter().map(Promise::to_string).collect();
            self.figures.promises += told.len();
            promises = self.boot("recover", &told.join("\n"), cut < options.cuts)?;
        }
        Ok(())
    }

    /// Boots, and waits for the end of `phase`. Then the machine switches itself off, or it leaves containers running and
    /// is killed; returned is what it had promised by then.
    fn boot(&mut self, phase: &str, task: &str, cut: bool) -> Result<Vec<Promise>, Trouble> {
        let initrd =
            initramfs::with_file(self.place, self.initramfs, "task", task).map_err(Trouble::Failed)?;
        let phases: &[&str] = if cut { &[phase, "leave"] } else { &[phase] };
        let machine = Machine::boot(&Boot {
            kernel: self.kernel,
            initrd: &initrd,
            disk: self.disk,
            accelerator: self.figures.accelerator,
            cgroups: self.figures.cgroups,
            phases,
        })
        .map_err(Trouble::Failed)?;
        self.end_of(&machine, phase)?;
        if cut {
            return self.promises_until_cut(machine);
        }
        match self.line(&machine) {
            Err(Silence::Off) => Ok(Vec::new()),
            Ok(_) | Err(Silence::TooLong) => {
                Err(self.failed(Some(&machine), "it does not switch itself off"))
            }
        }
    }

    fn end_of(&mut self, machine: &Machine, phase: &str) -> Result<(), Trouble> {
        let end = format!("end of {phase}: ");
        loop {
            let line = match self.line(machine) {
                Ok(line) => line,
                Err(silence) => return Err(self.failed(Some(machine), &format!("{silence:?} in {phase}"))),
            };
            if let Some(counts) = line.strip_prefix("test result: ") {
                self.figures.passed += count(counts, "passed");
                self.figures.skipped += count(counts, "ignored");
            }
            if let Some(code) = line.strip_prefix(&end) {
                let failed = code != "0";
                return if failed { Err(self.failed(Some(machine), "it says so")) } else { Ok(()) };
            }
        }
    }

    fn promises_until_cut(&mut self, machine: Machine) -> Result<Vec<Promise>, Trouble> {
        let mut left = 1 + self.random.next() % PROMISES;
        let (mut promises, mut started) = (Vec::new(), false);
        while left > 0 {
            let line = match self.line(&machine) {
                Ok(line) => line,
                Err(silence) => return Err(self.failed(Some(&machine), &format!("{silence:?} in leave"))),
            };
            if line.starts_with("end of leave") {
                return Err(self.failed(Some(&machine), "it ended before the power was cut"));
            }
            if let Ok(promise) = line.parse() {
                let comes_and_goes = matches!(promise, Promise::Ended { .. });
                promises.push(promise);
                started |= comes_and_goes;
                left -= u64::from(started);
            }
        }
        let rest = machine.cut_power();
        promises.extend(rest.iter().filter_map(|line| line.parse::<Promise>().ok()));
        self.said.extend(rest);
        Ok(promises)
    }

    fn line(&mut self, machine: &Machine) -> Result<String, Silence> {
        let line = machine.line(Instant::now() + SILENCE)?;
        (self.say)(&line);
        self.said.push(line.clone());
        Ok(line)
    }

    fn failed(&self, machine: Option<&Machine>, what: &str) -> Trouble {
        let from = self.said.len().saturating_sub(200);
        let console = machine.map(Machine::console).unwrap_or_default();
        Trouble::Failed(format!(
            "the machine failed: {what}\nits last lines:\n{}\nits console:\n{console}",
            self.said[from..].join("\n")
        ))
    }
}

/// The number before a word: `15 passed; 0 failed`.
fn count(text: &str, word: &str) -> usize {
    let words: Vec<&str> = text.split([' ', ';']).collect();
    words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}
