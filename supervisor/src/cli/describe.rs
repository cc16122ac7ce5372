//! Words for people: ages, sizes, and what is wrong with a container; docker's where docker has some.

use jiff::Timestamp;
use mysup_ipc::teardown::{Outcome, TeardownStep};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0)
}

/// docker's words for a span of nanoseconds: `4 minutes`, `About an hour`.
pub(crate) fn span(nanoseconds: u64) -> String {
    let seconds = nanoseconds / SECOND;
    let minutes = seconds / 60;
    // Hours are rounded, as docker does; all else is cut.
    let hours = (minutes + 30) / 60;
    match (seconds, minutes, hours) {
        (0, _, _) => "Less than a second".to_owned(),
        (1, _, _) => "1 second".to_owned(),
        (2..60, _, _) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (_, _, 0 | 1) => "About an hour".to_owned(),
        (_, _, 2..48) => format!("{hours} hours"),
        (_, _, 48..336) => format!("{} days", hours / 24),
        (_, _, 336..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, 1440..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// `4 minutes ago`.
pub(crate) fn ago(then: u64, now: u64) -> String {
    format!("{} ago", span(now.saturating_sub(then)))
}

/// A size with three digits and a decimal unit: `4.26MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    // In integers, rounded once; u128 holds whatever is multiplied.
    let mut unit = 0;
    let mut divisor = 1u128;
    let bytes = u128::from(bytes);
    // 999.5 of a unit would be shown as 1000 of it: that is 1 of the next.
    while unit + 1 < UNITS.len() && bytes * 2 >= divisor * 1999 {
        divisor *= 1000;
        unit += 1;
    }
    let places = match bytes / divisor {
        0..10 => 2,
        10..100 => 1,
        _ => 0,
    };
    let number = decimals((bytes * 10u128.pow(places) + divisor / 2) / divisor, places);
    format!("{number}{}", UNITS[unit])
}

/// A number of which the last `places` digits stand after the point, without needless zeros.
fn decimals(number: u128, places: u32) -> String {
    let scale = 10u128.pow(places);
    if number.is_multiple_of(scale) {
        return (number / scale).to_string();
    }
    let fraction = format!("{:0width$}", number % scale, width = usize::try_from(places).unwrap_or(0));
    format!("{}.{}", number / scale, fraction.trim_end_matches('0'))
}

/// `2026-11-24T05:39:56.424971009Z`, as short as it may be; docker's zero time for `None`.
pub(crate) fn timestamp(nanoseconds: Option<u64>) -> String {
    let zero = || "0001-01-01T00:00:00Z".to_owned();
    let time = nanoseconds.and_then(|time| Timestamp::from_nanosecond(i128::from(time)).ok());
    time.map_or_else(zero, |time| time.to_string())
}

/// The same with all nine digits, so that lines stand below each other.
pub(crate) fn padded_timestamp(nanoseconds: u64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.9}")
}

/// `2026-11-24 05:39:56 +0000 UTC`, as in docker's `CreatedAt`.
pub(crate) fn date(nanoseconds: u64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

/// A step of a teardown that failed: what, why, and who holds it.
pub(crate) fn failure(step: &TeardownStep) -> String {
    let what = if step.target.is_empty() {
        step.kind.name().to_owned()
    } else {
        format!("{} {}", step.kind.name(), step.target)
    };
    match &step.outcome {
        Outcome::Done => what,
        Outcome::Failed { error, holders } if holders.is_empty() => format!("{what}: {error}"),
        Outcome::Failed { error, holders } => {
            let holders: Vec<String> =
                holders.iter().map(|holder| format!("pid {} ({})", holder.pid, holder.program)).collect();
            format!("{what}: {error}; held by {}", holders.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use mysup_ipc::teardown::{Holder, StepKind};

    use super::*;

    #[test]
    fn spans_have_dockers_words() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (3600 * 47, "47 hours"),
            (3600 * 48, "2 days"),
            (86400 * 14, "2 weeks"),
            (86400 * 60, "2 months"),
            (86400 * 730, "2 years"),
        ];
        for (seconds, text) in cases {
            assert_eq!(span(seconds * SECOND), text, "{seconds}");
        }
        assert_eq!(ago(10 * SECOND, 5 * SECOND), "Less than a second ago");
    }

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_980_000, "1.98MB"),
            (4_262_000, "4.26MB"),
            (77_800_000, "77.8MB"),
            (142_400_000, "142MB"),
            (999_600, "1MB"),
            (u64::MAX, "18.4EB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn times_are_rfc3339() {
        assert_eq!(timestamp(None), "0001-01-01T00:00:00Z");
        assert_eq!(timestamp(Some(1_700_000_000_500_000_000)), "2023-11-14T22:13:20.5Z");
        assert_eq!(padded_timestamp(1_700_000_000_500_000_000), "2023-11-14T22:13:20.500000000Z");
        assert_eq!(date(1_700_000_000_000_000_000), "2023-11-14 22:13:20 +0000 UTC");
    }

    #[test]
    fn a_failure_names_its_holder() {
        let holders = vec![Holder { pid: 7, program: "sleep".to_owned() }];
        let outcome = Outcome::Failed { error: "umount: device or resource busy".to_owned(), holders };
        let step =
            TeardownStep { kind: StepKind::Volume, target: "/data".to_owned(), at: 0, took: 0, outcome };
        assert_eq!(failure(&step), "volume /data: umount: device or resource busy; held by pid 7 (sleep)");
    }
}
