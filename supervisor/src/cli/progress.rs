//! How far something long has come, for people: bars on a terminal, on stderr; lines elsewhere.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use mysup_ipc::{
    blocking::{Connection, Received},
    progress::{Progress, ProgressStep},
};

use super::{describe, error::CliError, output};

/// Where there are no bars, so long apart are two lines about what makes no lines of its own.
const SELDOM: Duration = Duration::from_secs(5);
const BAR: &str = "{prefix:.bold} {msg:18} {bar:30} {bytes}/{total_bytes}";
const COUNTER: &str = "{prefix:.bold} {msg:18} {bytes}";

/// How something is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Style {
    /// Not at all.
    Nothing,
    /// docker's lines on stdout.
    Steps,
    /// The same on stderr, after a line that is said when it begins.
    Aside(Option<String>),
    /// A line on stderr now and then.
    Seldom,
}

/// What the user sees.
#[derive(Debug)]
pub(crate) struct Screen {
    style: Style,
    bars: Option<Bars>,
    /// Of each part what was said last.
    steps: BTreeMap<String, ProgressStep>,
    said: Instant,
}

#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    parts: BTreeMap<String, ProgressBar>,
}

impl Screen {
    /// Shows nothing yet.
    pub(crate) fn new(style: Style) -> Self {
        let wants_bars = style != Style::Nothing && io::stderr().is_terminal();
        let target = ProgressDrawTarget::stderr();
        let bars =
            wants_bars.then(|| Bars { all: MultiProgress::with_draw_target(target), parts: BTreeMap::new() });
        Self { style, bars, steps: BTreeMap::new(), said: Instant::now() }
    }

    /// Says what is going to be done.
    pub(crate) fn head(&mut self, line: &str) {
        if let Style::Aside(before) = &mut self.style
            && let Some(before) = before.take()
        {
            self.say(&before);
        }
        self.say(line);
    }

    /// Shows how far a part has come.
    pub(crate) fn show(&mut self, progress: &Progress) {
        if let Some(bars) = &mut self.bars {
            return bars.show(progress);
        }
        match &self.style {
            Style::Nothing => {}
            Style::Seldom => {
                if self.said.elapsed() >= SELDOM {
                    self.said = Instant::now();
                    let of = match progress.total {
                        0 => String::new(),
                        total => format!(" of {}", describe::size(total)),
                    };
                    let Progress { part, step, done, .. } = progress;
                    self.say(&format!("{part}: {} {}{of}", word(*step), describe::size(*done)));
                }
            }
            Style::Steps | Style::Aside(_) => {
                let before = self.steps.insert(progress.part.clone(), progress.step);
                if let Some(line) = line(progress.step)
                    && before != Some(progress.step)
                {
                    self.say(&format!("{}: {line}", progress.part));
                }
            }
        }
    }

    fn say(&self, line: &str) {
        let line = format!("{line}\n");
        // Whoever does not read this may still read what comes at the end.
        let _ = match self.style {
            Style::Nothing => Ok(()),
            Style::Steps => output::print(&line),
            Style::Aside(_) | Style::Seldom => output::write(io::stderr().as_fd(), line.as_bytes()),
        };
    }
}

impl Bars {
    fn show(&mut self, progress: &Progress) {
        let template = if progress.total == 0 { COUNTER } else { BAR };
        // Both are right: a test has drawn them.
        let style = ProgressStyle::with_template(template).map(|style| style.progress_chars("=> "));
        let bar = self.parts.entry(progress.part.clone()).or_insert_with(|| {
            let bar = ProgressBar::new(progress.total)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                .with_prefix(progress.part.clone())
                .with_message(word(progress.step));
            self.all.add(bar)
        });
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        bar.set_message(word(progress.step));
        if is_last(progress.step) {
            bar.finish();
        } else if bar.is_finished() {
            // Fetched, and now unpacked.
            bar.reset();
            bar.set_position(progress.done);
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // What was not finished stays as it is on the screen, above what is said next.
        self.parts.values().filter(|bar| !bar.is_finished()).for_each(ProgressBar::abandon);
    }
}

/// Does something during which the supervisor may tell how far it is, on a socket whose other end is given to `work`.
///
/// # Errors
/// As `work`.
pub(crate) fn while_told<T>(
    screen: &mut Screen,
    work: impl FnOnce(Option<BorrowedFd<'_>>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let pair = UnixStream::pair().and_then(|(ours, theirs)| Ok((ours.try_clone()?, ours, theirs)));
    let Some((closer, ours, theirs)) = pair.ok().filter(|_| screen.style != Style::Nothing) else {
        // It works as well without being told.
        return work(None);
    };
    std::thread::scope(|scope| {
        let told = std::thread::Builder::new().name("progress".to_owned()).spawn_scoped(scope, move || {
            let mut connection = Connection::new(ours);
            // Whatever is wrong with it, it is only progress.
            while let Ok(Received::Message(progress)) = connection.receive() {
                screen.show(&progress);
            }
        });
        let done = match told {
            Ok(_) => work(Some(theirs.as_fd())),
            Err(_) => work(None),
        };
        // Nothing more is said after the answer.
        let _ = closer.shutdown(std::net::Shutdown::Both);
        done
    })
}

fn is_last(step: ProgressStep) -> bool {
    match step {
        ProgressStep::Unpacked
        | ProgressStep::Written
        | ProgressStep::Downloaded
        | ProgressStep::Present
        | ProgressStep::Uploaded
        | ProgressStep::KnownThere => true,
        ProgressStep::Unpacking
        | ProgressStep::Writing
        | ProgressStep::Downloading
        | ProgressStep::Resuming
        | ProgressStep::Uploading
        | ProgressStep::Unknown => false,
    }
}

/// For a bar.
fn word(step: ProgressStep) -> &'static str {
    match step {
        ProgressStep::Unpacking => "Unpacking",
        ProgressStep::Unpacked => "Unpacked",
        ProgressStep::Writing => "Writing",
        ProgressStep::Written => "Written",
        ProgressStep::Downloading => "Downloading",
        ProgressStep::Resuming => "Resuming",
        ProgressStep::Downloaded => "Download complete",
        ProgressStep::Present => "Already exists",
        ProgressStep::Uploading => "Pushing",
        ProgressStep::Uploaded => "Pushed",
        ProgressStep::KnownThere => "Already there",
        ProgressStep::Unknown => "",
    }
}

/// docker's line for it, where it has one.
fn line(step: ProgressStep) -> Option<&'static str> {
    match step {
        ProgressStep::Downloading => Some("Pulling fs layer"),
        ProgressStep::Resuming => Some("Resuming"),
        ProgressStep::Downloaded => Some("Download complete"),
        ProgressStep::Present => Some("Already exists"),
        ProgressStep::Unpacked => Some("Pull complete"),
        ProgressStep::Uploading => Some("Pushing"),
        ProgressStep::Uploaded => Some("Pushed"),
        ProgressStep::KnownThere => Some("Layer already exists"),
        ProgressStep::Unpacking | ProgressStep::Writing | ProgressStep::Written | ProgressStep::Unknown => {
            None
        }
    }
}
