//! Requests of a client to the supervisor, and the answers. One answer to each request, in order.

use serde::{Deserialize, Serialize};

use crate::{
    commits::CommitRequest,
    container::{ContainerConfig, ContainerInfo},
    error::WireError,
    exit::ExitStatus,
    id::{ContainerId, Digest},
    images::{ImageRequest, ImageResponse},
    storage::{StorageRequest, StorageResponse},
};

crate::growing::growing!(ImageInfo, SupervisorInfo);

/// To the supervisor. A `container` is what the user typed: full id, exact name, or a unique prefix of an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Are you there, and who are you? → `Info`
    Info,
    /// Make a container. With `ImageSource::Archive` the open archive rides along. → `Created`
    Create(Box<ContainerConfig>),
    /// Make and start a container. Descriptors in this order: the archive (with `ImageSource::Archive`), then one
    /// end of a socket pair (with `attach`), which the shim serves as an attached client with `FromShim` frames
    /// from before the program's first byte. → `Created` when the program runs (or failed: `Error`)
    Run {
        /// What is to be run.
        config: Box<ContainerConfig>,
        /// A socket rides along.
        attach: bool,
    },
    /// Start a made or ended container; `attach` as in `Run` (its stdin is passed on only if `stdin`). → `Created`
    Start {
        /// Which.
        container: String,
        /// A socket rides along.
        attach: bool,
        /// The client gives input.
        stdin: bool,
    },
    /// Stop it: signal, then kill. Stopping a stopped one succeeds. → `Done` when it has ended and is torn down
    Stop {
        /// Which.
        container: String,
        /// Another signal than the container's.
        signal: Option<u8>,
        /// Seconds until it is killed; -1 waits for ever; `None` takes the container's.
        timeout: Option<i64>,
    },
    /// Stop and start. → `Done`
    Restart {
        /// Which.
        container: String,
        /// As in `Stop`.
        timeout: Option<i64>,
    },
    /// Send a signal to its init. → `Done`
    Kill {
        /// Which.
        container: String,
        /// Signal number.
        signal: u8,
    },
    /// Wait until it has ended (at once if it has). → `Exited`
    Wait {
        /// Which.
        container: String,
    },
    /// Remove it, record and log. → `Done` when name and id are free
    Remove {
        /// Which.
        container: String,
        /// Kill it first.
        force: bool,
        /// Remove its anonymous volumes too.
        volumes: bool,
    },
    /// Give it another name. → `Done`
    Rename {
        /// Which.
        container: String,
        /// The new name, checked by the supervisor.
        name: String,
    },
    /// All containers, newest first. → `Containers`
    List,
    /// One container. → `Containers` with one element
    Inspect {
        /// Which.
        container: String,
    },
    /// The processes of a running container. → `Processes`
    Top {
        /// Which.
        container: String,
    },
    /// Unpack a root file system tar (plain, gzip, zstd; by content) into an image. The open archive rides along;
    /// it may be a pipe. The client's hanging up cancels it. → `Image`
    Import {
        /// `name[:tag]`.
        name: Option<String>,
    },
    /// All images, newest first. → `Images`
    Images,
    /// Remove a name, and the image when it was the last one. → `Removed`
    RemoveImage {
        /// Name, id or prefix.
        image: String,
        /// Also when stopped containers use it, or it has more than one name.
        force: bool,
    },
    /// Finish: no new requests, then end. → `Done` just before the end
    Shutdown {
        /// Stop the containers first; otherwise they go on.
        containers: bool,
    },
    /// Do what is done at a start while running: try again what was left, take in what came to the disk meanwhile, empty the
    /// trash. → `Done` when that is under way
    Heal,
    /// About images. → `Image`, `Done` or `ImageAnswer`
    Image(ImageRequest),
    /// About volumes, and about the disk. → `Done` or `StorageAnswer`
    Storage(StorageRequest),
    /// About what a container has changed. → `Image` or `Done`
    Commit(CommitRequest),
    /// What a newer peer said and this version does not know. Never sent; new variants go before it.
    #[serde(skip)]
    Unknown,
}

/// From the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// It was done.
    Done,
    /// It was not.
    Error(WireError),
    /// A container was made (and started, if that was asked for).
    Created {
        /// Its id.
        id: ContainerId,
        /// Lines for the user's stderr.
        warnings: Vec<String>,
    },
    /// How it ended.
    Exited {
        /// How.
        status: ExitStatus,
        /// Why it could not be started, or why the status is unknown; empty otherwise.
        error: String,
    },
    /// Containers.
    Containers(Vec<ContainerInfo>),
    /// Processes on the host, the init first.
    Processes(Vec<u32>),
    /// One image.
    Image(ImageInfo),
    /// Images.
    Images(Vec<ImageInfo>),
    /// Lines as docker prints them: `Untagged: x`, `Deleted: sha256:...`.
    Removed(Vec<String>),
    /// The supervisor.
    Info(Box<SupervisorInfo>),
    /// About images.
    ImageAnswer(ImageResponse),
    /// About volumes, and about the disk.
    StorageAnswer(StorageResponse),
    /// What a newer peer said and this version does not know. Never sent; new variants go before it.
    #[serde(skip)]
    Unknown,
}

/// One image of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ImageInfo {
    /// Digest of its configuration.
    pub id: Digest,
    /// `name:tag` each; none is a dangling image.
    pub names: Vec<String>,
    /// When it was made, nanoseconds since 1970.
    pub created_at: u64,
    /// Bytes of its files.
    pub size: u64,
    /// Digests of its uncompressed layers, bottom first.
    pub layers: Vec<Digest>,
}

/// The supervisor and what it found on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct SupervisorInfo {
    /// Of the running supervisor.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started, nanoseconds since 1970.
    pub started_at: u64,
    /// State root.
    pub root: String,
    /// Run root.
    pub run_root: String,
    /// Storage drivers the kernel offers.
    pub storage_drivers: Vec<String>,
    /// `v1`, `v2` or `hybrid`.
    pub cgroup_version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Containers by state word.
    pub containers: Vec<(String, u32)>,
    /// Number of images.
    pub images: u32,
}
