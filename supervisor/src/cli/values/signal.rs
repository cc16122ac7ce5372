//! Signals: `TERM`, `SIGTERM`, `15`, `RTMIN+3`.

use nix::sys::signal::Signal;

use super::Invalid;

/// What SIGRTMIN is for programs: the C library keeps 32 and 33 for itself.
const RTMIN: u8 = 34;
/// The last signal.
const RTMAX: u8 = 64;

/// A signal's number.
///
/// # Errors
/// If there is no such signal.
pub(crate) fn parse(text: &str) -> Result<u8, Invalid> {
    number(text).ok_or_else(|| {
        Invalid::new(format!("invalid signal \"{text}\": a name like TERM or RTMIN+3, or 1 to 64 is allowed"))
    })
}

fn number(text: &str) -> Option<u8> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=RTMAX).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let up = if offset.is_empty() { 0 } else { small(offset.strip_prefix('+')?)? };
        return RTMIN.checked_add(up).filter(|&number| number <= RTMAX);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        let down = if offset.is_empty() { 0 } else { small(offset.strip_prefix('-')?)? };
        return RTMAX.checked_sub(down).filter(|&number| number >= RTMIN);
    }
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    let signal: Signal = format!("SIG{name}").parse().ok()?;
    u8::try_from(signal as i32).ok()
}

fn small(digits: &str) -> Option<u8> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// The name of a signal as docker shows it: `SIGTERM`, or its number.
pub(crate) fn name(number: u8) -> String {
    match Signal::try_from(i32::from(number)) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_real_time_signals() {
        let cases = [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("15", 15),
            ("64", 64),
            ("RTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("IOT", 6),
            ("POLL", 29),
        ];
        for (text, number) in cases {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in
            ["", "0", "65", "FOO", "RTMIN+31", "RTMIN3", "RTMAX-31", "RTMIN+", "-9", "SIG", "SIGSIGTERM"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(name(15), "SIGTERM");
        assert_eq!(name(40), "40");
    }
}
