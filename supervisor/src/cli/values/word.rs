//! Small words: `--security-opt`, `--network`, `--storage-driver`, `--log-opt`, `--label`, `--hostname`.

use mysup_ipc::plan::{LogPlan, Network, StorageDriver};

use super::{
    Invalid,
    size::{self, Kilo},
};

/// Least size of a log file: smaller ones would be nothing but headers and renames.
const LOG_SIZE_MIN: u64 = 1000;
/// Most log files of a container: each rotation renames all of them.
const LOG_FILES_MAX: u32 = 1000;

/// Whether this `--security-opt` turns `no_new_privs` on or off.
///
/// # Errors
/// If it is another option.
pub(crate) fn no_new_privileges(text: &str) -> Result<bool, Invalid> {
    match text.replacen('=', ":", 1).as_str() {
        "no-new-privileges" | "no-new-privileges:true" => Ok(true),
        "no-new-privileges:false" => Ok(false),
        _ => Err(Invalid::new(format!(
            "security option \"{text}\" is not supported: no-new-privileges[:true|:false] is"
        ))),
    }
}

/// `--network`.
///
/// # Errors
/// If there is no such network.
pub(crate) fn network(text: &str) -> Result<Network, Invalid> {
    match text {
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        _ => Err(Invalid::new(format!("network \"{text}\" does not exist: allowed are none and host"))),
    }
}

/// `--storage-driver`.
///
/// # Errors
/// If there is no such driver.
pub(crate) fn storage_driver(text: &str) -> Result<StorageDriver, Invalid> {
    match text {
        "overlay" | "overlay2" => Ok(StorageDriver::Overlay),
        "aufs" => Ok(StorageDriver::Aufs),
        _ => Err(Invalid::new(format!(
            "storage driver \"{text}\" does not exist: allowed are overlay and aufs"
        ))),
    }
}

/// All `--log-opt`.
///
/// # Errors
/// If one is unknown or out of bounds.
pub(crate) fn log_plan(options: &[String]) -> Result<LogPlan, Invalid> {
    let mut plan = LogPlan::default();
    for option in options {
        match option.split_once('=') {
            Some(("max-size", text)) => {
                plan.max_size = size::parse(text, Kilo::Decimal)?;
                if plan.max_size < LOG_SIZE_MIN {
                    return Err(Invalid::new(format!(
                        "max-size {text} is too small: at least 1k is allowed"
                    )));
                }
            }
            Some(("max-file", text)) => {
                plan.max_files = text
                    .parse()
                    .ok()
                    .filter(|files| (1..=LOG_FILES_MAX).contains(files))
                    .ok_or_else(|| {
                        Invalid::new(format!("invalid max-file \"{text}\": 1 to {LOG_FILES_MAX} are allowed"))
                    })?;
            }
            _ => {
                return Err(Invalid::new(format!(
                    "unknown log option \"{option}\": allowed are max-size=BYTES and max-file=N"
                )));
            }
        }
    }
    Ok(plan)
}

/// `--label K[=V]`.
///
/// # Errors
/// If it has no key.
pub(crate) fn label(text: &str) -> Result<(String, String), Invalid> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(Invalid::new(format!(
            "invalid label \"{text}\": KEY[=VALUE] without white space in KEY is allowed"
        )));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `--hostname`: what sethostname(2) and /etc/hosts take.
///
/// # Errors
/// If it is no host name.
pub(crate) fn hostname(text: &str) -> Result<String, Invalid> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(valid) && !text.starts_with(['-', '.']) {
        return Ok(text.to_owned());
    }
    Err(Invalid::new(format!(
        "invalid host name \"{text}\": 1 to 64 letters, digits, '-', '.' and '_' are allowed"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_checked() {
        assert_eq!(no_new_privileges("no-new-privileges"), Ok(true));
        assert_eq!(no_new_privileges("no-new-privileges=true"), Ok(true));
        assert_eq!(no_new_privileges("no-new-privileges:false"), Ok(false));
        assert!(no_new_privileges("seccomp=unconfined").is_err());
        assert_eq!(network("host"), Ok(Network::Host));
        assert!(network("bridge").is_err());
        assert_eq!(storage_driver("aufs"), Ok(StorageDriver::Aufs));
        assert!(storage_driver("zfs").is_err());
        assert!(hostname("web-1.local").is_ok());
        for bad in ["", "-x", "a b", "a\nb", "a/b", &"x".repeat(65)] {
            assert!(hostname(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_need_a_key() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(label("a"), Ok(("a".to_owned(), String::new())));
        assert!(label("=b").is_err() && label("").is_err());
    }

    #[test]
    fn log_options_have_bounds() {
        let plan =
            |options: &[&str]| log_plan(&options.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        assert_eq!(plan(&[]), Ok(LogPlan::default()));
        assert_eq!(plan(&["max-size=10m", "max-file=3"]), Ok(LogPlan { max_size: 10_000_000, max_files: 3 }));
        for bad in ["max-size=0", "max-size=", "max-file=0", "max-file=x", "compress=true", "max-size"] {
            assert!(plan(&[bad]).is_err(), "{bad}");
        }
    }
}
