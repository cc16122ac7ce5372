//! Emptying the trash: one `mysup-shim sweep` at a time, however often it is asked for. The supervisor itself never
//! removes a tree.

use std::{path::PathBuf, sync::Arc};

use mysup_ipc::exit::ExitStatus;
use tokio::sync::Notify;

use super::{children::Children, spawn::Spawner};

/// Asks for sweeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sweeper {
    wanted: Arc<Notify>,
}

impl Sweeper {
    /// Something was put into a trash. Calls during a sweep make one more.
    pub(crate) fn wake(&self) {
        self.wanted.notify_one();
    }

    /// Sweeps whenever it is woken, for ever: it ends with the runtime.
    pub(crate) async fn serve(self, spawner: Spawner, children: Arc<Children>, trashes: Vec<PathBuf>) {
        loop {
            self.wanted.notified().await;
            for trash in &trashes {
                let empty = std::fs::read_dir(trash).is_ok_and(|mut entries| entries.next().is_none());
                if empty {
                    continue;
                }
                let pid = match spawner.sweep(trash) {
                    Ok(pid) => pid,
                    Err(error) => {
                        tracing::warn!(%error, trash = %trash.display(), "cannot start a sweep, continuing");
                        continue;
                    }
                };
                // No deadline: the removal of a large tree takes long, and nobody waits for it.
                let status = children.watch(pid).await.map(ExitStatus::from_wait_status);
                if status != Ok(ExitStatus::Code(0)) {
                    tracing::warn!(?status, trash = %trash.display(), "the trash could not be emptied, continuing");
                }
            }
        }
    }
}
