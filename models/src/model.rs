//! A model: a forest over the ten features, the calibration of its scores, and what it was made from.
//!
//! Training in steps, so that the caller spreads trees over threads (or pauses between them) with identical results:
//! [`Model::prepare`] checks and copies the window, [`TrainingSet::train_tree`] grows one tree, [`TrainingSet::forest`]
//! puts them together, [`TrainingSet::finish`] calibrates by the raw scores of the window. [`Model::train`] does all.

use crate::calibration::{Calibration, quantile};
use crate::features::{FEATURES, GLOBAL_AMOUNT_FLAG, global_amount_flag};
use crate::forest::{self, Forest, TrainError, TrainParams, Tree, train_tree};
use alloc::string::String;
use alloc::vec::Vec;
use ndarray::ArrayView2;

/// Training window in event time, ms since the epoch: [from, to).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// First ms.
    pub from_ms: i64,
    /// First ms after it.
    pub to_ms: i64,
}

/// A trained, calibrated model. Never changes: a new training makes a new one with another [`Self::id`].
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The forest over the ten features.
    pub forest: Forest,
    /// Raw score to published score.
    pub calibration: Calibration,
    /// 99% quantile of the amounts in the training window: the bound of feature 9.
    pub global_amount_p99: f64,
    /// Share of the window that scores 0.5 or more; in (0, 0.5].
    pub contamination: f64,
    /// Rows in the training window.
    pub trained_rows: u64,
    /// The training window.
    pub window: Window,
    /// Parameters of the training.
    pub params: TrainParams,
    /// First 16 hex digits of the artifact's SHA-256.
    pub id: String,
}

impl Model {
    /// Trains on logged feature rows (n x 10, as verdicts carry them) with their amounts.
    ///
    /// Column 9 is computed anew from `amounts` with this window's own 99% quantile, or with `fixed_p99`.
    ///
    /// # Errors
    /// [`TrainError`] names what does not fit.
    pub fn train(
        rows: ArrayView2<'_, f32>,
        amounts: &[f64],
        params: TrainParams,
        contamination: f64,
        fixed_p99: Option<f64>,
        window: Window,
    ) -> Result<Self, TrainError> {
        let set = Self::prepare(rows, amounts, params, contamination, fixed_p99, window)?;
        let trees = (0..set.trees()).map(|i| set.train_tree(i)).collect();
        let forest = set.forest(trees)?;
        let mut raw_scores = Vec::new();
        forest.raw_scores(set.features(), &mut raw_scores);
        set.finish(forest, &raw_scores)
    }

    /// First step of [`Self::train`]: checks everything and copies the rows.
    ///
    /// # Errors
    /// As [`Self::train`].
    pub fn prepare(
        rows: ArrayView2<'_, f32>,
        amounts: &[f64],
        params: TrainParams,
        contamination: f64,
        fixed_p99: Option<f64>,
        window: Window,
    ) -> Result<TrainingSet, TrainError> {
        if rows.ncols() != FEATURES || rows.nrows() != amounts.len() {
            return Err(TrainError::Dimensions);
        }
        forest::check(rows, &params)?;
        let numbers_fit = contamination > 0.0 && contamination <= 0.5 && fixed_p99.is_none_or(f64::is_finite);
        if !numbers_fit || window.from_ms > window.to_ms {
            return Err(TrainError::Params);
        }
        if amounts.iter().any(|amount| !amount.is_finite()) {
            return Err(TrainError::NotFinite);
        }
        let global_amount_p99 = fixed_p99.unwrap_or_else(|| {
            let mut sorted = amounts.to_vec();
            sorted.sort_unstable_by(f64::total_cmp);
            quantile(&sorted, 0.99)
        });
        let mut copy = Vec::with_capacity(rows.len());
        for (row, &amount) in rows.rows().into_iter().zip(amounts) {
            copy.extend(row.iter().take(GLOBAL_AMOUNT_FLAG));
            copy.push(global_amount_flag(amount, Some(global_amount_p99)));
        }
        Ok(TrainingSet { rows: copy, global_amount_p99, params, contamination, window })
    }

    /// Raw score of one feature vector, in (0, 1].
    #[must_use]
    pub fn raw_score(&self, features: &[f32; FEATURES]) -> f64 {
        self.forest.raw_score(features)
    }

    /// Published score of a raw one, in [0, 1]: 0.5 where the contamination begins.
    #[must_use]
    pub fn score(&self, raw: f64) -> f64 {
        self.calibration.apply(raw)
    }
}

/// A checked training window, ready to grow trees.
#[derive(Clone, Debug)]
pub struct TrainingSet {
    /// n x [`FEATURES`], row-major, finite.
    rows: Vec<f32>,
    global_amount_p99: f64,
    params: TrainParams,
    contamination: f64,
    window: Window,
}

impl TrainingSet {
    /// Number of trees to grow.
    #[must_use]
    pub fn trees(&self) -> usize {
        self.params.trees
    }

    /// Number of rows in the window.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len() / FEATURES
    }

    /// The bound of feature 9 that this window gave.
    #[must_use]
    pub fn global_amount_p99(&self) -> f64 {
        self.global_amount_p99
    }

    fn view(&self) -> ArrayView2<'_, f32> {
        ArrayView2::from_shape((self.rows(), FEATURES), &self.rows).expect("invariant: rows are whole")
    }

    /// Grows the tree with this index, 0 to [`Self::trees`]; any thread, any order.
    #[must_use]
    pub fn train_tree(&self, index: usize) -> Tree {
        train_tree(self.view(), &self.params, index)
    }

    /// The window's features, row-major, column 9 computed anew.
    #[must_use]
    pub fn features(&self) -> &[f32] {
        &self.rows
    }

    /// Puts the trees together, in order of their index.
    ///
    /// # Errors
    /// [`TrainError::Dimensions`] if there are not [`Self::trees`] trees over the ten features.
    pub fn forest(&self, trees: Vec<Tree>) -> Result<Forest, TrainError> {
        if trees.len() != self.params.trees {
            return Err(TrainError::Dimensions);
        }
        Forest::from_trees(trees, FEATURES, self.params.effective_samples(self.rows()))
    }

    /// Calibrates the forest of [`Self::forest`] by its raw scores of [`Self::features`].
    ///
    /// # Errors
    /// [`TrainError::Dimensions`] if there is not one score for each row.
    pub fn finish(self, forest: Forest, raw_scores: &[f64]) -> Result<Model, TrainError> {
        if raw_scores.len() != self.rows() {
            return Err(TrainError::Dimensions);
        }
        let mut model = Model {
            calibration: Calibration::fit(raw_scores, self.contamination),
            forest,
            global_amount_p99: self.global_amount_p99,
            contamination: self.contamination,
            trained_rows: self.rows() as u64,
            window: self.window,
            params: self.params,
            id: String::new(),
        };
        model.id = model.digest_id();
        Ok(model)
    }
}
