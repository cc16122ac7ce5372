//! Emptying the trash: one `mysup-shim sweep` at a time, however often it is asked for. The supervisor itself never
//! removes a tree.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use mysup_ipc::exit::ExitStatus;
use tokio::{sync::Notify, time::timeout};

use super::{children::Children, spawn::Spawner};

/// How long a name in a full trash is waited for.
const ROOM: Duration = Duration::from_secs(5);
/// Between two tries.
const LOOK: Duration = Duration::from_millis(10);

/// What was left in a trash is tried again after this long, and then less and less often.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// At last once in so long.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Asks for sweeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sweeper {
    wanted: Arc<Notify>,
    /// How long a name in a full trash is waited for. By default not at all: nobody may be there to sweep.
    patience: Duration,
}

impl Sweeper {
    /// One that is served.
    pub(crate) fn new() -> Self {
        Self { wanted: Arc::default(), patience: ROOM }
    }

    /// Something was put into a trash. Calls during a sweep make one more.
    pub(crate) fn wake(&self) {
        self.wanted.notify_one();
    }

    /// Does what needs a name in a trash, again after a sweep if there is no space for one: on a full disk a directory cannot
    /// grow, and what is in the trash holds space, too. Blocks.
    ///
    /// # Errors
    /// As `attempt`, at last.
    pub(crate) fn with_room<T>(&self, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let deadline = Instant::now() + self.patience;
        loop {
            match attempt() {
                Err(error) if is_full(&error) && Instant::now() < deadline => {
                    self.wake();
                    thread::sleep(LOOK);
                }
                result => return result,
            }
        }
    }

    /// Sweeps whenever it is woken, and again after a while where something was left; for ever: it ends with the runtime.
    pub(crate) async fn serve(self, spawner: Spawner, children: Arc<Children>, trashes: Vec<PathBuf>) {
        let mut pause = None;
        loop {
            match pause {
                None => self.wanted.notified().await,
                // Woken or not, it is time to sweep.
                Some(pause) => drop(timeout(pause, self.wanted.notified()).await),
            }
            let mut left = false;
            for trash in &trashes {
                let empty = std::fs::read_dir(trash).is_ok_and(|mut entries| entries.next().is_none());
                if empty {
                    continue;
                }
                let pid = match spawner.sweep(trash) {
                    Ok(pid) => pid,
                    Err(error) => {
                        tracing::warn!(%error, trash = %trash.display(), "cannot start a sweep, trying again");
                        left = true;
                        continue;
                    }
                };
                // No deadline: the removal of a large tree takes long, and nobody waits for it.
                let status = children.watch(pid).await.map(ExitStatus::from_wait_status);
                if status != Ok(ExitStatus::Code(0)) {
                    tracing::warn!(?status, trash = %trash.display(), "the trash could not be emptied, trying again");
                    left = true;
                }
            }
            pause = left.then(|| pause.map_or(FIRST_PAUSE, |pause: Duration| (pause * 2).min(LONGEST_PAUSE)));
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
