//! The end of the supervisor: asked for by a client or a signal, seen by everybody at once.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::shim_link::framed::Framed;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// New requests are refused, those under way go on.
    Closing,
    /// Everything ends now.
    Over,
}

/// The one switch of the end; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Shutdown {
    phase: Arc<watch::Sender<Phase>>,
}

impl Shutdown {
    /// Nobody wants the end yet.
    pub(super) fn new() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Serving)) }
    }

    /// From now on new requests are refused. False if they are already.
    pub(super) fn close(&self) -> bool {
        self.phase.send_if_modified(|phase| {
            let serving = *phase == Phase::Serving;
            if serving {
                *phase = Phase::Closing;
            }
            serving
        })
    }

    /// Whether requests are refused. One that was read before everything ended is not: it is under way.
    pub(super) fn is_closing(&self) -> bool {
        *self.phase.borrow() == Phase::Closing
    }

    /// Everything ends now.
    pub(super) fn finish(&self) {
        self.phase.send_replace(Phase::Over);
    }

    /// Keeps the connection of whoever asked for the end: that it closes tells them that the process is gone.
    pub(super) fn keep(&self, client: Framed) {
        // In a static, so that nothing but the end of the process closes it.
        static LAST: Mutex<Vec<Framed>> = Mutex::new(Vec::new());
        LAST.lock().unwrap_or_else(PoisonError::into_inner).push(client);
    }

    /// Waits for the end.
    pub(super) async fn over(&self) {
        let mut phase = self.phase.subscribe();
        // Cannot fail: we hold the sender. No deadline: this is the whole life of the supervisor.
        let _ = phase.wait_for(|phase| *phase == Phase::Over).await;
    }

    /// Brings the end at SIGTERM or SIGINT; containers go on.
    pub(super) async fn on_signal(&self) -> io::Result<()> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // A service manager's terminal may go away; the supervisor does not end with it.
        let _hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            // Both mean the same, the order does not matter.
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("a signal asks for the end");
        self.finish();
        Ok(())
    }
}
