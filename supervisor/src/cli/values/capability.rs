//! `--cap-add` and `--cap-drop`: with or without `CAP_`, in any case, or `ALL`.

use super::Invalid;

/// Linux's capabilities in the order of their numbers (capabilities(7)).
pub(crate) const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A capability in upper case without `CAP_`, or `ALL`.
///
/// # Errors
/// If there is no such capability.
pub(crate) fn parse(text: &str) -> Result<String, Invalid> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if upper == "ALL" || NAMES.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(Invalid::new(format!(
        "unknown capability \"{text}\": a name like NET_ADMIN or CAP_NET_ADMIN, or ALL is allowed"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_is_free_and_names_are_not() {
        for (text, name) in [("NET_ADMIN", "NET_ADMIN"), ("cap_net_admin", "NET_ADMIN"), ("all", "ALL")] {
            assert_eq!(parse(text).as_deref(), Ok(name));
        }
        for bad in ["", "CAP_", "CAP_ALL", "NETADMIN", "CAP_CAP_BPF", "0"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
