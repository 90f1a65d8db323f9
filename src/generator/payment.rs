//! One payment and its form on the wire.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::anomaly::Anomaly;

/// One payment, as a bank would send it, with the truth beside it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Payment {
    /// Who paid.
    #[serde(serialize_with = "text")]
    pub user_id: Arc<str>,
    /// How much, in whole cents.
    pub amount: f64,
    /// Who was paid.
    #[serde(serialize_with = "text")]
    pub merchant: Arc<str>,
    /// Its own id: seed, stream and number in the sequence.
    pub tx_id: String,
    /// In what currency.
    #[serde(serialize_with = "text")]
    pub currency: Arc<str>,
    /// When, in milliseconds since the epoch.
    #[serde(rename = "timestamp")]
    pub timestamp_ms: i64,
    /// What is wrong with it. Never on the wire.
    #[serde(skip)]
    pub label: Option<Anomaly>,
}

impl Payment {
    /// Appends the transaction as the topic `transactions` has it. The label stays behind.
    pub fn write_json(&self, into: &mut Vec<u8>) {
        serde_json::to_writer(into, self)
            .expect("invariant: strings and finite numbers are JSON, and writing to a Vec cannot fail");
    }
}

/// serde serialises shared strings only with a feature that nothing else here needs.
fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}
