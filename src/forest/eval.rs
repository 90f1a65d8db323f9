//! How well a forest ranks a labelled set: trained on all of its rows, judged on all of its rows, as ADBench does.

use models::forest::train_tree;
use models::metrics::{auroc, average_precision};
use models::{Forest, TrainError, TrainParams};
use ndarray::ArrayView2;
use serde::Serialize;

use super::Labelled;
use crate::parallel;

/// What one seed came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// Area under the ROC curve.
    pub auroc: f64,
    /// Average precision.
    pub average_precision: f64,
}

/// What all seeds came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Rows of the set.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
    /// Rows labelled as anomalies.
    pub anomalies: usize,
    /// Trees of each forest.
    pub trees: usize,
    /// Rows of each tree.
    pub samples: usize,
    /// Mean over the seeds.
    pub auroc: f64,
    /// Sample standard deviation over the seeds; 0 for one seed.
    pub auroc_sd: f64,
    /// Mean over the seeds.
    pub average_precision: f64,
    /// Sample standard deviation over the seeds; 0 for one seed.
    pub average_precision_sd: f64,
    /// Each seed.
    pub runs: Vec<Run>,
}

/// Trains and judges a forest for each of the seeds 1 to `seeds`; `done` is called after each tree.
///
/// # Errors
/// [`TrainError`] where the set or a parameter is out of bounds.
pub fn evaluate(
    set: &Labelled,
    trees: usize,
    max_samples: usize,
    seeds: u64,
    done: &(dyn Fn() + Sync),
) -> Result<Evaluation, TrainError> {
    let count = set.labels.len();
    let view = ArrayView2::from_shape((count, set.columns), &set.rows).map_err(|_| TrainError::Dimensions)?;
    let mut runs = Vec::new();
    for seed in 1..=seeds {
        let params = TrainParams { trees, max_samples, seed };
        models::forest::check(view, &params)?;
        let grown = parallel::map(trees, done, |at| train_tree(view, &params, at));
        let forest = Forest::from_trees(grown, set.columns, params.effective_samples(count))?;
        let scores = parallel::raw_scores(&forest, &set.rows);
        let judged = auroc(&set.labels, &scores).zip(average_precision(&set.labels, &scores));
        let (auroc, average_precision) = judged.ok_or(TrainError::TooFewRows)?;
        runs.push(Run { seed, auroc, average_precision });
    }
    let (auroc, auroc_sd) = mean_and_sd(runs.iter().map(|run| run.auroc));
    let (average_precision, average_precision_sd) = mean_and_sd(runs.iter().map(|run| run.average_precision));
    Ok(Evaluation {
        rows: count,
        columns: set.columns,
        anomalies: set.labels.iter().filter(|&&label| label).count(),
        trees,
        samples: max_samples.min(count),
        auroc,
        auroc_sd,
        average_precision,
        average_precision_sd,
        runs,
    })
}

/// Mean and sample standard deviation; (0, 0) of nothing.
#[must_use]
pub fn mean_and_sd(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.map(|value| (value - mean) * (value - mean)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dense cloud with one far row in ten.
    fn cloud(rows: usize, columns: usize) -> Labelled {
        let mut x = 1u32;
        let mut next = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 8) as f32 / 16_777_216.0
        };
        let labels: Vec<bool> = (0..rows).map(|row| row % 10 == 0).collect();
        let rows = labels.iter().flat_map(|&far| vec![far; columns]).map(|far| if far { 3.0 + 4.0 * next() } else { next() });
        Labelled { rows: rows.collect(), columns, labels }
    }

    #[test]
    fn far_rows_rank_first_and_seeds_repeat() {
        let set = cloud(300, 4);
        let evaluation = evaluate(&set, 50, 128, 3, &|| {}).unwrap();
        assert!(evaluation.auroc > 0.99 && evaluation.average_precision > 0.95, "{evaluation:?}");
        assert_eq!((evaluation.rows, evaluation.columns, evaluation.anomalies, evaluation.samples), (300, 4, 30, 128));
        assert_eq!(evaluation, evaluate(&set, 50, 128, 3, &|| {}).unwrap());
        assert_eq!(evaluation.runs.iter().map(|run| run.seed).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn odd_tables_are_judged_too() {
        // Fewer rows than a tree takes.
        let few = evaluate(&cloud(20, 3), 20, 256, 2, &|| {}).unwrap();
        assert_eq!(few.samples, 20);
        assert!(few.auroc > 0.9, "{few:?}");
        // Nothing varies: nothing can be ranked.
        let constant = Labelled { rows: vec![7.0; 60], columns: 2, labels: (0..30).map(|row| row == 3).collect() };
        let flat = evaluate(&constant, 10, 256, 2, &|| {}).unwrap();
        assert_eq!((flat.auroc, flat.auroc_sd), (0.5, 0.0));
        // More columns than payments will ever have, most of them constant.
        let mut wide = cloud(200, 2_000);
        for row in wide.rows.chunks_mut(2_000) {
            row[500..].fill(1.0);
        }
        assert!(evaluate(&wide, 20, 256, 1, &|| {}).unwrap().auroc > 0.99);
        let one = Labelled { rows: vec![1.0], columns: 1, labels: vec![true] };
        assert_eq!(evaluate(&one, 10, 256, 1, &|| {}), Err(TrainError::TooFewRows));
    }

    #[test]
    fn the_deviation_is_the_samples() {
        assert_eq!(mean_and_sd([1.0, 2.0, 3.0].into_iter()), (2.0, 1.0));
        assert_eq!(mean_and_sd([5.0].into_iter()), (5.0, 0.0));
    }
}
