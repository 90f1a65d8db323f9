//! Transactions: what is accepted, what is refused, and how it is said.

use crate::transaction::{Cause, InvalidTransaction, Limits, Transaction};
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use proptest::prelude::*;

const NOW: i64 = 1_700_000_000_000;

fn read(json: &str) -> Result<Transaction<'_>, InvalidTransaction> {
    Transaction::from_json(json.as_bytes(), NOW, &Limits::default())
}

fn refused(json: &str) -> (Option<&'static str>, Cause) {
    let error = read(json).unwrap_err();
    assert!(!error.to_string().contains("secret"), "a message must not hold the value: {error}");
    (error.field, error.cause)
}

fn with(field: &str) -> String {
    format!(r#"{{"user_id":"u","merchant":"m","amount":1,{field}}}"#)
}

#[test]
fn a_full_transaction_is_read() {
    let json = r#" {"extra":{"a":[1,2e999]},"user_id":"u\n1","amount":12.5,"merchant":"café","tx_id":"t","currency":"EUR",
        "timestamp":"2023-11-14T22:13:20.123456+00:00"} "#;
    let tx = read(json).unwrap();
    assert_eq!((tx.user_id.as_ref(), tx.merchant.as_ref(), tx.amount), ("u\n1", "café", 12.5));
    assert_eq!((tx.tx_id.as_deref(), tx.currency.as_deref()), (Some("t"), Some("EUR")));
    assert_eq!(tx.event_time, NOW + 123);
    assert!(matches!(tx.merchant, Cow::Borrowed(_)), "plain strings are not copied");
    assert!(matches!(tx.user_id, Cow::Owned(_)));
}

#[test]
fn what_may_be_absent_may_be_null() {
    let nulls = with(r#""tx_id":null,"currency":null,"timestamp":null"#);
    let tx = read(&nulls).map(|tx| (tx.tx_id, tx.currency, tx.event_time));
    assert_eq!(tx, Ok((None, None, NOW)));
    assert_eq!(refused(r#"{"user_id":null,"merchant":"m","amount":1}"#), (Some("user_id"), Cause::WrongType));
    assert_eq!(refused(&with(r#""tx_id":null,"tx_id":"x""#)), (Some("tx_id"), Cause::Duplicate));
}

#[test]
fn amounts_are_strict() {
    let amount = |text: &str| format!(r#"{{"user_id":"u","merchant":"m","amount":{text}}}"#);
    for (text, cause) in [
        ("\"1\"", Cause::WrongType),
        ("null", Cause::WrongType),
        ("true", Cause::WrongType),
        ("[1]", Cause::WrongType),
        ("{\"secret\":1}", Cause::WrongType),
        ("1e400", Cause::OutOfRange),
        ("-1", Cause::OutOfRange),
        ("-0.001", Cause::OutOfRange),
        ("1000000000001", Cause::OutOfRange),
        ("01", Cause::NotJson),
        ("NaN", Cause::NotJson),
        ("", Cause::NotJson),
    ] {
        assert_eq!(refused(&amount(text)), (Some("amount"), cause), "{text}");
    }
    for (text, value) in [("0", 0.0f64), ("-0.0", 0.0), ("-0", 0.0), ("1e12", 1e12), ("1e-400", 0.0), ("0.1", 0.1)] {
        assert_eq!(read(&amount(text)).unwrap().amount.to_bits(), value.to_bits(), "{text}");
    }
}

#[test]
fn strings_are_bounded() {
    let user = |length: usize| format!(r#"{{"user_id":"{}","merchant":"m","amount":1}}"#, "x".repeat(length));
    assert!(read(&user(256)).is_ok());
    assert_eq!(refused(&user(257)), (Some("user_id"), Cause::TooLong));
    assert_eq!(refused(&user(0)), (Some("user_id"), Cause::EmptyString));
    assert_eq!(refused(&with(r#""currency":"secretsecretsecre""#)), (Some("currency"), Cause::TooLong));
    assert_eq!(refused(&with(r#""tx_id":7"#)), (Some("tx_id"), Cause::WrongType));
    assert_eq!(refused(&with(r#""user_id":"secret""#)), (Some("user_id"), Cause::Duplicate));
    assert_eq!(refused(r#"{"user_id":"u","amount":1}"#), (Some("merchant"), Cause::Missing));
}

#[test]
fn times_are_bounded() {
    let time = |text: &str| with(&format!(r#""timestamp":{text}"#));
    for (text, ms) in [("0", 0), ("1700003600000", NOW + 3_600_000), ("\"1970-01-01T00:00:00Z\"", 0)] {
        assert_eq!(read(&time(text)).unwrap().event_time, ms, "{text}");
    }
    for (text, cause) in [
        ("1700003600001", Cause::FarFuture),
        ("253402300800000", Cause::OutOfRange),
        ("-1", Cause::OutOfRange),
        ("99999999999999999999999", Cause::OutOfRange),
        ("1e400", Cause::OutOfRange),
        ("1700000000000.5", Cause::WrongType),
        ("1.7e12", Cause::WrongType),
        ("\"2023-11-14\"", Cause::BadTimestamp),
        ("\"2023-11-14T22:13:20\"", Cause::BadTimestamp),
        ("\"2023-02-29T00:00:00Z\"", Cause::BadTimestamp),
        ("\"1969-12-31T23:59:59Z\"", Cause::OutOfRange),
        ("\"2023-11-15T22:13:20Z\"", Cause::FarFuture),
        ("[]", Cause::WrongType),
    ] {
        assert_eq!(refused(&time(text)), (Some("timestamp"), cause), "{text}");
    }
    let absent = r#"{"user_id":"u","merchant":"m","amount":1}"#;
    let error = Transaction::from_json(absent.as_bytes(), -1, &Limits::default()).unwrap_err();
    assert_eq!((error.field, error.cause), (Some("timestamp"), Cause::BadRecordTime));
}

#[test]
fn other_bytes_are_refused_with_their_cause() {
    let cause = |bytes: &[u8]| Transaction::from_json(bytes, NOW, &Limits::default()).unwrap_err().cause;
    assert_eq!(cause(b""), Cause::Empty);
    assert_eq!(cause(b"\0\0\0\0\x01secret"), Cause::SchemaRegistryFraming);
    assert_eq!(cause(b"{\"user_id\":\"\xff\"}"), Cause::NotUtf8);
    assert_eq!(cause(&[b' '; (1 << 20) + 1]), Cause::TooLarge);
    for (text, expected) in [("[]", Cause::NotObject), ("7", Cause::NotObject), ("null", Cause::NotObject), ("{", Cause::NotJson)]
    {
        assert_eq!(cause(text.as_bytes()), expected, "{text}");
    }
    assert_eq!(refused(&with(r#""x":1} trailing"#).replace("}}", "}")), (Some("amount"), Cause::NotJson));
    let nested = with(&format!(r#""x":{}1{}"#, "[".repeat(5000), "]".repeat(5000)));
    assert!(read(&nested).is_ok(), "deep nesting in an ignored field takes no stack");
}

#[test]
fn messages_name_field_fault_and_expectation() {
    let message = |json: &str| read(json).unwrap_err().to_string();
    assert_eq!(
        message(r#"{"user_id":"u","merchant":"m","amount":"secret"}"#),
        "amount: is a string; expected a JSON number from 0 to 1e12"
    );
    assert_eq!(message(r#"{"merchant":"m","amount":1}"#), "user_id: is missing; expected a string of 1 to 256 bytes");
    assert_eq!(
        message(r#"{"user_id":"u","amount":}"#),
        "the value is not one well-formed JSON object, at byte 25 (in or after field amount)"
    );
    let mut codes: alloc::vec::Vec<_> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), Cause::ALL.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Transaction::from_json(&bytes, NOW, &Limits::default()).map_err(|error| error.to_string());
    }

    #[test]
    fn damaged_json_never_panics(at in 0usize..90, byte in any::<u8>()) {
        let mut json = with(r#""tx_id":"t","currency":"EUR","timestamp":1700000000000"#).into_bytes();
        let at = at % json.len();
        json[at] = byte;
        let _ = Transaction::from_json(&json, NOW, &Limits::default()).map_err(|error| error.to_string());
    }

    #[test]
    fn amounts_read_back_to_the_bit(amount in 0.0..=1e12f64) {
        let json = format!(r#"{{"user_id":"u","merchant":"m","amount":{amount:?}}}"#);
        prop_assert_eq!(read(&json).unwrap().amount.to_bits(), amount.to_bits());
    }

    #[test]
    fn times_agree_with_jiff(ms in 0i64..4_102_444_800_000, offset in -1439i64..1440) {
        let local = jiff::Timestamp::from_millisecond(ms + offset * 60_000).unwrap();
        let text = local.to_string();
        let (sign, minutes) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
        let text = format!("{}{sign}{:02}:{:02}", text.trim_end_matches('Z'), minutes / 60, minutes % 60);
        let expected: jiff::Timestamp = text.parse().unwrap();
        let json = with(&format!(r#""timestamp":"{text}""#));
        let limits = Limits { max_future_ms: i64::MAX, ..Limits::default() };
        let got = Transaction::from_json(json.as_bytes(), NOW, &limits).unwrap().event_time;
        prop_assert_eq!(got, expected.as_millisecond(), "{}", text);
    }
}
