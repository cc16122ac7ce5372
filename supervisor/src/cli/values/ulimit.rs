//! `--ulimit NAME=SOFT[:HARD]` with docker's names.

use mysup_ipc::plan::Rlimit;

use super::Invalid;

/// docker's names and Linux's numbers (asm-generic/resource.h; mips and sparc have others).
const RESOURCES: [(&str, u32); 15] = [
    ("core", 4),
    ("cpu", 0),
    ("data", 2),
    ("fsize", 1),
    ("locks", 10),
    ("memlock", 8),
    ("msgqueue", 12),
    ("nice", 13),
    ("nofile", 7),
    ("nproc", 6),
    ("rss", 5),
    ("rtprio", 14),
    ("rttime", 15),
    ("sigpending", 11),
    ("stack", 3),
];

/// One limit.
///
/// # Errors
/// If name or numbers are wrong.
pub(crate) fn parse(text: &str) -> Result<Rlimit, Invalid> {
    let invalid = || {
        Invalid::new(format!(
            "invalid ulimit \"{text}\": NAME=SOFT[:HARD] with numbers, or -1 for unlimited, is allowed"
        ))
    };
    let (name, values) = text.split_once('=').ok_or_else(invalid)?;
    let Some(&(_, resource)) = RESOURCES.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = RESOURCES.iter().map(|(known, _)| *known).collect();
        return Err(Invalid::new(format!(
            "invalid ulimit type \"{name}\": allowed are {}",
            known.join(", ")
        )));
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft).ok_or_else(invalid)?, value(hard).ok_or_else(invalid)?);
    if soft > hard {
        return Err(Invalid::new(format!(
            "invalid ulimit \"{text}\": the soft limit must be less than or equal to the hard limit"
        )));
    }
    Ok(Rlimit { resource, soft, hard })
}

/// docker's name of a resource.
pub(crate) fn name(resource: u32) -> String {
    let known = RESOURCES.iter().find(|(_, number)| *number == resource);
    known.map_or_else(|| resource.to_string(), |(name, _)| (*name).to_owned())
}

fn value(text: &str) -> Option<u64> {
    match text {
        "-1" | "unlimited" => Some(u64::MAX),
        digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_and_hard() {
        assert_eq!(parse("nofile=1024"), Ok(Rlimit { resource: 7, soft: 1024, hard: 1024 }));
        assert_eq!(parse("core=0:-1"), Ok(Rlimit { resource: 4, soft: 0, hard: u64::MAX }));
        assert_eq!(parse("stack=unlimited"), Ok(Rlimit { resource: 3, soft: u64::MAX, hard: u64::MAX }));
        for bad in
            ["nofile", "nofile=", "nofile=2:1", "nofile=-1:5", "files=1", "nofile=a", "nofile=1:2:3", "=1"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
