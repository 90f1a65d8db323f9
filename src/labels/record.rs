//! Records of the labels topic: JSON, keyed by the user's id.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of an id or a name.
const TEXT_BYTES_MAX: usize = 512;
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

/// What somebody found out about a payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "label")]
pub struct Label {
    /// The verdict's id; where it is missing, the two below name the payment.
    #[serde(default)]
    pub verdict_id: Option<String>,
    /// The sender's id of the payment.
    #[serde(default)]
    pub tx_id: Option<String>,
    /// Who paid.
    #[serde(default)]
    pub user_id: Option<String>,
    /// What was found out.
    pub label: Finding,
    /// By whom.
    #[serde(default)]
    pub by: Option<String>,
    /// When, in milliseconds since the epoch.
    pub at: i64,
}

impl Label {
    /// From the wire.
    ///
    /// # Errors
    /// What is wrong, in our own words.
    pub fn decode(value: &[u8]) -> Result<Self, &'static str> {
        let label: Self = serde_json::from_slice(value).map_err(|_| "not a label")?;
        label.checked()
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
        if self.verdict_id.is_none() && (self.tx_id.is_none() || self.user_id.is_none()) {
            return Err("verdict_id is expected, or tx_id and user_id");
        }
        if !(0..=AT_MAX).contains(&self.at) {
            return Err("the time is before 1970 or after 9999");
        }
        Ok(self)
    }
}
