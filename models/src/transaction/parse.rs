//! The JSON side: one pass over the text that remembers which field it is in.
//!
//! serde's derived code cannot name the field in which a number overflows or a bracket is missing, and it turns what
//! it found into the message. Here each field is read by a seed that notes the field first and, when it refuses,
//! leaves the cause in [`State`]; serde's own error is only the signal to stop.

use super::rfc3339;
use super::{CURRENCY_BYTES_MAX, Cause, InvalidTransaction, Limits, NAME_BYTES_MAX, Transaction, check_event_time};
use crate::features::AMOUNT_MAX;
use alloc::borrow::Cow;
use alloc::string::String;
use core::cell::RefCell;
use core::fmt;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The fields of a transaction, by position in [`NAMES`].
const NAMES: [&str; 6] = ["user_id", "amount", "merchant", "tx_id", "currency", "timestamp"];
const USER_ID: usize = 0;
const AMOUNT: usize = 1;
const MERCHANT: usize = 2;
const TX_ID: usize = 3;
const CURRENCY: usize = 4;
const TIMESTAMP: usize = 5;

/// What is known when reading stops early.
#[derive(Default)]
struct State {
    field: Option<&'static str>,
    refused: Option<InvalidTransaction>,
}

/// The fields as found.
#[derive(Default)]
pub(super) struct Fields<'a> {
    strings: [Option<Cow<'a, str>>; NAMES.len()],
    amount: Option<f64>,
    timestamp: Option<i64>,
}

/// Reads one JSON object.
pub(super) fn parse(text: &str) -> Result<Fields<'_>, InvalidTransaction> {
    let state = RefCell::new(State::default());
    let mut json = serde_json::Deserializer::from_str(text);
    let fields = Object { state: &state }.deserialize(&mut json);
    match fields.and_then(|fields| json.end().map(|()| fields)) {
        Ok(fields) => Ok(fields),
        Err(error) => Err(explain(&error, text, state.into_inner())),
    }
}

/// Turns serde's signal into our own words: what was refused, or where the text stops being JSON.
#[cold]
fn explain(error: &serde_json::Error, text: &str, state: State) -> InvalidTransaction {
    if let Some(refused) = state.refused {
        return refused;
    }
    // serde_json keeps its codes private; this one matters, because 1e400 is JSON and only too large for a double.
    let overflow = alloc::string::ToString::to_string(error).starts_with("number out of range");
    if overflow && matches!(state.field, Some("amount" | "timestamp")) {
        return InvalidTransaction::new(state.field, Cause::OutOfRange);
    }
    let line_start: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    InvalidTransaction {
        at: Some((line_start + error.column()).min(text.len())),
        ..InvalidTransaction::new(state.field, Cause::NotJson)
    }
}

impl<'a> Fields<'a> {
    /// Checks presence and event time.
    pub(super) fn finish(mut self, record_time: i64, limits: &Limits) -> Result<Transaction<'a>, InvalidTransaction> {
        let missing = |field: usize| InvalidTransaction::new(Some(NAMES[field]), Cause::Missing);
        let event_time = match self.timestamp {
            Some(t) => check_event_time(t, record_time, limits),
            None => check_event_time(record_time, record_time, limits)
                .map_err(|_| InvalidTransaction::new(Some("timestamp"), Cause::BadRecordTime)),
        };
        Ok(Transaction {
            user_id: self.strings[USER_ID].take().ok_or_else(|| missing(USER_ID))?,
            amount: self.amount.ok_or_else(|| missing(AMOUNT))?,
            merchant: self.strings[MERCHANT].take().ok_or_else(|| missing(MERCHANT))?,
            tx_id: self.strings[TX_ID].take(),
            currency: self.strings[CURRENCY].take(),
            event_time: event_time?,
        })
    }
}

/// Notes the cause and stops serde.
#[cold]
fn refuse<E: de::Error>(state: &RefCell<State>, cause: Cause, found: Option<&'static str>) -> E {
    let mut state = state.borrow_mut();
    state.refused = Some(InvalidTransaction { found, ..InvalidTransaction::new(state.field, cause) });
    E::custom("refused")
}

struct Object<'s> {
    state: &'s RefCell<State>,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Refuses the JSON types that a visitor does not take, naming the type it found.
macro_rules! refuse_types {
    ($cause:expr; $($visit:ident $(($ty:ty))? => $found:literal),+ $(,)?) => {
        $(fn $visit<E: de::Error>(self $(, _: $ty)?) -> Result<Self::Value, E> {
            Err(refuse(self.state, $cause, Some($found)))
        })+
    };
}

/// The same for a list or object, whose visitor methods have other signatures.
macro_rules! refuse_nested {
    ($cause:expr; $($visit:ident $access:ident => $found:literal),+ $(,)?) => {
        $(fn $visit<A: $access<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(refuse(self.state, $cause, Some($found)))
        })+
    };
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        let mut seen = 0u8;
        while let Some(key) = map.next_key_seed(Key)? {
            let Some(key) = key else {
                // The last known field stays noted: an error in an unknown one is reported as "in or after" it.
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            self.state.borrow_mut().field = Some(NAMES[key]);
            if seen & (1 << key) != 0 {
                return Err(refuse(self.state, Cause::Duplicate, None));
            }
            seen |= 1 << key;
            let state = self.state;
            let text = |max| Text { state, max, optional: key >= TX_ID };
            match key {
                AMOUNT => fields.amount = Some(map.next_value_seed(Amount { state })?),
                TIMESTAMP => fields.timestamp = map.next_value_seed(Timestamp { state })?,
                CURRENCY => fields.strings[key] = map.next_value_seed(text(CURRENCY_BYTES_MAX))?,
                _ => fields.strings[key] = map.next_value_seed(text(NAME_BYTES_MAX))?,
            }
        }
        Ok(fields)
    }

    refuse_types! {
        Cause::NotObject;
        visit_unit => "null",
        visit_bool(bool) => "a boolean",
        visit_i64(i64) => "a number",
        visit_u64(u64) => "a number",
        visit_f64(f64) => "a number",
        visit_str(&str) => "a string",
    }
    refuse_nested! { Cause::NotObject; visit_seq SeqAccess => "a list" }
}

/// A key: the position of a known field, or `None`.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(NAMES.iter().position(|name| *name == key))
    }
}

/// A string of 1 to `max` bytes; `None` for a null that is allowed.
struct Text<'s> {
    state: &'s RefCell<State>,
    max: usize,
    optional: bool,
}

impl Text<'_> {
    fn check<E: de::Error>(&self, text: &str) -> Result<(), E> {
        match text.len() {
            0 => Err(refuse(self.state, Cause::EmptyString, None)),
            length if length > self.max => Err(refuse(self.state, Cause::TooLong, None)),
            _ => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        self.check(text).map(|()| Some(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        self.check(text).map(|()| Some(Cow::Owned(String::from(text))))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        if self.optional { Ok(None) } else { Err(refuse(self.state, Cause::WrongType, Some("null"))) }
    }

    refuse_types! {
        Cause::WrongType;
        visit_bool(bool) => "a boolean",
        visit_i64(i64) => "a number",
        visit_u64(u64) => "a number",
        visit_f64(f64) => "a number",
    }
    refuse_nested! { Cause::WrongType; visit_seq SeqAccess => "a list", visit_map MapAccess => "an object" }
}

/// A number from 0 to [`AMOUNT_MAX`]; -0.0 becomes 0.
struct Amount<'s> {
    state: &'s RefCell<State>,
}

impl<'de> DeserializeSeed<'de> for Amount<'_> {
    type Value = f64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Amount<'_> {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E: de::Error>(self, amount: f64) -> Result<f64, E> {
        if (0.0..=AMOUNT_MAX).contains(&amount) {
            // -0.0 is within the range and equal to 0; adding 0 gives it 0's sign.
            Ok(amount + 0.0)
        } else {
            Err(refuse(self.state, Cause::OutOfRange, None))
        }
    }

    fn visit_u64<E: de::Error>(self, amount: u64) -> Result<f64, E> {
        self.visit_f64(amount as f64)
    }

    fn visit_i64<E: de::Error>(self, amount: i64) -> Result<f64, E> {
        self.visit_f64(amount as f64)
    }

    refuse_types! {
        Cause::WrongType;
        visit_unit => "null",
        visit_bool(bool) => "a boolean",
        visit_str(&str) => "a string",
    }
    refuse_nested! { Cause::WrongType; visit_seq SeqAccess => "a list", visit_map MapAccess => "an object" }
}

/// An RFC 3339 string or integer milliseconds, any value that fits; `None` for null.
struct Timestamp<'s> {
    state: &'s RefCell<State>,
}

impl<'de> DeserializeSeed<'de> for Timestamp<'_> {
    type Value = Option<i64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Timestamp<'_> {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        rfc3339::parse_ms(text).map(Some).ok_or_else(|| refuse(self.state, Cause::BadTimestamp, None))
    }

    fn visit_i64<E: de::Error>(self, t: i64) -> Result<Self::Value, E> {
        Ok(Some(t))
    }

    fn visit_u64<E: de::Error>(self, t: u64) -> Result<Self::Value, E> {
        i64::try_from(t).map(Some).map_err(|_| refuse(self.state, Cause::OutOfRange, None))
    }

    fn visit_f64<E: de::Error>(self, t: f64) -> Result<Self::Value, E> {
        // An integer too large for u64 arrives here as well; below that, a float is a float.
        let too_large = !(-9.2e18..1.8e19).contains(&t);
        let (cause, found) =
            if too_large { (Cause::OutOfRange, None) } else { (Cause::WrongType, Some("a number with a fraction")) };
        Err(refuse(self.state, cause, found))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    refuse_types! { Cause::WrongType; visit_bool(bool) => "a boolean" }
    refuse_nested! { Cause::WrongType; visit_seq SeqAccess => "a list", visit_map MapAccess => "an object" }
}
