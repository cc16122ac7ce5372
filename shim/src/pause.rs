//! A container stands still for as long as somebody is connected as [`Role::Pause`]: the connection is the pause. Whoever
//! asked for it may die at any time, and the container goes on; if this shim dies, the one that adopts the container lets it
//! go on.
//!
//! The end of the container, and the end of the grace of a stop, end the pause: who paused is told by the end of his
//! connection, and must look at that before he trusts in what he saw.
//!
//! [`Role::Pause`]: mysup_ipc::shim::Role::Pause

use std::time::{Duration, Instant};

use mysup_ipc::error::{ErrorCode, WireError};

use crate::{
    cgroup::{self, Directory},
    error::{SysError, chain},
    hub::Hub,
    life::in_time,
};

/// A process that hangs in the kernel cannot stand still: after this long the others go on, too.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether all stand still, which takes much less than this if they can.
const LOOK: Duration = Duration::from_millis(1);

/// Whether the container moves.
#[derive(Debug, Default)]
pub(crate) enum Pause {
    /// As nearly always.
    #[default]
    Moving,
    /// Not all of it stands still yet.
    Stopping {
        /// When that is given up.
        until: Option<Instant>,
    },
    /// It stands still.
    Still,
}

impl Pause {
    /// When [`Pause::follow`] must be called even if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Pause::Moving | Pause::Still => None,
            Pause::Stopping { .. } => in_time(LOOK),
        }
    }

    /// Does what those who are connected want; to be called after each turn of the event loop.
    pub(crate) fn follow(&mut self, hub: &mut Hub, cgroups: &[Directory]) {
        match (&self, hub.has_pausers()) {
            (Pause::Moving, false) => {}
            (Pause::Moving, true) => match cgroup::freeze(cgroups) {
                Ok(()) => {
                    *self = Pause::Stopping { until: in_time(PATIENCE) };
                    self.look(hub, cgroups);
                }
                Err(error) => self.give_up(hub, cgroups, &chain(&error)),
            },
            (Pause::Stopping { .. }, true) => self.look(hub, cgroups),
            (Pause::Still, true) => hub.paused(),
            (Pause::Stopping { .. } | Pause::Still, false) => self.end(hub, cgroups),
        }
    }

    fn look(&mut self, hub: &mut Hub, cgroups: &[Directory]) {
        let Pause::Stopping { until } = self else { return };
        match cgroup::is_frozen(cgroups) {
            Ok(true) => {
                *self = Pause::Still;
                hub.paused();
            }
            Ok(false) if until.is_none_or(|until| Instant::now() < until) => {}
            Ok(false) => self.give_up(hub, cgroups, "a process of it hangs in the kernel"),
            Err(error) => self.give_up(hub, cgroups, &chain(&error)),
        }
    }

    fn give_up(&mut self, hub: &mut Hub, cgroups: &[Directory], reason: &str) {
        let message = format!("the container cannot be paused: {reason}");
        tracing::warn!("{message}");
        hub.refuse_pausers(&WireError::new(ErrorCode::System, message));
        *self = Pause::Stopping { until: None };
        self.end(hub, cgroups);
    }

    /// Lets the container go on, and those who paused it know.
    pub(crate) fn end(&mut self, hub: &mut Hub, cgroups: &[Directory]) {
        if matches!(self, Pause::Moving) {
            return;
        }
        // First: nobody may trust in a pause that is over.
        hub.send_away_pausers();
        *self = Pause::Moving;
        let thaw = || cgroup::thaw(cgroups);
        // Once more: there are errors of the moment, and nobody else lets it go on while we live.
        if let Err(error) = thaw().or_else(|_: SysError| thaw()) {
            tracing::error!("a container stays paused: {}", chain(&error));
        }
    }
}
