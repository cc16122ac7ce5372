//! Where the shim's trace goes: one line an event to stderr, which is the supervisor's log. Small on purpose: a
//! subscriber crate would cost each container more memory than the rest of the shim.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Installs the subscriber; `MYSUP_LOG` chooses the level (error, warn, info, debug, trace; default info).
pub(crate) fn install(container: &str) {
    let level = match std::env::var("MYSUP_LOG").as_deref() {
        Ok("error") => Level::ERROR,
        Ok("warn") => Level::WARN,
        Ok("debug") => Level::DEBUG,
        Ok("trace") => Level::TRACE,
        _ => Level::INFO,
    };
    let short = container.get(..12).unwrap_or(container).to_owned();
    // Fails only if one is installed already, and then that one stays.
    let _ = tracing::subscriber::set_global_default(LineWriter { level, container: short });
}

struct LineWriter {
    level: Level,
    container: String,
}

impl Subscriber for LineWriter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= &self.level
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        // No spans are used: a shim has one container, and its id is on every line.
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{:>5} shim {}:", event.metadata().level().as_str(), self.container));
        event.record(&mut line);
        line.0.push('\n');
        // One write, so that lines of several shims do not mix; a log that cannot be written is no reason to fail.
        let _ = std::io::stderr().write_all(line.0.as_bytes());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, " {}={value}", field.name());
    }
}
