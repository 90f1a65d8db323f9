//! Whether a candidate may take the active model's place: checks on days that it was not trained on, each with its figure.
//!
//! Pure and deterministic: rows, models and labels in, a [`Report`] out. A check that the rows are too few for is
//! [`Outcome::Skipped`], with the reason, and keeps nothing back; one [`Outcome::Failed`] keeps the old model.
//!
//! | check | figure | bounds |
//! |---|---|---|
//! | `anomaly_rate` | share of held-out rows at 0.5 or more | [1/3, 3] of the contamination, as far as the number of rows can tell |
//! | `psi_score`, `psi_<feature>` | population stability of held-out against trained rows | see [`psi`] |
//! | `top_overlap` | Jaccard of the highest 0.5% with the active model's | [`OVERLAP_MIN`] up |
//! | `recall_<anomaly>` | share of injected anomalies at the threshold | see [`inject`] |
//! | `ranking_<anomaly>` | the chance that one scores above a row that is left as it was: AUROC, whatever the threshold | see [`inject`] |
//! | `average_precision`, `card_precision` | on labelled rows | [`LABELLED_MIN`] of the active model's up |

pub mod inject;
pub mod psi;

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::features::{DAY_DEVIATION, DAY_MS, FEATURE_NAMES, FEATURES, GLOBAL_AMOUNT_FLAG, HOUR_DEVIATION, global_amount_flag};
use crate::metrics::{average_precision, card_precision};
use crate::model::Model;

/// Score from which the calibration calls a row anomalous: the contamination's knot, whatever the threshold in force.
const ANOMALOUS: f64 = 0.5;
/// How far the anomaly rate may be off, as a factor either way.
const RATE_FACTOR: f64 = 3.0;
/// Normal quantile of the interval within which chance moves a rate: 99.9%, two-sided.
const RATE_Z: f64 = 3.2905;
/// Share of rows whose overlap with the active model is looked at.
const TOP: f64 = 0.005;
/// Least number of rows in the top for the overlap to say something.
const TOP_LEAST: usize = 20;
/// Least overlap. Models of neighbouring weeks share well above half, forests of noise some 1%; see docs/accuracy.md.
pub const OVERLAP_MIN: f64 = 0.25;
/// Least share of the active model's figure on labelled rows: two seeds of one forest differ by less than a tenth.
pub const LABELLED_MIN: f64 = 0.9;
/// Least number of labelled frauds.
const FRAUDS_LEAST: usize = 20;
/// Cards looked at on a day.
const CARDS: usize = 100;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Within its bounds.
    Passed,
    /// Out of its bounds.
    Failed,
    /// Nothing could be told; the note says why.
    Skipped,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Check {
    /// Its name: stable.
    pub name: String,
    /// How it came out.
    pub outcome: Outcome,
    /// Its figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Least allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Most allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// What a person needs to read the figure.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Check {
    pub(crate) fn judged(name: &str, value: f64, low: Option<f64>, high: Option<f64>, note: String) -> Self {
        let within = low.is_none_or(|low| value >= low) && high.is_none_or(|high| value <= high);
        let outcome = if within { Outcome::Passed } else { Outcome::Failed };
        Self { name: name.to_owned(), outcome, value: Some(value), low, high, note }
    }

    pub(crate) fn skipped(name: &str, note: &str) -> Self {
        Self { name: name.to_owned(), outcome: Outcome::Skipped, value: None, low: None, high: None, note: note.to_owned() }
    }
}

/// All checks of one candidate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// Rows that the candidate was trained on.
    pub trained_rows: u64,
    /// Rows that it was judged on.
    pub held_out_rows: u64,
    /// Every check, in the order of the module's table.
    pub checks: Vec<Check>,
}

impl Report {
    /// Names of the checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        self.checks.iter().filter(|check| check.outcome == Outcome::Failed).map(|check| check.name.as_str())
    }

    /// True where none failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failed().next().is_none()
    }
}

/// Rows as they were logged: n x [`FEATURES`], row-major, and the amount that each was scored with.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The features; column 9 is computed anew for each model.
    pub features: &'a [f32],
    /// The amounts.
    pub amounts: &'a [f64],
}

impl Rows<'_> {
    fn len(&self) -> usize {
        self.amounts.len()
    }

    /// The rows as a model sees them: with its own bound in column 9.
    #[must_use]
    pub fn seen_by(&self, model: &Model) -> Vec<f32> {
        let mut seen = self.features.to_vec();
        for (row, &amount) in seen.chunks_exact_mut(FEATURES).zip(self.amounts) {
            row[GLOBAL_AMOUNT_FLAG] = global_amount_flag(amount, Some(model.global_amount_p99));
        }
        seen
    }
}

/// What is known of held-out rows: parallel slices.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// Which rows, by their place; the others are not known and count for nothing.
    pub rows: &'a [usize],
    /// Whether each is a fraud.
    pub fraud: &'a [bool],
    /// Its day.
    pub day: &'a [i64],
    /// Its card.
    pub card: &'a [u32],
}

/// What a candidate is judged by.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// The model to judge.
    pub candidate: &'a Model,
    /// The model whose place it would take.
    pub active: Option<&'a Model>,
    /// What the candidate was trained on.
    pub trained: Rows<'a>,
    /// Later rows, which it has not seen.
    pub held_out: Rows<'a>,
    /// From the first held-out event time to the last, in milliseconds.
    pub held_out_ms: i64,
    /// Labels of the held-out rows.
    pub labels: Option<Labels<'a>>,
    /// The score from which a payment is an anomaly.
    pub threshold: f64,
    /// Raw scores of rows, in order: [`crate::Forest::raw_scores`], on as many threads as the caller likes.
    pub raw_scores: &'a dyn Fn(&Model, &[f32]) -> Vec<f64>,
}

impl Evidence<'_> {
    fn scores(&self, model: &Model, rows: &Rows<'_>) -> Vec<f64> {
        self.scores_of(model, &rows.seen_by(model))
    }

    fn scores_of(&self, model: &Model, rows: &[f32]) -> Vec<f64> {
        (self.raw_scores)(model, rows).into_iter().map(|raw| model.score(raw)).collect()
    }
}

/// Judges a candidate.
///
/// # Panics
/// Where rows and amounts or labels differ in number: a fault of the caller.
#[must_use]
pub fn validate(evidence: &Evidence<'_>) -> Report {
    for rows in [evidence.trained, evidence.held_out] {
        assert_eq!(rows.features.len(), rows.len() * FEATURES, "ten features for each amount");
    }
    let mut checks = Vec::new();
    if evidence.trained.len() == 0 || evidence.held_out.len() == 0 {
        checks.push(Check::skipped("anomaly_rate", "no rows were held out"));
    } else {
        let trained = evidence.scores(evidence.candidate, &evidence.trained);
        let held_out = evidence.scores(evidence.candidate, &evidence.held_out);
        checks.push(anomaly_rate(&held_out, evidence.candidate.contamination));
        checks.extend(stability(evidence, &trained, &held_out));
        checks.push(top_overlap(evidence, &trained, &held_out));
        checks.extend(inject::checks(evidence, &held_out));
        checks.extend(labelled(evidence, &held_out));
    }
    Report { trained_rows: evidence.trained.len() as u64, held_out_rows: evidence.held_out.len() as u64, checks }
}

/// The rate is out of bounds where its whole interval is (E. B. Wilson, JASA 22, 1927): of few rows, few are anomalous by chance.
fn anomaly_rate(scores: &[f64], contamination: f64) -> Check {
    let count = scores.len() as f64;
    let rate = scores.iter().filter(|&&score| score >= ANOMALOUS).count() as f64 / count;
    let z2 = RATE_Z * RATE_Z;
    let middle = (rate + z2 / (2.0 * count)) / (1.0 + z2 / count);
    let half = RATE_Z / (1.0 + z2 / count) * libm::sqrt(rate * (1.0 - rate) / count + z2 / (4.0 * count * count));
    let (low, high) = (contamination / RATE_FACTOR, contamination * RATE_FACTOR);
    let note =
        format!("of {} held-out rows; by chance between {:.4} and {:.4}", scores.len(), (middle - half).max(0.0), middle + half);
    let mut check = Check::judged("anomaly_rate", rate, Some(low), Some(high), note);
    if middle + half >= low && middle - half <= high {
        check.outcome = Outcome::Passed;
    }
    check
}

fn stability(evidence: &Evidence<'_>, trained: &[f64], held_out: &[f64]) -> Vec<Check> {
    let check = |name: String, expected: &[f64], actual: &[f64]| {
        let index = psi::psi(expected, actual);
        let note = format!("{} bins of {} and {} rows", index.bins, expected.len(), actual.len());
        Check::judged(&name, index.value, None, Some(index.bound), note)
    };
    let column = |rows: &[f32], at: usize| rows.chunks_exact(FEATURES).map(|row| f64::from(row[at])).collect::<Vec<_>>();
    let model = evidence.candidate;
    let (before, after) = (evidence.trained.seen_by(model), evidence.held_out.seen_by(model));
    let mut checks = Vec::from([check("psi_score".to_owned(), trained, held_out)]);
    for (at, name) in FEATURE_NAMES.iter().enumerate() {
        // Of one Sunday, every row is a Sunday's: that is no shift.
        let cycle = match at {
            HOUR_DEVIATION => DAY_MS,
            DAY_DEVIATION => 7 * DAY_MS,
            _ => 0,
        };
        if evidence.held_out_ms < cycle * 9 / 10 {
            checks.push(Check::skipped(&format!("psi_{name}"), "the held-out rows are of less than the whole cycle"));
            continue;
        }
        checks.push(check(format!("psi_{name}"), &column(&before, at), &column(&after, at)));
    }
    checks
}

/// The `count` highest scores; of equal ones the earlier row goes first.
fn top(scores: &[f64], count: usize) -> BTreeSet<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.into_iter().take(count).collect()
}

/// Jaccard index of the highest `share` of two rankings of the same rows; 1 for none.
#[must_use]
pub fn jaccard_of_top(a: &[f64], b: &[f64], share: f64) -> f64 {
    let count = libm::ceil(a.len() as f64 * share) as usize;
    let (a, b) = (top(a, count), top(b, count));
    let both = a.intersection(&b).count();
    let either = a.len() + b.len() - both;
    if either == 0 { 1.0 } else { both as f64 / either as f64 }
}

fn top_overlap(evidence: &Evidence<'_>, trained: &[f64], held_out: &[f64]) -> Check {
    let name = "top_overlap";
    let Some(active) = evidence.active else { return Check::skipped(name, "no model is active") };
    let candidate = [trained, held_out].concat();
    if libm::ceil(candidate.len() as f64 * TOP) < TOP_LEAST as f64 {
        return Check::skipped(name, "too few rows: their highest 0.5% are fewer than 20");
    }
    let both = [evidence.scores(active, &evidence.trained), evidence.scores(active, &evidence.held_out)].concat();
    let note = format!("highest 0.5% of {} rows, with model {}", both.len(), active.id);
    Check::judged(name, jaccard_of_top(&candidate, &both, TOP), Some(OVERLAP_MIN), None, note)
}

fn labelled(evidence: &Evidence<'_>, candidate: &[f64]) -> [Check; 2] {
    let names = ["average_precision", "card_precision"];
    let Some(Labels { rows, fraud, day, card }) = evidence.labels else {
        return names.map(|name| Check::skipped(name, "the held-out rows have no labels"));
    };
    if fraud.iter().filter(|&&fraud| fraud).count() < FRAUDS_LEAST {
        return names.map(|name| Check::skipped(name, "fewer than 20 held-out rows are labelled as fraud"));
    }
    let figures = |scores: &[f64]| {
        let scores: Vec<f64> = rows.iter().map(|&row| scores[row]).collect();
        let cards = card_precision(day, card, &scores, fraud, CARDS);
        [average_precision(fraud, &scores).unwrap_or(0.0), cards.unwrap_or(0.0)]
    };
    let found = figures(candidate);
    let before = evidence.active.map(|active| figures(&evidence.scores(active, &evidence.held_out)));
    core::array::from_fn(|at| {
        let note =
            before.map_or_else(|| "no model is active".to_owned(), |before| format!("the active model's is {:.4}", before[at]));
        Check::judged(names[at], found[at], before.map(|before| before[at] * LABELLED_MIN), None, note)
    })
}
