//! What the supervisor asks a shim to make: everything resolved, plain data. The shim decides nothing about policy.

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;

crate::growing::growing!(
    ContainerPlan,
    RootfsPlan,
    MountPlan,
    VolumeMount,
    ProcessPlan,
    Limits,
    LogPlan,
    StopPlan,
    AttachPlan
);

/// One container, from its layers to its program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ContainerPlan {
    /// Names its cgroup and its directories.
    pub id: ContainerId,
    /// The container's directory below the state root, absolute. Exists, holds the locked-by-the-shim `lock` file.
    pub state_dir: String,
    /// The container's directory below the run root, absolute. Exists.
    pub run_dir: String,
    /// The trash of the same state root, absolute: what is removed is renamed here first.
    pub trash_dir: String,
    /// Directories that hold mysup's own data; no volume may be, contain or lie in one of them.
    pub own_roots: Vec<String>,
    /// What remains after the end.
    pub lifetime: Lifetime,
    /// The root file system.
    pub rootfs: RootfsPlan,
    /// Volumes and tmpfs mounts in any order; the shim sorts them by depth.
    pub mounts: Vec<MountPlan>,
    /// The container's name of itself (uts namespace and /etc/hostname).
    pub hostname: String,
    /// The program.
    pub process: ProcessPlan,
    /// Its network.
    pub network: Network,
    /// Full access: all devices, nothing masked, /sys and cgroups writable.
    pub privileged: bool,
    /// Its limits.
    pub limits: Limits,
    /// Bounds of its log.
    pub log: LogPlan,
    /// How it is asked to stop when nobody says otherwise.
    pub stop: StopPlan,
    /// What the connection on fd 1 of the shim is, if there is one.
    pub attach: Option<AttachPlan>,
}

/// What remains when the program has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetime {
    /// `--rm`: nothing, no record either.
    Nothing,
    /// The default: the record and the log; the write layer goes with the process.
    Record,
    /// `--keep`: the write layer too, until `rm`.
    WriteLayer,
}

/// The union of layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct RootfsPlan {
    /// How layers are joined.
    pub driver: StorageDriver,
    /// Read-only layer directories, absolute, top first.
    pub layers: Vec<String>,
    /// The program may not write to the root file system.
    pub read_only: bool,
}

/// How layers are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageDriver {
    /// overlayfs.
    Overlay,
    /// aufs, where the kernel has it.
    Aufs,
}

/// One mount below the root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct MountPlan {
    /// Absolute, without `.` and `..`; symbolic links are resolved inside the root.
    pub destination: String,
    /// Nothing may be written below it.
    pub read_only: bool,
    /// What is mounted there.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A directory or file of the host with all that is mounted below it.
    Bind {
        /// Absolute.
        path: String,
        /// `-v` makes a missing source directory, `--mount type=bind` refuses.
        create: bool,
    },
    /// Memory.
    Tmpfs {
        /// Bytes; half of the memory when absent.
        size: Option<u64>,
        /// Permission bits of its root.
        mode: u32,
        /// Programs may be executed from it.
        exec: bool,
    },
    /// A volume of mysup's own.
    Volume(VolumeMount),
}

impl MountPlan {
    /// The volume that it mounts.
    pub fn volume(&self) -> Option<&VolumeMount> {
        match &self.source {
            MountSource::Volume(volume) => Some(volume),
            MountSource::Bind { .. } | MountSource::Tmpfs { .. } => None,
        }
    }
}

/// A volume of mysup's own in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct VolumeMount {
    /// Its name; empty in what a client asks for: the supervisor makes one up.
    pub name: String,
    /// It was made for this container alone: `rm -v` and `--rm` remove it.
    pub anonymous: bool,
    /// The image's content is not copied into it at its first use.
    pub no_copy: bool,
    /// It is to be gone with its container, so nothing in it has to survive a power cut.
    #[serde(default)]
    pub ephemeral: bool,
    /// Its directory, absolute; in plans and in what is shown, not in records.
    #[serde(default)]
    pub directory: String,
}

/// The program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ProcessPlan {
    /// Program and arguments; at least one. A program without `/` is looked up in PATH inside the container.
    pub args: Vec<String>,
    /// `K=V` in order; HOME is added by the shim from the container's passwd file when absent.
    pub env: Vec<String>,
    /// Absolute; made when missing.
    pub cwd: String,
    /// `name|uid[:group|gid]` as typed; resolved by the shim in the container's own passwd and group files.
    pub user: String,
    /// A pty of this size.
    pub terminal: Option<TerminalSize>,
    /// Standard input stays open; otherwise it is empty.
    pub stdin: bool,
    /// Capability numbers the program keeps.
    pub capabilities: Vec<u8>,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// A reaper of ours stays PID 1.
    pub init: bool,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// One resource limit, setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// The number of the resource (RLIMIT_...).
    pub resource: u32,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// The container's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// A namespace of its own with nothing but a loopback interface that is up.
    None,
    /// The host's.
    Host,
}

/// Limits in the units of the command line; absent is unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together (docker's `--memory-swap`); -1 is unlimited swap.
    pub memory_swap: Option<i64>,
    /// Billionths of a processor (docker's NanoCpus).
    pub nano_cpus: Option<u64>,
    /// Relative weight, 2 to 262144, default 1024.
    pub cpu_shares: Option<u64>,
    /// Processors as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Number of tasks.
    pub pids: Option<u64>,
}

impl Limits {
    /// Nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Bounds of a container's log: at most `max_files` files of `max_size` bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct LogPlan {
    /// Bytes of one file, headers included.
    pub max_size: u64,
    /// Files, the current one included; at least 1.
    pub max_files: u32,
}

impl Default for LogPlan {
    /// 5 files of 20 MB, as docker's `local` driver.
    fn default() -> Self {
        Self { max_size: 20_000_000, max_files: 5 }
    }
}

/// How a container is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct StopPlan {
    /// Signal number.
    pub signal: u8,
    /// Milliseconds until it is killed; `None` waits for ever.
    pub grace_ms: Option<u64>,
}

/// What an attached client gets and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct AttachPlan {
    /// Its input goes to the program, and its end is the program's end of input.
    pub stdin: bool,
}
