//! One boot of a virtual machine: qemu, its serial line, and its death.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use super::{Cgroups, accelerator::Accelerator, kernel::Kernel};

/// What is booted, and on what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Boot<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) initrd: &'a Path,
    pub(super) disk: &'a Path,
    pub(super) accelerator: Accelerator,
    pub(super) cgroups: Cgroups,
    /// What `init` does, one after the other, before it switches the machine off.
    pub(super) phases: &'a [&'a str],
}

/// A machine that was switched on.
#[derive(Debug)]
pub(super) struct Machine {
    qemu: Child,
    lines: Receiver<String>,
    console: PathBuf,
}

/// Why no line came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// The machine is off.
    Off,
    /// It says nothing.
    TooLong,
}

impl Machine {
    /// Switches it on.
    ///
    /// # Errors
    /// If qemu cannot be started, in one line.
    pub(super) fn boot(boot: &Boot<'_>) -> Result<Machine, String> {
        let console = boot.disk.with_file_name("console");
        let errors = fs::File::create(boot.disk.with_file_name("qemu")).map_err(|error| error.to_string())?;
        let cgroups = match boot.cgroups {
            Cgroups::V2 => "cgroup_no_v1=all ",
            Cgroups::V1 => "",
        };
        // The kernel's test of its timer fails by chance on a busy host, and that would be a panic.
        let line = format!(
            "console=ttyS0 loglevel=6 softlockup_panic=1 panic=-1 no_timer_check {cgroups}-- {} {}",
            boot.cgroups,
            boot.phases.join(" ")
        );
        let processors = thread::available_parallelism().map_or(1, usize::from).min(2).to_string();
        // The disk's cache is the host's: it outlives qemu, as a disk's content outlives a computer. What the machine has
        // not yet written to its disk is lost with it.
        let disk = format!("file={},format=raw,if=none,id=disk,cache.no-flush=on", boot.disk.display());
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", boot.accelerator.argument(), "-m", "1024", "-smp", &processors])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"])
            .args(["-drive", &disk, "-device", "nvme,drive=disk,serial=disk"])
            .args(["-kernel", &boot.kernel.image.to_string_lossy()])
            .args(["-initrd", &boot.initrd.to_string_lossy(), "-append", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors);
        let mut qemu = command.spawn().map_err(|error| format!("qemu-system-x86_64: {error}"))?;
        let output = qemu.stdout.take().ok_or("qemu has no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            // A line that was cut by the machine's death is none.
            while output.read_until(b'\n', &mut line).is_ok() && line.pop() == Some(b'\n') {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Ok(Machine { qemu, lines, console })
    }

    /// The next line of its serial line.
    ///
    /// # Errors
    /// If none came.
    pub(super) fn line(&self, end: Instant) -> Result<String, Silence> {
        let left = end.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Disconnected => Silence::Off,
            RecvTimeoutError::Timeout => Silence::TooLong,
        })
    }

    /// Reads on until a line that begins so.
    ///
    /// # Errors
    /// If it did not come in time.
    pub(super) fn wait_for(&self, beginning: &str, limit: Duration) -> Result<String, Silence> {
        let end = Instant::now() + limit;
        loop {
            let line = self.line(end)?;
            if line.starts_with(beginning) {
                return Ok(line);
            }
        }
    }

    /// Kills it as a power cut would, and gives what it had still said.
    pub(super) fn cut_power(mut self) -> Vec<String> {
        self.kill();
        self.lines.iter().collect()
    }

    /// The end of what its kernel and qemu said, to explain a failure.
    pub(super) fn console(&self) -> String {
        let mut shown = String::new();
        for path in [self.console.clone(), self.console.with_file_name("qemu")] {
            let bytes = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            shown.push_str(&lines[lines.len().saturating_sub(120)..].join("\n"));
            shown.push('\n');
        }
        shown
    }

    fn kill(&mut self) {
        // Errors mean that it is off already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}
