//! The flags of `run` and `create`, with docker's names and this project's short ones.

use std::path::PathBuf;

use clap::{ArgAction, Args};

/// A container to be made, as typed.
#[derive(Debug, Args)]
pub(crate) struct ContainerArgs {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Its name; one is made up when absent
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Remove it with all it had when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// Keep its write layer until it is removed
    #[arg(long)]
    pub(crate) keep: bool,
    /// When to pull the image: always, missing or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub(crate) pull: String,
    /// A directory of the host as read-only root file system, in place of IMAGE
    #[arg(long, value_name = "DIR")]
    pub(crate) rootfs: Option<String>,
    /// Write its id to a new file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Mount a directory or file of the host (a missing directory is made), or a volume by its name; DST alone is a volume
    /// without a name
    #[arg(short, long = "volume", value_name = "[SRC|NAME:]DST[:ro,nocopy]")]
    pub(crate) volumes: Vec<String>,
    /// Mount by keys: type=volume|bind|tmpfs, source, target, readonly, volume-nocopy, tmpfs-size, tmpfs-mode
    #[arg(long = "mount", value_name = "KEY=VALUE,...")]
    pub(crate) mounts: Vec<String>,
    /// Mount what another container has mounted, where nothing else is
    #[arg(long, value_name = "CONTAINER[:ro|rw]")]
    pub(crate) volumes_from: Vec<String>,
    /// Mount memory
    #[arg(long, value_name = "DST[:size=N,mode=N,exec,ro]")]
    pub(crate) tmpfs: Vec<String>,
    /// Mount the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Set a variable; K alone takes the caller's value
    #[arg(short, long, value_name = "K[=V]")]
    pub(crate) env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Program that replaces the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Run a small init as PID 1 that reaps processes and passes signals on
    #[arg(long)]
    pub(crate) init: bool,
    /// Signal that asks it to stop
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Seconds until it is killed; -1 waits for ever
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) stop_timeout: Option<String>,
    /// Set a label
    #[arg(short, long = "label", value_name = "K[=V]")]
    pub(crate) labels: Vec<String>,
    /// Limit of memory
    #[arg(short, long, visible_alias = "mem", value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Limit of memory and swap together; -1 is unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Limit of processors
    #[arg(long, value_name = "DECIMAL")]
    pub(crate) cpus: Option<String>,
    /// Relative weight of processor time, 2 to 262144
    #[arg(short = 'c', long, visible_alias = "cpushare", value_name = "N")]
    pub(crate) cpu_shares: Option<String>,
    /// Processors it may use, like 0-2,4
    #[arg(long, visible_alias = "cpuset", value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Limit of processes and threads; -1 is unlimited
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<String>,
    /// Resource limit
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimits: Vec<String>,
    /// Add a capability
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_drop: Vec<String>,
    /// Full access to the host's devices and kernel interfaces
    #[arg(long)]
    pub(crate) privileged: bool,
    /// no-new-privileges
    #[arg(long = "security-opt", value_name = "OPTION")]
    pub(crate) security_options: Vec<String>,
    /// none or host
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    /// overlay or aufs
    #[arg(long, value_name = "DRIVER")]
    pub(crate) storage_driver: Option<String>,
    /// max-size=BYTES of one log file, max-file=N
    #[arg(long = "log-opt", value_name = "KEY=VALUE")]
    pub(crate) log_options: Vec<String>,
    /// Image and command
    #[arg(value_name = "IMAGE", num_args = 0..)]
    pub(crate) words: Vec<String>,
}
