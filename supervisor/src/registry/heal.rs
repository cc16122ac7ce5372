//! What is done at a start, by a supervisor that runs: what was left is tried again, what came to the disk meanwhile (a
//! directory that was put back, the remains of a container that is not known) is taken in, the trash is emptied.

use std::sync::Arc;

use mysup_ipc::{error::WireError, id::ContainerId};

use super::{
    Registry, Reply,
    jobs::JobDone,
    recover::{self, Found},
    state::{self, Event, Live, State, Want},
};
use crate::error::system_failure;

impl Registry {
    /// Begins; the reply is given when all is under way.
    pub(super) fn heal(&mut self, reply: Reply<()>) {
        let is_left = |state: &State| matches!(state, State::Live(Live::Leftover { .. }));
        let left: Vec<ContainerId> = self
            .containers
            .values()
            .filter(|container| is_left(&container.state))
            .map(|container| container.id.clone())
            .collect();
        for id in left {
            self.try_again(&id);
        }
        self.means.sweeper.wake();
        self.means.freed.notify_one();
        let config = Arc::clone(&self.means.config);
        // Listed first and compared with what is known after: what is being made now is known before it is on disk.
        self.job(
            move || {
                recover::list(&config).map_err(|error| system_failure("cannot look for containers", &error))
            },
            move |listed| JobDone::Listed(listed, reply),
        );
    }

    fn try_again(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Ok(next) = state::next(&container.state, Event::Wanted(Want::Retry)) else { return };
        container.state = next;
        self.go_on_with_teardown(id);
    }

    /// What is on disk was listed.
    pub(super) fn listed(&mut self, listed: Result<Vec<ContainerId>, WireError>, reply: Reply<()>) {
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => {
                // A client that hung up needs no answer.
                let _ = reply.send(Err(error));
                return;
            }
        };
        let unknown: Vec<ContainerId> =
            listed.into_iter().filter(|id| !self.containers.contains_key(id)).collect();
        let config = Arc::clone(&self.means.config);
        self.job(move || Ok(recover::take_in(&config, unknown)), move |found| JobDone::TakenIn(found, reply));
    }

    /// What is not known was looked at.
    pub(super) fn taken_in(&mut self, found: Result<Vec<Found>, WireError>, reply: Reply<()>) {
        let answer = found.map(|found| {
            for found in found {
                if !self.containers.contains_key(&found.id) {
                    tracing::info!(container = %found.id, "found on disk, taken in");
                    self.adopt(found);
                }
            }
            self.go_on_with_removals();
        });
        // A client that hung up needs no answer.
        let _ = reply.send(answer);
    }
}
