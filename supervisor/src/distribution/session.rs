//! One conversation with one registry about one image.
//!
//! TLS always, but for a registry on this machine or one that the user said so of: there plain HTTP is spoken with what
//! does not speak TLS. Nobody gets credentials before he asked for them.

use std::{io, time::Duration};

use mysup_ipc::registry::Trust;
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    secrets::RegistryAuth,
};

use super::{
    certificates, credentials,
    error::{Error, causes, explain},
};

/// From the look-up of its name until it is connected.
const CONNECT: Duration = Duration::from_secs(10);
/// A registry that says nothing for so long is not waited for.
const SILENCE: Duration = Duration::from_secs(30);
/// Another number of seconds for both.
const DEADLINE: &str = "MYSUP_REGISTRY_TIMEOUT";
/// What registries see in their logs.
const AGENT: &str = concat!("mysup/", env!("CARGO_PKG_VERSION"));

/// The conversation.
pub(super) struct Session {
    /// The library's client.
    pub(super) client: Client,
    /// The image.
    pub(super) image: Reference,
    /// How we show who we are.
    pub(super) auth: RegistryAuth,
    /// Whether the registry gave us a token for that.
    pub(super) has_token: bool,
}

/// What is going to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Read.
    Pull,
    /// Write.
    Push,
}

/// Reads a name as it was typed.
///
/// # Errors
/// If it is none.
pub(super) fn reference(name: &str) -> Result<Reference, Error> {
    name.parse().map_err(|error: oci_client::ParseError| Error::Name {
        name: name.to_owned(),
        reason: error.to_string(),
    })
}

/// Seconds that a registry may say nothing.
pub(super) fn silence() -> Duration {
    let seconds =
        std::env::var(DEADLINE).ok().and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
    seconds.map_or(SILENCE, Duration::from_secs)
}

impl Session {
    /// Begins with the credentials that the user has for this registry.
    ///
    /// # Errors
    /// If the registry cannot be reached, is not who it should be, or refuses the credentials.
    pub(super) async fn open(image: Reference, trust: &Trust, purpose: Purpose) -> Result<Self, Error> {
        let auth = match credentials::find(image.registry(), image.repository())? {
            Some((user, secret)) => RegistryAuth::Basic(user, secret),
            None => RegistryAuth::Anonymous,
        };
        Self::open_as(image, auth, trust, purpose).await
    }

    /// Begins with these credentials.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub(super) async fn open_as(
        image: Reference,
        auth: RegistryAuth,
        trust: &Trust,
        purpose: Purpose,
    ) -> Result<Self, Error> {
        let host = image.registry().to_owned();
        let insecure = certificates::is_insecure(&host, trust);
        let may_be_plain = insecure || certificates::is_loopback(&host);
        let operation = match purpose {
            Purpose::Pull => RegistryOperation::Pull,
            Purpose::Push => RegistryOperation::Push,
        };
        let fault = |error| explain(&host, &image.whole(), user_of(&auth), error);
        let client = client(ClientProtocol::Https, insecure, &host, trust, purpose)?;
        let asked = within(&host, client.auth(&image, &auth, operation)).await?;
        let (client, token) = match asked {
            Err(OciDistributionError::RequestError(error)) if may_be_plain && speaks_no_tls(&error) => {
                let client = self::client(ClientProtocol::Http, insecure, &host, trust, purpose)?;
                let token = within(&host, client.auth(&image, &auth, operation)).await?.map_err(fault)?;
                (client, token)
            }
            asked => (client, asked.map_err(fault)?),
        };
        Ok(Self { client, image, auth, has_token: token.is_some() })
    }

    /// How the registry is called.
    pub(super) fn host(&self) -> &str {
        self.image.registry()
    }

    /// What went wrong with a request about the image.
    pub(super) fn fault(&self, error: OciDistributionError) -> Error {
        explain(self.host(), &self.image.whole(), user_of(&self.auth), error)
    }
}

/// Waits for an answer no longer than a registry may be silent, and a connection may take.
///
/// # Errors
/// If there was none.
pub(super) async fn within<T>(host: &str, work: impl Future<Output = T>) -> Result<T, Error> {
    tokio::time::timeout(silence() + CONNECT, work).await.map_err(|_elapsed| Error::Silent(host.to_owned()))
}

fn user_of(auth: &RegistryAuth) -> Option<&str> {
    match auth {
        RegistryAuth::Basic(user, _) => Some(user),
        RegistryAuth::Anonymous | RegistryAuth::Bearer(_) => None,
    }
}

fn client(
    protocol: ClientProtocol,
    insecure: bool,
    host: &str,
    trust: &Trust,
    purpose: Purpose,
) -> Result<Client, Error> {
    // The library panics on a system without certificates where it needs none; it says so where it does.
    if insecure && Client::try_from(ClientConfig::default()).is_err_and(|error| has_no_authorities(&error)) {
        return Err(Error::NoAuthorities);
    }
    let config = ClientConfig {
        protocol,
        accept_invalid_certificates: insecure,
        extra_root_certificates: certificates::of(host, trust)?,
        // The library's clock for an answer begins when the question does: that of an upload may be long.
        read_timeout: (purpose == Purpose::Pull).then(silence),
        connect_timeout: Some(CONNECT.min(silence())),
        use_monolithic_push: true,
        platform_resolver: None,
        user_agent: AGENT,
        ..ClientConfig::default()
    };
    Client::try_from(config).map_err(|error| match has_no_authorities(&error) {
        true => Error::NoAuthorities,
        false => explain(host, host, None, error),
    })
}

fn has_no_authorities(error: &OciDistributionError) -> bool {
    causes(error).any(|cause| cause.to_string().contains("No CA certificates"))
}

/// Whether what answered was no TLS at all, rather than one that is not to be trusted: other bytes, or nothing but the end.
fn speaks_no_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let other = cause.downcast_ref::<rustls::Error>();
        let ended = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(other, Some(rustls::Error::InvalidMessage(_)))
            || matches!(ended, Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset))
    })
}
