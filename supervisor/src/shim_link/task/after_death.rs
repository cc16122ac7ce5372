//! After the death of a shim: its container is given to another one, or taken down by one that does only that.
//!
//! A shim that cannot be started (no pid, no memory, no descriptor, no program) says nothing about the container: it is
//! tried again for as long as it takes, and the program runs on meanwhile.

use mysup_ipc::{
    error::WireError,
    layout, record,
    shim::{ShimReport, TeardownOrder, ToShim},
    teardown::TeardownReport,
};
use tokio::time::timeout;

use super::Working;
use crate::{
    config::text,
    error::system_failure,
    shim_link::{
        Event,
        adopt::{self, Possible, Refusal},
        cgroups,
        deadlines::{ADOPTIONS, FIRST_RETRY, REPORT, RETRY, SEND, STEP, TEARDOWNS},
        framed::Framed,
        lost,
    },
    sys,
};

/// What became of a container whose shim is dead.
enum Adoption {
    /// Another shim goes on.
    By(Framed),
    /// It was over already, or no shim can go on with it.
    Impossible,
    /// The registry has ended: somebody else's task.
    Over,
}

impl Working {
    /// The shim is dead.
    pub(super) async fn lose(&mut self) -> Option<Framed> {
        match self.adopt().await {
            Adoption::By(shim) => Some(shim),
            Adoption::Over => None,
            Adoption::Impossible => {
                self.task.events.say(Event::Lost).await;
                self.finish_lost().await
            }
        }
    }

    /// Gives the container to a new shim, if its init lives or its end is not known yet.
    async fn adopt(&mut self) -> Adoption {
        if self.ended || self.ending.is_some() {
            return Adoption::Impossible;
        }
        let (mut refused, mut told, mut pause) = (0, false, FIRST_RETRY);
        while refused < ADOPTIONS {
            if self.shim_lives().await {
                // One that an earlier supervisor has started was slow.
                return Box::pin(self.reconnect()).await.map_or(Adoption::Over, Adoption::By);
            }
            let outcome = match adopt::is_possible(&mut self.init, &self.task.places).await {
                Possible::Yes => self.new_shim().await,
                Possible::No => return Adoption::Impossible,
                Possible::NotKnown(reason) => Err(Refusal::NotStarted(reason)),
            };
            match outcome {
                Ok((mut shim, report)) => {
                    self.know_report(&mut shim, &report);
                    let pidfd = self.init.pidfd.as_ref().and_then(|pidfd| pidfd.try_clone().ok());
                    self.adopted = pidfd.and_then(|pidfd| sys::watch(pidfd).ok());
                    self.task.events.say(Event::Stands(report)).await;
                    return Adoption::By(shim);
                }
                Err(Refusal::NotStarted(reason)) => self.tell_no_shim(&mut told, &reason).await,
                Err(Refusal::ByShim(reason)) => {
                    tracing::warn!(%reason, "a new shim did not adopt, continuing");
                    refused += 1;
                    pause = RETRY;
                }
            }
            if self.pause(pause).await.is_none() {
                return Adoption::Over;
            }
            pause = (pause * 2).min(RETRY);
        }
        Adoption::Impossible
    }

    async fn tell_no_shim(&self, told: &mut bool, reason: &str) {
        let what = format!(
            "it is dead, and no other one can be started ({reason}); this is tried again until one can"
        );
        self.silent_once(told, what).await;
    }

    /// Starts a shim and waits until it has adopted or is dead: a slow one is waited for, since its program runs, and would
    /// have to be ended if nobody could adopt it.
    async fn new_shim(&mut self) -> Result<(Framed, ShimReport), Refusal> {
        let (pid, mut shim) = adopt::start(&self.task.spawner, &self.task.places, &self.init).await?;
        self.watch.is_of(Some(pid));
        let mut told = false;
        loop {
            if let Ok(answer) = timeout(REPORT, adopt::answer(&mut shim)).await {
                return answer.map(|report| (shim, report)).map_err(Refusal::ByShim);
            }
            self.silent_once(&mut told, self.watch.describe("to go on for a dead one")).await;
        }
    }

    /// Finds out how the container ended and starts a process that takes down what is left.
    async fn finish_lost(&mut self) -> Option<Framed> {
        if !self.ended && self.ending.is_none() {
            let ending = lost::ending(&mut self.init, &self.task.places, &self.task.children).await;
            self.ending = Some(ending);
        }
        let (mut told, mut pause) = (false, FIRST_RETRY);
        while self.teardowns < TEARDOWNS {
            if !self.leaves_anything().await {
                return self.already_gone().await;
            }
            match self.start_teardown().await {
                Ok(Ok(shim)) => {
                    self.teardowns += 1;
                    self.watch.ask(STEP, "to take down a dead shim's container");
                    return Some(shim);
                }
                Ok(Err(error)) => {
                    tracing::warn!(error = %error.message, "a teardown takes no order, continuing");
                    self.teardowns += 1;
                    pause = RETRY;
                }
                Err(error) => self.tell_no_shim(&mut told, &error.message).await,
            }
            self.pause(pause).await?;
            pause = (pause * 2).min(RETRY);
        }
        self.settle_ending().await?;
        let problem = "the processes that were to take it down have died".to_owned();
        self.task.events.say(Event::GaveUp(problem)).await;
        None
    }

    /// The outer error: none could be started. The inner one: it was, and is gone.
    async fn start_teardown(&mut self) -> Result<Result<Framed, WireError>, WireError> {
        let spawner = self.task.spawner.clone();
        let spawned = tokio::task::spawn_blocking(move || spawner.teardown())
            .await
            .map_err(|error| system_failure("cannot start mysup-shim", &error))?
            .map_err(|error| system_failure("cannot start mysup-shim", &error))?;
        self.watch.is_of(Some(spawned.pid));
        let order = TeardownOrder {
            state_dir: text(&self.task.places.state),
            run_dir: text(&self.task.places.run),
            trash_dir: text(&self.task.places.trash),
            exit: self.ending.as_ref().or(self.exit.as_ref()).cloned(),
        };
        let greeted = self.greet(spawned, &ToShim::Teardown(order), SEND).await;
        Ok(greeted.map_err(|error| system_failure("cannot send a teardown order", &error)))
    }

    /// The run directory is the last thing to go. If somebody else has removed it, there are cgroups.
    async fn leaves_anything(&self) -> bool {
        let places = self.task.places.clone();
        let exists = move || match places.run.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => cgroups::exist(&places.id()),
            _ => true,
        };
        // Fails only when the runtime ends, and we with it.
        tokio::task::spawn_blocking(exists).await.unwrap_or(true)
    }

    /// The dead shim had finished.
    async fn already_gone(&mut self) -> Option<Framed> {
        self.settle_ending().await?;
        let path = self.task.places.state.join(layout::TEARDOWN);
        let read = move || record::read::<TeardownReport>(&path).ok().flatten();
        // Fails only when the runtime ends, and we with it.
        let report = tokio::task::spawn_blocking(read).await.unwrap_or_default().unwrap_or_default();
        self.task.events.say(Event::TornDown(report)).await;
        None
    }

    /// No shim records how the container ended, so it is done here, before anybody is told. Until that can be written it
    /// is tried again.
    async fn settle_ending(&mut self) -> Option<()> {
        let (mut told, mut pause) = (false, FIRST_RETRY);
        while let Some(seen) = self.ending.clone() {
            let places = self.task.places.clone();
            let settled = tokio::task::spawn_blocking(move || lost::settled_exit(&places, seen)).await;
            match settled.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                Ok(report) => self.ending = Some(report),
                Err(error) => {
                    let what = format!(
                        "it is dead, and how its program ended cannot be recorded ({error}); this is tried again until it can"
                    );
                    self.silent_once(&mut told, what).await;
                    self.pause(pause).await?;
                    pause = (pause * 2).min(RETRY);
                    continue;
                }
            }
            self.tell_ending().await;
        }
        Some(())
    }

    /// Tells how a dead shim's container ended: the record on disk if there is one (it may have been written by the
    /// teardown shim just now, or by the dead one before), else what we saw.
    pub(super) async fn tell_ending(&mut self) {
        let Some(seen) = self.ending.take() else { return };
        let places = self.task.places.clone();
        // Fails only when the runtime ends, and we with it.
        let recorded =
            tokio::task::spawn_blocking(move || lost::recorded_exit(&places)).await.unwrap_or(None);
        self.ended = true;
        let report = recorded.unwrap_or(seen);
        self.exit = Some(report.clone());
        self.task.events.say(Event::Exited(report)).await;
    }
}
