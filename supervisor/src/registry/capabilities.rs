//! Which capabilities a container's program keeps: docker's rules, capabilities(7)'s numbers.

use mysup_ipc::error::{ErrorCode, WireError};

/// By number, include/uapi/linux/capability.h.
const NAMES: [&str; 41] = [
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

/// docker's fourteen: what a container gets when nobody says otherwise.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// What was asked for about capabilities.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// `--privileged`.
    pub(crate) privileged: bool,
    /// `--cap-add`.
    pub(crate) add: &'a [String],
    /// `--cap-drop`.
    pub(crate) drop: &'a [String],
}

/// The capabilities that can be given to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Available(
    /// One bit for each number.
    pub(crate) u64,
);

impl Available {
    /// Those of the kernel that were not taken from the supervisor itself: nobody can give what is not in their own
    /// bounding set (capabilities(7)).
    pub(crate) fn of_this_process() -> Self {
        // Without the line all are asked for, and the kernel says no.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
        let mask = bounding.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
        Self(mask.unwrap_or((1 << NAMES.len()) - 1))
    }

    fn has(self, number: u8) -> bool {
        self.0.checked_shr(number.into()).is_some_and(|rest| rest & 1 == 1)
    }
}

/// The numbers of the capabilities to keep, ascending. Of `ALL` and the default only those that are available; one that
/// is asked for by name and is not is an error.
pub(crate) fn keep(wish: Wish<'_>, available: Available) -> Result<Vec<u8>, WireError> {
    let (add, drop) = (parse(wish.add)?, parse(wish.drop)?);
    if let Some(missing) = add.named.iter().find(|number| !available.has(**number)) {
        let message = format!(
            "invalid capability: CAP_{}: not supported by this kernel or not available to the supervisor",
            NAMES[usize::from(*missing)]
        );
        return Err(WireError::new(ErrorCode::Invalid, message));
    }
    let default: Vec<u8> = DEFAULT.iter().filter_map(|name| number(name)).collect();
    let kept = |capability: &u8| {
        if wish.privileged {
            true
        } else if add.all {
            !drop.named.contains(capability)
        } else if drop.all {
            add.named.contains(capability)
        } else {
            add.named.contains(capability) || default.contains(capability) && !drop.named.contains(capability)
        }
    };
    Ok((0..64).filter(|number| available.has(*number)).filter(kept).collect())
}

struct Parsed {
    all: bool,
    named: Vec<u8>,
}

fn parse(names: &[String]) -> Result<Parsed, WireError> {
    let mut parsed = Parsed { all: false, named: Vec::new() };
    for typed in names {
        let upper = typed.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match number(name) {
            _ if name == "ALL" => parsed.all = true,
            Some(number) => parsed.named.push(number),
            None => {
                let message = format!("invalid capability: \"{typed}\": capabilities(7) lists them");
                return Err(WireError::new(ErrorCode::Invalid, message));
            }
        }
    }
    Ok(parsed)
}

fn number(name: &str) -> Option<u8> {
    NAMES.iter().position(|known| *known == name).and_then(|index| u8::try_from(index).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(privileged: bool, add: &[&str], drop: &[&str]) -> Result<Vec<u8>, WireError> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        keep(Wish { privileged, add: &owned(add), drop: &owned(drop) }, Available((1 << 41) - 1))
    }

    #[test]
    fn the_default_is_dockers_set() {
        // 0xa80425fb is CapEff of `docker run busybox`.
        let bits = kept(false, &[], &[]).unwrap().iter().fold(0_u64, |bits, number| bits | 1 << number);
        assert_eq!(bits, 0xa804_25fb);
    }

    #[test]
    fn adding_and_dropping_follow_docker() {
        assert_eq!(kept(false, &["sys_admin"], &["ALL"]).unwrap(), [21]);
        assert!(kept(false, &[], &["ALL"]).unwrap().is_empty());
        assert_eq!(kept(false, &["ALL"], &["CAP_CHOWN"]).unwrap().len(), 40);
        assert_eq!(kept(true, &[], &["ALL"]).unwrap().len(), 41);
        assert!(!kept(false, &[], &["KILL"]).unwrap().contains(&5));
        assert!(kept(false, &["FLY"], &[]).unwrap_err().message.contains("FLY"));
    }

    #[test]
    fn what_the_supervisor_does_not_have_is_not_given() {
        let without_sys_resource = Available(0x1ff_feff_ffff);
        let all = keep(Wish { privileged: true, add: &[], drop: &[] }, without_sys_resource).unwrap();
        assert_eq!((all.len(), all.contains(&24)), (40, false));
        let named = Wish { privileged: false, add: &["SYS_RESOURCE".into()], drop: &[] };
        assert!(keep(named, without_sys_resource).unwrap_err().message.contains("CAP_SYS_RESOURCE"));
    }
}
