//! A payment as it arrives: the bytes of one record, checked.
//!
//! Format: a JSON object `{user_id, amount, merchant, tx_id?, currency?, timestamp?}` in UTF-8; unknown fields are
//! ignored, known ones must occur at most once, `null` is absence where absence is allowed. Types are strict: an amount
//! in quotes is refused, because guessing what a sender meant is how wrong money gets scored.
//!
//! Limits: user, merchant and `tx_id` 1 to 256 bytes, currency 1 to 16, 0 <= amount <= 1e12, event time within
//! [0, 10000-01-01) and at most [`Limits::max_future_ms`] after the record's own time (one wrong clock must not poison a
//! profile), the whole value at most [`Limits::max_bytes`].
//!
//! What is refused becomes a dead letter. Its message names the field, what is wrong and what is expected, and never
//! the value: a dead letter's headers are read by people who may not see payments.

mod parse;
mod rfc3339;

use crate::features::EVENT_TIME_END_MS;
use alloc::borrow::Cow;
use core::fmt;

/// Longest `user_id`, `merchant` and `tx_id` in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest `currency` in bytes.
pub const CURRENCY_BYTES_MAX: usize = 16;

/// A payment whose every field is within bounds. Strings borrow from the record unless they held escapes.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction<'a> {
    /// Who pays; 1 to 256 bytes.
    pub user_id: Cow<'a, str>,
    /// How much, 0 to 1e12, never -0.0, in the units of the sender.
    pub amount: f64,
    /// Who is paid; 1 to 256 bytes.
    pub merchant: Cow<'a, str>,
    /// The sender's own id of the payment; 1 to 256 bytes.
    pub tx_id: Option<Cow<'a, str>>,
    /// Currency code; 1 to 16 bytes.
    pub currency: Option<Cow<'a, str>>,
    /// When it happened, ms since the epoch: the `timestamp` field, or the record's own time.
    pub event_time: i64,
}

/// Bounds that an operator can move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How far an event may lie after its record's time, in ms (`MAX_FUTURE_MS`; default one hour).
    pub max_future_ms: i64,
    /// Largest value in bytes (default 1 MiB).
    pub max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_future_ms: 3_600_000, max_bytes: 1 << 20 }
    }
}

impl<'a> Transaction<'a> {
    /// Reads one record's value. `record_time_ms` is the timestamp stored with the record, ms since the epoch.
    ///
    /// # Errors
    /// [`InvalidTransaction`] for anything the module's header does not allow; the input must be fixed, a retry can't help.
    pub fn from_json(bytes: &'a [u8], record_time_ms: i64, limits: &Limits) -> Result<Self, InvalidTransaction> {
        if bytes.is_empty() {
            return Err(InvalidTransaction::new(None, Cause::Empty));
        }
        if bytes.len() > limits.max_bytes {
            return Err(InvalidTransaction::new(None, Cause::TooLarge));
        }
        if bytes[0] == 0 {
            return Err(InvalidTransaction::new(None, Cause::SchemaRegistryFraming));
        }
        let text = core::str::from_utf8(bytes).map_err(|error| InvalidTransaction {
            at: Some(error.valid_up_to()),
            ..InvalidTransaction::new(None, Cause::NotUtf8)
        })?;
        parse::parse(text)?.finish(record_time_ms, limits)
    }
}

/// Checks an event time against its bounds.
///
/// # Errors
/// [`Cause::OutOfRange`] or [`Cause::FarFuture`] on `timestamp`.
fn check_event_time(t: i64, record_time_ms: i64, limits: &Limits) -> Result<i64, InvalidTransaction> {
    if !(0..EVENT_TIME_END_MS).contains(&t) {
        return Err(InvalidTransaction::new(Some("timestamp"), Cause::OutOfRange));
    }
    if t > record_time_ms.saturating_add(limits.max_future_ms) {
        return Err(InvalidTransaction::new(Some("timestamp"), Cause::FarFuture));
    }
    Ok(t)
}

/// Why a record is no transaction: a closed set, with stable codes for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// No bytes at all.
    Empty,
    /// More bytes than [`Limits::max_bytes`].
    TooLarge,
    /// The first byte is 0: a schema registry's framing, which this decoder does not read.
    SchemaRegistryFraming,
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON, or more than one JSON value.
    NotJson,
    /// JSON, but not an object.
    NotObject,
    /// A required field is absent.
    Missing,
    /// A field occurs twice.
    Duplicate,
    /// A field has another JSON type.
    WrongType,
    /// A number or time outside its bounds.
    OutOfRange,
    /// A string with no bytes.
    EmptyString,
    /// A string with too many bytes.
    TooLong,
    /// A string that is no RFC 3339 time.
    BadTimestamp,
    /// An event too far after its record's own time.
    FarFuture,
    /// No `timestamp`, and the record's own time is outside the bounds.
    BadRecordTime,
}

impl Cause {
    /// Every cause, so that metrics can be registered before the first failure.
    pub const ALL: [Self; 15] = [
        Self::Empty,
        Self::TooLarge,
        Self::SchemaRegistryFraming,
        Self::NotUtf8,
        Self::NotJson,
        Self::NotObject,
        Self::Missing,
        Self::Duplicate,
        Self::WrongType,
        Self::OutOfRange,
        Self::EmptyString,
        Self::TooLong,
        Self::BadTimestamp,
        Self::FarFuture,
        Self::BadRecordTime,
    ];

    /// Stable snake_case code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLarge => "too_large",
            Self::SchemaRegistryFraming => "schema_registry_framing",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::NotObject => "not_object",
            Self::Missing => "missing",
            Self::Duplicate => "duplicate",
            Self::WrongType => "wrong_type",
            Self::OutOfRange => "out_of_range",
            Self::EmptyString => "empty_string",
            Self::TooLong => "too_long",
            Self::BadTimestamp => "bad_timestamp",
            Self::FarFuture => "far_future",
            Self::BadRecordTime => "bad_record_time",
        }
    }
}

/// A record that is no transaction. `Display` is fit for a dead letter's header: it holds no part of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTransaction {
    /// The field at fault, where one is.
    pub field: Option<&'static str>,
    /// What is wrong.
    pub cause: Cause,
    /// The JSON type that was found, for [`Cause::WrongType`] and [`Cause::NotObject`].
    pub found: Option<&'static str>,
    /// Offset in bytes where reading stopped, for [`Cause::NotUtf8`] and [`Cause::NotJson`].
    pub at: Option<usize>,
}

impl InvalidTransaction {
    const fn new(field: Option<&'static str>, cause: Cause) -> Self {
        Self { field, cause, found: None, at: None }
    }
}

/// What a field should have been.
fn expected(field: &str) -> &'static str {
    match field {
        "amount" => "a JSON number from 0 to 1e12",
        "timestamp" => "an RFC 3339 string or integer milliseconds since 1970, before the year 10000",
        "currency" => "a string of 1 to 16 bytes",
        _ => "a string of 1 to 256 bytes",
    }
}

impl fmt::Display for InvalidTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found.unwrap_or("another type");
        match self.cause {
            Cause::Empty => write!(f, "the value is empty"),
            Cause::TooLarge => write!(f, "the value is larger than this application reads"),
            Cause::SchemaRegistryFraming => {
                write!(f, "the first byte is 0 (schema registry framing); expected a plain JSON object")
            }
            Cause::NotUtf8 => write!(f, "the value is not UTF-8"),
            Cause::NotJson => write!(f, "the value is not one well-formed JSON object"),
            Cause::NotObject => write!(f, "the value is {found}; expected a JSON object"),
            _ => self.write_field(f, found),
        }?;
        if let Some(at) = self.at {
            write!(f, ", at byte {at}")?;
        }
        match (self.cause, self.field) {
            (Cause::NotUtf8 | Cause::NotJson, Some(field)) => {
                write!(f, " (in or after field {field})")
            }
            _ => Ok(()),
        }
    }
}

impl InvalidTransaction {
    fn write_field(&self, f: &mut fmt::Formatter<'_>, found: &str) -> fmt::Result {
        let field = self.field.unwrap_or("the value");
        let wrong = match self.cause {
            Cause::Missing => "is missing",
            Cause::Duplicate => return write!(f, "{field}: occurs twice; expected once"),
            Cause::WrongType => {
                return write!(f, "{field}: is {found}; expected {}", expected(field));
            }
            Cause::EmptyString => "is empty",
            Cause::TooLong => "is too long",
            Cause::BadTimestamp => "is not an RFC 3339 time",
            Cause::FarFuture => {
                return write!(f, "{field}: is later than the record's own time by more than is allowed (MAX_FUTURE_MS)");
            }
            Cause::BadRecordTime => {
                return write!(f, "{field}: is absent and the record's own time is out of range; expected one of them");
            }
            _ => "is out of range",
        };
        write!(f, "{field}: {wrong}; expected {}", expected(field))
    }
}

impl core::error::Error for InvalidTransaction {}
