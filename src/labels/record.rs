//! Records of the labels topic: JSON, keyed by the user's id.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of an id or a name.
const TEXT_BYTES_MAX: usize = 512;
/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 2_000;
/// The last millisecond of the year 9999.
const AT_MAX: i64 = 253_402_300_799_999;

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// It was a fraud.
    Fraud,
    /// It was not.
    Legitimate,
}

impl Finding {
    /// As it is on the wire and in Postgres.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fraud => "fraud",
            Self::Legitimate => "legitimate",
        }
    }
}

/// A time: integer milliseconds since the epoch, or RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "moment")]
pub enum Moment {
    /// Milliseconds since the epoch.
    Ms(i64),
    /// RFC 3339.
    Text(String),
}

impl Moment {
    /// In milliseconds since the epoch; none where the text is no time.
    #[must_use]
    pub fn ms(&self) -> Option<i64> {
        match self {
            Self::Ms(ms) => Some(*ms),
            Self::Text(text) => text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond),
        }
    }
}

/// What somebody found out about a payment, as a record may say it.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "label")]
pub struct Written {
    /// The verdict's id; where it is missing, the two below name the payment.
    #[schemars(length(min = 1, max = TEXT_BYTES_MAX))]
    verdict_id: Option<String>,
    /// The sender's id of the payment.
    #[schemars(length(min = 1, max = TEXT_BYTES_MAX))]
    tx_id: Option<String>,
    /// Who paid.
    #[schemars(length(min = 1, max = TEXT_BYTES_MAX))]
    user_id: Option<String>,
    /// What was found out.
    label: Finding,
    /// By whom.
    #[schemars(length(min = 1, max = TEXT_BYTES_MAX))]
    by: Option<String>,
    /// Why, or how: for people.
    #[schemars(length(min = 1, max = REASON_BYTES_MAX))]
    reason: Option<String>,
    /// When; the record's time where it is missing.
    at: Option<Moment>,
}

/// What somebody found out about a payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "label")]
pub struct Label {
    /// The verdict's id; where it is missing, the two below name the payment.
    pub verdict_id: Option<String>,
    /// The sender's id of the payment.
    pub tx_id: Option<String>,
    /// Who paid.
    pub user_id: Option<String>,
    /// What was found out.
    pub label: Finding,
    /// By whom.
    pub by: Option<String>,
    /// Why, or how: for people.
    pub reason: Option<String>,
    /// When, in milliseconds since the epoch.
    pub at: i64,
}

impl Label {
    /// From the wire; `record_ms` is the record's time.
    ///
    /// # Errors
    /// What is wrong, in our own words.
    pub fn decode(value: &[u8], record_ms: i64) -> Result<Self, &'static str> {
        let written: Written = serde_json::from_slice(value).map_err(|_| "not a label")?;
        let Written { verdict_id, tx_id, user_id, label, by, reason, at } = written;
        let at = at.map_or(Some(record_ms), |at| at.ms()).ok_or("the time is neither milliseconds nor RFC 3339")?;
        Self { verdict_id, tx_id, user_id, label, by, reason, at }.checked()
    }

    /// The label, if it names a payment and its texts are within their bounds.
    ///
    /// # Errors
    /// What is wrong.
    pub fn checked(self) -> Result<Self, &'static str> {
        let texts = [&self.verdict_id, &self.tx_id, &self.user_id, &self.by];
        if texts.into_iter().flatten().any(|text| text.is_empty() || text.len() > TEXT_BYTES_MAX) {
            return Err("an id or a name has not 1 to 512 bytes");
        }
        if self.reason.as_ref().is_some_and(|text| text.is_empty() || text.len() > REASON_BYTES_MAX) {
            return Err("the reason has not 1 to 2000 bytes");
        }
        if self.verdict_id.is_none() && (self.tx_id.is_none() || self.user_id.is_none()) {
            return Err("verdict_id is expected, or tx_id and user_id");
        }
        if !(0..=AT_MAX).contains(&self.at) {
            return Err("the time is before 1970 or after 9999");
        }
        Ok(self)
    }
}
