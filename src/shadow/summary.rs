//! What people are told of a shadow.

use models::compare::{BINS, Comparison, Example};
use models::validate::Report;
use schemars::JsonSchema;
use serde::Serialize;

use crate::registry::{Cost, Shadowing, Tally, Version};

/// As the route and the command show it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "shadow")]
pub struct Summary {
    /// When it began and ended, and why.
    #[serde(flatten)]
    pub shadow: Shadowing,
    /// True until it has ended.
    pub running: bool,
    /// The figures are of that time, in milliseconds since the epoch; none before there are any.
    pub as_of_ms: Option<i64>,
    /// Payments that both models scored.
    pub compared: u64,
    /// Alerts.
    pub would_alert: Alerts,
    /// Share of payments on which both say the same.
    pub agreement: Option<f64>,
    /// Share of the alerts of either that are alerts of both.
    pub alert_overlap: Option<f64>,
    /// Those with the widest difference.
    pub examples: Examples,
    /// Histograms of the scores.
    pub scores: Scores,
    /// What it costs.
    pub cost: Costs,
    /// What a promotion after shadow would judge by.
    pub report: Report,
}

/// Numbers of alerts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Alerts {
    /// That the active model did not give.
    pub more: u64,
    /// That only the active model gave.
    pub fewer: u64,
    /// Of both.
    pub both: u64,
    /// All of the active model.
    pub active: u64,
    /// All of the shadow.
    pub shadow: u64,
}

/// Payments on which the two differ.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Examples {
    /// The shadow alone would have alerted.
    pub more: Vec<Example>,
    /// The active model alone alerted.
    pub fewer: Vec<Example>,
}

/// Histograms: `bounds` has one number more than each has bins.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Scores {
    /// Lower bounds, and the last one's upper bound.
    pub bounds: Vec<f64>,
    /// Of the active model.
    pub active: [u64; BINS],
    /// Of the shadow.
    pub shadow: [u64; BINS],
}

/// The forest's part of scoring: features cost the same for both.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Costs {
    /// Microseconds of one core for each payment; none before any was timed.
    pub micros_per_payment: Option<f64>,
    /// The active model's, on some of the same payments.
    pub active_micros_per_payment: Option<f64>,
    /// Seconds of one core that the shadow has taken so far.
    pub seconds: f64,
    /// Bytes of its artifact.
    pub artifact_bytes: u64,
}

impl Summary {
    /// Of a version in shadow, with what is known so far.
    #[must_use]
    pub fn of(version: &Version, shadow: &Shadowing, tally: Option<&Tally>) -> Self {
        let known = tally.cloned().unwrap_or_default();
        let comparison: Comparison = known.comparison;
        let each = |cost: Cost| (cost.rows > 0).then(|| cost.micros as f64 / cost.rows as f64);
        Self {
            running: shadow.is_running(),
            shadow: shadow.clone(),
            as_of_ms: tally.map(|tally| tally.at_ms),
            compared: comparison.compared,
            would_alert: Alerts {
                more: comparison.more,
                fewer: comparison.fewer,
                both: comparison.both,
                active: comparison.active_alerts(),
                shadow: comparison.shadow_alerts(),
            },
            agreement: comparison.agreement(),
            alert_overlap: comparison.alert_overlap(),
            report: comparison.verdict(),
            scores: Scores {
                bounds: (0..=BINS).map(|at| at as f64 / BINS as f64).collect(),
                active: comparison.active_scores,
                shadow: comparison.shadow_scores,
            },
            examples: Examples { more: comparison.more_examples, fewer: comparison.fewer_examples },
            cost: Costs {
                micros_per_payment: each(known.cost),
                active_micros_per_payment: each(known.active_cost),
                seconds: known.cost.micros as f64 / 1e6,
                artifact_bytes: version.bytes,
            },
        }
    }
}
