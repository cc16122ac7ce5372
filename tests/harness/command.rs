//! One call of the built program: its arguments, what it is given, and everything it said.

use std::{
    ffi::OsString,
    fmt,
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{holds_within, processes};

/// After this a call is killed and the test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The built `mysup` that is tested.
pub(crate) fn program() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("MYSUP_BIN") {
        Some(path) => PathBuf::from(path),
        None => repository().join("target/x86_64-unknown-linux-gnu/release/mysup"),
    })
}

/// The root of the checkout.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are one level below the root")
}

/// What a finished call left.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// Its exit code; `-n` when signal n killed it.
    pub(crate) code: i32,
    /// Everything on standard output.
    pub(crate) stdout: Vec<u8>,
    /// Everything on standard error.
    pub(crate) stderr: Vec<u8>,
    /// The command line.
    pub(crate) shown: String,
}

impl Output {
    /// Standard output as text without the last newline.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// Standard error as text.
    pub(crate) fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Fails unless the code is this one.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Output {
        assert!(self.code == code, "expected exit code {code}\n{self}");
        self
    }

    /// Fails unless it is a refusal as the issue wants it: this code, nothing on stdout, one line that has all words.
    #[track_caller]
    pub(crate) fn expect_refusal(self, code: i32, words: &[&str]) -> Output {
        let errors = self.errors();
        assert!(self.code == code, "expected a refusal with exit code {code}\n{self}");
        assert!(self.stdout.is_empty(), "a refusal prints nothing on stdout\n{self}");
        assert!(errors.ends_with('\n') && errors.lines().count() == 1, "expected one line on stderr\n{self}");
        for word in words {
            assert!(
                errors.to_lowercase().contains(&word.to_lowercase()),
                "the message lacks {word:?}\n{self}"
            );
        }
        assert!(!errors.contains("panicked"), "a refusal is not a panic\n{self}");
        self
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
            if bytes.len() > 4000 { format!("{text}... ({} bytes)", bytes.len()) } else { text }
        };
        write!(
            f,
            "command: {}\nstatus:  {}\nstdout:  {}\nstderr:  {}",
            self.shown,
            self.code,
            shown(&self.stdout),
            shown(&self.stderr)
        )
    }
}

/// A call that is being put together.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, Option<OsString>)>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) input: Option<Vec<u8>>,
    pub(crate) keep_input_open: bool,
    pub(crate) deadline: Duration,
}

impl Call {
    /// A call of a program with arguments.
    pub(crate) fn new<S: Into<OsString>>(program: &Path, arguments: impl IntoIterator<Item = S>) -> Call {
        Call {
            program: program.to_owned(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            directory: None,
            input: None,
            keep_input_open: false,
            deadline: DEADLINE,
        }
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Call {
        self.environment.push((name.into(), Some(value.into())));
        self
    }

    /// Takes a variable away.
    pub(crate) fn without_env(mut self, name: impl Into<OsString>) -> Call {
        self.environment.push((name.into(), None));
        self
    }

    /// Runs it in a directory.
    pub(crate) fn directory(mut self, path: impl Into<PathBuf>) -> Call {
        self.directory = Some(path.into());
        self
    }

    /// Gives it these bytes and then the end of input; without this its input is empty.
    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Call {
        self.input = Some(bytes.into());
        self
    }

    /// Gives it an input that stays open until [`Client::close_input`].
    pub(crate) fn open_input(mut self) -> Call {
        self.keep_input_open = true;
        self
    }

    /// Starts it.
    #[track_caller]
    pub(crate) fn start(self) -> Client {
        let shown = self.to_string();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let piped = self.input.is_some() || self.keep_input_open;
        command.stdin(if piped { Stdio::piped() } else { Stdio::null() });
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        // A program that was copied a moment ago may still be open for writing in the fork of another test's thread.
        let mut spawned = command.spawn();
        while spawned.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ExecutableFileBusy) {
            std::thread::yield_now();
            spawned = command.spawn();
        }
        let mut child = spawned.unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let mut stdin = child.stdin.take();
        if let Some(bytes) = self.input
            && let Some(mut pipe) = stdin.take()
        {
            // A program that does not read its input must not hang the test; what it misses shows in its output.
            thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        let stdout = Stream::read(child.stdout.take().expect("stdout is a pipe"));
        let stderr = Stream::read(child.stderr.take().expect("stderr is a pipe"));
        Client { child, stdin, stdout, stderr, shown, deadline: self.deadline, done: false }
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub(crate) fn run(self) -> Output {
        self.start().wait()
    }

    /// Starts it, waits, and fails unless it succeeded; gives its output without the last newline.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        self.run().expect_code(0).text()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.environment {
            if let Some(value) = value {
                write!(f, "{}={} ", name.to_string_lossy(), value.to_string_lossy())?;
            }
        }
        write!(f, "{}", self.program.display())?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {:?}", argument.to_string_lossy()))
    }
}

/// Bytes that a thread reads from a pipe until its end.
#[derive(Debug)]
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Stream {
    fn read(mut pipe: impl Read + Send + 'static) -> Stream {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                lock(&shared).extend_from_slice(&buffer[..count]);
            }
        });
        Stream { bytes, reader }
    }

    fn so_far(&self) -> Vec<u8> {
        lock(&self.bytes).clone()
    }
}

fn lock(mutex: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call that runs.
#[derive(Debug)]
pub(crate) struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Stream,
    stderr: Stream,
    shown: String,
    deadline: Duration,
    done: bool,
}

impl Client {
    /// Its pid.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("pids are small")
    }

    /// Standard output so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.so_far()).into_owned()
    }

    /// Standard error so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.so_far()).into_owned()
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Whether it has ended, and all that it has started and that writes where it wrote.
    pub(crate) fn is_over(&mut self) -> bool {
        !self.is_running() && self.stdout.reader.is_finished() && self.stderr.reader.is_finished()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }

    /// Writes to its input.
    #[track_caller]
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let pipe = self.stdin.as_mut().expect("the call was started with an open input");
        pipe.write_all(bytes).unwrap_or_else(|error| panic!("writing to {}: {error}", self.shown));
    }

    /// Ends its input.
    pub(crate) fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Waits until its standard output has `text`.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        let found = holds_within(super::PATIENCE, || {
            self.stdout().contains(text) || !self.is_running() && self.stdout.reader.is_finished()
        });
        let output = self.output_so_far();
        assert!(found && self.stdout().contains(text), "{text:?} did not appear on stdout\n{output}");
    }

    fn output_so_far(&mut self) -> Output {
        let code = match self.child.try_wait() {
            Ok(Some(status)) => status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)),
            Ok(None) | Err(_) => i32::MIN,
        };
        Output { code, stdout: self.stdout.so_far(), stderr: self.stderr.so_far(), shown: self.shown.clone() }
    }

    /// Waits for its end, with a deadline.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Output {
        let end = Instant::now() + self.deadline;
        let mut pause = Duration::from_micros(500);
        while self.is_running() {
            if Instant::now() > end {
                let output = self.output_so_far();
                panic!("did not end within {:?}\n{output}", self.deadline);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
        let closed = holds_within(Duration::from_secs(10), || self.is_over());
        self.done = true;
        let output = self.output_so_far();
        assert!(closed, "ended, but something it started holds its stdout or stderr open\n{output}");
        output
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.done {
            // The test failed or gave up on it: it must not outlive the test. Errors mean it is gone already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
