//! Who vouches for a registry, besides the system's own certificates: docker's and podman's directories, or one's own.

use std::{fs, io, path::PathBuf};

use mysup_ipc::registry::Trust;
use oci_client::client::{Certificate, CertificateEncoding};

use super::error::Error;

/// Directories with one directory for each `HOST[:PORT]`.
const PLACES: [&str; 2] = ["/etc/docker/certs.d", "/etc/containers/certs.d"];
/// Another place for them.
const PLACE: &str = "MYSUP_CERTS_DIR";
/// Registries of which any certificate is taken, and plain HTTP: `HOST[:PORT]`, separated by commas.
const INSECURE: &str = "MYSUP_INSECURE_REGISTRIES";
/// Bytes of a file; more are no certificates.
const LONGEST: u64 = 1 << 20;

/// The certificates for a registry.
///
/// # Errors
/// If the directory that was named is not there, or a file in one cannot be read.
pub(super) fn of(host: &str, trust: &Trust) -> Result<Vec<Certificate>, Error> {
    let named = trust.certificates.as_ref().map(PathBuf::from);
    let directories: Vec<PathBuf> = match (&named, std::env::var_os(PLACE)) {
        (Some(directory), _) => vec![directory.clone()],
        (None, Some(place)) => vec![PathBuf::from(place).join(host)],
        (None, None) => PLACES.iter().map(|place| PathBuf::from(place).join(host)).collect(),
    };
    let mut found = Vec::new();
    for directory in directories {
        let failed = |path: &PathBuf| {
            let path = path.display().to_string();
            move |source| Error::File { action: "read", path, source }
        };
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => continue,
            result => result.map_err(failed(&directory))?,
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "crt")) {
            let length = fs::metadata(path).map_err(failed(path))?.len();
            if length > LONGEST {
                let long = io::Error::new(io::ErrorKind::InvalidData, "it is too long for a certificate");
                return Err(failed(path)(long));
            }
            let data = fs::read(path).map_err(failed(path))?;
            found.push(Certificate { encoding: CertificateEncoding::Pem, data });
        }
    }
    Ok(found)
}

/// Whether the user has said that anybody is believed to be this registry.
pub(super) fn is_insecure(host: &str, trust: &Trust) -> bool {
    let listed = std::env::var(INSECURE).unwrap_or_default();
    trust.anybody || listed.split(',').any(|one| one.trim() == host)
}

/// Whether a registry is on this machine, so that nobody is between us.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_what_nobody_can_be_in_between() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:80", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["localhost.evil.example", "128.0.0.1:5000", "docker.io", "[::2]:5000", "127.0.0.1.nip.io"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
