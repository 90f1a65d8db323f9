//! What scoring depends on besides records and state.

use std::sync::Arc;

use models::features::AMOUNT_MAX;
use models::verdict::Fx;
use models::{Limits, Transaction};

use super::fx::FxTable;

/// How input records came to their partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partitioning {
    /// By murmur2 of the user's id, as every Java client does it: checked for each record.
    #[default]
    Murmur2,
    /// Anyhow: the topology first sends each record to its user's partition of a repartition topic.
    Any,
}

/// Why an amount cannot be brought to the base currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unconvertible {
    /// The table of rates lacks the currency.
    Currency,
    /// It is out of range once converted.
    Amount,
}

/// What scoring depends on besides records and state.
#[derive(Clone, Debug)]
pub struct ScoringParams {
    /// A score from here up is an anomaly.
    pub threshold: f64,
    /// Reasons in every verdict, not only in anomalies.
    pub reasons_for_all: bool,
    /// How far an event may lie after its record's own time, in milliseconds.
    pub max_future_ms: i64,
    /// Fixes column 9's bound, with or without a model.
    pub global_amount_p99: Option<f64>,
    /// Rates of exchange, where amounts are converted.
    pub fx: Option<Arc<FxTable>>,
    /// How input records came to their partitions.
    pub partitioning: Partitioning,
}

impl Default for ScoringParams {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            reasons_for_all: false,
            max_future_ms: 3_600_000,
            global_amount_p99: None,
            fx: None,
            partitioning: Partitioning::default(),
        }
    }
}

impl ScoringParams {
    /// What a payment must keep within.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { max_future_ms: self.max_future_ms, ..Limits::default() }
    }

    /// The payment's amount in the base currency; none where amounts are taken as they are.
    ///
    /// # Errors
    /// [`Unconvertible`]: the stream makes a dead letter of such a payment.
    pub fn convert(&self, payment: &Transaction<'_>) -> Result<Option<Fx>, Unconvertible> {
        let Some(table) = &self.fx else { return Ok(None) };
        let fx = table.convert(payment.amount, payment.currency.as_deref()).ok_or(Unconvertible::Currency)?;
        if (0.0..=AMOUNT_MAX).contains(&fx.amount) { Ok(Some(fx)) } else { Err(Unconvertible::Amount) }
    }
}
