//! What is said of one payment, as it goes on the wire.
//!
//! Format: one JSON object with its fields in the order of [`VerdictRef`], starting `{"tx_id":"`. `score`, `raw_score`
//! and `model_id` are `null` with no model, `currency` is `null` when the payment named none, `fx` is left out when no
//! rate was applied. `features` are the f32 values that the forest got, each the shortest text that reads back as
//! the same f32. The same verdict gives the same bytes.

use crate::explain::Reason;
use crate::features::FEATURES;
use crate::json;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// How bad it is, from the score; `None` below the threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Below the threshold: no anomaly.
    #[default]
    None,
    /// At the threshold or above.
    Low,
    /// From 0.65.
    Medium,
    /// From 0.8.
    High,
    /// From 0.9.
    Critical,
}

impl Severity {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
            Self::Critical => "CRITICAL",
        }
    }
}

/// Severity of a calibrated score: `None` below the threshold, from it up the highest whose bound is reached.
#[must_use]
pub fn severity(score: f64, threshold: f64) -> Severity {
    // Written as "at or above", so that NaN is below everything.
    let reaches = |bound: f64| score >= bound;
    match () {
        () if !reaches(threshold) => Severity::None,
        () if reaches(0.9) => Severity::Critical,
        () if reaches(0.8) => Severity::High,
        () if reaches(0.65) => Severity::Medium,
        () => Severity::Low,
    }
}

/// The conversion that was applied to an amount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fx {
    /// Base currency.
    pub base: String,
    /// Units of the base currency per unit of the payment's.
    pub rate: f64,
    /// Amount in the base currency: the one that was scored.
    pub amount: f64,
}

/// A verdict that borrows: what the hot path writes.
#[derive(Clone, Copy, Debug)]
pub struct VerdictRef<'a> {
    /// The sender's id of the payment, or `id` when it gave none.
    pub tx_id: &'a str,
    /// `topic:partition:offset` of the input record.
    pub id: &'a str,
    /// Who pays.
    pub user_id: &'a str,
    /// Event time, ms since the epoch.
    pub event_time: i64,
    /// Amount as sent.
    pub amount: f64,
    /// Currency as sent.
    pub currency: Option<&'a str>,
    /// Who is paid.
    pub merchant: &'a str,
    /// Calibrated score in [0, 1]; `None` with no model.
    pub score: Option<f64>,
    /// The forest's own score; `None` with no model.
    pub raw_score: Option<f64>,
    /// Whether the score reaches the threshold.
    pub is_anomaly: bool,
    /// How bad.
    pub severity: Severity,
    /// The reasons in one line; empty where none are given.
    pub explanation: &'a str,
    /// The features that made it anomalous, strongest first.
    pub reasons: &'a [Reason],
    /// The features that the forest got.
    pub features: &'a [f32; FEATURES],
    /// The model that judged; `None` with no model.
    pub model_id: Option<&'a str>,
    /// The conversion applied, if any.
    pub fx: Option<&'a Fx>,
}

impl VerdictRef<'_> {
    /// Appends the JSON text.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        key(out, "{\"tx_id\":");
        json::string(out, self.tx_id);
        key(out, ",\"id\":");
        json::string(out, self.id);
        key(out, ",\"user_id\":");
        json::string(out, self.user_id);
        key(out, ",\"event_time\":");
        json::integer(out, self.event_time);
        key(out, ",\"amount\":");
        json::float(out, self.amount);
        key(out, ",\"currency\":");
        json::optional_string(out, self.currency);
        key(out, ",\"merchant\":");
        json::string(out, self.merchant);
        key(out, ",\"score\":");
        json::optional_float(out, self.score);
        key(out, ",\"raw_score\":");
        json::optional_float(out, self.raw_score);
        key(out, if self.is_anomaly { ",\"is_anomaly\":true" } else { ",\"is_anomaly\":false" });
        key(out, ",\"severity\":\"");
        key(out, self.severity.as_str());
        key(out, "\",\"explanation\":");
        json::string(out, self.explanation);
        key(out, ",\"reasons\":");
        list(out, self.reasons, write_reason);
        key(out, ",\"features\":");
        list(out, self.features, |out, &feature| json::float(out, feature));
        key(out, ",\"model_id\":");
        json::optional_string(out, self.model_id);
        if let Some(fx) = self.fx {
            key(out, ",\"fx\":{\"base\":");
            json::string(out, &fx.base);
            key(out, ",\"rate\":");
            json::float(out, fx.rate);
            key(out, ",\"amount\":");
            json::float(out, fx.amount);
            out.push(b'}');
        }
        out.push(b'}');
    }
}

fn key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(key.as_bytes());
}

fn list<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

fn write_reason(out: &mut Vec<u8>, reason: &Reason) {
    out.extend_from_slice(b"{\"feature\":");
    json::string(out, reason.feature);
    out.extend_from_slice(b",\"value\":");
    json::float(out, reason.value);
    out.extend_from_slice(b",\"contribution\":");
    json::float(out, reason.contribution);
    out.extend_from_slice(b",\"text\":");
    json::string(out, &reason.text);
    out.push(b'}');
}

/// A reason as read back; see [`Reason`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields are those of Reason")]
pub struct ReasonRecord {
    pub feature: String,
    pub value: f64,
    pub contribution: f64,
    pub text: String,
}

/// A verdict read back from the wire; the fields are those of [`VerdictRef`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields are those of VerdictRef")]
pub struct Verdict {
    pub tx_id: String,
    pub id: String,
    pub user_id: String,
    pub event_time: i64,
    pub amount: f64,
    pub currency: Option<String>,
    pub merchant: String,
    pub score: Option<f64>,
    pub raw_score: Option<f64>,
    pub is_anomaly: bool,
    pub severity: Severity,
    pub explanation: String,
    pub reasons: Vec<ReasonRecord>,
    pub features: [f32; FEATURES],
    pub model_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fx: Option<Fx>,
}
