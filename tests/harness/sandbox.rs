//! One test's own mysup: both roots in a directory of its own, a supervisor of its own, and its end.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustix::fs::inotify;
use serde_json::Value;

use super::{
    command::{self, Call, Output},
    image, inspect, leaks, processes,
    random::Random,
    wait_until,
};

/// The directory of this run of the suite: short, since a socket's path has 107 bytes at most. In /tmp, or where
/// `MYSUP_TEST_DIR` says (a tmpfs makes long campaigns cheaper).
pub(crate) fn base() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let place = std::env::var_os("MYSUP_TEST_DIR").unwrap_or_else(|| "/tmp".into());
        let path = Path::new(&place).join(format!("ms{}", std::process::id()));
        fs::DirBuilder::new().mode(0o755).recursive(true).create(&path).expect("/tmp is writable");
        path
    })
}

static ALL_IDS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The ids of all containers of all sandboxes of this run.
pub(crate) fn all_ids() -> BTreeSet<String> {
    lock(&ALL_IDS).clone()
}

/// A private instance of mysup.
#[derive(Debug)]
pub(crate) struct Sandbox {
    name: String,
    directory: PathBuf,
    random: Mutex<Random>,
    used: AtomicBool,
    ids: Mutex<BTreeSet<String>>,
    watch: Mutex<Option<OwnedFd>>,
    clients: Mutex<BTreeSet<i32>>,
    program: Mutex<PathBuf>,
    variables: Mutex<Vec<(OsString, OsString)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sandbox {
    /// A fresh one; nothing is started yet.
    pub(crate) fn new(name: &str, random: Random) -> Sandbox {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        Sandbox::at(name, &base().join(COUNT.fetch_add(1, Ordering::Relaxed).to_string()), random)
    }

    /// One in a directory, which may have been a sandbox before.
    pub(crate) fn at(name: &str, directory: &Path, random: Random) -> Sandbox {
        fs::create_dir_all(directory.join("w")).expect("the directory of the suite is writable");
        Sandbox {
            name: name.to_owned(),
            directory: directory.to_owned(),
            random: Mutex::new(random),
            used: AtomicBool::new(false),
            ids: Mutex::default(),
            watch: Mutex::default(),
            clients: Mutex::default(),
            program: Mutex::new(command::program().to_owned()),
            variables: Mutex::default(),
        }
    }

    /// `--root`.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("s")
    }

    /// `--run-root`.
    pub(crate) fn run_root(&self) -> PathBuf {
        self.directory.join("r")
    }

    /// A place for the test's own files: volumes, tars, decoys.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.directory.join("w").join(name)
    }

    /// A new directory at [`Sandbox::place`], as text for a command line.
    #[track_caller]
    pub(crate) fn new_directory(&self, name: &str) -> String {
        let path = self.place(name);
        fs::create_dir_all(&path).expect("the sandbox is ours");
        path.to_string_lossy().into_owned()
    }

    /// What makes a call use this instance.
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        let own = [
            ("MYSUP_ROOT".into(), self.root().into()),
            ("MYSUP_RUN_ROOT".into(), self.run_root().into()),
            // No test reaches beyond this machine: nobody listens there, and what is on loopback asks no proxy.
            ("HTTPS_PROXY".into(), "http://127.0.0.1:9".into()),
            ("DOCKER_CONFIG".into(), self.directory.join("w/docker-config").into()),
        ];
        own.into_iter().chain(lock(&self.variables).iter().cloned()).collect()
    }

    /// Gives all calls from now on one more variable.
    pub(crate) fn set_variable(&self, name: &str, value: impl Into<OsString>) {
        lock(&self.variables).push((name.into(), value.into()));
    }

    /// Uses another `mysup`, such as one with a wrapped shim beside it.
    pub(crate) fn use_program(&self, path: PathBuf) {
        *lock(&self.program) = path;
    }

    /// The `mysup` that is used.
    pub(crate) fn program(&self) -> PathBuf {
        lock(&self.program).clone()
    }

    /// A random exit code; the seed of the run decides it.
    pub(crate) fn exit_code(&self) -> i32 {
        lock(&self.random).exit_code()
    }

    /// A call of `mysup` on this instance.
    #[track_caller]
    pub(crate) fn call(&self, arguments: &[&str]) -> Call {
        let program = lock(&self.program).clone();
        assert!(program.exists(), "{} is not built: run tests/run, or set MYSUP_BIN", program.display());
        self.used.store(true, Ordering::Relaxed);
        self.learn_ids();
        let mut call = Call::new(&program, arguments.iter().copied());
        for (name, value) in self.environment() {
            call = call.env(name, value);
        }
        call
    }

    /// Runs `mysup ARGUMENTS`.
    #[track_caller]
    pub(crate) fn mysup(&self, arguments: &[&str]) -> Output {
        let output = self.call(arguments).run();
        self.learn_ids();
        output
    }

    /// Runs `mysup ARGUMENTS`, which must succeed; its output without the last newline.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.mysup(arguments).expect_code(0).text()
    }

    /// Runs `mysup ARGUMENTS`, which must be refused with one line that has all words.
    #[track_caller]
    pub(crate) fn refused(&self, arguments: &[&str], code: i32, words: &[&str]) -> Output {
        self.mysup(arguments).expect_refusal(code, words)
    }

    /// Imports the busybox image once and gives its name.
    #[track_caller]
    pub(crate) fn image(&self) -> &'static str {
        if !self.root().join("images").exists() || self.mysup(&["images", "-q"]).stdout.is_empty() {
            let tar = image::tar_path(base()).to_string_lossy().into_owned();
            self.ok(&["import", &tar, image::NAME]);
        }
        image::NAME
    }

    /// `mysup run FLAGS busybox COMMAND`.
    #[track_caller]
    pub(crate) fn run(&self, flags: &[&str], command: &[&str]) -> Output {
        self.mysup(&self.run_line(flags, command))
    }

    /// The arguments of [`Sandbox::run`].
    #[track_caller]
    pub(crate) fn run_line<'a>(&self, flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
        let image = self.image();
        [&["run"], flags, &[image], command].concat()
    }

    /// `mysup run --rm FLAGS busybox sh -c SCRIPT`, which must succeed; its output.
    #[track_caller]
    pub(crate) fn sh(&self, flags: &[&str], script: &str) -> String {
        let flags = [&["--rm"], flags].concat();
        self.run(&flags, &["sh", "-c", script]).expect_code(0).text()
    }

    /// `mysup run -d --name NAME FLAGS busybox sh -c SCRIPT`; its id.
    #[track_caller]
    pub(crate) fn start(&self, name: &str, flags: &[&str], script: &str) -> String {
        let flags = [&["-d", "--name", name], flags].concat();
        let id = self.run(&flags, &["sh", "-c", script]).expect_code(0).text();
        assert!(is_id(&id), "run -d prints the full id, not {id:?}");
        id
    }

    /// A container that runs until it is told to stop, and then ends with `code`.
    #[track_caller]
    pub(crate) fn start_obedient(&self, name: &str, flags: &[&str], code: i32) -> String {
        let script = format!("trap 'exit {code}' TERM; echo up; while :; do sleep 0.02; done");
        let id = self.start(name, flags, &script);
        wait_until("the container is up", || self.mysup(&["logs", name]).text().contains("up"));
        id
    }

    /// `mysup stop NAME` of a container whose teardown cannot finish: it is stopped, and the message may say the rest.
    #[track_caller]
    pub(crate) fn stop_unfinished(&self, name: &str) {
        let output = self.mysup(&["stop", name]);
        let told = output.code == 1
            && output.errors().contains("not finished")
            && output.errors().lines().count() == 1;
        assert!(
            output.code == 0 || told,
            "it is stopped, or one line says why the rest is not done\n{output}"
        );
    }

    /// `mysup inspect NAME`, the only element of its list.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str) -> Value {
        let text = self.ok(&["inspect", name]);
        let list: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("inspect: {error}\n{text}"));
        let list = list.as_array().unwrap_or_else(|| panic!("inspect prints a list, not {text}"));
        assert!(list.len() == 1, "inspect of one name prints one element, not {text}");
        list[0].clone()
    }

    /// `State.Status` of a container, or `absent`.
    #[track_caller]
    pub(crate) fn status(&self, name: &str) -> String {
        let output = self.mysup(&["inspect", name]);
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        match list.get(0) {
            Some(container) => inspect::text(container, "State.Status").to_lowercase(),
            None => "absent".to_owned(),
        }
    }

    /// Waits until a container has a status.
    #[track_caller]
    pub(crate) fn wait_status(&self, name: &str, status: &str) {
        let mut last = String::new();
        let came = super::holds_within(super::PATIENCE, || {
            last = self.status(name);
            last == status
        });
        assert!(
            came,
            "container {name} did not become {status}, it is {last}\n{}",
            self.mysup(&["inspect", name])
        );
    }

    /// `State.Pid` of a container that runs.
    #[track_caller]
    pub(crate) fn init_pid(&self, name: &str) -> i32 {
        let pid = inspect::number(&self.inspect(name), "State.Pid");
        assert!(pid > 1, "State.Pid of {name} is {pid}");
        i32::try_from(pid).expect("pids are small")
    }

    /// The shim of a container that runs: who holds its lock. (The parent of its init it is only until it is replaced.)
    #[track_caller]
    pub(crate) fn shim_pid(&self, name: &str) -> i32 {
        let lock = self.state_directory(name).join("lock");
        // /proc/locks is no snapshot: while others come and go, a line may be missed.
        let mut holder = None;
        wait_until("a shim holds the lock of a container that runs", || {
            holder = processes::lock_holder(&lock);
            holder.is_some()
        });
        let pid = holder.expect("just found");
        let shim = processes::stat(pid).expect("the shim runs");
        assert!(shim.program.starts_with("mysup-shim"), "the lock is held by {}", shim.program);
        pid
    }

    /// The directory of a container below the state root.
    #[track_caller]
    pub(crate) fn state_directory(&self, name: &str) -> PathBuf {
        self.root().join("containers").join(self.ok(&["inspect", "--format", "{{.Id}}", name]))
    }

    /// The supervisor of this instance, if one runs.
    pub(crate) fn supervisor_pid(&self) -> Option<i32> {
        self.listener_pid().or_else(|| self.find_supervisor())
    }

    /// Who listens at the socket of this instance. A supervisor that took the socket over from another did not make it.
    fn listener_pid(&self) -> Option<i32> {
        let path = self.run_root().join(mysup_ipc::layout::SUPERVISOR_SOCKET);
        let socket = std::os::unix::net::UnixStream::connect(path).ok()?;
        let pid = rustix::net::sockopt::socket_peercred(&socket).ok()?.pid.as_raw_nonzero().get();
        let own = processes::link(pid, "exe").is_some_and(|exe| exe.ends_with("/mysup"));
        (own && processes::is_alive(pid)).then_some(pid)
    }

    fn find_supervisor(&self) -> Option<i32> {
        let clients = lock(&self.clients);
        processes::bearing(&[self.mark()]).into_iter().find(|pid| {
            let own = processes::link(*pid, "exe")
                .is_some_and(|exe| exe.trim_end_matches(" (deleted)").ends_with("/mysup"));
            own && !clients.contains(pid) && processes::arguments(*pid).contains(" start")
                || own && !clients.contains(pid) && listens(*pid, &self.run_root())
        })
    }

    /// The supervisor, started if none runs.
    #[track_caller]
    pub(crate) fn supervisor(&self) -> i32 {
        self.ok(&["info"]);
        self.supervisor_pid().expect("a supervisor runs after `mysup info`")
    }

    /// Kills the supervisor with SIGKILL and waits for its death.
    #[track_caller]
    pub(crate) fn kill_supervisor(&self) {
        let pid = self.supervisor_pid().expect("a supervisor runs");
        processes::signal(pid, rustix::process::Signal::KILL);
        wait_until("the supervisor is dead", || !processes::is_alive(pid));
    }

    /// Tells that a process is a client of the test, not the supervisor.
    pub(crate) fn adopt_client(&self, pid: i32) {
        self.used.store(true, Ordering::Relaxed);
        lock(&self.clients).insert(pid);
    }

    /// A client has ended: its number may be the supervisor's next.
    pub(crate) fn forget_client(&self, pid: i32) {
        lock(&self.clients).remove(&pid);
    }

    /// What the arguments, links and sockets of all that belongs here have in common.
    pub(crate) fn mark(&self) -> String {
        format!("{}/", self.directory.display())
    }

    /// The ids of all containers this instance ever had: each has a directory from before it has anything else.
    pub(crate) fn learn_ids(&self) {
        let containers = self.root().join(mysup_ipc::layout::CONTAINERS);
        let mut ids = lock(&self.ids);
        let mut watch = lock(&self.watch);
        if watch.is_none() && containers.exists() {
            let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
            let fd = inotify::init(flags).ok();
            *watch = fd.filter(|fd| inotify::add_watch(fd, &containers, inotify::WatchFlags::CREATE).is_ok());
        }
        if let Some(fd) = watch.as_ref() {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 8192];
            let mut events = inotify::Reader::new(fd, &mut buffer);
            while let Ok(event) = events.next() {
                ids.extend(event.file_name().and_then(|name| name.to_str().ok()).map(str::to_owned));
            }
        }
        let entries = fs::read_dir(&containers).into_iter().flatten().flatten();
        ids.extend(entries.filter_map(|entry| entry.file_name().into_string().ok()));
        ids.retain(|id| is_id(id));
        lock(&ALL_IDS).extend(ids.iter().cloned());
    }

    /// Forgets the containers of which nothing was left when this was looked for last. The look at the end of the run is
    /// for all of them.
    pub(crate) fn forget_ids(&self) {
        lock(&self.ids).clear();
    }

    /// What [`Sandbox::learn_ids`] learned.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.learn_ids();
        lock(&self.ids).iter().cloned().collect()
    }

    /// Ends the instance as a user would, and fails if anything is left of it.
    #[track_caller]
    pub(crate) fn finish(&self) {
        if !self.used.load(Ordering::Relaxed) {
            return;
        }
        self.use_program(command::program().to_owned());
        let all = self.ok(&["ps", "-a", "-q", "--no-trunc"]);
        let all: Vec<&str> = all.lines().collect();
        if !all.is_empty() {
            self.ok(&[&["rm", "-f", "-v"], &all[..]].concat());
        }
        leaks::expect_no_volume_but_listed(self);
        leaks::expect_idle_supervisor(self);
        self.ok(&["shutdown", "--containers"]);
        leaks::expect_nothing_left(self);
    }

    /// Removes by force what is left, so that no other test sees it. After a failure: the log of the supervisor.
    pub(crate) fn sweep(&self, failed: bool) -> String {
        let log = if failed { self.log() } else { String::new() };
        let keep = failed && std::env::var_os("MYSUP_TEST_KEEP").is_some();
        leaks::sweep(&self.directory, &self.ids(), keep);
        log
    }

    /// The end of the supervisor's log, and the name of the test and its directory.
    pub(crate) fn log(&self) -> String {
        let mut text = format!("(test {} in {})", self.name, self.directory.display());
        for root in [self.root(), self.run_root()] {
            for name in ["supervisor.log", "mysup.log", "log"] {
                if let Ok(log) = fs::read(root.join(name)) {
                    let log = String::from_utf8_lossy(&log).into_owned();
                    let lines: Vec<&str> = log.lines().collect();
                    let tail = lines[lines.len().saturating_sub(60)..].join("\n");
                    text.push_str(&format!("\nend of {}:\n{tail}", root.join(name).display()));
                }
            }
        }
        text
    }

    /// The directory of the sandbox.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Whether this is a container's full id.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn listens(pid: i32, run_root: &Path) -> bool {
    let socket = run_root.join(mysup_ipc::layout::SUPERVISOR_SOCKET).to_string_lossy().into_owned();
    let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    let inodes: Vec<&str> = table
        .lines()
        .filter(|line| line.ends_with(&socket) && line.contains(" 00010000 "))
        .filter_map(|line| line.split_whitespace().nth(6))
        .collect();
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| {
        let target = target.to_string_lossy().into_owned();
        inodes.iter().any(|inode| target == format!("socket:[{inode}]"))
    })
}
