//! How much the choice of the seed alone changes: forests of one window, each ranking the same later payments.

use models::validate::jaccard_of_top;
use models::{TrainError, TrainParams, metrics};
use serde::Serialize;

use super::eval::mean_and_sd;
use crate::parallel;
use crate::training::TrainingRows;

/// The share of payments that is looked at.
pub const TOP: f64 = 0.005;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stability {
    /// Trees of each forest.
    pub trees: usize,
    /// Rows of each tree.
    pub samples: usize,
    /// Forests, with the seeds 1 to this.
    pub seeds: u64,
    /// Rows trained on.
    pub trained_rows: usize,
    /// Rows ranked.
    pub judged_rows: usize,
    /// Mean over all pairs of the Jaccard index of their highest 0.5%.
    pub jaccard: f64,
    /// Over the pairs.
    pub jaccard_sd: f64,
    /// How many pairs.
    pub pairs: usize,
    /// Mean over the seeds, where the rows have labels.
    pub auroc: Option<f64>,
    /// Mean over the seeds, where the rows have labels.
    pub average_precision: Option<f64>,
}

/// Trains on the one, ranks the other.
///
/// # Errors
/// [`TrainError`] where the rows or a parameter don't fit.
pub fn stability(
    trained: &TrainingRows,
    judged: &TrainingRows,
    trees: usize,
    max_samples: usize,
    seeds: u64,
    grown: &(dyn Fn() + Sync),
) -> Result<Stability, TrainError> {
    let mut rankings: Vec<Vec<f64>> = Vec::new();
    for seed in 1..=seeds {
        let model = trained.train(TrainParams { trees, max_samples, seed }, 0.01, None, grown)?;
        rankings.push(parallel::raw_scores(&model.forest, &judged.seen_by(&model)));
    }
    let pairs = (0..rankings.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
    let shared: Vec<f64> = pairs.map(|(a, b)| jaccard_of_top(&rankings[a], &rankings[b], TOP)).collect();
    let (jaccard, jaccard_sd) = mean_and_sd(shared.iter().copied());
    let mean = |figure: fn(&[bool], &[f64]) -> Option<f64>| {
        // A file labels all of its rows or none.
        let labels = judged.labels().filter(|labels| labels.view().rows.len() == judged.len())?;
        let figures: Option<Vec<f64>> = rankings.iter().map(|scores| figure(labels.view().fraud, scores)).collect();
        Some(mean_and_sd(figures?.into_iter()).0)
    };
    Ok(Stability {
        trees,
        samples: max_samples.min(trained.len()),
        seeds,
        trained_rows: trained.len(),
        judged_rows: judged.len(),
        jaccard,
        jaccard_sd,
        pairs: shared.len(),
        auroc: mean(metrics::auroc),
        average_precision: mean(metrics::average_precision),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::ScoringParams;
    use crate::training::synthetic;

    #[test]
    fn more_trees_agree_more() {
        let rows = synthetic(8_000, &ScoringParams::default(), &|_| {}).unwrap();
        let of = |trees| stability(&rows, &rows, trees, 64, 3, &|| {}).unwrap();
        let (few, many) = (of(3), of(100));
        assert_eq!((few.pairs, few.judged_rows, few.auroc), (3, 4_000, None));
        assert!(few.jaccard < many.jaccard && many.jaccard <= 1.0, "{few:?} {many:?}");
    }
}
