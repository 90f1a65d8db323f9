//! Anomalies of a known kind, made from held-out rows that are none: does the model see them?
//!
//! A logged row has features, not the profile behind them, so an anomaly is injected where it would show in the features: an amount
//! of 30 times as much is above every earlier one, 20 deviations off, and its logarithm is known; fifteen more payments in the hour
//! multiply the velocity by sixteen. The kinds are those that the generator makes.
//!
//! Bounds: spikes and bursts must be seen whatever the model ([`SEEN_MIN`], [`RANKED_MIN`]). One odd hour, or one new merchant for three
//! times as much, is at many users no anomaly at 1% contamination, so these are held against the active model only ([`WORSE_MAX`],
//! [`RANKED_WORSE_MAX`]). Injected bursts are much alike: nearly all of them are on one side of the threshold or nearly all on the other, and
//! two seeds of one week have recalls of .20 and .67 at rankings of .999. So a burst's recall is not held against the active
//! model's; its ranking is.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Check, Evidence};
use crate::features::{
    AMOUNT_PERCENTILE, AMOUNT_ZSCORE, FEATURES, GLOBAL_AMOUNT_FLAG, HOUR_DEVIATION, IS_NEW_USER, LOG_AMOUNT,
    MERCHANT_FAMILIARITY, TIME_SINCE_LAST, VELOCITY_RATIO, global_amount_flag,
};
use crate::metrics::auroc;
use crate::model::Model;

/// Rows of each kind at most.
const ROWS: usize = 1_000;
/// Rows of each kind at least: fewer tell nothing.
const ROWS_LEAST: usize = 50;
/// Least recall of what every model must see: half of the least that 35 forests of seven weeks of Sparkov had (see docs/accuracy.md).
/// One that sees fewer than one in ten is blind.
pub const SEEN_MIN: f64 = 0.1;
/// A recall may be so much less than the active model's: seeds of one week differ by .28 at most.
pub const WORSE_MAX: f64 = 0.35;
/// Least ranking of what every model must see; the same 35 forests had .997 and more.
pub const RANKED_MIN: f64 = 0.95;
/// A ranking may be so much less than the active model's: seeds of one week differ by .11 at most, in odd hours.
pub const RANKED_WORSE_MAX: f64 = 0.15;

/// A kind of anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 30 times the amount.
    AmountSpike,
    /// An account taken over: fifteen payments within the last hour, half a minute apart, at merchants that the user does not know, for
    /// three times as much.
    Burst,
    /// At an hour when the user never pays.
    OddHour,
    /// At a merchant that the user does not know, for three times as much.
    NewMerchant,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::AmountSpike, Self::Burst, Self::OddHour, Self::NewMerchant];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AmountSpike => "amount_spike",
            Self::Burst => "burst",
            Self::OddHour => "odd_hour",
            Self::NewMerchant => "new_merchant",
        }
    }

    /// Whether every model must see it.
    const fn is_plain(self) -> bool {
        matches!(self, Self::AmountSpike | Self::Burst)
    }

    /// The row with the anomaly in it, and the amount.
    #[must_use]
    pub fn inject(self, row: &[f32; FEATURES], amount: f64) -> ([f32; FEATURES], f64) {
        let mut row = *row;
        let mut raise = |feature: usize, to: f32| row[feature] = row[feature].max(to);
        let amount = match self {
            Self::AmountSpike => {
                raise(AMOUNT_ZSCORE, 20.0);
                raise(AMOUNT_PERCENTILE, 1.0);
                amount * 30.0
            }
            Self::Burst => {
                raise(AMOUNT_ZSCORE, 3.0);
                raise(AMOUNT_PERCENTILE, 0.97);
                row[VELOCITY_RATIO] *= 16.0;
                row[TIME_SINCE_LAST] = libm::log1p(30.0) as f32;
                row[MERCHANT_FAMILIARITY] = 0.0;
                amount * 3.0
            }
            Self::OddHour => {
                raise(HOUR_DEVIATION, 0.99);
                amount
            }
            Self::NewMerchant => {
                raise(AMOUNT_ZSCORE, 3.0);
                raise(AMOUNT_PERCENTILE, 0.97);
                row[MERCHANT_FAMILIARITY] = 0.0;
                amount * 3.0
            }
        };
        row[LOG_AMOUNT] = libm::log1p(amount) as f32;
        (row, amount)
    }
}

/// The recall and the ranking of each kind. `scores` are the candidate's of the held-out rows.
pub(super) fn checks(evidence: &Evidence<'_>, scores: &[f64]) -> Vec<Check> {
    let (rows, _) = evidence.held_out.features.as_chunks::<FEATURES>();
    let settled = |row: &[f32; FEATURES]| row[IS_NEW_USER] == 0.0;
    let normal: Vec<(&[f32; FEATURES], f64)> = rows
        .iter()
        .zip(evidence.held_out.amounts)
        .zip(scores)
        // A user who is new has no habit to break.
        .filter(|((row, amount), score)| **score < evidence.threshold && settled(row) && **amount > 0.0)
        .map(|((row, amount), _)| (row, *amount))
        .collect();
    let step = normal.len().div_ceil(ROWS).max(1);
    let normal: Vec<_> = normal.into_iter().step_by(step).collect();
    Kind::ALL.iter().flat_map(|&kind| seen(evidence, kind, &normal)).collect()
}

/// A row and its amount, with an anomaly in them or as they are.
type Inject<'a> = dyn Fn(&[f32; FEATURES], f64) -> ([f32; FEATURES], f64) + 'a;

/// What a model makes of one kind.
#[derive(Clone, Copy)]
struct Seen {
    /// Share of injected rows at the threshold or above.
    recall: f64,
    /// The chance that an injected row scores above one that is left as it was.
    ranking: f64,
}

fn seen(evidence: &Evidence<'_>, kind: Kind, normal: &[(&[f32; FEATURES], f64)]) -> [Check; 2] {
    let names = ["recall", "ranking"].map(|what| format!("{what}_{}", kind.name()));
    if normal.len() < ROWS_LEAST {
        return names.map(|name| Check::skipped(&name, "fewer than 50 held-out rows are of settled users and normal"));
    }
    let of = |model: &Model| {
        let scores = |inject: &Inject<'_>| {
            let mut rows: Vec<f32> = Vec::with_capacity(normal.len() * FEATURES);
            for (row, amount) in normal {
                let (mut row, amount) = inject(row, *amount);
                row[GLOBAL_AMOUNT_FLAG] = global_amount_flag(amount, Some(model.global_amount_p99));
                rows.extend_from_slice(&row);
            }
            evidence.scores_of(model, &rows)
        };
        let mut all = scores(&|row, amount| kind.inject(row, amount));
        let recall = all.iter().filter(|&&score| score >= evidence.threshold).count() as f64 / normal.len() as f64;
        all.extend(scores(&|row, amount| (*row, amount)));
        let injected: Vec<bool> = (0..all.len()).map(|at| at < normal.len()).collect();
        Seen { recall, ranking: auroc(&injected, &all).unwrap_or(0.0) }
    };
    let (found, before) = (of(evidence.candidate), evidence.active.map(of));
    let note = |before: Option<f64>| {
        let before = before.map_or_else(String::new, |before| format!("; the active model's is {before:.3}"));
        format!("{} injected{before}", normal.len())
    };
    let (recall, ranking) = (before.map(|before| before.recall), before.map(|before| before.ranking));
    let [first, second] = names;
    [
        Check::judged(&first, found.recall, least_recall(kind, recall), None, note(recall)),
        Check::judged(&second, found.ranking, least_ranking(kind, ranking), None, note(ranking)),
    ]
}

/// The least ranking allowed, beside the active model's.
fn least_ranking(kind: Kind, before: Option<f64>) -> Option<f64> {
    higher(kind.is_plain().then_some(RANKED_MIN), before.map(|before| before - RANKED_WORSE_MAX))
}

/// The least recall allowed, beside the active model's.
fn least_recall(kind: Kind, before: Option<f64>) -> Option<f64> {
    let before = before.filter(|_| kind != Kind::Burst);
    higher(kind.is_plain().then_some(SEEN_MIN), before.map(|before| before - WORSE_MAX))
}

fn higher(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_active_model_sees_raises_the_bound_and_its_absence_never_lowers_it() {
        assert_eq!(least_recall(Kind::AmountSpike, None), Some(SEEN_MIN));
        assert_eq!(least_recall(Kind::AmountSpike, Some(0.0)), Some(SEEN_MIN), "a blind active model excuses nobody");
        assert_eq!(least_recall(Kind::AmountSpike, Some(0.75)), Some(0.4));
        assert_eq!(least_recall(Kind::Burst, Some(1.0)), Some(SEEN_MIN), "a burst's recall is the seed's");
        assert_eq!(least_ranking(Kind::Burst, Some(0.5)), Some(RANKED_MIN));
        assert_eq!((least_recall(Kind::OddHour, None), least_ranking(Kind::OddHour, None)), (None, None));
        assert_eq!(least_ranking(Kind::OddHour, Some(1.0)), Some(0.85));
        assert!(least_recall(Kind::OddHour, Some(0.01)).is_some_and(|least| least < 0.0), "one row in a hundred is chance");
    }
}
