//! Where the daemon's trace goes: stderr, which is a service manager's journal or the file the starter chose.

use tracing_subscriber::EnvFilter;

/// The variable that chooses what is logged, as in `info` or `mysup=debug`.
pub(crate) const VARIABLE: &str = "MYSUP_LOG";

/// Installs the subscriber; without `MYSUP_LOG`, or with one that makes no sense, `info` and above are logged.
pub(crate) fn install() {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .finish();
    // Fails only if one is installed already, and then that one stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
