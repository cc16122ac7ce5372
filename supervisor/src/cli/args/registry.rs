//! The verbs that speak with registries.

use clap::Args;

/// `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Print nothing but the image's name
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Another kind of machine than this one
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// Whom to believe.
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    /// The image; without a registry it is docker's
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) name: String,
}

/// `push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Print nothing but the image's name
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Whom to believe.
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    /// The image, with the registry in its name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: String,
}

/// `login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// User
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password or token; others can see it in the list of processes
    #[arg(short, long, value_name = "WORD")]
    pub(crate) password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Whom to believe.
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    /// The registry; docker's if there is none
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}

/// `logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The registry; docker's if there is none
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}

/// Whom to believe that he is the registry.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TrustArgs {
    /// Certificates (*.crt) of the registry's authority, in place of /etc/docker/certs.d/HOST:PORT
    #[arg(long, value_name = "DIR")]
    pub(crate) cert_dir: Option<String>,
    /// With =false take any certificate, and plain HTTP
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) tls_verify: Option<String>,
}
