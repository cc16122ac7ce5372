//! `-e` and `--env-file`, by docker's rules: no quotes, no expansion, `#` at the start of a line is a comment.

use std::{env::VarError, fs, path::PathBuf};

use super::Invalid;

/// Files first, then single variables; of a variable that comes twice the last value counts, at its first place.
/// `caller` gives the caller's value of a variable.
///
/// # Errors
/// If a file cannot be read or a line is none.
pub(crate) fn merge(
    files: &[PathBuf],
    variables: &[String],
    caller: impl Fn(&str) -> Result<Option<String>, Invalid>,
) -> Result<Vec<String>, Invalid> {
    let mut merged: Vec<String> = Vec::new();
    for file in files {
        let text = fs::read(file).map_err(|error| {
            Invalid::new(format!("cannot read environment file {}: {error}", file.display()))
        })?;
        let text = String::from_utf8(text)
            .map_err(|_| Invalid::new(format!("environment file {} is not valid UTF-8", file.display())))?;
        for line in file_lines(&text) {
            let entry = entry(line, &caller)
                .map_err(|reason| Invalid::new(format!("environment file {}: {reason}", file.display())))?;
            entry.into_iter().for_each(|entry| put(&mut merged, entry));
        }
    }
    for variable in variables {
        entry(variable, &caller)?.into_iter().for_each(|entry| put(&mut merged, entry));
    }
    Ok(merged)
}

fn file_lines(text: &str) -> impl Iterator<Item = &str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The caller's own value of a variable.
///
/// # Errors
/// If it is no text.
pub(crate) fn of_caller(name: &str) -> Result<Option<String>, Invalid> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Invalid::new(format!("the value of {name} is not valid UTF-8"))),
    }
}

/// `K=V` of `K=V` or `K`; nothing if the caller has no K.
fn entry(
    text: &str,
    caller: impl Fn(&str) -> Result<Option<String>, Invalid>,
) -> Result<Option<String>, Invalid> {
    let (name, value) = match text.split_once('=') {
        Some((name, _)) => (name, Some(text.to_owned())),
        None => (text, None),
    };
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(Invalid::new(format!(
            "invalid variable \"{text}\": K=V or K without white space in K is allowed"
        )));
    }
    match value {
        Some(value) => Ok(Some(value)),
        None => Ok(caller(name)?.map(|value| format!("{name}={value}"))),
    }
}

fn put(merged: &mut Vec<String>, entry: String) {
    let name = |entry: &str| entry.split_once('=').map(|(name, _)| name.to_owned());
    match merged.iter_mut().find(|known| name(known) == name(&entry)) {
        Some(known) => *known = entry,
        None => merged.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> Result<Option<String>, Invalid> {
        Ok((name == "HOME").then(|| "/root".to_owned()))
    }

    #[test]
    fn single_variables() {
        let variables = ["A=1", "HOME", "UNSET", "B=x=y", "A=2", "C="].map(str::to_owned);
        assert_eq!(merge(&[], &variables, caller).expect("valid"), ["A=2", "HOME=/root", "B=x=y", "C="]);
        for bad in ["", "=x", "A B=1", "A B"] {
            assert!(merge(&[], &[bad.to_owned()], caller).is_err(), "{bad}");
        }
    }

    #[test]
    fn file_lines_are_taken_as_they_are() {
        let text = "\u{feff}# comment\n\n  A=\"quoted\" # not a comment \nHOME\nB = 1\r\n";
        let lines: Vec<&str> = file_lines(text).collect();
        assert_eq!(lines, ["A=\"quoted\" # not a comment ", "HOME", "B = 1"]);
        assert_eq!(entry(lines[0], caller), Ok(Some(lines[0].to_owned())));
        assert!(entry(lines[2], caller).is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = merge(&[PathBuf::from("/nonexistent/env")], &[], caller).expect_err("missing");
        assert!(error.0.contains("/nonexistent/env"), "{error}");
    }
}
