//! Why an order could not be done: one line for the user that names the registry and says what to do.

use std::{error::Error as StdError, io};

use mysup_ipc::id::Digest;
use oci_client::errors::{OciDistributionError, OciErrorCode};

/// Why not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The client ended.
    #[error("the client is gone")]
    Gone,
    /// The client said something else than it should.
    #[error("mysup and mysup-registry do not understand each other: install both of the same version")]
    Order,
    /// The connection to the client, or this program itself.
    #[error("mysup-registry cannot work: {0}")]
    Peer(#[source] io::Error),
    /// The name is none.
    #[error("invalid reference format: \"{name}\": {reason}")]
    Name {
        /// As typed.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be reached, or breaks off.
    #[error("registry {host}: {reason}")]
    Transport {
        /// Whom we spoke with.
        host: String,
        /// What happened.
        reason: String,
    },
    /// Nobody vouches for anybody.
    #[error("this machine has no certificates of authorities: install ca-certificates")]
    NoAuthorities,
    /// It is there and says nothing.
    #[error("registry {0} does not answer")]
    Silent(String),
    /// It wants credentials that we have not.
    #[error("registry {0} wants credentials: see 'mysup login {0}'")]
    NoCredentials(String),
    /// It does not take those that we have.
    #[error("registry {host} refuses the credentials of \"{user}\": see 'mysup login {host}'")]
    WrongCredentials {
        /// Which registry.
        host: String,
        /// Whose.
        user: String,
    },
    /// There is no such image, or we may not know.
    #[error("registry {host} has no image \"{name}\", or does not show it to you")]
    NotFound {
        /// Which registry.
        host: String,
        /// What was asked for.
        name: String,
    },
    /// It said no, and why.
    #[error("registry {host} refuses: {reason}")]
    Refused {
        /// Which registry.
        host: String,
        /// Its words.
        reason: String,
    },
    /// Something else came than was announced.
    #[error("registry {host}: what it sent for {expected} has the digest {found}, and is refused")]
    Digest {
        /// Which registry.
        host: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A document that is none.
    #[error("registry {host}: {subject}: {reason}")]
    Document {
        /// Which registry.
        host: String,
        /// Of what.
        subject: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not for the machine that was asked for.
    #[error("{name} has no image for {wanted}: there is {found}; see --platform")]
    Platform {
        /// The image.
        name: String,
        /// `OS/ARCH[/VARIANT]`.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// A file.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// A verb.
        action: &'static str,
        /// Which.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A credential helper.
    #[error("credential helper {program}: {reason}")]
    Helper {
        /// `docker-credential-...`.
        program: String,
        /// What happened.
        reason: String,
    },
}

impl Error {
    /// Whether another try may help: the connection, or the registry's own trouble.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Error::Transport { .. } | Error::Silent(_))
    }
}

/// What the client library says, in our words.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enums: what is new in them is told in its own words"
)]
pub(super) fn explain(host: &str, subject: &str, user: Option<&str>, error: OciDistributionError) -> Error {
    let host = host.to_owned();
    let refused = |reason: String| Error::Refused { host: host.clone(), reason: one_line(&reason) };
    let credentials = || match user {
        Some(user) => Error::WrongCredentials { host: host.clone(), user: user.to_owned() },
        None => Error::NoCredentials(host.clone()),
    };
    match error {
        OciDistributionError::UnauthorizedError { .. } => credentials(),
        OciDistributionError::AuthenticationFailure(_) => credentials(),
        OciDistributionError::ServerError { code: 401, .. } => credentials(),
        OciDistributionError::ServerError { code: 404, .. } => {
            Error::NotFound { host, name: subject.to_owned() }
        }
        OciDistributionError::ServerError { code: code @ (429 | 500..=599), .. } => {
            Error::Transport { host, reason: format!("HTTP status {code}") }
        }
        OciDistributionError::ServerError { code, message, .. } => {
            refused(format!("HTTP status {code} {message}"))
        }
        OciDistributionError::RegistryError { envelope, .. } => match envelope.errors.first() {
            Some(first) => match first.code {
                OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound => {
                    Error::NotFound { host, name: subject.to_owned() }
                }
                OciErrorCode::Unauthorized => credentials(),
                OciErrorCode::Toomanyrequests => {
                    Error::Transport { host, reason: "it has too many requests".to_owned() }
                }
                _ => refused(if first.message.is_empty() {
                    format!("{:?}", first.code)
                } else {
                    first.message.clone()
                }),
            },
            None => refused("it does not say why".to_owned()),
        },
        OciDistributionError::RequestError(error) if error.is_timeout() => Error::Silent(host),
        OciDistributionError::RequestError(error)
            if error.status().is_some_and(|status| status.as_u16() == 401) =>
        {
            credentials()
        }
        OciDistributionError::RequestError(error) => {
            let status = error.status().map(|status| status.as_u16());
            broken(host, &error, status)
        }
        OciDistributionError::IoError(error) => Error::Transport { host, reason: innermost(&error) },
        OciDistributionError::DigestError(error) => {
            Error::Document { host, subject: subject.to_owned(), reason: error.to_string() }
        }
        other => Error::Document { host, subject: subject.to_owned(), reason: one_line(&innermost(&other)) },
    }
}

/// The connection failed, or its request; `error` is the library's.
fn broken(host: String, error: &(dyn StdError + 'static), status: Option<u16>) -> Error {
    match status {
        Some(code @ (429 | 500..=599)) => {
            return Error::Transport { host, reason: format!("HTTP status {code}") };
        }
        Some(code) => return Error::Refused { host, reason: format!("HTTP status {code}") },
        None => {}
    }
    let reason = innermost(error);
    let reason = match reason.contains("no records found") || reason.contains("NXDomain") {
        true => "there is no such host (DNS)".to_owned(),
        false => reason,
    };
    Error::Transport { host, reason }
}

/// All causes, also those that an `io::Error` wraps and does not own up to.
pub(super) fn causes<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match wrapped {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

/// What was at the beginning of it.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    one_line(&causes(error).last().map_or_else(|| error.to_string(), ToString::to_string))
}

/// A stranger's words: one line, not too long, nothing that moves a cursor.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(char::is_whitespace).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().filter(|letter| !letter.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_words_are_one_short_line() {
        let text = format!("a\n\tb\u{1b}[2J {}", "x".repeat(1000));
        let line = one_line(&text);
        assert!(line.starts_with("a b[2J x") && line.chars().count() == 300, "{line}");
    }
}
