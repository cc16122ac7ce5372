//! The verbs about images.

use clap::{Args, Subcommand};

use super::registry::{PullArgs, PushArgs};

/// `image`.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// What is to be done.
    #[command(subcommand)]
    pub(crate) verb: ImageVerb,
}

/// What is to be done with images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    /// List images
    #[command(alias = "list")]
    Ls(ImagesArgs),
    /// Make an image from a root file system tar (plain, gzip or zstd)
    Import(ImportArgs),
    /// Load images from an archive or directory of docker's or OCI's form
    Load(LoadArgs),
    /// Write images into an archive or directory
    Save(SaveArgs),
    /// Get an image from a registry
    Pull(PullArgs),
    /// Bring an image to a registry
    Push(PushArgs),
    /// Give an image one more name
    Tag(TagArgs),
    /// Remove images
    #[command(alias = "remove")]
    Rm(RemoveImageArgs),
    /// Show everything about images
    Inspect(InspectImageArgs),
    /// Show how an image was made
    History(HistoryArgs),
    /// Remove images that nobody uses
    Prune(PruneArgs),
    /// Compare images with what came in: every file, its content and all about it
    Verify(VerifyArgs),
}

/// `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Change the configuration: an instruction of a Dockerfile (CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, ...)
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    pub(crate) changes: Vec<String>,
    /// Show nothing while it works
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Say something about it in its history
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// The archive; - is standard input
    pub(crate) file: String,
    /// Its name, with an optional tag
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
}

/// `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Archive (plain, gzip or zstd) or directory; - and nothing are standard input
    #[arg(short, long, value_name = "FILE|DIR", default_value = "-")]
    pub(crate) input: String,
    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// File, or new directory; - and nothing are standard output
    #[arg(short, long, value_name = "FILE|DIR", default_value = "-")]
    pub(crate) output: String,
    /// docker-archive, oci-archive or oci-dir
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive")]
    pub(crate) format: String,
    /// gzip, zstd or none; by default docker's archive is plain and OCI's layers are gzip
    #[arg(long, value_name = "COMPRESSION")]
    pub(crate) compress: Option<String>,
    /// Show nothing while it works
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Names or ids; a name without a tag is all tags of it
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

/// `tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Name or id
    pub(crate) image: String,
    /// The new name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: String,
}

/// `images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Accepted and of no effect: there are no hidden images
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show the digest of the manifest, too
    #[arg(long)]
    pub(crate) digests: bool,
    /// Show ids in full length
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show those that fit: dangling, reference, label, before, since
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// `table`, `table TEMPLATE`, `json` or a template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// A name, with `*` and `?`; without a tag it is all tags
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
}

/// `rmi`.
#[derive(Debug, Args)]
pub(crate) struct RemoveImageArgs {
    /// Also when stopped containers use it, or it has more than one name
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

/// `image inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectImageArgs {
    /// `json` or a template
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

/// `history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Show sizes and dates for people
    #[arg(short = 'H', long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) human: String,
    /// Show everything in full length
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// `table`, `table TEMPLATE`, `json` or a template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Name or id
    pub(crate) image: String,
}

/// `image prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Also images with a name
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// `image verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Print nothing about images that are whole
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Names or ids; none is all
    #[arg(value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}
