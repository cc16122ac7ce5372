//! When a shim that was asked something is called silent, and what the kernel says about why: proc_pid_stat(5).

use std::{fs, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Between two looks at a shim that has not answered yet.
const LOOK: Duration = Duration::from_secs(1);
/// One that is found stopped so often, one after another, is not about to answer.
const STOPPED_LOOKS: u32 = 2;

/// A year: `Instant` overflows with a grace of 2^64 milliseconds.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A shim, and what is waited for.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pid: Option<u32>,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    what: &'static str,
    /// When it is called silent.
    until: Instant,
    /// When it is looked at next.
    look: Instant,
    stopped: u32,
}

impl Watch {
    /// Another shim is there now. Its pid is for people only.
    pub(super) fn is_of(&mut self, pid: Option<u32>) {
        self.pid = pid;
    }

    /// It was asked something, and has some time for it.
    pub(super) fn ask(&mut self, patience: Duration, what: &'static str) {
        let now = Instant::now();
        self.asked = Some(Asked { what, until: now + patience, look: now + LOOK, stopped: 0 });
    }

    /// The same for what begins when a grace is over; `None` never is.
    pub(super) fn ask_with_grace(&mut self, grace_ms: Option<u64>, patience: Duration, what: &'static str) {
        match grace_ms {
            Some(grace) => self.ask(Duration::from_millis(grace).min(FAR) + patience, what),
            None => self.answered(),
        }
    }

    /// Nothing is waited for.
    pub(super) fn answered(&mut self) {
        self.asked = None;
    }

    /// Ends when it is silent, and says why. May be dropped at any time and begun again.
    pub(super) async fn silence(&mut self) -> String {
        loop {
            let Some(asked) = &mut self.asked else { return std::future::pending().await };
            sleep_until(asked.until.min(asked.look)).await;
            asked.look = Instant::now() + LOOK;
            let is_stopped = self.pid.is_some_and(|pid| state(pid) == Some('T'));
            asked.stopped = if is_stopped { asked.stopped + 1 } else { 0 };
            let what = asked.what;
            if asked.stopped >= STOPPED_LOOKS || Instant::now() >= asked.until {
                self.asked = None;
                return self.describe(what);
            }
        }
    }

    /// Why it may not answer what it was asked.
    pub(super) fn describe(&self, what: &str) -> String {
        let asked = format!("it was asked {what}");
        let Some(pid) = self.pid else { return asked };
        match state(pid) {
            Some('T') => format!("{asked}, and is stopped (pid {pid}); kill -CONT {pid} lets it go on"),
            Some('D') => format!("{asked}, and waits in the kernel ({}, pid {pid})", wait_channel(pid)),
            Some(_) => format!("{asked} (pid {pid})"),
            None => asked,
        }
    }
}

/// `R`, `S`, `D`, `T` and so on; none if there is no such process.
fn state(pid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses, and may have some itself.
    text.rsplit_once(") ")?.1.chars().next()
}

/// The function of the kernel in which it waits.
fn wait_channel(pid: u32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/wchan")) {
        Ok(name) if !name.is_empty() && name != "0" => name,
        _ => "somewhere".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_silent_that_was_not_asked() {
        let mut watch = Watch::default();
        let silent = tokio::time::timeout(Duration::from_millis(5), watch.silence()).await;
        assert!(silent.is_err());
        watch.ask(Duration::from_millis(1), "where it is");
        assert_eq!(watch.silence().await, "it was asked where it is");
    }

    #[test]
    fn what_a_process_does_is_read() {
        assert!(matches!(state(std::process::id()), Some('R' | 'S')));
        let mut watch = Watch::default();
        watch.is_of(Some(std::process::id()));
        assert_eq!(watch.describe("to end"), format!("it was asked to end (pid {})", std::process::id()));
    }
}
