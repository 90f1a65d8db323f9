//! Growing one tree: sample, split, weigh.
//!
//! Tree i draws from its own stream i of ChaCha8 under the forest's seed (crate rand_chacha: its streams are fixed by
//! the cipher, while `StdRng` may change between releases). All draws are made here from raw 64-bit words, so that no
//! release of a sampling library moves a forest.
//!
//! Node order is breadth first, and a node draws when its turn comes: first the feature, then the threshold.

use super::tree::{Part, Tree};
use super::{DIMENSIONS_MAX, PATH_UNIT, SAMPLES_MAX, TREES_MAX};
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use ndarray::ArrayView2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// How to train a forest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainParams {
    /// Number of trees, 1 to [`TREES_MAX`].
    pub trees: usize,
    /// Rows per tree, 2 to [`SAMPLES_MAX`]; fewer if there are fewer rows.
    pub max_samples: usize,
    /// Seed of all random numbers.
    pub seed: u64,
}

impl Default for TrainParams {
    /// 100 trees of 256 rows, as the paper recommends; seed 0.
    fn default() -> Self {
        Self { trees: 100, max_samples: 256, seed: 0 }
    }
}

impl TrainParams {
    /// Rows that each tree gets out of `rows`.
    #[must_use]
    pub fn effective_samples(&self, rows: usize) -> usize {
        self.max_samples.min(rows)
    }
}

/// Why there is no model: the caller must change rows or parameters, a retry can't help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainError {
    /// Fewer than two rows.
    TooFewRows,
    /// A row holds NaN or infinity.
    NotFinite,
    /// The number of columns, amounts or trees does not fit the rest.
    Dimensions,
    /// A parameter is out of bounds.
    Params,
}

impl fmt::Display for TrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooFewRows => "training needs at least two rows",
            Self::NotFinite => "a training row holds a value that is not finite",
            Self::Dimensions => "numbers of columns, amounts or trees do not fit each other",
            Self::Params => "trees, max_samples, contamination, window or the 99% quantile is out of bounds",
        })
    }
}

impl core::error::Error for TrainError {}

/// Checks what [`train_tree`] takes for granted.
///
/// # Errors
/// [`TrainError`] names what does not fit.
pub fn check(rows: ArrayView2<'_, f32>, params: &TrainParams) -> Result<(), TrainError> {
    let samples_fit = (2..=SAMPLES_MAX).contains(&params.max_samples);
    if !(1..=TREES_MAX).contains(&params.trees) || !samples_fit {
        return Err(TrainError::Params);
    }
    if rows.nrows() < 2 {
        return Err(TrainError::TooFewRows);
    }
    if !(1..=DIMENSIONS_MAX).contains(&rows.ncols()) {
        return Err(TrainError::Dimensions);
    }
    if rows.iter().any(|x| !x.is_finite()) { Err(TrainError::NotFinite) } else { Ok(()) }
}

/// Trains the tree with this index: the same on every machine and thread.
///
/// Rows are n x d and finite.
///
/// # Panics
/// If there are no rows or columns, or a bound of [`TrainParams`] is broken ([`super::Forest::train`] checks them).
#[must_use]
pub fn train_tree(rows: ArrayView2<'_, f32>, params: &TrainParams, tree_index: usize) -> Tree {
    assert!(rows.nrows() > 0 && (1..=DIMENSIONS_MAX).contains(&rows.ncols()), "there is something to train on");
    assert!((2..=SAMPLES_MAX).contains(&params.max_samples), "the caller checked the parameters");
    let mut rng = ChaCha8Rng::seed_from_u64(params.seed);
    rng.set_stream(tree_index as u64);
    let sample = sample(&mut rng, rows.nrows(), params.effective_samples(rows.nrows()));
    grow(&mut rng, rows, sample)
}

/// `count` of `0..n` without replacement, ascending (R. W. Floyd's algorithm F2; J. Bentley, CACM 30(9), 1987).
fn sample(rng: &mut ChaCha8Rng, n: usize, count: usize) -> Vec<usize> {
    let mut chosen = BTreeSet::new();
    for j in n - count..n {
        let candidate = below(rng, j + 1);
        if !chosen.insert(candidate) {
            chosen.insert(j);
        }
    }
    chosen.into_iter().collect()
}

/// A whole number in [0, bound), by multiplication; its bias is below bound / 2^64.
fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}

/// A number in [0, 1) with 53 random bits.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// A node that waits for its turn: its rows are `sample[from..to]`.
struct Open {
    from: usize,
    to: usize,
    depth: u32,
    split: Option<(u32, f32)>,
}

fn grow(rng: &mut ChaCha8Rng, rows: ArrayView2<'_, f32>, mut sample: Vec<usize>) -> Tree {
    let height_limit = sample.len().next_power_of_two().trailing_zeros();
    let mut open = vec![Open { from: 0, to: sample.len(), depth: 0, split: None }];
    let mut varying = Vec::with_capacity(rows.ncols());
    let mut turn = 0;
    while turn < open.len() {
        let Open { from, to, depth, .. } = open[turn];
        if depth < height_limit && to - from > 1 {
            ranges(rows, &sample[from..to], &mut varying);
            if !varying.is_empty() {
                let (feature, min, max) = varying[below(rng, varying.len())];
                let threshold = threshold(rng, min, max);
                let middle = from + partition(rows, &mut sample[from..to], feature, threshold);
                debug_assert!(from < middle && middle < to, "both sides of a split hold rows");
                open[turn].split = Some((feature as u32, threshold));
                open.push(Open { from, to: middle, depth: depth + 1, split: None });
                open.push(Open { from: middle, to, depth: depth + 1, split: None });
            }
        }
        turn += 1;
    }
    let paths = paths(&open);
    let parts: Vec<Part> = open.iter().zip(paths).map(|(node, path)| (node.split, path)).collect();
    Tree::from_parts(parts.into_iter()).expect("invariant: breadth-first growth within the height limit is a tree")
}

/// The features that are not constant in the rows, with their least and largest value.
///
/// Choosing among these only is the paper's "retry": without it, constant features turn nodes into leaves.
fn ranges(rows: ArrayView2<'_, f32>, sample: &[usize], varying: &mut Vec<(usize, f32, f32)>) {
    varying.clear();
    for feature in 0..rows.ncols() {
        let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
        for &row in sample {
            let x = rows[[row, feature]];
            (min, max) = (min.min(x), max.max(x));
        }
        if min < max {
            varying.push((feature, min, max));
        }
    }
}

/// A threshold in [min, max): rows at `min` stay left of it, rows at `max` go right.
fn threshold(rng: &mut ChaCha8Rng, min: f32, max: f32) -> f32 {
    let (low, high) = (f64::from(min), f64::from(max));
    let value = (low + unit(rng) * (high - low)) as f32;
    // Rounding to f32 may reach `max` (and, for neighbours, always may): then nothing would go right.
    if value < max { value.max(min) } else { max.next_down() }
}

/// Moves the rows that go left to the front and counts them; their order matters to nothing.
fn partition(rows: ArrayView2<'_, f32>, sample: &mut [usize], feature: usize, threshold: f32) -> usize {
    let mut left = 0;
    for i in 0..sample.len() {
        // The negation sends NaN left, as the walk does.
        let goes_right = rows[[sample[i], feature]] > threshold;
        if !goes_right {
            sample.swap(left, i);
            left += 1;
        }
    }
    left
}

/// Path lengths in units of 2^-20: depth + c(rows) in leaves, the mean over the rows in splits.
fn paths(open: &[Open]) -> Vec<u32> {
    let sizes = open[0].to - open[0].from;
    let normal = average_path_lengths(sizes);
    let mut paths = vec![0u32; open.len()];
    let mut first_child = open.len();
    // Backwards, children come before their parents, and the last split owns the last two nodes.
    for i in (0..open.len()).rev() {
        let node = &open[i];
        let size = (node.to - node.from) as u64;
        paths[i] = if node.split.is_some() {
            first_child -= 2;
            let weigh = |child: usize| u64::from(paths[child]) * (open[child].to - open[child].from) as u64;
            ((weigh(first_child) + weigh(first_child + 1) + size / 2) / size) as u32
        } else {
            (node.depth << 20) + libm::round(normal[size as usize] * PATH_UNIT) as u32
        };
    }
    paths
}

/// c(0) to c(n), as [`super::average_path_length`] sums them.
fn average_path_lengths(n: usize) -> Vec<f64> {
    let mut harmonic = 0.0;
    (0..=n)
        .map(|size| {
            if size < 2 {
                return 0.0;
            }
            harmonic += 1.0 / (size - 1) as f64;
            2.0 * harmonic - 2.0 * (size - 1) as f64 / size as f64
        })
        .collect()
}
