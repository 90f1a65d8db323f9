//! Two models on the same payments: what the second would have alerted more, and what fewer.
//!
//! A [`Comparison`] is a fold over payments that is the same in any order: counts, histograms and the payments on which the two
//! differ most. [`Comparison::verdict`] judges it as [`crate::validate`] judges a candidate, by checks with figures and bounds.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::validate::{Check, OVERLAP_MIN, Report};

/// Bins of equal width over the scores 0 to 1.
pub const BINS: usize = 20;
/// Payments named on each side.
pub const EXAMPLES_MAX: usize = 20;
/// Fewer payments than this decide nothing.
pub const COMPARED_MIN: u64 = 1_000;
/// The number of alerts may change by so much either way, as a factor; more than that is another job for whoever looks at them.
pub const ALERT_FACTOR: f64 = 2.0;
/// Normal quantile of the interval within which chance moves a difference: 99.9%, two-sided.
const CHANCE_Z: f64 = 3.2905;
/// Least number of alerts of either for their overlap to say something.
const ALERTS_LEAST: u64 = 20;

/// A payment on which the two differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Example {
    /// The verdict's id.
    pub verdict_id: String,
    /// The score in the verdict.
    pub active: f64,
    /// What the shadow gives.
    pub shadow: f64,
}

impl Example {
    /// The widest difference first, of equal ones the lesser id: the same examples whatever order payments came in.
    fn before(&self, other: &Self) -> bool {
        let difference = |example: &Self| (example.shadow - example.active).abs();
        difference(other).total_cmp(&difference(self)).then_with(|| self.verdict_id.cmp(&other.verdict_id)).is_lt()
    }
}

/// What two models made of the same payments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Payments that both scored.
    pub compared: u64,
    /// Alerts of both.
    pub both: u64,
    /// Alerts of the shadow alone.
    pub more: u64,
    /// Alerts of the active model alone.
    pub fewer: u64,
    /// Scores of the active model, by bin.
    pub active_scores: [u64; BINS],
    /// Scores of the shadow, by bin.
    pub shadow_scores: [u64; BINS],
    /// Payments that the shadow alone would have alerted, those with the widest difference.
    pub more_examples: Vec<Example>,
    /// Payments that the active model alone alerted, those with the widest difference.
    pub fewer_examples: Vec<Example>,
}

fn bin(score: f64) -> usize {
    // The last bin holds 1 as well.
    ((score * BINS as f64) as usize).min(BINS - 1)
}

fn keep(examples: &mut Vec<Example>, example: Example) {
    let at = examples.partition_point(|kept| kept.before(&example));
    if at < EXAMPLES_MAX {
        examples.insert(at, example);
        examples.truncate(EXAMPLES_MAX);
    }
}

impl Comparison {
    /// Takes in one payment: its verdict's id, whether it was alerted and with what score, and the shadow's score.
    pub fn add(&mut self, verdict_id: &str, alerted: bool, active: f64, shadow: f64, threshold: f64) {
        self.compared += 1;
        self.active_scores[bin(active)] += 1;
        self.shadow_scores[bin(shadow)] += 1;
        let example = || Example { verdict_id: verdict_id.to_owned(), active, shadow };
        match (alerted, shadow >= threshold) {
            (true, true) => self.both += 1,
            (false, false) => {}
            (false, true) => {
                self.more += 1;
                keep(&mut self.more_examples, example());
            }
            (true, false) => {
                self.fewer += 1;
                keep(&mut self.fewer_examples, example());
            }
        }
    }

    /// Alerts of the active model.
    #[must_use]
    pub fn active_alerts(&self) -> u64 {
        self.both + self.fewer
    }

    /// Alerts that the shadow would have given.
    #[must_use]
    pub fn shadow_alerts(&self) -> u64 {
        self.both + self.more
    }

    /// Share of payments on which both say the same; none of no payments.
    #[must_use]
    pub fn agreement(&self) -> Option<f64> {
        let same = self.compared - self.more - self.fewer;
        (self.compared > 0).then(|| same as f64 / self.compared as f64)
    }

    /// Share of the alerts of either that are alerts of both (Jaccard): alerts are rare, so agreement is high whatever they are. None of
    /// no alerts.
    #[must_use]
    pub fn alert_overlap(&self) -> Option<f64> {
        let either = self.both + self.more + self.fewer;
        (either > 0).then(|| self.both as f64 / either as f64)
    }

    /// Whether the shadow may take the active model's place. `held_out_rows` of the report are the payments compared.
    ///
    /// Alerts pass where their number changed by less than [`ALERT_FACTOR`], or by what chance does: of payments on which two models
    /// differ, as many on one side as on the other but for the binomial's deviation (Q. McNemar, Psychometrika 12, 1947).
    #[must_use]
    pub fn verdict(&self) -> Report {
        let (active, shadow) = (self.active_alerts() as f64, self.shadow_alerts() as f64);
        let chance = CHANCE_Z * libm::sqrt((self.more + self.fewer) as f64);
        let (low, high) = (active / ALERT_FACTOR, active * ALERT_FACTOR);
        // A difference that chance makes is none.
        let (low, high) = (low.min(active - chance), high.max(active + chance));
        let note = format!("the active model has {active}: {} more, {} fewer", self.more, self.fewer);
        let change = Check::judged("shadow_alerts", shadow, Some(low.max(0.0)), Some(high), note);
        let overlap = match self.alert_overlap() {
            Some(overlap) if self.both + self.more + self.fewer >= ALERTS_LEAST => {
                Check::judged("shadow_overlap", overlap, Some(OVERLAP_MIN), None, "of the alerts of either".to_owned())
            }
            _ => Check::skipped("shadow_overlap", "fewer than 20 alerts"),
        };
        Report { trained_rows: 0, held_out_rows: self.compared, checks: Vec::from([change, overlap]) }
    }
}
