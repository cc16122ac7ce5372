//! Looks at every system call of one process and does something just before a chosen one: SIGKILL, or an error in place
//! of the call.
//!
//! Written on ptrace(2) and not on strace, since strace counts each name and each thread by itself. Here one number counts
//! the calls of all threads of the victim, and none of the processes it starts: the n-th boundary is one instant.
//! The victim's children are not traced: only threads are followed.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc::{self, user_regs_struct},
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

use super::calls;
use crate::harness::{PATIENCE, holds_within, processes, wait_until};

/// What to do at a boundary, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Nothing: a clean run that counts.
    Count,
    /// SIGKILL; the call does not happen.
    Kill(usize),
    /// The call does not happen and returns this error; close(2) happens all the same.
    Fail(usize, Errno),
}

/// Whom to trace.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A process that runs, all of its threads.
    Running(i32),
    /// One that will write its pid to `pid` in this directory, wait at the FIFO `go` there, and then execute the victim.
    Gate(PathBuf),
}

/// What was seen.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// The number of every call, in order.
    pub(crate) calls: Vec<u64>,
    /// Whether the victim ended while it was looked at.
    pub(crate) ended: bool,
    /// What went wrong with the tracing itself.
    pub(crate) trouble: Option<String>,
}

/// The call at which something was done, as soon as it was.
pub(crate) type Acted = Arc<Mutex<Option<String>>>;

/// A thread that traces: ptrace binds a tracee to the thread that seized it.
#[derive(Debug)]
pub(crate) struct Tracer {
    thread: Option<JoinHandle<Seen>>,
    over: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    victim: Arc<AtomicUsize>,
}

/// What a tracer may be told beside whom it traces and where it acts.
pub(crate) struct Manner {
    /// Whether a call is a boundary, by its number.
    pub(crate) counts: fn(u64) -> bool,
    /// What is done while the victim is held at its boundary, just before it is killed.
    pub(crate) before_death: Option<Box<dyn FnMut() + Send>>,
}

impl Tracer {
    /// Begins; a running victim is traced when this returns.
    #[track_caller]
    pub(crate) fn start(target: &Target, act: Act, acted: &Acted) -> Tracer {
        Tracer::with(target, act, acted, Manner { counts: |_| true, before_death: None })
    }

    /// The same in another manner.
    #[track_caller]
    pub(crate) fn with(target: &Target, act: Act, acted: &Acted, manner: Manner) -> Tracer {
        let over = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let victim = Arc::new(AtomicUsize::new(0));
        let (ready, is_ready) = mpsc::channel();
        let mut work = Work {
            act,
            over: Arc::clone(&over),
            count: Arc::clone(&count),
            counting: false,
            victim: Pid::from_raw(0),
            failing: None,
            acted: Arc::clone(acted),
            seen: Seen::default(),
            manner,
        };
        let (shared, wanted) = (Arc::clone(&victim), target.clone());
        let thread = thread::spawn(move || {
            let result = work.run(&wanted, &shared, &ready);
            work.seen.trouble = result.err().map(|error| error.to_string());
            work.seen
        });
        if matches!(target, Target::Running(_)) {
            // An error of the sender is a tracer that gave up: its reason comes with `finish`.
            let _ = is_ready.recv_timeout(PATIENCE);
        }
        Tracer { thread: Some(thread), over, count, victim }
    }

    /// Waits until the victim has made no call for a while, or is dead.
    pub(crate) fn wait_for_quiet(&self) {
        const QUIET: Duration = Duration::from_millis(25);
        let mut last = (self.count.load(Ordering::Relaxed), Instant::now());
        holds_within(Duration::from_secs(3), || {
            let now = self.count.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            }
            last.1.elapsed() >= QUIET || self.is_done()
        });
    }

    /// Whether the victim has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets the victim go, if it lives, and tells what was seen.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Seen {
        self.let_go();
        let thread = self.thread.take().expect("taken here only");
        thread.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    }

    fn let_go(&self) {
        self.over.store(true, Ordering::SeqCst);
        // A signal that is ignored by default wakes the tracer without telling the victim.
        let woken = holds_within(PATIENCE, || {
            let pid = i32::try_from(self.victim.load(Ordering::SeqCst)).unwrap_or(0);
            if !self.is_done() && pid > 0 {
                processes::signal(pid, rustix::process::Signal::WINCH);
            }
            self.is_done()
        });
        assert!(woken, "the tracer does not let go of its victim");
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if self.thread.is_some() && !thread::panicking() {
            self.let_go();
        }
        self.over.store(true, Ordering::SeqCst);
    }
}

struct Work {
    act: Act,
    over: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    counting: bool,
    victim: Pid,
    /// The thread whose call is being replaced by an error.
    failing: Option<(Pid, Errno)>,
    acted: Acted,
    seen: Seen,
    manner: Manner,
}

const FOLLOW: Options =
    Options::PTRACE_O_TRACESYSGOOD.union(Options::PTRACE_O_TRACEEXEC).union(Options::PTRACE_O_TRACECLONE);

impl Work {
    fn run(&mut self, target: &Target, victim: &AtomicUsize, ready: &mpsc::Sender<()>) -> io::Result<()> {
        let pid = match target {
            Target::Running(pid) => *pid,
            Target::Gate(directory) => match self.wait_for_pid(directory) {
                Some(pid) => pid,
                None => return Ok(()),
            },
        };
        self.victim = Pid::from_raw(pid);
        self.counting = matches!(target, Target::Running(_));
        self.seize_all(pid)?;
        victim.store(usize::try_from(pid).unwrap_or(0), Ordering::SeqCst);
        if let Target::Gate(directory) = target {
            self.open_gate(directory);
        }
        // Nobody listens any more when the starter gave up.
        let _ = ready.send(());
        self.follow()
    }

    fn wait_for_pid(&self, directory: &Path) -> Option<i32> {
        loop {
            let text = fs::read_to_string(directory.join("pid")).unwrap_or_default();
            if let Some(pid) = text.strip_suffix('\n').and_then(|text| text.parse().ok()) {
                return Some(pid);
            }
            if self.over.load(Ordering::SeqCst) {
                return None;
            }
            thread::sleep(Duration::from_micros(300));
        }
    }

    /// Seizes and stops all threads, until there is none that is not seized. Their stops come to `follow`.
    fn seize_all(&self, pid: i32) -> io::Result<()> {
        let mut seized = Vec::new();
        loop {
            let fresh: Vec<i32> =
                threads(pid).into_iter().filter(|thread| !seized.contains(thread)).collect();
            if fresh.is_empty() {
                return Ok(());
            }
            for thread in fresh {
                seized.push(thread);
                let thread = Pid::from_raw(thread);
                match ptrace::seize(thread, FOLLOW).and_then(|()| ptrace::interrupt(thread)) {
                    // It ended meanwhile, or was seized as the child of a thread that is.
                    Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    /// Lets what waits there go, whatever it is stopped for meanwhile.
    fn open_gate(&self, directory: &Path) {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let opened = || rustix::fs::open(directory.join("go"), flags, rustix::fs::Mode::empty());
        wait_until("the victim waits at the gate", || {
            if let Ok(WaitStatus::PtraceEvent(thread, ..)) = wait(WaitPidFlag::WNOHANG) {
                self.go_on(thread, None);
            }
            opened().is_ok_and(|fd| rustix::io::write(&fd, b"go\n").is_ok())
        });
    }

    fn follow(&mut self) -> io::Result<()> {
        loop {
            match wait(WaitPidFlag::empty()) {
                Ok(WaitStatus::PtraceSyscall(thread)) => self.at_call(thread)?,
                Ok(WaitStatus::PtraceEvent(thread, signal, event)) => self.at_event(thread, signal, event),
                Ok(WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..)) => {
                    self.seen.ended |= thread == self.victim;
                }
                // A signal whose number nix does not know: its thread is lost to us and goes on.
                Ok(_) | Err(Errno::EINTR | Errno::EINVAL) => {}
                Err(Errno::ECHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if self.over.load(Ordering::SeqCst) && self.failing.is_none() {
                // The end of this thread detaches from all that is traced.
                return Ok(());
            }
        }
    }

    /// To the next call; of what waits at the gate to the next event, since nobody waits for its stops meanwhile.
    fn go_on(&self, thread: Pid, signal: Option<Signal>) {
        // An error: it was killed meanwhile, and its end comes with the next wait.
        let _ = if self.counting { ptrace::syscall(thread, signal) } else { ptrace::cont(thread, signal) };
    }

    fn at_event(&mut self, thread: Pid, signal: Signal, event: i32) {
        match event {
            // A stop for the delivery of a signal. Ours is not delivered.
            0 => self.go_on(thread, (signal != Signal::SIGWINCH).then_some(signal)),
            libc::PTRACE_EVENT_EXEC => {
                self.counting = true;
                self.go_on(thread, None);
            }
            libc::PTRACE_EVENT_STOP if !threads(self.victim.as_raw()).contains(&thread.as_raw()) => {
                // Another process: one that was cloned with a signal of its own.
                let _ = ptrace::detach(thread, None);
            }
            _ => self.go_on(thread, None),
        }
    }

    fn at_call(&mut self, thread: Pid) -> io::Result<()> {
        let Ok(registers) = ptrace::getregs(thread) else {
            self.go_on(thread, None);
            return Ok(());
        };
        let entering =
            ptrace::syscall_info(thread).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY);
        if entering && self.counting && (self.manner.counts)(registers.orig_rax) {
            self.seen.calls.push(registers.orig_rax);
            self.count.fetch_add(1, Ordering::Relaxed);
            self.act_at(thread, registers)?;
        } else if let Some((_, error)) = self.failing.take_if(|(failing, _)| *failing == thread) {
            let value = u64::from_ne_bytes((-i64::from(error as i32)).to_ne_bytes());
            ptrace::setregs(thread, user_regs_struct { rax: value, ..registers })?;
        }
        self.go_on(thread, None);
        Ok(())
    }

    fn tell(&self, acted: String) {
        *self.acted.lock().unwrap_or_else(PoisonError::into_inner) = Some(acted);
    }

    fn is_impossible(&self, thread: Pid, registers: &user_regs_struct, error: Errno) -> bool {
        let object = fs::read_link(format!("/proc/{thread}/fd/{}", registers.rdi)).unwrap_or_default();
        let object = object.to_string_lossy().into_owned();
        let on = calls::Object { name: &object, waits: waits(thread, registers.rdi) };
        calls::reason_against(registers.orig_rax, Some(on), error).is_some()
            || (starts_thread(thread, registers) && !calls::OF_A_THREAD.contains(&error))
    }

    fn act_at(&mut self, thread: Pid, registers: user_regs_struct) -> io::Result<()> {
        let here = self.seen.calls.len();
        match self.act {
            Act::Kill(at) if at == here => {
                self.tell(describe(thread, &registers));
                self.manner.before_death.iter_mut().for_each(|act| act());
                processes::signal(self.victim.as_raw(), rustix::process::Signal::KILL);
            }
            Act::Fail(at, error) if at == here && !self.is_impossible(thread, &registers, error) => {
                self.tell(describe(thread, &registers));
                self.failing = Some((thread, error));
                // Whatever close(2) says, the descriptor is closed: so says Linux.
                if calls::name(registers.orig_rax) != "close" {
                    ptrace::setregs(thread, user_regs_struct { orig_rax: u64::MAX, ..registers })?;
                }
            }
            Act::Count | Act::Kill(_) | Act::Fail(..) => {}
        }
        Ok(())
    }
}

/// Whether it is a clone3(2) with CLONE_THREAD: the flags are the first word of its argument.
fn starts_thread(thread: Pid, registers: &user_regs_struct) -> bool {
    let mut flags = [0; 8];
    calls::name(registers.orig_rax) == "clone3"
        && fs::File::open(format!("/proc/{thread}/mem"))
            .and_then(|memory| memory.read_exact_at(&mut flags, registers.rdi))
            .is_ok_and(|()| u64::from_ne_bytes(flags) & u64::from(libc::CLONE_THREAD.cast_unsigned()) != 0)
}

/// Only what this thread traces: the other children of this program belong to the harness.
fn wait(more: WaitPidFlag) -> nix::Result<WaitStatus> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    waitid(Id::All, flags | more)
}

/// Whether calls on a descriptor wait: it is not O_NONBLOCK.
fn waits(thread: Pid, descriptor: u64) -> bool {
    let text = fs::read_to_string(format!("/proc/{thread}/fdinfo/{descriptor}")).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_none_or(|flags| flags & libc::O_NONBLOCK == 0)
}

fn threads(pid: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A call in words: its name, and the paths and descriptors that its first arguments seem to be.
fn describe(thread: Pid, registers: &user_regs_struct) -> String {
    let memory = fs::File::open(format!("/proc/{thread}/mem")).ok();
    let shown: Vec<String> = [registers.rdi, registers.rsi, registers.rdx, registers.r10]
        .into_iter()
        .map(|value| {
            let path = memory.as_ref().filter(|_| value > 0x1_0000).and_then(|memory| text_at(memory, value));
            let open = || {
                let link = fs::read_link(format!("/proc/{thread}/fd/{value}")).ok().filter(|_| value < 1024);
                link.map(|link| format!("{value}<{}>", link.display()))
            };
            path.or_else(open).unwrap_or_else(|| format!("{value:#x}"))
        })
        .collect();
    format!("{}({})", calls::name(registers.orig_rax), shown.join(", "))
}

fn text_at(memory: &fs::File, address: u64) -> Option<String> {
    let mut bytes = [0; 160];
    let length = memory.read_at(&mut bytes, address).ok()?;
    let end = bytes[..length].iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    (text.len() > 1 && text.chars().all(|letter| letter.is_ascii_graphic() || letter == ' '))
        .then(|| format!("{text:?}"))
}
