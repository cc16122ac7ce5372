//! The verbs about volumes, and about what uses the disk.

use clap::{Args, Subcommand};

/// `volume`.
#[derive(Debug, Args)]
pub(crate) struct VolumeArgs {
    /// What is to be done.
    #[command(subcommand)]
    pub(crate) verb: VolumeVerb,
}

/// What is to be done with volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeVerb {
    /// Make a volume
    Create(CreateVolumeArgs),
    /// List volumes
    #[command(alias = "list")]
    Ls(ListVolumesArgs),
    /// Show everything about volumes
    Inspect(InspectVolumeArgs),
    /// Remove volumes that no container has
    #[command(alias = "remove")]
    Rm(RemoveVolumesArgs),
    /// Remove anonymous volumes that no container has
    Prune(PruneVolumesArgs),
}

/// `volume create`.
#[derive(Debug, Args)]
pub(crate) struct CreateVolumeArgs {
    /// Only local is there
    #[arg(short, long, value_name = "DRIVER", default_value = "local", hide_default_value = true)]
    pub(crate) driver: String,
    /// Set a label
    #[arg(long = "label", value_name = "K[=V]")]
    pub(crate) labels: Vec<String>,
    /// Its name; one is made up when absent
    pub(crate) name: Option<String>,
}

/// `volume ls`.
#[derive(Debug, Args)]
pub(crate) struct ListVolumesArgs {
    /// Show names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show those that fit: dangling, driver, label, name
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// `table`, `table TEMPLATE`, `json` or a template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `volume inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectVolumeArgs {
    /// `json` or a template
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Names
    #[arg(value_name = "VOLUME", required = true)]
    pub(crate) volumes: Vec<String>,
}

/// `volume rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveVolumesArgs {
    /// One that is not there is no error
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names
    #[arg(value_name = "VOLUME", required = true)]
    pub(crate) volumes: Vec<String>,
}

/// `volume prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneVolumesArgs {
    /// Also volumes with a name
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove those that fit: label, label!
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
}

/// `system`.
#[derive(Debug, Args)]
pub(crate) struct SystemArgs {
    /// What is to be done.
    #[command(subcommand)]
    pub(crate) verb: SystemVerb,
}

/// What is to be done with all of it.
#[derive(Debug, Subcommand)]
pub(crate) enum SystemVerb {
    /// Show what uses the disk
    Df(DiskUsageArgs),
    /// Remove what nobody uses
    Prune(PruneSystemArgs),
}

/// `system df`.
#[derive(Debug, Args)]
pub(crate) struct DiskUsageArgs {
    /// Show each image, container and volume
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// `table`, `table TEMPLATE`, `json` or a template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `system prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneSystemArgs {
    /// All images without a container, not only those without a name
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Anonymous volumes, too
    #[arg(long)]
    pub(crate) volumes: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove containers and volumes that fit: label, label!, until (containers)
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
}

/// `container`.
#[derive(Debug, Args)]
pub(crate) struct ContainersArgs {
    /// What is to be done.
    #[command(subcommand)]
    pub(crate) verb: ContainersVerb,
}

/// What is to be done with containers.
#[derive(Debug, Subcommand)]
pub(crate) enum ContainersVerb {
    /// Remove containers that do not run
    Prune(PruneContainersArgs),
}

/// `container prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneContainersArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove those that fit: label, label!, until
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
}
