//! Where things are on disk: the names that supervisor and shim must agree on.
//!
//! ```text
//! ROOT/containers/<id>/       config.json (ephemeral.json)  exit  teardown  (doomed)  lock  log log.1 ...  upper/ work/ init/ stage/
//! ROOT/volumes/<name>/        volume.json  _data/  (fresh)  (_data.new/)
//! ROOT/trash/                 what is to be deleted is renamed here first
//! RUN_ROOT/containers/<id>/   shim.sock  journal  plan  start  init-status  (stop)  stdin stdout stderr  mnt/
//! ```

/// File in a container's state directory: what was asked for (JSON, written by the supervisor).
pub const CONFIG: &str = "config.json";
/// The same of a container that was started and leaves nothing (`--rm`). It is not synced, so a power cut may leave it
/// empty; its name alone says after a new boot that the container is to be gone. Where it is, it counts.
pub const EPHEMERAL_CONFIG: &str = "ephemeral.json";
/// File in a container's state directory: the exit record (one frame, written by the shim).
pub const EXIT: &str = "exit";
/// File in a container's state directory: the teardown report (one frame, written by the shim).
pub const TEARDOWN: &str = "teardown";
/// File in a container's state directory: it is being killed and removed (`rm -f`), and goes whatever dies meanwhile. What
/// stands in it, if anything, is [`DOOMED_WITH_VOLUMES`].
pub const DOOMED: &str = "doomed";
/// The anonymous volumes of a doomed container go with it.
pub const DOOMED_WITH_VOLUMES: &str = "volumes";
/// File in a container's state directory: its exclusive flock is held by the living shim, for its whole life.
pub const LOCK: &str = "lock";
/// File in a container's state directory: the current log; older ones are `log.1`, `log.2`, ...
pub const LOG: &str = "log";
/// Directory in a container's state directory: the write layer.
pub const WRITE_LAYER: &str = "upper";
/// Directory in a container's state directory: overlayfs' work directory of the write layer.
pub const WORK: &str = "work";
/// Directory in a container's state directory: the container-init layer.
pub const INIT_LAYER: &str = "init";
/// Directory in a container's state directory: overlayfs' work directory while the init layer is made.
pub const STAGE: &str = "stage";

/// File in a container's run directory: the shim's socket.
pub const SHIM_SOCKET: &str = "shim.sock";
/// File in a container's run directory: the undo journal.
pub const JOURNAL: &str = "journal";
/// File in a container's run directory: the plan (one frame), for a shim that adopts.
pub const PLAN: &str = "plan";
/// File in a container's run directory: with `--init`, what PID 1 saw of its program's end (see `init_status.rs`).
pub const INIT_STATUS: &str = "init-status";
/// File in a container's run directory: locked (flock) by the init until it has executed its program or ended. If it could
/// not execute it, the error number stands there (i32, little-endian), and behind it the name of the step that failed.
pub const START: &str = "start";
/// File in a container's run directory: the stop that is under way (see `stop.rs`), for a shim that adopts.
pub const STOP: &str = "stop";
/// Directory in a container's run directory: the mountpoint of its root file system, in the shim's mount namespace.
pub const MOUNTPOINT: &str = "mnt";
/// FIFO in a container's run directory: standard input of the program.
pub const STDIN: &str = "stdin";
/// FIFO in a container's run directory: standard output of the program.
pub const STDOUT: &str = "stdout";
/// FIFO in a container's run directory: standard error of the program.
pub const STDERR: &str = "stderr";

/// Directory below the state root that holds one directory for each volume.
pub const VOLUMES: &str = "volumes";
/// File in a volume's directory: what is known of it (written by the supervisor).
pub const VOLUME: &str = "volume.json";
/// Directory in a volume's directory: what containers see.
pub const VOLUME_DATA: &str = "_data";
/// Directory in a volume's directory: the image's content while it is being copied, under an exclusive flock of the
/// volume's directory. Without that lock it is rubbish.
pub const VOLUME_COPY: &str = "_data.new";
/// Empty file in a volume's directory, until a container has it for the first time: only then may content of an image
/// come into it.
pub const VOLUME_FRESH: &str = "fresh";

/// Directory below both roots that holds one directory for each container.
pub const CONTAINERS: &str = "containers";
/// Directory below the state root where things go to be deleted.
pub const TRASH: &str = "trash";
/// File in the run root: the supervisor's socket.
pub const SUPERVISOR_SOCKET: &str = "mysup.sock";

/// The directory that holds all containers' cgroups, below each hierarchy's root.
pub const CGROUP_PARENT: &str = "mysup";
