//! Credentials of registries, where docker keeps them: `config.json`, with its credential helpers; what podman keeps is
//! read, too.
//!
//! Everything else in the file stays as it is.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{error::Error, keychain};

/// docker's own registry, in its own files.
const DOCKER: &str = "https://index.docker.io/v1/";
/// The user's name when the secret is a token for another one.
const TOKEN_USER: &str = "<token>";

/// How a registry is called in files and by helpers.
pub(super) fn key(server: &str) -> String {
    match hostname(server) {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER.to_owned(),
        host => host.to_owned(),
    }
}

/// User and secret for a repository of a registry.
///
/// # Errors
/// If a file cannot be read, or a helper fails.
pub(super) fn find(server: &str, repository: &str) -> Result<Option<(String, String)>, Error> {
    let key = key(server);
    let config = read(&docker_file())?;
    if let Some(helper) = helper_for(&config, &key) {
        return keychain::get(&helper, &key)?.map(|found| usable(server, found)).transpose();
    }
    let podman = podman_file().map(|path| read(&path)).transpose()?.unwrap_or_default();
    [&config, &podman]
        .iter()
        .find_map(|file| in_file(file, &key, repository))
        .map_or(Ok(None), |found| usable(server, found).map(Some))
}

/// Keeps credentials; gives where.
///
/// # Errors
/// If the file cannot be written, or a helper fails.
pub(super) fn store(server: &str, user: &str, secret: &str) -> Result<String, Error> {
    let (path, key) = (docker_file(), key(server));
    let mut config = read(&path)?;
    let place = match helper_for(&config, &key) {
        Some(helper) => {
            keychain::store(&helper, &key, user, secret)?;
            object(&mut config, "auths").insert(key, json!({}));
            format!("docker-credential-{helper}")
        }
        None => {
            let auth = STANDARD.encode(format!("{user}:{secret}"));
            object(&mut config, "auths").insert(key, json!({ "auth": auth }));
            format!("{}, where anybody with your rights can read them", path.display())
        }
    };
    write(&path, &config)?;
    Ok(place)
}

/// Forgets credentials; whether there were some.
///
/// # Errors
/// As [`store`].
pub(super) fn erase(server: &str) -> Result<bool, Error> {
    let (path, key) = (docker_file(), key(server));
    let mut config = read(&path)?;
    let kept = helper_for(&config, &key).map(|helper| keychain::erase(&helper, &key)).transpose()?;
    let before = object(&mut config, "auths").len();
    object(&mut config, "auths").retain(|name, _| self::key(name) != key);
    let removed = object(&mut config, "auths").len() != before;
    if removed {
        write(&path, &config)?;
    }
    Ok(removed || kept == Some(true))
}

/// A token for another token is of no use to us.
fn usable(server: &str, (user, secret): (String, String)) -> Result<(String, String), Error> {
    match user.as_str() {
        TOKEN_USER => {
            let reason =
                "the credentials are an identity token: log in with a user's name and an access token";
            Err(Error::Refused { host: server.to_owned(), reason: reason.to_owned() })
        }
        _ => Ok((user, secret)),
    }
}

fn helper_for(config: &Map<String, Value>, key: &str) -> Option<String> {
    let of_key = config.get("credHelpers").and_then(|helpers| helpers.get(key));
    let helper = of_key.or_else(|| config.get("credsStore"))?.as_str()?;
    (!helper.is_empty()).then(|| helper.to_owned())
}

/// The entry of the registry; in podman's files one of a part of it is nearer.
fn in_file(config: &Map<String, Value>, key: &str, repository: &str) -> Option<(String, String)> {
    let auths = config.get("auths")?.as_object()?;
    let host = hostname(key);
    let mut names = vec![format!("{host}/{repository}")];
    names.extend(repository.match_indices('/').rev().map(|(at, _)| format!("{host}/{}", &repository[..at])));
    let nearest = names.iter().find_map(|name| auths.get(name));
    let entry = nearest
        .or_else(|| auths.get(key))
        .or_else(|| auths.iter().find(|(name, _)| self::key(name) == key).map(|(_, entry)| entry))?;
    let text = |field: &str| entry.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    if text("identitytoken").is_some() {
        return Some((TOKEN_USER.to_owned(), String::new()));
    }
    if let (Some(user), Some(secret)) = (text("username"), text("password")) {
        return Some((user.to_owned(), secret.to_owned()));
    }
    let decoded = String::from_utf8(STANDARD.decode(text("auth")?).ok()?).ok()?;
    let (user, secret) = decoded.split_once(':')?;
    Some((user.to_owned(), secret.trim_end_matches('\0').to_owned()))
}

/// Old files have addresses with a scheme and a path.
fn hostname(server: &str) -> &str {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    rest.split('/').next().unwrap_or(rest)
}

fn docker_file() -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let directory = std::env::var_os("DOCKER_CONFIG").filter(|path| !path.is_empty());
    directory.map_or_else(|| home().join(".docker"), PathBuf::from).join("config.json")
}

fn podman_file() -> Option<PathBuf> {
    let named = std::env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from);
    named.or_else(|| {
        std::env::var_os("XDG_RUNTIME_DIR").map(|place| PathBuf::from(place).join("containers/auth.json"))
    })
}

/// The object; empty if there is no file.
fn read(path: &Path) -> Result<Map<String, Value>, Error> {
    let failed = |source| Error::File { action: "read", path: path.display().to_string(), source };
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
        Err(source) => Err(failed(source)),
        Ok(text) if text.iter().all(u8::is_ascii_whitespace) => Ok(Map::new()),
        Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(error.into())),
    }
}

/// Whole or not at all, and the user's alone.
fn write(path: &Path, config: &Map<String, Value>) -> Result<(), Error> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_nothing_there| path.to_owned());
    let failed = |source| Error::File { action: "write", path: path.display().to_string(), source };
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let temporary = path.with_file_name(format!(".config.json.{}", std::process::id()));
    let text = serde_json::to_string_pretty(config).map_err(|error| failed(error.into()))?;
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(directory)?.sync_all());
    if written.is_err() {
        // It is told what went wrong; that the rest of it stays would be the lesser news.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

/// A field that is an object, made if need be.
fn object<'c>(config: &'c mut Map<String, Value>, field: &str) -> &'c mut Map<String, Value> {
    let value = config.entry(field).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it was just made one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_registry_has_many_spellings() {
        for server in
            ["", "docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"]
        {
            assert_eq!(key(server), DOCKER, "{server}");
        }
        assert_eq!(key("https://quay.io/v2/"), "quay.io");
        assert_eq!(key("localhost:5000"), "localhost:5000");
    }

    #[test]
    fn the_nearest_entry_is_taken() {
        let entry = |text: &str| json!({ "auth": STANDARD.encode(text) });
        let config = json!({ "auths": {
            "https://quay.io": entry("all:a:b"),
            "quay.io/team": entry("team:t"),
            "quay.io/team/one": { "username": "one", "password": "o" },
            DOCKER: entry("hub:h"),
            "token.example": { "auth": "", "identitytoken": "x" },
            "bad.example": { "auth": "no base64!" },
        }});
        let config = config.as_object().expect("an object");
        let find =
            |host: &str, repository: &str| in_file(config, &key(host), repository).map(|found| found.0);
        assert_eq!(in_file(config, "quay.io", "x").expect("found"), ("all".to_owned(), "a:b".to_owned()));
        assert_eq!(find("quay.io", "team/two").as_deref(), Some("team"));
        assert_eq!(find("quay.io", "team/one").as_deref(), Some("one"));
        assert_eq!(find("docker.io", "library/busybox").as_deref(), Some("hub"));
        assert_eq!(find("token.example", "x").as_deref(), Some(TOKEN_USER));
        assert_eq!(find("bad.example", "x"), None);
        assert_eq!(find("other.example", "x"), None);
    }
}
