//! The command line as it is typed: names and shapes of verbs and flags, text only. Nothing here touches the system;
//! `resolve.rs` and the verbs make sense of the texts.

pub(crate) mod commit;
pub(crate) mod container;
pub(crate) mod image;
pub(crate) mod parse;
pub(crate) mod registry;
pub(crate) mod storage;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use self::{
    commit::{CommitArgs, DiffArgs, ExportArgs},
    container::ContainerArgs,
    image::{HistoryArgs, ImageArgs, ImagesArgs, ImportArgs, LoadArgs, RemoveImageArgs, SaveArgs, TagArgs},
    registry::{LoginArgs, LogoutArgs, PullArgs, PushArgs},
    storage::{ContainersArgs, SystemArgs, VolumeArgs},
};

/// Containers that leave nothing behind
#[derive(Debug, Parser)]
#[command(name = "mysup", version, args_override_self = true, disable_help_subcommand = true)]
pub(crate) struct CommandLine {
    /// Where this instance is.
    #[command(flatten)]
    pub(crate) roots: RootArgs,
    /// What is to be done.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options before the verb.
#[derive(Debug, Args)]
pub(crate) struct RootArgs {
    /// State of this instance: images, containers
    #[arg(long, value_name = "DIR", env = "MYSUP_ROOT", default_value = "/var/lib/mysup")]
    pub(crate) root: PathBuf,
    /// Sockets and mountpoints of this instance, gone after a reboot
    #[arg(long, value_name = "DIR", env = "MYSUP_RUN_ROOT", default_value = "/run/mysup")]
    pub(crate) run_root: PathBuf,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a container and run a program in it
    #[command(disable_help_flag = true, override_usage = "mysup run [OPTIONS] IMAGE [COMMAND] [ARG...]")]
    Run(Box<RunArgs>),
    /// Make a container without starting it
    #[command(disable_help_flag = true, override_usage = "mysup create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
    Create(Box<ContainerArgs>),
    /// Start stopped containers; without a container, start the supervisor
    Start(StartArgs),
    /// Stop running containers
    Stop(StopArgs),
    /// Send a signal to running containers
    Kill(KillArgs),
    /// Stop containers and start them again
    Restart(RestartArgs),
    /// Wait until containers have ended and print their exit codes
    Wait(TargetArgs),
    /// Remove containers
    Rm(RemoveArgs),
    /// Give a container another name
    Rename(RenameArgs),
    /// List containers
    Ps(PsArgs),
    /// Show what a container printed
    Logs(LogsArgs),
    /// Show everything about containers
    Inspect(InspectArgs),
    /// Show the processes of a container
    #[command(override_usage = "mysup top CONTAINER [ps OPTIONS]")]
    Top(TopArgs),
    /// Make an image from a root file system tar (plain, gzip or zstd)
    Import(ImportArgs),
    /// List images
    Images(ImagesArgs),
    /// Remove images
    Rmi(RemoveImageArgs),
    /// Load images from an archive or directory of docker's or OCI's form
    Load(LoadArgs),
    /// Write images into an archive or directory
    Save(SaveArgs),
    /// Get an image from a registry
    Pull(PullArgs),
    /// Bring an image to a registry
    Push(PushArgs),
    /// Keep the credentials of a registry
    Login(LoginArgs),
    /// Forget the credentials of a registry
    Logout(LogoutArgs),
    /// Give an image one more name
    Tag(TagArgs),
    /// Show how an image was made
    History(HistoryArgs),
    /// Work with images
    Image(ImageArgs),
    /// Work with volumes
    Volume(VolumeArgs),
    /// Show what uses the disk, and remove what nobody uses
    System(SystemArgs),
    /// Work with containers
    Container(ContainersArgs),
    /// Make an image of what a container has changed
    Commit(CommitArgs),
    /// Write the file system of a container as a tar
    Export(ExportArgs),
    /// Show what a container has changed: A added, C changed, D deleted
    Diff(DiffArgs),
    /// Show the supervisor and what this machine offers
    Info(FormatArgs),
    /// Show versions of client and supervisor
    Version(FormatArgs),
    /// Find what is left that should not be there, and repair it
    Doctor(DoctorArgs),
    /// End the supervisor; containers go on
    Shutdown(ShutdownArgs),
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// The container.
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
}

/// `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Attach output, forward signals
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Attach input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Run the supervisor here instead of in the background
    #[arg(long)]
    pub(crate) foreground: bool,
    /// End a running supervisor first; its containers and their clients do not notice
    #[arg(long)]
    pub(crate) replace: bool,
    /// What images that come in may have, where that is other than usual: entries, name, depth, ratio and others
    #[arg(long, value_name = "NAME=N,...", env = "MYSUP_IMAGE_LIMITS")]
    pub(crate) image_limits: Option<String>,
    /// Ids or names; none starts the supervisor
    #[arg(value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// `stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Seconds until it is killed; -1 waits for ever
    #[arg(short = 't', long, alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) timeout: Option<String>,
    /// Signal to send instead of the container's
    #[arg(short, long, value_name = "SIGNAL")]
    pub(crate) signal: Option<String>,
    /// Ids or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// `kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Signal to send
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub(crate) signal: String,
    /// Ids or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// `restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// Seconds until it is killed; -1 waits for ever
    #[arg(short = 't', long, alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) timeout: Option<String>,
    /// Ids or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// Containers and nothing else.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Ids or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Kill a running one first
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove its anonymous volumes too
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// Ids or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// `rename`.
#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// Id or name
    pub(crate) container: String,
    /// The new name
    pub(crate) name: String,
}

/// `ps`.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Show those that do not run, too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show the newest one, in any state
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Show the N newest ones, in any state
    #[arg(short = 'n', long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) last: Option<i64>,
    /// Show everything in full length
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show those that fit: id, name, label, exited, status, ancestor, before, since, volume
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// `table`, `table TEMPLATE`, `json` or a template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show the last N lines only
    #[arg(short = 'n', long, value_name = "N|all", allow_hyphen_values = true)]
    pub(crate) tail: Option<String>,
    /// Show what is not older: RFC 3339, Unix time, or a duration like 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Show what is not newer: RFC 3339, Unix time, or a duration like 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Show the time of each line
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Id or name
    pub(crate) container: String,
}

/// `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// `json` or a template
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Ids or names
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
}

/// `top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Id or name, and options for the host's ps(1)
    #[arg(value_name = "CONTAINER", required = true, num_args = 1..)]
    pub(crate) words: Vec<String>,
}

/// `info` and `version`.
#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// `json` or a template
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Let the supervisor repair what it can, and wait for it
    #[arg(long)]
    pub(crate) fix: bool,
    /// `json`: an array of findings
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `shutdown`.
#[derive(Debug, Args)]
pub(crate) struct ShutdownArgs {
    /// Stop the containers first
    #[arg(long)]
    pub(crate) containers: bool,
}
