//! `login` and `logout`: credentials are tried before they are kept.

use mysup_ipc::registry::Trust;
use oci_client::{Reference, errors::OciDistributionError, secrets::RegistryAuth};

use super::{
    credentials,
    error::{Error, explain},
    session::{Purpose, Session, within},
};

/// A repository that nobody has; registries with tokens give one for any, the others say no to the user before they look.
const NOWHERE: &str = "mysup/login";

/// Tries credentials and keeps them.
///
/// # Errors
/// If the registry refuses them or cannot be reached, or they cannot be kept.
pub(super) async fn login(server: &str, user: &str, secret: &str, trust: &Trust) -> Result<String, Error> {
    let host = if server.is_empty() { "docker.io" } else { server };
    let image = Reference::with_tag(host.to_owned(), NOWHERE.to_owned(), "latest".to_owned());
    let auth = RegistryAuth::Basic(user.to_owned(), secret.to_owned());
    let session = Session::open_as(image, auth, trust, Purpose::Pull).await?;
    if !session.has_token {
        // It wants the credentials with each request, or none at all.
        let asked = session.client.fetch_manifest_digest(&session.image, &session.auth);
        match within(host, asked).await? {
            Ok(_) | Err(OciDistributionError::RegistryError { .. }) => {}
            Err(OciDistributionError::ServerError { code: 403 | 404, .. }) => {}
            Err(error) => return Err(explain(host, host, Some(user), error)),
        }
    }
    let place = credentials::store(server, user, secret)?;
    Ok(format!("Login Succeeded (the credentials are in {place})"))
}

/// Forgets credentials.
///
/// # Errors
/// If they cannot be removed.
pub(super) fn logout(server: &str) -> Result<String, Error> {
    let host = if server.is_empty() { "docker.io" } else { server };
    match credentials::erase(server)? {
        true => Ok(format!("Removing login credentials for {host}")),
        false => Ok(format!("Not logged in to {host}")),
    }
}
