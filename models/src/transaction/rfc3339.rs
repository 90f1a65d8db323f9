//! RFC 3339 times, strictly: `YYYY-MM-DDTHH:MM:SS[.fraction](Z|+HH:MM|-HH:MM)`, `t` and `z` allowed in lower case.
//!
//! Written here because a general time library reads much that is no RFC 3339 (weeks, zone names, hours without
//! minutes), and a guess about a time is a wrong feature. Digits below a millisecond are cut off; second 60 counts
//! as 59, as POSIX time has no leap seconds.

use crate::features::{DAY_MS, HOUR_MS};

/// Milliseconds since the epoch (negative before 1970), or `None` if the text is not RFC 3339.
pub(super) fn parse_ms(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || !matches!(b[10], b'T' | b't') || b[13] != b':' || b[16] != b':' {
        return None;
    }
    let (year, month, day) = (number(b, 0, 4)?, number(b, 5, 2)?, number(b, 8, 2)?);
    let (hour, minute, second) = (number(b, 11, 2)?, number(b, 14, 2)?, number(b, 17, 2)?);
    let date_exists = (1..=12).contains(&month) && day >= 1 && day <= days_in(year, month);
    if !date_exists || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_ms, rest) = fraction(&b[19..])?;
    let offset_ms = offset(rest)?;
    let time_ms = hour * HOUR_MS + minute * 60_000 + second.min(59) * 1000 + fraction_ms;
    Some(days_since_epoch(year, month, day) * DAY_MS + time_ms - offset_ms)
}

fn number(b: &[u8], from: usize, digits: usize) -> Option<i64> {
    let digits = b.get(from..from + digits)?;
    digits.iter().try_fold(0, |n, d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')))
}

/// Milliseconds of an optional `.digits`, and what follows it.
fn fraction(b: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = b.strip_prefix(b".") else {
        return Some((0, b));
    };
    let length = digits.iter().take_while(|d| d.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let digit = |i: usize| {
        if i < length { i64::from(digits[i] - b'0') } else { 0 }
    };
    Some((digit(0) * 100 + digit(1) * 10 + digit(2), &digits[length..]))
}

fn offset(b: &[u8]) -> Option<i64> {
    let sign = match b {
        b"Z" | b"z" => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    if b.len() != 6 || b[3] != b':' {
        return None;
    }
    let (hours, minutes) = (number(b, 1, 2)?, number(b, 4, 2)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * HOUR_MS + minutes * 60_000))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar: the year begins in March, so that the leap day is its last
/// (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`).
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}
