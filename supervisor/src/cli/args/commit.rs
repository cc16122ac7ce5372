//! The verbs about what a container has changed.

use clap::{ArgAction, Args};

use super::parse::boolean;

/// `commit`.
#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    /// Say who made it
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) author: String,
    /// Say something about it in its history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) message: String,
    /// Change the configuration: an instruction of a Dockerfile (CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, ...)
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    pub(crate) changes: Vec<String>,
    /// A running container stands still meanwhile, so that the image is one instant of it
    #[arg(
        short,
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value = "true",
        value_name = "true|false",
        value_parser = boolean,
    )]
    pub(crate) pause: bool,
    /// It goes on meanwhile, as with --pause=false
    #[arg(long)]
    pub(crate) no_pause: bool,
    /// Show nothing while it works
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write its whole file system into this tar instead of making an image; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<String>,
    /// Id or name
    pub(crate) container: String,
    /// The name of the image, with an optional tag
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
}

/// `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// File; - and nothing are standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) output: String,
    /// Id or name
    pub(crate) container: String,
}

/// `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Id or name
    pub(crate) container: String,
}
