//! Runs the cases on a few threads and reports them in the words of cargo's own test runner.

use std::{
    any::Any,
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    env,
    io::{self, Write},
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::Mutex,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{leaks, random::Random, sandbox::Sandbox};

/// The whole suite must be over by then; what still runs is named and the process ends.
const SUITE_LIMIT: Duration = Duration::from_secs(22 * 60);

/// One test.
pub(crate) struct Case {
    name: String,
    run: Box<dyn Fn(&Sandbox) + Send + Sync>,
}

impl Case {
    /// `path` is `module_path!()::name`.
    pub(crate) fn new(path: impl Into<String>, run: impl Fn(&Sandbox) + Send + Sync + 'static) -> Case {
        let path = path.into();
        Case { name: path.strip_prefix("suite::").unwrap_or(&path).to_owned(), run: Box::new(run) }
    }
}

/// Why a test could not be tried here; carried by a panic up to the runner.
struct Skip(String);

/// Ends the running test as skipped.
pub(crate) fn skip(reason: impl Into<String>) -> ! {
    panic::resume_unwind(Box::new(Skip(reason.into())))
}

/// What became of a test.
enum Verdict {
    Passed,
    Skipped(String),
    Failed(String),
}

/// What the command line asks for; the flags of cargo's own runner that people type.
struct Options {
    filters: Vec<String>,
    exact: bool,
    list: bool,
    threads: usize,
    seed: u64,
}

impl Options {
    fn parse() -> Result<Options, String> {
        let cores = thread::available_parallelism().map_or(2, usize::from);
        let mut options = Options {
            filters: Vec::new(),
            exact: false,
            list: false,
            threads: env_number("RUST_TEST_THREADS").unwrap_or((cores * 2).clamp(2, 4)),
            seed: env_number("MYSUP_TEST_SEED").unwrap_or_else(fresh_seed),
        };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => options.exact = true,
                "--list" => options.list = true,
                "--nocapture" | "--no-capture" | "--quiet" | "-q" | "--include-ignored" => {}
                "--test-threads" => {
                    let text = arguments.next().ok_or("--test-threads needs a number")?;
                    options.threads = text.parse().map_err(|_| format!("not a number: {text}"))?;
                }
                flag if flag.starts_with('-') => return Err(format!("unknown flag {flag}")),
                filter => options.filters.push(filter.to_owned()),
            }
        }
        options.threads = options.threads.max(1);
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty()
            || self
                .filters
                .iter()
                .any(|filter| if self.exact { name == filter } else { name.contains(filter) })
    }
}

fn env_number<T: std::str::FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

fn fresh_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs())
}

fn say(line: &str) {
    // A closed standard output must not turn a passing test into a failing one.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Runs all cases that the command line asks for.
pub(crate) fn main(cases: Vec<Case>) -> ExitCode {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(error) => {
            say(&format!("error: {error}"));
            return ExitCode::from(2);
        }
    };
    let all = cases.len();
    let chosen: Vec<Case> = cases.into_iter().filter(|case| options.wants(&case.name)).collect();
    if options.list {
        chosen.iter().for_each(|case| say(&format!("{}: test", case.name)));
        return ExitCode::SUCCESS;
    }
    let filtered_out = all - chosen.len();
    say(&format!("\nrunning {} tests (seed {}, {} threads)", chosen.len(), options.seed, options.threads));
    let began = Instant::now();
    panic::set_hook(Box::new(remember_panic));
    let before = leaks::Host::now();
    let mut verdicts = run_all(chosen, &options);
    verdicts.push(("host_after_the_suite_equals_host_before".to_owned(), compare_hosts(&before)));
    report(&verdicts, filtered_out, began)
}

fn compare_hosts(before: &leaks::Host) -> Verdict {
    let difference = leaks::Host::settled_difference(before);
    if difference.is_empty() { Verdict::Passed } else { Verdict::Failed(difference.join("\n")) }
}

fn run_all(cases: Vec<Case>, options: &Options) -> Vec<(String, Verdict)> {
    let queue = Mutex::new(VecDeque::from(cases));
    let running = Mutex::new(BTreeSet::new());
    let verdicts = Mutex::new(Vec::new());
    let over = Mutex::new(false);
    thread::scope(|scope| {
        scope.spawn(|| watch(&running, &over));
        let workers: Vec<_> = (0..options.threads)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(case) = take(&queue) {
                        lock(&running).insert(case.name.clone());
                        let verdict = run_one(&case, options.seed);
                        lock(&running).remove(&case.name);
                        say(&line(&case.name, &verdict));
                        lock(&verdicts).push((case.name, verdict));
                    }
                })
            })
            .collect();
        for worker in workers {
            // A panic of the runner itself, not of a test: pass it on.
            worker.join().unwrap_or_else(|payload| panic::resume_unwind(payload));
        }
        *lock(&over) = true;
    });
    verdicts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn take(queue: &Mutex<VecDeque<Case>>) -> Option<Case> {
    lock(queue).pop_front()
}

/// Ends the process when the suite hangs: a test that waits for ever would hide all the others.
fn watch(running: &Mutex<BTreeSet<String>>, over: &Mutex<bool>) {
    let end = Instant::now() + SUITE_LIMIT;
    while !*lock(over) {
        if Instant::now() > end {
            let names: Vec<String> = lock(running).iter().cloned().collect();
            say(&format!("error: the suite took longer than {SUITE_LIMIT:?}; running: {}", names.join(", ")));
            leaks::kill_everything();
            std::process::abort();
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn run_one(case: &Case, seed: u64) -> Verdict {
    let sandbox = Sandbox::new(&case.name, Random::new(seed, &case.name));
    let result = panic::catch_unwind(AssertUnwindSafe(|| (case.run)(&sandbox)));
    let verdict = match result {
        Ok(()) => match panic::catch_unwind(AssertUnwindSafe(|| sandbox.finish())) {
            Ok(()) => Verdict::Passed,
            Err(payload) => Verdict::Failed(text_of(payload.as_ref())),
        },
        Err(payload) => match payload.downcast::<Skip>() {
            Ok(skip) => Verdict::Skipped(skip.0),
            Err(payload) => Verdict::Failed(text_of(payload.as_ref())),
        },
    };
    match verdict {
        Verdict::Failed(text) => Verdict::Failed(format!("{text}\n{}", sandbox.sweep(true))),
        other @ (Verdict::Passed | Verdict::Skipped(_)) => {
            sandbox.sweep(false);
            other
        }
    }
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn remember_panic(info: &panic::PanicHookInfo<'_>) {
    LAST_PANIC.set(Some(info.to_string()));
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let own = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("panicked with no text");
    LAST_PANIC.take().filter(|text| text.contains(own)).unwrap_or_else(|| own.to_owned())
}

fn line(name: &str, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Passed => format!("test {name} ... ok"),
        Verdict::Skipped(reason) => format!("SKIP {name}: {reason}"),
        Verdict::Failed(_) => format!("test {name} ... FAILED"),
    }
}

fn report(verdicts: &[(String, Verdict)], filtered_out: usize, began: Instant) -> ExitCode {
    let (mut passed, mut skipped, mut failed) = (0_usize, Vec::new(), Vec::new());
    for (name, verdict) in verdicts {
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::Skipped(reason) => skipped.push((name, reason)),
            Verdict::Failed(text) => failed.push((name, text)),
        }
    }
    if !failed.is_empty() {
        say("\nfailures:\n");
        failed.iter().for_each(|(name, text)| say(&format!("---- {name} ----\n{text}\n")));
        say("failures:");
        failed.iter().for_each(|(name, _)| say(&format!("    {name}")));
    }
    say(&format!("\nskipped: {}", skipped.len()));
    skipped.iter().for_each(|(name, reason)| say(&format!("    SKIP {name}: {reason}")));
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    say(&format!(
        "\ntest result: {word}. {passed} passed; {} failed; {} ignored; 0 measured; {filtered_out} filtered out; finished in {:.2}s\n",
        failed.len(),
        skipped.len(),
        began.elapsed().as_secs_f64()
    ));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
