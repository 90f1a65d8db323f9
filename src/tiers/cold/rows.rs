//! From a record of a topic to a row: what is read of it, and what is none.
//!
//! Anyone may write into a topic. What does not fit a row (not of that shape, or names that no index takes) is left out and counted;
//! it must not stop what comes behind it.

use std::borrow::Cow;

use models::{FEATURES, Severity};
use serde::Deserialize;
use serde_json::value::RawValue;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_rank_as_they_grow() {
        let all = [Severity::None, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
        assert_eq!(all.map(severity_rank), [0, 1, 2, 3, 4]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_whatever_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = VerdictRow::decode(&bytes);
        }
    }
}
