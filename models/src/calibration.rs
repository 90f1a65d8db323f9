//! From raw scores to scores that mean the same under every model.
//!
//! A raw score depends on the window a forest saw; operators set one threshold and keep it. So the artifact carries
//! quantiles q of the raw score on its training window and maps piecewise linearly through the knots (0, 0),
//! (q(1-c), .5), (q(1-c/2), .65), (q(1-c/5), .8), (q(1-c/20), .9), (1, 1), where c is the contamination: the share of
//! the window that would have been called anomalous at a threshold of 0.5. Of knots with equal raw score the last stays.

use alloc::vec::Vec;

/// Share of the contamination above each knot, and the score there.
const KNOTS: [(f64, f64); 4] = [(1.0, 0.5), (2.0, 0.65), (5.0, 0.8), (20.0, 0.9)];
/// Most knots of a calibration.
pub const KNOTS_MAX: usize = KNOTS.len() + 2;

/// A piecewise linear map of [0, 1] onto itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// (raw, score): raw ascends strictly from 0 to 1, score ascends.
    knots: Vec<(f64, f64)>,
}

impl Calibration {
    /// Fits to the raw scores of a training window (any order, not empty, within [0, 1]); 0 < contamination <= 0.5.
    ///
    /// # Panics
    /// If there are no scores.
    #[must_use]
    pub fn fit(raw_scores: &[f64], contamination: f64) -> Self {
        let mut sorted = raw_scores.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let mut knots: Vec<(f64, f64)> = Vec::with_capacity(KNOTS_MAX);
        let inner = KNOTS.iter().map(|&(part, score)| (quantile(&sorted, 1.0 - contamination / part), score));
        for knot in core::iter::once((0.0, 0.0)).chain(inner).chain(core::iter::once((1.0, 1.0))) {
            // Quantiles ascend, so an equal one can only be the last.
            match knots.last_mut() {
                Some(last) if knot.0 <= last.0 => *last = (last.0, knot.1),
                _ => knots.push(knot),
            }
        }
        Self { knots }
    }

    /// Rebuilds from stored knots; `None` unless they are what [`Self::fit`] can make.
    pub(crate) fn from_knots(knots: Vec<(f64, f64)>) -> Option<Self> {
        let within = (2..=KNOTS_MAX).contains(&knots.len());
        let ascend = knots.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let ends = within && knots[0].0 == 0.0 && knots[knots.len() - 1] == (1.0, 1.0);
        (ends && ascend && (0.0..1.0).contains(&knots[0].1)).then_some(Self { knots })
    }

    /// The knots as (raw, score).
    #[must_use]
    pub fn knots(&self) -> &[(f64, f64)] {
        &self.knots
    }

    /// Calibrated score of a raw one, both in [0, 1].
    #[must_use]
    pub fn apply(&self, raw: f64) -> f64 {
        let last = self.knots.len() - 1;
        let right = self.knots.partition_point(|knot| knot.0 < raw).clamp(1, last);
        let ((x0, y0), (x1, y1)) = (self.knots[right - 1], self.knots[right]);
        if raw >= x1 {
            // Exactly: a row at a knot must not miss its severity by a rounding.
            return y1;
        }
        y0 + ((raw - x0) / (x1 - x0)).max(0.0) * (y1 - y0)
    }
}

/// The p-quantile (0 to 1) of ascending values, interpolated linearly as numpy does by default.
///
/// # Panics
/// If there are no values.
#[must_use]
pub fn quantile(sorted: &[f64], p: f64) -> f64 {
    assert!(!sorted.is_empty(), "a quantile needs values");
    let position = p.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let index = libm::floor(position) as usize;
    let share = position - index as f64;
    let (low, high) = (sorted[index], sorted[(index + 1).min(sorted.len() - 1)]);
    // numpy's lerp: from the nearer end, so that p = 1 gives the last value exactly.
    if share < 0.5 { low + (high - low) * share } else { high - (high - low) * (1.0 - share) }
}
