//! Rows as records: what a producer would have sent.

use std::collections::HashMap;
use std::io::Write as _;

use crate::input::csv::Row;

/// Milliseconds of a day.
pub(super) const DAY_MS: i64 = 86_400_000;

/// Appends the payment as JSON. Numbers keep their shortest form, so the amount is the very same f64 after decoding.
pub(crate) fn write_payment(row: &Row<'_>, json: &mut Vec<u8>) {
    let text = |json: &mut Vec<u8>, name: &str, value: &str| {
        let _ = write!(json, ",\"{name}\":");
        serde_json::to_writer(&mut *json, value).expect("invariant: writing to memory does not fail");
    };
    json.extend_from_slice(b"{\"amount\":");
    serde_json::to_writer(&mut *json, &row.amount).expect("invariant: writing to memory does not fail");
    let _ = write!(json, ",\"timestamp\":{}", row.timestamp_ms);
    text(json, "user_id", row.user_id);
    text(json, "merchant", row.merchant);
    for (name, value) in [("currency", row.currency), ("tx_id", row.tx_id)] {
        if let Some(value) = value {
            text(json, name, value);
        }
    }
    json.push(b'}');
}

/// Small numbers for names, in the order of first use.
#[derive(Debug, Default)]
pub(super) struct Numbers(HashMap<String, u32>);

impl Numbers {
    pub(super) fn of(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.0.get(name) {
            return number;
        }
        let number = self.0.len() as u32;
        self.0.insert(name.to_owned(), number);
        number
    }
}
