//! docker's credential helpers: programs called `docker-credential-NAME` that keep secrets in another place.
//!
//! One word as argument, one message on standard input, one on standard output; on failure its text is there.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use super::error::Error;

/// What a helper says when it has none; its exit code is that of all failures.
const NOT_FOUND: &str = "credentials not found";

/// In a helper's words.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    #[serde(rename = "ServerURL", default)]
    server: String,
    username: String,
    secret: String,
}

/// User and secret that a helper has for a server; `None` if it has none.
///
/// # Errors
/// If the helper cannot be run or fails.
pub(super) fn get(helper: &str, server: &str) -> Result<Option<(String, String)>, Error> {
    match call(helper, "get", server)? {
        Ok(text) => {
            let found: Credentials =
                serde_json::from_str(&text).map_err(|error| fault(helper, &format!("get: {error}")))?;
            Ok(Some((found.username, found.secret)))
        }
        Err(text) if text.contains(NOT_FOUND) => Ok(None),
        Err(text) => Err(fault(helper, &text)),
    }
}

/// Lets a helper keep credentials.
///
/// # Errors
/// As [`get`].
pub(super) fn store(helper: &str, server: &str, user: &str, secret: &str) -> Result<(), Error> {
    let message =
        Credentials { server: server.to_owned(), username: user.to_owned(), secret: secret.to_owned() };
    let text = serde_json::to_string(&message).map_err(|error| fault(helper, &error.to_string()))?;
    call(helper, "store", &text)?.map(drop).map_err(|text| fault(helper, &text))
}

/// Lets a helper forget credentials; whether it had some.
///
/// # Errors
/// As [`get`].
pub(super) fn erase(helper: &str, server: &str) -> Result<bool, Error> {
    let had = get(helper, server)?.is_some();
    call(helper, "erase", server)?.map(|_| had).map_err(|text| fault(helper, &text))
}

/// What it said, or why it failed. It may ask the user for something, so there is no deadline: he has ctrl-C.
fn call(helper: &str, verb: &str, input: &str) -> Result<Result<String, String>, Error> {
    let program = program(helper)?;
    let failed = |error: io::Error| fault(helper, &error.to_string());
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that fails at once reads nothing.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(if output.status.success() { Ok(text) } else { Err(text) })
}

/// A name out of a file is no path.
fn program(helper: &str) -> Result<String, Error> {
    let is_name = !helper.is_empty() && !helper.contains(['/', '\0']);
    let program = format!("docker-credential-{helper}");
    if is_name { Ok(program) } else { Err(Error::Helper { program, reason: "this is no name".to_owned() }) }
}

fn fault(helper: &str, reason: &str) -> Error {
    let reason = if reason.is_empty() { "it failed" } else { reason };
    Error::Helper { program: format!("docker-credential-{helper}"), reason: reason.replace('\n', " ") }
}
