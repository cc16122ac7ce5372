//! The time between release and exit: output to log and clients, input to the program, signals, and the stop with its
//! deadline, which the shim keeps by itself so that it survives the supervisor.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use mysup_ipc::{
    exit::{ExitReport, ExitStatus},
    plan::{ContainerPlan, StopPlan},
    shim::{FromShim, Stream, ToShim},
};

use crate::{
    cgroup::{self, Directory},
    deadline::Deadline,
    error::SysError,
    event_loop::{Event, Watch},
    hub::Hub,
    life::in_time,
    pause::Pause,
    reap,
    stdio::{READ_SIZE, Read, Stdio, Waiting, log_file::LogFile},
    sys::{process::send_signal, time::wall_clock},
    teardown::{not_gone, not_reaped},
};

/// Input that the program has not taken yet; beyond this its sources are not read.
const INPUT_FULL: usize = 1 << 18;

/// How long a terminal may take to give up its last bytes after the end of the program; they pass through a work queue of
/// the kernel.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// The init as its shim sees it.
#[derive(Debug)]
pub(crate) struct Init {
    /// Itself.
    pub(crate) pidfd: OwnedFd,
    /// Whose child it is.
    pub(crate) parent: Parent,
}

/// Whose child an init is: only its parent can wait for it.
#[derive(Debug)]
pub(crate) enum Parent {
    /// This shim's.
    Us,
    /// The supervisor's or the host's PID 1, since the shim that made it died.
    Another {
        /// What the supervisor said of its end.
        told: Option<ExitStatus>,
        /// Since when it is reaped and nobody could say how it ended.
        reaped_since: Option<Instant>,
        /// The run directory, where an init of ours leaves its end.
        run_directory: OwnedFd,
    },
}

impl Parent {
    /// Of an adopted init.
    pub(crate) fn another(run_directory: OwnedFd) -> Self {
        Parent::Another { told: None, reaped_since: None, run_directory }
    }
}

/// How long the parent of an adopted init may take to tell how that ended, once it has reaped it.
const TOLD_BY: Duration = Duration::from_secs(5);
/// Between two looks for the status of an init that has ended. Its pidfd stays readable: waiting for that would spin.
const REAPED_LOOK: Duration = Duration::from_millis(5);

/// What a container is made of while it runs.
pub(crate) struct Parts {
    /// Its init.
    pub(crate) init: Init,
    /// Its input and output.
    pub(crate) stdio: Stdio,
    /// Its cgroups.
    pub(crate) cgroups: Vec<Directory>,
    /// Its log.
    pub(crate) log: LogFile,
    /// When the program was started, nanoseconds since 1970.
    pub(crate) started_at: u64,
    /// /proc of the host.
    pub(crate) proc: OwnedFd,
    /// When it is killed, if it is asked to stop.
    pub(crate) deadline: Deadline,
}

/// Killed processes are gone sooner, unless they hang.
const GONE_AFTER: Duration = Duration::from_secs(3);

/// A container whose init exists.
pub(crate) struct Running {
    parts: Parts,
    input: VecDeque<u8>,
    input_ended: bool,
    /// The client that came with `run -i` ends the input when it leaves.
    input_follows_client: bool,
    stop: StopPlan,
    /// When it is said that what was killed is not gone.
    gone_by: Option<Instant>,
    /// The init has ended, and how is not known yet.
    over: bool,
    pause: Pause,
    buffer: Vec<u8>,
}

impl Running {
    /// Of these parts; changes nothing.
    pub(crate) fn new(plan: &ContainerPlan, parts: Parts) -> Self {
        // The client of a dead shim is gone with it, or comes back by itself.
        let with_client = matches!(parts.init.parent, Parent::Us);
        Self {
            parts,
            input: VecDeque::new(),
            input_ended: false,
            input_follows_client: with_client && plan.attach.is_some_and(|attach| attach.stdin),
            stop: plan.stop,
            gone_by: None,
            over: false,
            pause: Pause::default(),
            buffer: vec![0; READ_SIZE],
        }
    }

    /// Serves the container until its init has ended and all its output is in the log.
    pub(crate) fn until_exit(mut self, hub: &mut Hub) -> Result<ExitReport, SysError> {
        for event in hub.already_said() {
            self.handle(event, hub);
        }
        loop {
            let mut ended = self.over;
            for event in self.wait(hub)? {
                ended |= event == Event::InitEnded;
                self.handle(event, hub);
            }
            if ended {
                // Before anything of it goes away: nobody may trust in what he sees from now on.
                self.pause.end(hub, &self.parts.cgroups);
            }
            if ended && let Some(report) = self.reap()? {
                self.drain(hub);
                return Ok(report);
            }
            if ended && !self.over {
                // A debugger may keep a dead process for hours, from its parent too. Its status is not lost.
                self.over = true;
                self.gone_by = self.gone_by.or(in_time(GONE_AFTER));
            }
            hub.forget_closed();
            self.follow_input_source(hub);
            self.keep_deadline(hub);
            self.pause.follow(hub, &self.parts.cgroups);
            self.tell_who_stays(hub);
        }
    }

    fn wait(&self, hub: &Hub) -> Result<Vec<Event>, SysError> {
        let mut watch = Watch::default();
        let input_full = self.input.len() >= INPUT_FULL;
        hub.watch(&mut watch, |peer| input_full && matches!(peer.role, crate::peer::PeerRole::Attached(_)));
        if !hub.is_congested() {
            for (stream, fd) in self.parts.stdio.outputs() {
                watch.output(stream, fd);
            }
        }
        if let Some(input) = self.parts.stdio.input().filter(|_| !self.input.is_empty()) {
            watch.input(input);
        }
        if self.over {
            watch.until(in_time(REAPED_LOOK));
        } else {
            watch.init(self.parts.init.pidfd.as_fd());
        }
        watch.until(self.parts.deadline.at());
        watch.until(self.gone_by);
        watch.until(self.pause.deadline());
        watch.wait()
    }

    fn handle(&mut self, event: Event, hub: &mut Hub) {
        match event {
            Event::Output(stream) => {
                self.pass_output(stream, hub);
            }
            Event::InputRoom => self.pass_input(),
            Event::Signal => {
                // Somebody wants all of this to end: the machine is going down, or an operator kills by name.
                if hub.take_signal() {
                    let StopPlan { signal, grace_ms } = self.stop;
                    self.begin_stop(signal, grace_ms, hub);
                }
            }
            Event::Connecting | Event::PeerSpoke(_) | Event::PeerRoom(_) => {
                let asked = hub.handle(event);
                // First: what is asked may be input for it.
                if let Some(master) = hub.take_offered_terminal() {
                    self.go_on_with(master, hub);
                }
                for message in asked {
                    self.obey(message, hub);
                }
            }
            Event::InitEnded => {}
        }
    }

    /// A client has held the terminal over the deaths of shim and supervisor.
    fn go_on_with(&mut self, master: OwnedFd, hub: &mut Hub) {
        match self.parts.stdio.go_on_with(master) {
            Ok(copies) => hub.keep_terminal(copies),
            Err(error) => tracing::warn!(error = crate::error::chain(&error), "a terminal is not taken"),
        }
    }

    fn obey(&mut self, message: ToShim, hub: &mut Hub) {
        match message {
            ToShim::Stop { signal, grace_ms } => self.begin_stop(signal, grace_ms, hub),
            ToShim::Signal(signal) => self.signal(signal),
            ToShim::Stdin(bytes) => {
                if !self.input_ended {
                    self.input.extend(bytes);
                    self.pass_input();
                }
            }
            ToShim::StdinEnd => {
                self.input_ended = true;
                self.pass_input();
            }
            ToShim::Resize(size) => {
                if let Err(error) = self.parts.stdio.resize(size) {
                    tracing::warn!(error = crate::error::chain(&error), "the terminal keeps its size");
                }
            }
            ToShim::InitReaped { status } => {
                if let Parent::Another { told, .. } = &mut self.parts.init.parent {
                    *told = Some(ExitStatus::from_wait_status(status));
                }
            }
            // Nothing to try again while it runs; the others are refused before they come here.
            ToShim::RetryTeardown
            | ToShim::Plan(_)
            | ToShim::Teardown(_)
            | ToShim::Adopt(_)
            | ToShim::Hello(_)
            | ToShim::Unknown => {}
        }
    }

    fn signal(&self, signal: u8) {
        if let Err(error) = send_signal(self.parts.init.pidfd.as_fd(), signal) {
            tracing::debug!(signal, %error, "a signal was not delivered");
        }
    }

    /// Asks the program to end, and kills it when the grace is over.
    pub(crate) fn begin_stop(&mut self, signal: u8, grace_ms: Option<u64>, hub: &mut Hub) {
        hub.stopping();
        self.parts.deadline.begin(signal, grace_ms);
        self.signal(signal);
    }

    fn keep_deadline(&mut self, hub: &mut Hub) {
        if self.parts.deadline.take_over() {
            self.pause.end(hub, &self.parts.cgroups);
            self.gone_by = in_time(GONE_AFTER);
            // The init first: its pid namespace takes everything with it. The cgroup takes who came from outside.
            self.signal(u8::try_from(libc::SIGKILL).unwrap_or(9));
            if let Err(error) = cgroup::kill_all(&self.parts.cgroups) {
                tracing::warn!(error = crate::error::chain(&error), "kill by cgroup");
            }
        }
    }

    /// A killed process that waits in the kernel does not end before that is over; a dead one stays until it is reaped.
    fn tell_who_stays(&mut self, hub: &mut Hub) {
        if self.gone_by.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.gone_by = None;
        let left: Vec<u32> =
            self.parts.cgroups.iter().filter_map(|cgroup| cgroup.processes().ok()).flatten().collect();
        let proc = self.parts.proc.as_fd();
        if !left.is_empty() {
            hub.tell(&FromShim::Step(not_gone(proc, left)));
        } else if let Some(step) = not_reaped(proc, self.parts.init.pidfd.as_fd()) {
            hub.tell(&FromShim::Step(step));
        }
    }

    fn follow_input_source(&mut self, hub: &Hub) {
        if self.input_follows_client && !self.input_ended && !hub.has_input_source() {
            self.input_ended = true;
            self.pass_input();
        }
    }

    /// Gives the program what it takes; closes when that was all.
    fn pass_input(&mut self) {
        while !self.input.is_empty() {
            let Some(fd) = self.parts.stdio.input() else {
                self.input.clear();
                break;
            };
            let (front, _) = self.input.as_slices();
            match rustix::io::write(fd, front) {
                Ok(count) => drop(self.input.drain(..count)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                // The program closed its input.
                Err(_) => {
                    self.input.clear();
                    self.input_ended = true;
                }
            }
        }
        if self.input_ended {
            self.parts.stdio.close_input();
        }
    }

    /// Takes some of the program's output, to the log and to who is attached.
    fn pass_output(&mut self, stream: Stream, hub: &mut Hub) -> Read {
        match self.parts.stdio.waiting(stream) {
            Waiting::Bytes(fifo, available) => {
                if let Some(moved) = self.parts.log.move_from(stream, fifo, available) {
                    return self.show(stream, moved, hub);
                }
            }
            Waiting::Nothing => return Read::Nothing,
            Waiting::End => return Read::End,
            Waiting::Unmovable => {}
        }
        // A log into which nothing can be moved: the program must not wait for it.
        let read = self.parts.stdio.read(stream, &mut self.buffer);
        if let Read::Bytes(count) = read {
            self.parts.log.append(stream, &self.buffer[..count]);
            hub.output(stream, &self.buffer[..count]);
        }
        read
    }

    /// Gives what was logged to who is attached.
    fn show(&mut self, stream: Stream, moved: usize, hub: &mut Hub) -> Read {
        let bytes = &mut self.buffer[..moved];
        if !hub.wants_bytes() {
            hub.log_grew();
        } else if let Err(error) = self.parts.log.read_back(bytes) {
            tracing::warn!(%error, "the log cannot be read back, attached clients are to read it themselves");
            hub.send_away_clients();
        } else {
            hub.output(stream, bytes);
        }
        if moved == 0 { Read::Nothing } else { Read::Bytes(moved) }
    }

    fn reap(&mut self) -> Result<Option<ExitReport>, SysError> {
        let Some(status) = self.status()? else {
            return Ok(None);
        };
        let error = match status {
            ExitStatus::Unknown => "the shim was killed, and nothing that saw the container end has survived",
            ExitStatus::Code(_) | ExitStatus::Signal(_) => "",
        };
        Ok(Some(ExitReport {
            status,
            oom_killed: self.parts.cgroups.iter().any(cgroup::oom_killed),
            started_at: Some(self.parts.started_at),
            finished_at: wall_clock(),
            error: error.to_owned(),
        }))
    }

    fn status(&mut self) -> Result<Option<ExitStatus>, SysError> {
        let pidfd = self.parts.init.pidfd.as_fd();
        match &mut self.parts.init.parent {
            Parent::Us => reap::status_of(pidfd),
            Parent::Another { told, reaped_since, run_directory } => {
                let left = || reap::status_left_behind(run_directory.as_fd());
                let known = reap::status_of_adopted(pidfd).or(*told).or_else(left);
                if known.is_some() || !reap::is_reaped(pidfd) {
                    return Ok(known);
                }
                let since = reaped_since.get_or_insert_with(Instant::now);
                Ok((since.elapsed() >= TOLD_BY).then_some(ExitStatus::Unknown))
            }
        }
    }

    /// Takes what the program wrote last. All of its processes are dead, so that is bounded by what the kernel buffers.
    fn drain(&mut self, hub: &mut Hub) {
        self.parts.stdio.release_kept();
        let deadline = Instant::now() + DRAIN_PATIENCE;
        for stream in [Stream::Stdout, Stream::Stderr] {
            loop {
                match self.pass_output(stream, hub) {
                    Read::Bytes(_) => {}
                    Read::End => break,
                    // Empty and not closed: a terminal's bytes may still be on their way; of a FIFO somebody outside
                    // the container holds the other side, and is not waited for.
                    Read::Nothing if !self.parts.stdio.is_terminal() => break,
                    Read::Nothing if self.wait_for_output(deadline) => {}
                    Read::Nothing => break,
                }
            }
        }
        self.parts.log.finish();
    }

    fn wait_for_output(&self, deadline: Instant) -> bool {
        let mut watch = Watch::default();
        for (stream, fd) in self.parts.stdio.outputs() {
            watch.output(stream, fd);
        }
        watch.until(Some(deadline));
        Instant::now() < deadline && watch.wait().is_ok()
    }
}
