//! How the supervisor says that it answers: a line on standard output to whoever started it, and sd_notify(3).

use std::io::{self, Write};

use sd_notify::NotifyState;

use crate::sys;

/// Says once whether the supervisor is ready.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Standard output is a pipe on which somebody waits for our line.
    awaited: bool,
}

impl Ready {
    /// The variable that says so.
    const VARIABLE: &str = "MYSUP_READY_FD";

    /// As the environment says.
    pub(crate) fn from_environment() -> Self {
        Self { awaited: std::env::var_os(Self::VARIABLE).is_some_and(|value| value == "1") }
    }

    /// Whether somebody waits for our line.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited
    }

    /// It answers.
    pub(super) fn tell(&mut self) {
        self.say(&format!("ready {}\n", std::process::id()));
        notify(NotifyState::Ready);
    }

    /// It is about to end.
    pub(super) fn stopping(&self) {
        notify(NotifyState::Stopping);
    }

    /// It will not answer. Nothing is said after it was ready.
    pub(super) fn failed(&mut self, reason: &str) {
        self.say(&format!("error {}\n", reason.replace('\n', " ")));
    }

    fn say(&mut self, line: &str) {
        if !std::mem::take(&mut self.awaited) {
            return;
        }
        let mut pipe = io::stdout().lock();
        let said = pipe.write_all(line.as_bytes()).and_then(|()| pipe.flush());
        // Whoever waited may have gone; the pipe must end in any case.
        if let Err(error) = said.and_then(|()| sys::silence_stdout()) {
            tracing::warn!(%error, "cannot say that we are ready, continuing");
        }
    }
}

fn notify(state: NotifyState<'_>) {
    // Without a service manager there is nobody to tell, and that is no error.
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell the service manager, continuing");
    }
}
