//! All ended children of the supervisor are reaped here and nowhere else: shims, sweeps, and inits whose shim died
//! (the supervisor is their subreaper). Nobody waits for a child by itself; who wants to know is told.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::sys;

/// Ends kept for those who ask later: an init's status below Linux 6.15. When it overflows the oldest go, and the
/// status of such an init is then unknown.
const REMEMBERED: usize = 4096;

/// What is known of ended children.
#[derive(Debug, Default)]
pub(crate) struct Children(Mutex<Ends>);

#[derive(Debug, Default)]
struct Ends {
    watched: HashMap<u32, oneshot::Sender<i32>>,
    ended: VecDeque<(u32, i32)>,
}

impl Children {
    /// Tells the status word of wait(2) of a child just started.
    pub(crate) fn watch(&self, pid: u32) -> oneshot::Receiver<i32> {
        let (sender, receiver) = oneshot::channel();
        let mut ends = self.lock();
        match ends.take(pid) {
            // A receiver that is in our hands cannot be gone.
            Some(status) => drop(sender.send(status)),
            None => drop(ends.watched.insert(pid, sender)),
        }
        receiver
    }

    /// Takes the status word of an ended child, if it was ours and was not asked for before.
    pub(crate) fn take(&self, pid: u32) -> Option<i32> {
        self.lock().take(pid)
    }

    /// Forgets an ended child: its number is another process' now.
    pub(crate) fn forget(&self, pid: u32) {
        self.lock().ended.retain(|(ended, _)| *ended != pid);
    }

    /// Reaps until no ended child is left: one SIGCHLD may stand for many.
    pub(crate) fn reap(&self) {
        while let Some((pid, status)) = sys::reap_one() {
            let mut ends = self.lock();
            if let Some(watcher) = ends.watched.remove(&pid) {
                // Whoever asked may have stopped waiting.
                let _ = watcher.send(status);
            } else {
                if ends.ended.len() == REMEMBERED {
                    ends.ended.pop_front();
                }
                ends.ended.push_back((pid, status));
            }
        }
    }

    /// Reaps at each SIGCHLD, for ever: it ends with the runtime.
    pub(crate) async fn serve(&self) -> io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        loop {
            self.reap();
            if ended.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ends> {
        // Every change under the lock is complete, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ends {
    fn take(&mut self, pid: u32) -> Option<i32> {
        // The newest first: a number may come again.
        let index = self.ended.iter().rposition(|(ended, _)| *ended == pid)?;
        self.ended.remove(index).map(|(_, status)| status)
    }
}
