//! From a cell's text to its value. None is "not what it should be"; the caller says what it should be.

use jiff::Timestamp;

/// RFC 3339, or whole milliseconds since the Unix epoch.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    if is_integer(text) { text.parse().ok() } else { rfc_3339(text) }
}

/// What jiff reads is wider than RFC 3339: a time-zone's name in brackets, hours without minutes, no seconds. Only what
/// has the standard's shape is handed on.
fn rfc_3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddtdd:dd:dd";
    let (head, tail) = (bytes.get(..shape.len())?, bytes.get(shape.len()..)?);
    let fits = head.iter().zip(shape).all(|(byte, expected)| match expected {
        b'd' => byte.is_ascii_digit(),
        b't' => matches!(byte, b'T' | b't' | b' '),
        other => byte == other,
    });
    let zone = match tail.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            &fraction[digits..]
        }
        None => tail,
    };
    let offset = |zone: &[u8]| {
        zone.len() == 6
            && matches!(zone[0], b'+' | b'-')
            && zone[3] == b':'
            && [1, 2, 4, 5].iter().all(|&at| zone[at].is_ascii_digit())
    };
    if !fits || !(matches!(zone, b"Z" | b"z") || offset(zone)) {
        return None;
    }
    // Below a millisecond the time is rounded down, before 1970 too.
    let instant: Timestamp = text.parse().ok()?;
    i64::try_from(instant.as_nanosecond().div_euclid(1_000_000)).ok()
}

/// Seconds since the Unix epoch with any fraction, rounded down to the millisecond.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        // What a spreadsheet makes of large numbers (1.7e9). As a double it is exact to the millisecond for 285,000 years.
        return exponent(text);
    }
    let mut milliseconds = whole.parse::<i64>().ok()?.checked_mul(1_000)?;
    for (digit, weight) in fraction.bytes().zip([100, 10, 1]) {
        milliseconds = milliseconds.checked_add(i64::from(digit - b'0') * weight)?;
    }
    let below_a_millisecond = fraction.bytes().skip(3).any(|digit| digit != b'0');
    Some(if negative { -milliseconds - i64::from(below_a_millisecond) } else { milliseconds })
}

fn exponent(text: &str) -> Option<i64> {
    const SECONDS_MAX: f64 = 9e12;
    if !text.contains(['e', 'E']) {
        return None;
    }
    let seconds = json_number(text)?;
    #[allow(clippy::cast_possible_truncation, reason = "bounded by the line above it")]
    (seconds.abs() <= SECONDS_MAX).then(|| (seconds * 1_000.0).floor() as i64)
}

/// An amount, read as JSON reads numbers: the same texts are right, and the value is the double nearest to the text.
/// Whether it is a possible amount is for the topology to say, as it is for payments from a topic.
pub(super) fn amount(text: &str) -> Option<f64> {
    json_number(text)
}

fn json_number(text: &str) -> Option<f64> {
    let number = is_json_number(text.as_bytes()).then(|| text.parse::<f64>().ok())??;
    // JSON has no infinity: 1e400 is out of range there.
    number.is_finite().then_some(number)
}

/// `-`? (`0` | [1-9][0-9]*) (`.` [0-9]+)? ([eE] [+-]? [0-9]+)?
fn is_json_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    let mut rest = &rest[whole..];
    if let Some(after) = rest.strip_prefix(b".") {
        let fraction = digits(after);
        if fraction == 0 {
            return false;
        }
        rest = &after[fraction..];
    }
    if let [b'e' | b'E', after @ ..] = rest {
        let after = after.strip_prefix(b"+").or_else(|| after.strip_prefix(b"-")).unwrap_or(after);
        let exponent = digits(after);
        return exponent > 0 && exponent == after.len();
    }
    rest.is_empty()
}

/// 0 or 1, in the spellings that tables have.
pub(super) fn label(text: &str) -> Option<bool> {
    match text {
        "1" | "1.0" => Some(true),
        "0" | "0.0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
