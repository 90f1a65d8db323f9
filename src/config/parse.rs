//! From a setting's text to its value: numbers, words and names. Those of places are in `places`, of tokens in `tokens`.
//!
//! A parser says what it expects and what is wrong; it never says the value itself (the fault does, unless it is secret).
//! Invariant: no text whatsoever makes a parser panic; a property test tries.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use super::values::{Choice, Role, Roles};

/// Reads one kind of value.
pub trait Parser {
    /// What comes out.
    type Value;

    /// What a right text looks like: completes "expected ...".
    fn expected() -> String;

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong: completes "the value ...".
    fn read(text: &str) -> Result<Self::Value, String>;
}

/// A whole number within bounds.
pub struct Whole<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Parser for Whole<MIN, MAX> {
    type Value = u64;

    fn expected() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn read(text: &str) -> Result<u64, String> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err("is not a whole number".to_owned());
        }
        match text.parse::<u64>() {
            Ok(number) if number < MIN => Err(format!("is below {MIN}")),
            Ok(number) if number <= MAX => Ok(number),
            // Digits that do not parse are too many of them.
            _ => Err(format!("is above {MAX}")),
        }
    }
}

/// A whole number within bounds that counts things.
pub struct Count<const MIN: u32, const MAX: u32>;

impl<const MIN: u32, const MAX: u32> Parser for Count<MIN, MAX> {
    type Value = u32;

    fn expected() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn read(text: &str) -> Result<u32, String> {
        let number = Whole::<0, { u64::MAX }>::read(text)?;
        match u32::try_from(number) {
            Ok(number) if number < MIN => Err(format!("is below {MIN}")),
            Ok(number) if number <= MAX => Ok(number),
            _ => Err(format!("is above {MAX}")),
        }
    }
}

/// A score: from 0 to 1.
pub struct Score;

impl Parser for Score {
    type Value = f64;

    fn expected() -> String {
        "a number from 0 to 1".to_owned()
    }

    fn read(text: &str) -> Result<f64, String> {
        let number = finite(text)?;
        if (0.0..=1.0).contains(&number) { Ok(number) } else { Err("is out of range".to_owned()) }
    }
}

/// The share of a training window that counts as anomalous: above 0, up to a half.
pub struct Contamination;

impl Parser for Contamination {
    type Value = f64;

    fn expected() -> String {
        "a number above 0 and up to 0.5".to_owned()
    }

    fn read(text: &str) -> Result<f64, String> {
        let number = finite(text)?;
        if number > 0.0 && number <= 0.5 { Ok(number) } else { Err("is out of range".to_owned()) }
    }
}

fn finite(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| "is not a number".to_owned())
}

/// A number of bytes, with or without a unit. Too few are refused.
pub struct Bytes<const MIN: u64>;

/// Longer units first: `MiB` also ends in `B`.
const UNITS: [(&str, u64); 7] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("B", 1)];

impl<const MIN: u64> Parser for Bytes<MIN> {
    type Value = u64;

    fn expected() -> String {
        format!("at least {}MiB, as bytes or with KiB, MiB, GiB, KB, MB or GB", MIN >> 20)
    }

    fn read(text: &str) -> Result<u64, String> {
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|digits| (digits.trim_end(), *unit)))
            .unwrap_or((text, 1));
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err("is not a whole number of bytes".to_owned());
        }
        let bytes = digits.parse().ok().and_then(|number: u64| number.checked_mul(unit));
        let bytes = bytes.ok_or("is more than any machine has")?;
        if bytes < MIN { Err("is too little to work with".to_owned()) } else { Ok(bytes) }
    }
}

/// On or off.
pub struct Switch;

impl Parser for Switch {
    type Value = bool;

    fn expected() -> String {
        "true or false (on or off, yes or no, 1 or 0)".to_owned()
    }

    fn read(text: &str) -> Result<bool, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Ok(true),
            "false" | "off" | "no" | "0" => Ok(false),
            _ => Err("is neither on nor off".to_owned()),
        }
    }
}

/// One word of a closed set.
pub struct OneOf<C>(PhantomData<C>);

impl<C: Choice> Parser for OneOf<C> {
    type Value = C;

    fn expected() -> String {
        words::<C>(" or ")
    }

    fn read(text: &str) -> Result<C, String> {
        choose(text).ok_or_else(|| "is not known".to_owned())
    }
}

pub(super) fn choose<C: Choice>(word: &str) -> Option<C> {
    C::ALL.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
}

pub(super) fn words<C: Choice>(between: &str) -> String {
    C::ALL.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(between)
}

/// A value that may be absent: an empty text is none.
pub struct Optional<P>(PhantomData<P>);

impl<P: Parser> Parser for Optional<P> {
    type Value = Option<P::Value>;

    fn expected() -> String {
        format!("{}, or nothing", P::expected())
    }

    fn read(text: &str) -> Result<Self::Value, String> {
        if text.is_empty() { Ok(None) } else { P::read(text).map(Some) }
    }
}

/// When to retrain: cron's five fields, in UTC, or six with seconds in front.
pub struct Cron;

impl Parser for Cron {
    type Value = String;

    fn expected() -> String {
        "minute, hour, day of month, month and day of week in UTC as cron has them, seconds in front if need be, such as `0 3 * * *`; or off".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        if text == "off" {
            return Ok(text.to_owned());
        }
        match text.split_ascii_whitespace().count() {
            5 | 6 => {}
            count => return Err(format!("has {count} fields")),
        }
        crate::schedule::parse(text).map(|_| text.to_owned()).map_err(|why| format!("is no schedule: {why}"))
    }
}

/// The longest name that Kafka takes for a topic.
pub(super) const TOPIC_NAME_MAX: usize = 249;
/// The longest `APPLICATION_ID` and `TOPIC_PREFIX`: together with our own endings they must stay a topic's name.
const NAME_PART_MAX: usize = 100;

pub(super) fn is_topic_text(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The name of a topic.
pub struct TopicName;

impl Parser for TopicName {
    type Value = String;

    fn expected() -> String {
        format!("1 to {TOPIC_NAME_MAX} letters, digits, dots, underscores and hyphens")
    }

    fn read(text: &str) -> Result<String, String> {
        if text.is_empty() {
            Err("is empty".to_owned())
        } else if text.len() > TOPIC_NAME_MAX {
            Err("is too long".to_owned())
        } else if !is_topic_text(text) || text == "." || text == ".." {
            Err("is not a topic's name".to_owned())
        } else {
            Ok(text.to_owned())
        }
    }
}

/// A part of topics' names, at least `MIN` characters long.
pub struct NamePart<const MIN: usize>;

impl<const MIN: usize> Parser for NamePart<MIN> {
    type Value = String;

    fn expected() -> String {
        format!("{MIN} to {NAME_PART_MAX} letters, digits, dots, underscores and hyphens")
    }

    fn read(text: &str) -> Result<String, String> {
        if text.len() < MIN {
            Err("is empty".to_owned())
        } else if text.len() > NAME_PART_MAX {
            Err("is too long".to_owned())
        } else if !is_topic_text(text) {
            Err("holds a character that topics' names cannot have".to_owned())
        } else {
            Ok(text.to_owned())
        }
    }
}

/// A currency's ISO 4217 code.
pub struct Currency;

impl Parser for Currency {
    type Value = String;

    fn expected() -> String {
        "three capital letters such as USD".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        if text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase()) {
            Ok(text.to_owned())
        } else {
            Err("is not a currency's code".to_owned())
        }
    }
}

/// A comma-separated list of roles.
pub struct RoleList;

impl Parser for RoleList {
    type Value = Roles;

    fn expected() -> String {
        format!("some of {}, with commas between", words::<Role>(", "))
    }

    fn read(text: &str) -> Result<Roles, String> {
        let roles: Option<BTreeSet<Role>> = text.split(',').map(|word| choose(word.trim())).collect();
        roles.map(Roles).ok_or_else(|| "names a role that is not known".to_owned())
    }
}

/// Which log lines to keep.
pub struct LogFilter;

impl Parser for LogFilter {
    type Value = String;

    fn expected() -> String {
        "error, warn, info, debug or trace, or `target=level` pairs with commas between".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        match tracing_subscriber::EnvFilter::builder().parse(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => Err("is not a filter".to_owned()),
        }
    }
}

/// A secret that people make up: 16 to 256 bytes.
pub struct Passphrase;

impl Parser for Passphrase {
    type Value = String;

    fn expected() -> String {
        "a text of 16 to 256 bytes that nobody can guess".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        match text.len() {
            16..=256 => Ok(text.to_owned()),
            0..16 => Err("is too short".to_owned()),
            _ => Err("is too long".to_owned()),
        }
    }
}
