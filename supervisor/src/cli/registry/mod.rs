//! The verbs that speak with registries: the client starts `mysup-registry`, which has the network, and takes what it brings
//! to the supervisor, or the other way round.
//!
//! What is under way lies in a file without a name: when client or machine die, it is gone.

mod credentials;
mod program;
mod pull;
mod push;
mod spool;

use mysup_ipc::registry::Trust;

pub(crate) use self::{
    credentials::{login, logout},
    pull::{Policy, always, missing, policy, pull},
    push::push,
};
use super::{args::registry::TrustArgs, error::CliError, values::Invalid};

/// Whom to believe, from the flags.
fn trust(args: &TrustArgs) -> Result<Trust, CliError> {
    let anybody = match args.tls_verify.as_deref() {
        None | Some("true" | "1") => false,
        Some("false" | "0") => true,
        Some(other) => {
            let reason = Invalid::new(format!("invalid value \"{other}\": true or false is allowed"));
            return Err(CliError::Flag { flag: "--tls-verify", reason });
        }
    };
    let absolute = |path: &String| {
        let path = std::path::absolute(path);
        path.map(|path| path.to_string_lossy().into_owned())
            .map_err(|source| CliError::Call { action: "find the working directory", source })
    };
    Ok(Trust { certificates: args.cert_dir.as_ref().map(absolute).transpose()?, anybody })
}

/// Repository and tag or digest of a name as it was typed.
fn split(name: &str) -> (&str, Option<&str>) {
    if let Some((repository, digest)) = name.split_once('@') {
        return (repository, Some(digest));
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}
