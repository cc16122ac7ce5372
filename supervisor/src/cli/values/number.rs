//! Numbers with bounds: processors, shares, counts, seconds.

use super::{Invalid, size};

/// `--cpus`: decimals to billionths of a processor; 0 is unlimited.
///
/// # Errors
/// If it is no such number.
pub(crate) fn nano_cpus(text: &str) -> Result<Option<u64>, Invalid> {
    let invalid = || {
        Invalid::new(format!("invalid number of processors \"{text}\": decimals like 0.5 or 2 are allowed"))
    };
    let precise = text.split_once('.').is_none_or(|(_, fraction)| fraction.len() <= 9);
    let nano = size::scaled(text, 1_000_000_000).filter(|_| precise).ok_or_else(invalid)?;
    match nano {
        0 => Ok(None),
        1..10_000_000 => {
            Err(Invalid::new(format!("\"{text}\" processors are too few: at least 0.01 is allowed")))
        }
        _ => Ok(Some(nano)),
    }
}

/// `--cpu-shares`: 2 to 262144; 0 is the default.
///
/// # Errors
/// If it is no such number.
pub(crate) fn cpu_shares(text: &str) -> Result<Option<u64>, Invalid> {
    match text.parse::<u64>() {
        Ok(0) => Ok(None),
        Ok(shares @ 2..=262_144) => Ok(Some(shares)),
        _ => Err(Invalid::new(format!("invalid shares \"{text}\": 2 to 262144 are allowed"))),
    }
}

/// `--cpuset-cpus`: `0-2,4`.
///
/// # Errors
/// If it is no such list.
pub(crate) fn cpu_list(text: &str) -> Result<String, Invalid> {
    let valid = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((first.parse::<u32>(), last.parse::<u32>()), (Ok(first), Ok(last)) if first <= last)
            && first.bytes().chain(last.bytes()).all(|byte| byte.is_ascii_digit())
    };
    if text.split(',').all(valid) {
        return Ok(text.to_owned());
    }
    Err(Invalid::new(format!(
        "invalid list of processors \"{text}\": numbers and ranges like 0-2,4 are allowed"
    )))
}

/// `--pids-limit`: -1 and 0 are unlimited.
///
/// # Errors
/// If it is no such number.
pub(crate) fn pids(text: &str) -> Result<Option<u64>, Invalid> {
    match text.parse::<i64>() {
        Ok(-1 | 0) => Ok(None),
        Ok(count) if count > 0 => Ok(Some(count.unsigned_abs())),
        _ => Err(Invalid::new(format!(
            "invalid number of processes \"{text}\": 1 and more, or -1 are allowed"
        ))),
    }
}

/// Seconds until a kill: 0 and more, or -1 for ever.
///
/// # Errors
/// If it is no such number.
pub(crate) fn seconds(text: &str) -> Result<i64, Invalid> {
    // A year: longer is a slip of the hand, and -1 is there for ever.
    match text.parse::<i64>() {
        Ok(seconds @ -1..=31_536_000) => Ok(seconds),
        _ => Err(Invalid::new(format!(
            "invalid number of seconds \"{text}\": 0 to 31536000, or -1 are allowed"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_decimals() {
        for (text, nano) in
            [("1", 1_000_000_000), ("0.5", 500_000_000), (".25", 250_000_000), ("1.5", 1_500_000_000)]
        {
            assert_eq!(nano_cpus(text), Ok(Some(nano)), "{text}");
        }
        assert_eq!(nano_cpus("0"), Ok(None));
        for text in ["", "-1", "0.001", "x", "1.0000000001", "1,5", "1/2"] {
            assert!(nano_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_have_bounds() {
        assert_eq!(cpu_shares("1024"), Ok(Some(1024)));
        assert_eq!(cpu_shares("0"), Ok(None));
        assert!(cpu_shares("1").is_err() && cpu_shares("262145").is_err() && cpu_shares("-2").is_err());
        assert_eq!(pids("100"), Ok(Some(100)));
        assert_eq!(pids("-1"), Ok(None));
        assert!(pids("-2").is_err() && pids("many").is_err());
        assert_eq!(seconds("-1"), Ok(-1));
        assert!(seconds("-2").is_err() && seconds("1s").is_err());
    }

    #[test]
    fn processor_lists() {
        for good in ["0", "0-2,4", "1,3"] {
            assert_eq!(cpu_list(good).as_deref(), Ok(good));
        }
        for bad in ["", "a", "2-1", "0-", "1,,2", "-1", "+1"] {
            assert!(cpu_list(bad).is_err(), "{bad}");
        }
    }
}
