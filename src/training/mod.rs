//! Growing a forest on all cores. Each tree has random numbers of its own, so the number of threads changes nothing.

mod sources;

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use models::{FEATURES, Model, TrainError, TrainParams, Tree, Verdict, Window};
use ndarray::ArrayView2;

pub use sources::{from_file, from_verdicts, synthetic};

/// Rows to train on, as verdicts log them.
#[derive(Clone, Debug, Default)]
pub struct TrainingRows {
    features: Vec<f32>,
    amounts: Vec<f64>,
    window: Option<(i64, i64)>,
}

impl TrainingRows {
    /// Adds what one verdict logged.
    pub fn push(&mut self, verdict: &Verdict) {
        self.features.extend_from_slice(&verdict.features);
        // The amount that was scored: after conversion, where there was one.
        self.amounts.push(verdict.fx.as_ref().map_or(verdict.amount, |fx| fx.amount));
        let at = verdict.event_time;
        self.window = Some(self.window.map_or((at, at), |(from, to)| (from.min(at), to.max(at))));
    }

    /// Forgets all but the last `count` rows.
    pub fn keep_last(&mut self, count: usize) {
        let drop = self.len().saturating_sub(count);
        self.amounts.drain(..drop);
        self.features.drain(..drop * FEATURES);
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.amounts.len()
    }

    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.amounts.is_empty()
    }

    /// Trains a model; calls `grown` after each tree, from any thread.
    ///
    /// # Errors
    /// [`TrainError`] where the rows or the parameters don't fit.
    pub fn train(
        &self,
        params: TrainParams,
        contamination: f64,
        fixed_p99: Option<f64>,
        grown: &(dyn Fn() + Sync),
    ) -> Result<Model, TrainError> {
        let rows = ArrayView2::from_shape((self.len(), FEATURES), &self.features)
            .expect("invariant: ten features were pushed for each row");
        let (from_ms, to_ms) = self.window.unwrap_or_default();
        let set = Model::prepare(rows, &self.amounts, params, contamination, fixed_p99, Window { from_ms, to_ms })?;
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let next = AtomicUsize::new(0);
        let trees: Mutex<Vec<Option<Tree>>> = Mutex::new((0..set.trees()).map(|_| None).collect());
        std::thread::scope(|scope| {
            for _ in 0..threads.min(set.trees()) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= set.trees() {
                            return;
                        }
                        let tree = set.train_tree(at);
                        trees.lock().expect("invariant: no thread panics while it holds the lock")[at] = Some(tree);
                        grown();
                    }
                });
            }
        });
        let trees = trees.into_inner().expect("invariant: the scope passes on a thread's panic");
        set.finish(trees.into_iter().map(|tree| tree.expect("invariant: each index was taken once")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_change_nothing() {
        let mut rows = TrainingRows::default();
        let mut x = 1u32;
        for _ in 0..600 {
            for _ in 0..FEATURES {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                rows.features.push((x >> 8) as f32 / 16_777_216.0);
            }
            rows.amounts.push(f64::from(x >> 16));
        }
        let params = TrainParams { trees: 20, max_samples: 64, seed: 9 };
        let here = rows.train(params, 0.01, None, &|| {}).expect("trains");
        let view = ArrayView2::from_shape((600, FEATURES), &rows.features).expect("fits");
        let alone = Model::train(view, &rows.amounts, params, 0.01, None, Window { from_ms: 0, to_ms: 0 }).expect("trains");
        assert_eq!(here.to_bytes(), alone.to_bytes());
    }
}
