//! A container as the user sees it: what was asked for, and what is shown.

use serde::{Deserialize, Serialize};

use crate::{
    exit::ExitReport,
    id::{ContainerId, ContainerName, Digest},
    plan::{Limits, LogPlan, MountPlan, Network, Rlimit, StorageDriver, TerminalSize},
    teardown::TeardownReport,
};

crate::growing::growing!(ContainerConfig, ContainerInfo);

/// What a user asks for with `run` or `create`. Also kept on disk, as JSON: new fields need `#[serde(default)]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ContainerConfig {
    /// `--name`.
    pub name: Option<ContainerName>,
    /// The image.
    pub image: ImageSource,
    /// CMD... after the image; replaces the image's.
    pub command: Vec<String>,
    /// `--entrypoint`; `Some(vec![])` clears the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `-e` and `--env-file` merged in order, `K=V` each.
    pub env: Vec<String>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `-u`.
    pub user: Option<String>,
    /// `-h`; the short id when absent.
    pub hostname: Option<String>,
    /// `-t`, with the client's size.
    pub terminal: Option<TerminalSize>,
    /// `-i`.
    pub interactive: bool,
    /// `--rm`.
    pub remove: bool,
    /// `--keep`, or made by `create`.
    pub keep: bool,
    /// `--init`.
    pub init: bool,
    /// `-v`, `--mount`, `--tmpfs`.
    pub mounts: Vec<MountPlan>,
    /// `--read-only`.
    pub read_only: bool,
    /// `--network`.
    pub network: Network,
    /// `--storage-driver`.
    pub storage_driver: StorageDriver,
    /// `--privileged`.
    pub privileged: bool,
    /// `--cap-add`, upper case without `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--security-opt no-new-privileges`.
    pub no_new_privileges: bool,
    /// `--memory` and its like.
    pub limits: Limits,
    /// `--ulimit`.
    pub rlimits: Vec<Rlimit>,
    /// `--label`, in order.
    pub labels: Vec<(String, String)>,
    /// `--stop-signal`, a number.
    pub stop_signal: Option<u8>,
    /// `--stop-timeout` in seconds; -1 waits for ever.
    pub stop_timeout: Option<i64>,
    /// `--log-opt max-size`, `max-file`.
    pub log: LogPlan,
}

/// What a container is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageSource {
    /// An image of the store: name, name:tag, id or prefix of an id.
    Named(String),
    /// A root file system tar at this path as typed; its open descriptor rides with the request.
    Archive(String),
    /// `--rootfs`: a directory of the host, absolute, used read-only.
    Directory(String),
}

impl ImageSource {
    /// As shown in `ps`.
    pub fn label(&self) -> &str {
        match self {
            ImageSource::Named(text) | ImageSource::Archive(text) | ImageSource::Directory(text) => text,
        }
    }
}

/// Where a container is in its life; the words of docker's `State.Status` and mysup's two more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Never started, or its start failed (the exit report then has the error).
    Created,
    /// A shim is making it.
    Starting,
    /// The program runs.
    Running {
        /// Its init on the host.
        pid: u32,
        /// Nanoseconds since 1970.
        since: u64,
    },
    /// A stop is under way.
    Stopping {
        /// Its init on the host.
        pid: u32,
        /// When it was started, nanoseconds since 1970.
        since: u64,
    },
    /// It ended and its teardown is under way.
    TearingDown,
    /// It ended and nothing is left of it but what was to be kept.
    Exited,
    /// Its teardown is not finished; the report says why.
    Leftover,
    /// Its shim does not answer.
    Unreachable,
    /// Its record on disk cannot be read; the text says why. It can only be removed.
    Damaged(String),
}

impl ContainerState {
    /// docker's word for it.
    pub fn word(&self) -> &'static str {
        match self {
            ContainerState::Created | ContainerState::Starting => "created",
            ContainerState::Running { .. } | ContainerState::Stopping { .. } => "running",
            ContainerState::TearingDown => "removing",
            ContainerState::Exited => "exited",
            ContainerState::Leftover => "leftover",
            ContainerState::Unreachable => "unreachable",
            ContainerState::Damaged(_) => "dead",
        }
    }

    /// Whether its program may be alive.
    pub fn is_running(&self) -> bool {
        matches!(
            self,
            ContainerState::Running { .. } | ContainerState::Stopping { .. } | ContainerState::Unreachable
        )
    }

    /// The init's pid while it runs.
    pub fn pid(&self) -> Option<u32> {
        match self {
            ContainerState::Running { pid, .. } | ContainerState::Stopping { pid, .. } => Some(*pid),
            ContainerState::Created
            | ContainerState::Starting
            | ContainerState::TearingDown
            | ContainerState::Exited
            | ContainerState::Leftover
            | ContainerState::Unreachable
            | ContainerState::Damaged(_) => None,
        }
    }
}

/// Everything about one container: the answer to `List` (one each) and `Inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ContainerInfo {
    /// Its id.
    pub id: ContainerId,
    /// Its name; a damaged record has none.
    pub name: Option<ContainerName>,
    /// When it was made, nanoseconds since 1970.
    pub created_at: u64,
    /// What was asked for; `None` if the record is damaged.
    pub config: Option<ContainerConfig>,
    /// The image it was made from; `None` with `--rootfs`.
    pub image: Option<Digest>,
    /// Program and arguments after image and command line were merged.
    pub args: Vec<String>,
    /// Environment after image and command line were merged.
    pub env: Vec<String>,
    /// Working directory after image and command line were merged.
    pub workdir: String,
    /// Where it is.
    pub state: ContainerState,
    /// How it last ended, or why it could not be started.
    pub exit: Option<ExitReport>,
    /// Its last teardown.
    pub teardown: Option<TeardownReport>,
    /// Its state directory, absolute: log files are in it.
    pub state_dir: String,
    /// Its run directory, absolute: the shim's socket is in it.
    pub run_dir: String,
}
