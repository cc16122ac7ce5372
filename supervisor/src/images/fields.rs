//! Numbers and texts in tar headers, read strictly: a field that two readers could take for two things is an error.

/// A number of a header field: octal digits between blanks and NULs, or base 256 when its first bit is set.
/// An empty field is 0. `None` if it is anything else, or does not fit.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        return base256(first, rest);
    }
    let text = trimmed(field);
    if text.is_empty() {
        return Some(0);
    }
    text.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// A number that cannot be negative.
pub(super) fn unsigned(field: &[u8]) -> Option<u64> {
    number(field).and_then(|value| u64::try_from(value).ok())
}

/// The bytes of a text field up to its NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A decimal number as PAX records have it: digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// A time of a PAX record, `[-]seconds[.fraction]`, as seconds and nanoseconds since 1970; digits after the ninth are
/// cut off, toward the past.
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds = 0_u32;
    for place in 0..9 {
        let digit = fraction.get(place).map_or(0, |digit| u32::from(digit - b'0'));
        nanoseconds = nanoseconds * 10 + digit;
    }
    let cut = fraction.iter().skip(9).any(|digit| *digit != b'0');
    if !negative {
        return Some((seconds, nanoseconds));
    }
    let nanoseconds = nanoseconds + u32::from(cut);
    match nanoseconds {
        0 => Some((-seconds, 0)),
        part => Some(((-seconds).checked_sub(1)?, 1_000_000_000 - part)),
    }
}

/// Two's complement, big endian; the first byte's top bit is the mark, the next one the sign.
fn base256(first: u8, rest: &[u8]) -> Option<i64> {
    let negative = first & 0x40 != 0;
    let head = if negative { i64::from(first & 0x7f) - 0x80 } else { i64::from(first & 0x7f) };
    rest.iter().try_fold(head, |value, byte| value.checked_mul(256)?.checked_add(i64::from(*byte)))
}

/// Leading blanks and trailing blanks and NULs are padding; a NUL ends the number.
fn trimmed(field: &[u8]) -> &[u8] {
    let field = text(field);
    let start = field.iter().position(|byte| *byte != b' ').unwrap_or(field.len());
    let end = field.iter().rposition(|byte| *byte != b' ').map_or(start, |last| last + 1);
    field.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"777", Some(0o777)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"0000648\0", None),
            (b"+644\0", None),
            (b"-1\0", None),
            (b"6 4\0", None),
            (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn times_keep_their_nanoseconds() {
        for (text, value) in [
            ("0", Some((0, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("1.0000000019", Some((1, 1))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-3", Some((-3, 0))),
            ("", None),
            (".5", None),
            ("1.5x", None),
            ("1e3", None),
            ("9223372036854775808", None),
        ] {
            assert_eq!(time(text.as_bytes()), value, "{text}");
        }
    }
}
