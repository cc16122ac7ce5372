//! How a link to a shim begins.

use std::os::fd::OwnedFd;

use mysup_ipc::{error::WireError, exit::ExitReport, plan::ContainerPlan};

/// How a link begins.
pub(crate) enum Entry {
    /// Start the container.
    Launch(Launch),
    /// A shim lives that another supervisor started.
    Reconnect,
    /// A shim that died left something.
    TearDown {
        /// How the container ended, where that is known already.
        ending: Option<ExitReport>,
    },
}

/// What is needed to start a container.
pub(crate) struct Launch {
    /// Makes directories and records; runs on a thread that may block.
    pub(crate) prepare: Box<dyn FnOnce() -> Result<(), WireError> + Send>,
    /// What the shim is to make.
    pub(crate) plan: Box<ContainerPlan>,
    /// The attached client's socket.
    pub(crate) attach: Option<OwnedFd>,
}
