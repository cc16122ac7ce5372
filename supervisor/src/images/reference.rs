//! Names of images as docker has them: `[host[:port]/]part[/part...][:tag]`.

use mysup_ipc::id::Digest;

use super::error::{ImageError, NameFault};

/// Characters of a repository.
const LONGEST: usize = 255;
/// Characters of a tag.
const LONGEST_TAG: usize = 128;

/// A name with its tag, which is `latest` if there is none.
///
/// # Errors
/// If it is not one that docker would take.
pub(super) fn parse(name: &str) -> Result<String, ImageError> {
    let fault = |fault| ImageError::Name { name: name.to_owned(), fault };
    let (repository, tag) = split(name);
    match repository.len() {
        0 => return Err(fault(NameFault::Empty)),
        1..=LONGEST => {}
        _ => return Err(fault(NameFault::Long)),
    }
    if repository.len() == 64 && repository.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(fault(NameFault::Digits));
    }
    let parts: Vec<&str> = repository.split('/').collect();
    let parts = match parts.as_slice() {
        [host, rest @ ..] if !rest.is_empty() && is_host(host) => rest,
        all => all,
    };
    if !parts.iter().all(|part| is_part(part)) {
        return Err(fault(NameFault::Repository));
    }
    let tag = tag.unwrap_or("latest");
    if !is_tag(tag) {
        return Err(fault(NameFault::Tag));
    }
    Ok(format!("{}:{tag}", familiar(repository)))
}

/// As [`parse`], or with a digest in place of the tag: a name that only what came from a registry has.
///
/// # Errors
/// If it is none.
pub(super) fn parse_any(name: &str) -> Result<String, ImageError> {
    let Some((named, digest)) = name.split_once('@') else { return parse(name) };
    let fault = |fault| ImageError::Name { name: name.to_owned(), fault };
    let digest: Digest = digest.parse().map_err(|_fault| fault(NameFault::Digest))?;
    let named = parse(named)?;
    let repository = named.rsplit_once(':').map_or(named.as_str(), |(repository, _)| repository);
    Ok(format!("{repository}@{digest}"))
}

/// docker leaves out its own registry, and the directory of its official images in it.
fn familiar(repository: &str) -> &str {
    let hosts = ["docker.io/", "index.docker.io/", "registry-1.docker.io/"];
    let own = hosts.iter().find_map(|host| repository.strip_prefix(host)).filter(|rest| !rest.is_empty());
    match own {
        // What is left could be taken for a host.
        Some(rest) if rest.split_once('/').is_some_and(|(first, _)| is_host(first)) => repository,
        Some(rest) => rest.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(rest),
        None => repository,
    }
}

/// The name with the registry and directory that docker leaves out, as other tools want it.
pub(super) fn with_host(name: &str) -> String {
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((first, _)) if is_host(first) => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}

/// Whether a name is one of a digest, which no archive can have.
pub(super) fn is_digest(name: &str) -> bool {
    name.contains('@')
}

/// Whether a tag was typed.
pub(super) fn has_tag(name: &str) -> bool {
    split(name).1.is_some()
}

/// Repository and tag; a colon before a slash is a host's port.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

/// What comes before the first slash is a host if it looks like one.
fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let looks_like_one = text.contains(['.', ':']) || text == "localhost";
    let is_label = |label: &str| {
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        edge(label.bytes().next())
            && edge(label.bytes().last())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    looks_like_one
        && host.split('.').all(is_label)
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lower-case letters and digits, in between `.`, `_`, `__` or any number of `-`.
fn is_part(part: &str) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let edges = bytes.first().is_some_and(is_letter) && bytes.last().is_some_and(is_letter);
    edges
        && bytes.split(is_letter).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= LONGEST_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_own_registry_is_left_out_and_put_back() {
        for (typed, name, whole) in [
            ("docker.io/library/bb", "bb:latest", "docker.io/library/bb:latest"),
            ("docker.io/me/bb:1", "me/bb:1", "docker.io/me/bb:1"),
            ("docker.io/library/a/b", "library/a/b:latest", "docker.io/library/a/b:latest"),
            ("docker.io/bb", "bb:latest", "docker.io/library/bb:latest"),
            ("localhost/bb", "localhost/bb:latest", "localhost/bb:latest"),
            ("quay.io:443/a/b:c", "quay.io:443/a/b:c", "quay.io:443/a/b:c"),
            ("docker.io/quay.io/x", "docker.io/quay.io/x:latest", "docker.io/quay.io/x:latest"),
        ] {
            assert_eq!(parse(typed).expect(typed), name);
            assert_eq!(with_host(name), whole);
        }
        assert!(has_tag("a:1") && !has_tag("host:5/a"));
    }

    #[test]
    fn names_follow_docker() {
        for (typed, name) in [
            ("bb", "bb:latest"),
            ("bb:1.36-r0", "bb:1.36-r0"),
            ("a/b__c/d--e:X_y", "a/b__c/d--e:X_y"),
            ("localhost:5000/bb", "localhost:5000/bb:latest"),
            ("Registry.example/bb:v1", "Registry.example/bb:v1"),
        ] {
            assert_eq!(parse(typed).expect(typed), name);
        }
        let digest = format!("sha256:{}", "0".repeat(64));
        for name in ["bb", "bb:1", "docker.io/library/bb:2"] {
            let typed = format!("{name}@{digest}");
            assert_eq!(parse_any(&typed).expect(name), format!("bb@{digest}"));
            assert!(parse(&typed).is_err(), "nobody may give a name of a digest");
        }
        assert!(parse_any("bb@sha256:0").is_err() && parse_any(&format!("@{digest}")).is_err());
        let digits = "a".repeat(64);
        for bad in [
            "",
            ":tag",
            "BB",
            "a//b",
            "/a",
            "a/",
            "../etc",
            "a..b",
            "a___b",
            "a:",
            "a:.t",
            "a:b:c",
            "a b",
            "a@b",
            "ä",
            &digits,
            &"a".repeat(256),
            &format!("a:{}", "t".repeat(129)),
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
