//! The population stability index: how far a distribution has moved, and how far chance alone moves it.
//!
//! PSI = sum over bins of (a - e) ln(a / e), e and a the shares of the expected and the actual rows in the bin. Bins are the deciles of
//! the expected rows; of equal deciles one stays, so a feature of two values has two bins.
//!
//! The usual bound of 0.25 ("a major shift") is for thousands of rows. With the population unchanged, PSI is distributed as
//! (1/n + 1/m) times chi-square of B - 1 degrees of freedom (B. Yurdakul, J. Naranjo, "Statistical properties of the population
//! stability index", Journal of Risk Model Validation 14(4), 2020), so of few rows chance alone exceeds 0.25. The bound is the larger
//! of the two: 0.25, and what chance exceeds once in a thousand times.

use alloc::vec;
use alloc::vec::Vec;

use crate::calibration::quantile;

/// A shift that is major whatever the number of rows.
const MAJOR: f64 = 0.25;
/// Bins at most.
const BINS: usize = 10;
/// Normal quantile of 0.999.
const Z: f64 = 3.0902;

/// A PSI with its bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stability {
    /// The index.
    pub value: f64,
    /// Above this the population has moved.
    pub bound: f64,
    /// Bins in use.
    pub bins: usize,
}

/// The index of two samples, neither empty.
///
/// Half a row is added to each bin, so that an empty one gives a large index and not an infinite one.
///
/// # Panics
/// If a sample is empty.
#[must_use]
pub fn psi(expected: &[f64], actual: &[f64]) -> Stability {
    let mut sorted = expected.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let mut edges: Vec<f64> = (1..BINS).map(|at| quantile(&sorted, at as f64 / BINS as f64)).collect();
    edges.dedup();
    let bins = edges.len() + 1;
    let share = |values: &[f64]| {
        let mut counts = vec![0.5; bins];
        for value in values {
            counts[edges.partition_point(|edge| edge < value)] += 1.0;
        }
        let total = values.len() as f64 + bins as f64 / 2.0;
        counts.into_iter().map(|count| count / total).collect::<Vec<f64>>()
    };
    let (expected_share, actual_share) = (share(expected), share(actual));
    let value = expected_share.iter().zip(&actual_share).map(|(e, a)| (a - e) * libm::log(a / e)).sum();
    let noise = (1.0 / expected.len() as f64 + 1.0 / actual.len() as f64) * chi_square((bins - 1) as f64);
    Stability { value, bound: noise.max(MAJOR), bins }
}

/// 99.9% quantile of chi-square (E. B. Wilson, M. M. Hilferty, PNAS 17, 1931); within 1% from two degrees on.
fn chi_square(degrees: f64) -> f64 {
    let spread = 2.0 / (9.0 * degrees);
    let root = 1.0 - spread + Z * libm::sqrt(spread);
    degrees * root * root * root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_the_definitions() {
        // Half and half against nine to one.
        let expected: Vec<f64> = (0..1_000).map(|at| f64::from(at % 2)).collect();
        let actual: Vec<f64> = (0..1_000).map(|at| f64::from(u8::from(at % 10 == 0))).collect();
        let found = psi(&expected, &actual);
        // Deciles 0, 0.5 (interpolated) and 1: the middle bins are empty in both.
        let by_hand = (0.1 - 0.5) * libm::log(0.1f64 / 0.5) + (0.9 - 0.5) * libm::log(0.9f64 / 0.5);
        assert!((found.value - by_hand).abs() < 0.01, "{found:?}, {by_hand}");
        assert_eq!(psi(&expected, &expected).value, 0.0);
        assert!(found.value > found.bound);
    }

    #[test]
    fn the_bound_fits_the_number_of_rows() {
        assert!((chi_square(9.0) - 27.877).abs() < 0.25);
        assert!((chi_square(1.0) - 10.828).abs() < 0.4);
        let spread = |count: u32| (0..count).map(f64::from).collect::<Vec<_>>();
        assert_eq!(psi(&spread(10_000), &spread(10_000)).bound, 0.25);
        let few = psi(&spread(1_000), &spread(20));
        assert!((few.bound - 27.9 * (1.0 / 1_000.0 + 1.0 / 20.0)).abs() < 0.02, "{few:?}");
    }

    #[test]
    fn a_value_that_was_never_seen_is_a_shift() {
        let found = psi(&[1.0; 500], &[2.0; 500]);
        assert!(found.value > 5.0 && found.value.is_finite(), "{found:?}");
        assert!(psi(&[1.0; 500], &[1.0; 500]).value.abs() < 1e-12);
    }
}
