//! From a record of a topic to a row: what is read of it, and what is none.
//!
//! Anyone may write into a topic. What does not fit a row (not of that shape, or names that no index takes) is left out and counted;
//! it must not stop what comes behind it.

use std::borrow::Cow;

use models::{FEATURES, Severity};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::labels::Label;

/// Bytes of a user's id, a merchant or the sender's id, as payments have them.
const NAME_BYTES_MAX: usize = 256;
/// Bytes of an id `topic:partition:offset`.
const ID_BYTES_MAX: usize = 300;

/// A verdict, borrowed from its record.
#[derive(Debug, Deserialize)]
pub struct VerdictRow<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) tx_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) user_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) merchant: Cow<'a, str>,
    pub(super) event_time: i64,
    pub(super) amount: f64,
    #[serde(borrow)]
    pub(super) currency: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) fx: Option<&'a RawValue>,
    pub(super) score: Option<f64>,
    pub(super) raw_score: Option<f64>,
    pub(super) severity: Severity,
    pub(super) is_anomaly: bool,
    #[serde(borrow)]
    pub(super) explanation: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) reasons: &'a RawValue,
    pub(super) features: [f32; FEATURES],
    #[serde(borrow)]
    pub(super) model_id: Option<Cow<'a, str>>,
}

impl<'a> VerdictRow<'a> {
    /// From a record of the verdicts topic; none where it is no verdict.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let row: Self = serde_json::from_slice(bytes).ok()?;
        // The sender's id defaults to the verdict's.
        let fits = [&row.id, &row.tx_id, &row.user_id, &row.merchant].into_iter().chain(&row.model_id).chain(&row.currency);
        if fits.map(|name| name.len()).max() <= Some(ID_BYTES_MAX) { Some(row) } else { None }
    }

    /// Event time, in milliseconds since the epoch.
    #[must_use]
    pub fn event_time_ms(&self) -> i64 {
        self.event_time
    }
}

/// The severity as a number that grows with it, as column `severity` has it.
#[must_use]
pub fn severity_rank(severity: Severity) -> i16 {
    severity as i16
}

/// What somebody found out about a payment, and the record that says it.
#[derive(Debug)]
pub struct LabelRow {
    /// The record's id, `topic:partition:offset`.
    pub(super) id: String,
    pub(super) label: Label,
    pub(super) written_ms: i64,
}

impl LabelRow {
    /// From a record of the labels topic with that id, key and time; none where it is no label. One that names no user is about its
    /// key's: so an erasure finds it.
    #[must_use]
    pub fn decode(bytes: &[u8], id: String, key: Option<&[u8]>, record_ms: i64) -> Option<Self> {
        let label = Label::decode(bytes, record_ms).ok()?;
        let key = key.and_then(|key| std::str::from_utf8(key).ok()).filter(|key| (1..=NAME_BYTES_MAX).contains(&key.len()));
        let user_id = label.user_id.or_else(|| key.map(str::to_owned));
        Some(Self { id, label: Label { user_id, ..label }, written_ms: record_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_point_somewhere_and_say_something() {
        let decode = |text: &'static str| LabelRow::decode(text.as_bytes(), "labels:0:7".into(), Some(b"k"), 5);
        let label = decode(r#"{"verdict_id":"transactions:0:1","label":"fraud","by":"ann","at":"2026-11-23T00:00:00Z"}"#);
        let label = label.expect("a label");
        assert_eq!(
            (label.label.at, label.id.as_str(), label.label.by.as_deref()),
            (1_795_392_000_000, "labels:0:7", Some("ann"))
        );
        assert_eq!((label.written_ms, label.label.user_id.as_deref()), (5, Some("k")), "its key says whose payment it is about");
        let label = decode(r#"{"tx_id":"t","user_id":"u","label":"legitimate","more":1}"#).expect("a label");
        assert_eq!((label.label.at, label.label.user_id.as_deref()), (5, Some("u")), "without a time it is the record's");
        for wrong in [
            r#"{"label":"fraud"}"#,
            r#"{"tx_id":"t","label":"fraud"}"#,
            r#"{"verdict_id":"v","label":"maybe"}"#,
            r#"{"verdict_id":"v","label":"fraud","at":"yesterday"}"#,
            r#"{"verdict_id":"v","label":"fraud","at":-1}"#,
            r#"{"verdict_id":"","label":"fraud"}"#,
            "[]",
            "\u{0}",
        ] {
            assert!(decode(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn severities_rank_as_they_grow() {
        let all = [Severity::None, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
        assert_eq!(all.map(severity_rank), [0, 1, 2, 3, 4]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_whatever_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = VerdictRow::decode(&bytes);
            let _ = LabelRow::decode(&bytes, String::new(), Some(&bytes), 0);
        }
    }
}
