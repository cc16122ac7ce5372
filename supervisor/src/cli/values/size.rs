//! Sizes: `512`, `64m`, `1.5g`. Memory counts in powers of 1024, log files in powers of 1000, as docker's do.

use mysup_ipc::plan::Limits;

use super::Invalid;

/// docker's least limit of memory: below it a container cannot start.
const MEMORY_MIN: u64 = 6 << 20;

/// What `k` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kilo {
    /// 1024.
    Binary,
    /// 1000.
    Decimal,
}

/// A number of bytes with an optional unit.
///
/// # Errors
/// If it is none.
pub(crate) fn parse(text: &str, kilo: Kilo) -> Result<u64, Invalid> {
    let invalid = || {
        Invalid::new(format!(
            "invalid size \"{text}\": a number with an optional unit b, k, m, g or t is allowed"
        ))
    };
    let lower = text.to_ascii_lowercase();
    let digits_end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits_end);
    let power = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(invalid()),
    };
    let base: u64 = match kilo {
        Kilo::Binary => 1024,
        Kilo::Decimal => 1000,
    };
    let factor = base.pow(power);
    scaled(number, factor).ok_or_else(invalid)
}

/// `number` (decimal digits with at most one point) times `factor`, rounded down.
pub(crate) fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(factor)?;
    if !fraction.is_empty() {
        let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
        let part = fraction.parse::<u128>().ok()? * u128::from(factor) / scale;
        total = total.checked_add(u64::try_from(part).ok()?)?;
    }
    Some(total)
}

/// `--memory` and `--memory-swap` together, by docker's rules.
///
/// # Errors
/// If one is no size, too small, or they do not fit together.
pub(crate) fn memory(limits: &mut Limits, memory: Option<&str>, swap: Option<&str>) -> Result<(), Invalid> {
    limits.memory = memory.map(|text| parse(text, Kilo::Binary)).transpose()?.filter(|&bytes| bytes != 0);
    if limits.memory.is_some_and(|bytes| bytes < MEMORY_MIN) {
        return Err(Invalid::new("Minimum memory limit allowed is 6MB"));
    }
    let Some(text) = swap else { return Ok(()) };
    if text == "-1" {
        limits.memory_swap = Some(-1);
        return Ok(());
    }
    let bytes = parse(text, Kilo::Binary)?;
    let signed = i64::try_from(bytes)
        .map_err(|_| Invalid::new(format!("invalid size \"{text}\": at most 8191 pebibytes are allowed")))?;
    if bytes == 0 {
        return Ok(());
    }
    match limits.memory {
        None => {
            Err(Invalid::new("You should always set the Memory limit when using Memoryswap limit, see usage"))
        }
        Some(memory) if bytes < memory => {
            Err(Invalid::new("Minimum memoryswap limit should be larger than memory limit, see usage"))
        }
        Some(_) => {
            limits.memory_swap = Some(signed);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_binary_or_decimal() {
        let cases = [
            ("0", 0),
            ("512", 512),
            ("1b", 1),
            ("64k", 64 << 10),
            ("64K", 64 << 10),
            ("6m", 6 << 20),
            ("1.5g", 3 << 29),
            ("1GiB", 1 << 30),
            ("2 mb", 2 << 20),
            ("1t", 1 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse(text, Kilo::Binary), Ok(bytes), "{text}");
        }
        assert_eq!(parse("20m", Kilo::Decimal), Ok(20_000_000));
    }

    #[test]
    fn no_sizes_are_refused() {
        for text in ["", "m", "-1", "1x", "1.2.3m", "ten", "1mm", ".", "99999999999t", "0x10", "1e3"] {
            assert!(parse(text, Kilo::Binary).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_and_swap_follow_docker() {
        let both = |memory_text, swap_text| {
            let mut limits = Limits::default();
            memory(&mut limits, memory_text, swap_text).map(|()| (limits.memory, limits.memory_swap))
        };
        assert_eq!(both(Some("6m"), None), Ok((Some(6 << 20), None)));
        assert_eq!(both(Some("0"), None), Ok((None, None)));
        assert_eq!(both(Some("6m"), Some("-1")), Ok((Some(6 << 20), Some(-1))));
        assert_eq!(both(Some("6m"), Some("12m")), Ok((Some(6 << 20), Some(12 << 20))));
        assert_eq!(both(Some("5m"), None), Err(Invalid::new("Minimum memory limit allowed is 6MB")));
        assert!(both(Some("12m"), Some("6m")).is_err());
        assert!(both(None, Some("6m")).is_err());
    }
}
