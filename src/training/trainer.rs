//! From rows to a judged candidate: hold out, train, validate.

use models::validate::{Evidence, Report, validate};
use models::{Model, TrainError, TrainParams};

use super::TrainingRows;
use crate::parallel;

/// Trees of a forest, where nobody says otherwise: see docs/accuracy.md for why.
pub const TREES: usize = 200;
/// Rows of each tree, where nobody says otherwise.
pub const SAMPLES: usize = 1024;
/// Fewer rows say too little of what is normal.
pub const ROWS_MIN: usize = 1_000;

/// How a candidate is made and judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// How the forest is grown.
    pub params: TrainParams,
    /// The share of the window taken to be anomalous.
    pub contamination: f64,
    /// The score from which a payment is an anomaly.
    pub threshold: f64,
    /// Fixes column 9's bound.
    pub fixed_p99: Option<f64>,
}

/// A candidate and what was found of it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The model, trained on all but the held-out days.
    pub model: Model,
    /// Every check with its figure.
    pub report: Report,
}

/// Trains on all but the last days and judges on these, beside the active model.
///
/// # Errors
/// [`TrainError`] where the rows or the parameters don't fit.
pub fn candidate(
    rows: TrainingRows,
    recipe: &Recipe,
    active: Option<&Model>,
    grown: &(dyn Fn() + Sync),
) -> Result<Candidate, TrainError> {
    let (trained, held_out) = rows.hold_out();
    let model = trained.train(recipe.params, recipe.contamination, recipe.fixed_p99, grown)?;
    let labels = held_out.labels();
    let report = validate(&Evidence {
        candidate: &model,
        active,
        trained: trained.view(),
        held_out: held_out.view(),
        held_out_ms: held_out.window().to_ms - held_out.window().from_ms,
        labels: labels.as_ref().map(super::rows::OwnedLabels::view),
        threshold: recipe.threshold,
        raw_scores: &|model, rows| parallel::raw_scores(&model.forest, rows),
    });
    Ok(Candidate { model, report })
}
