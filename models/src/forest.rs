//! Isolation forest: how few random cuts separate a row from the rest.
//!
//! F. T. Liu, K. M. Ting, Z.-H. Zhou, "Isolation Forest", ICDM 2008, and "Isolation-Based Anomaly Detection", ACM TKDD
//! 6(1), 2012. For any number of features; knows nothing of payments.
//!
//! score(x) = 2^(-E[h(x)] / c(m)): h is the depth of x's leaf plus c(rows in the leaf), E the mean over the trees, m the
//! rows each tree was trained on, c(n) = 2 H(n-1) - 2 (n-1)/n the mean path length of a random search tree of n keys
//! (c(2) = 1, c(n < 2) = 0). A SHORT path is anomalous: the score is near 1 there, near 0.5 or below elsewhere.
//!
//! Path lengths are u32 in units of 2^-20, so sums are exact integers: whatever order a kernel adds them in, it gives
//! the same bits. A forest is a function of its rows, parameters and seed; trees may be trained on any threads.
//!
//! A forest is walked by the fastest [`Kernel`] that it and the processor allow; which one makes no difference to a bit.
//!
//! Limits: [`TREES_MAX`] trees of [`SAMPLES_MAX`] rows, [`DIMENSIONS_MAX`] features.

// The one place of the crate with `unsafe`: the processor's own instructions.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx2;
mod compact;
mod kernel;
mod ranks;
mod train;
mod tree;

use alloc::vec::Vec;
use compact::{Compact, Values};
use ndarray::ArrayView2;
pub use train::{TrainError, TrainParams, check, train_tree};
pub(crate) use tree::Part;
pub use tree::Tree;

/// Most trees of a forest.
pub const TREES_MAX: usize = 10_000;
/// Most rows that one tree is trained on.
pub const SAMPLES_MAX: usize = 1 << 16;
/// Most features: an artifact has 16 bits for one, and one value is a leaf's.
pub const DIMENSIONS_MAX: usize = 65_535;
/// Units of a path length: 2^20 per step.
pub const PATH_UNIT: f64 = 1_048_576.0;

/// How a forest is walked. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// The trees as they are: any forest.
    Plain,
    /// Ranks in place of floats, nodes of four bytes, no pointers: up to 16 features, trees of up to 4,096 leaves.
    Compact,
    /// The same, eight trees in a register, for processors with AVX2.
    Avx2,
    /// 32 rows of a batch in a register of bytes, for processors with AVX2: up to 10 features, trees of up to 1,024 leaves.
    Avx2Rows,
}

/// A trained forest.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    dimensions: usize,
    samples: usize,
    trees: Vec<Tree>,
    compact: Option<Compact>,
    #[cfg(target_arch = "x86_64")]
    avx2: Option<avx2::Avx2>,
    #[cfg(target_arch = "x86_64")]
    abreast: Option<avx2::Rows>,
    /// trees * 2^20 * c(samples): what a sum of path lengths is divided by.
    normaliser: f64,
}

impl Forest {
    /// Trains every tree in turn. Rows are n x d; sampling is without replacement.
    ///
    /// # Errors
    /// [`TrainError`] when there are no two rows, a value is not finite, or a parameter is out of bounds.
    pub fn train(rows: ArrayView2<'_, f32>, params: &TrainParams) -> Result<Self, TrainError> {
        check(rows, params)?;
        let trees = (0..params.trees).map(|i| train_tree(rows, params, i)).collect();
        Self::from_trees(trees, rows.ncols(), params.effective_samples(rows.nrows()))
    }

    /// Puts trees together that [`train_tree`] made, in order of their index.
    ///
    /// `dimensions` is the number of features, `samples` what [`TrainParams::effective_samples`] gave.
    ///
    /// # Errors
    /// [`TrainError::Params`] when a count is out of bounds, [`TrainError::Dimensions`] when a tree needs more features.
    pub fn from_trees(trees: Vec<Tree>, dimensions: usize, samples: usize) -> Result<Self, TrainError> {
        let counts_fit = (1..=TREES_MAX).contains(&trees.len()) && (2..=SAMPLES_MAX).contains(&samples);
        if !counts_fit || !(1..=DIMENSIONS_MAX).contains(&dimensions) {
            return Err(TrainError::Params);
        }
        if trees.iter().any(|tree| tree.dimensions() > dimensions) {
            return Err(TrainError::Dimensions);
        }
        let normaliser = trees.len() as f64 * PATH_UNIT * average_path_length(samples);
        let compact = Compact::new(&trees, dimensions);
        #[cfg(target_arch = "x86_64")]
        let avx2 = compact.as_ref().and_then(|_| avx2::Avx2::new());
        #[cfg(target_arch = "x86_64")]
        let abreast = avx2.zip(compact.as_ref()).and_then(|(avx2, form)| avx2::Rows::new(avx2, form, trees.len()));
        Ok(Self {
            dimensions,
            samples,
            trees,
            compact,
            #[cfg(target_arch = "x86_64")]
            avx2,
            #[cfg(target_arch = "x86_64")]
            abreast,
            normaliser,
        })
    }

    /// Number of features of a row.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Rows that each tree was trained on.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// The trees in order of their index.
    #[must_use]
    pub fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// Anomaly score of one row in (0, 1]: the higher, the more anomalous. NaN counts as small.
    ///
    /// # Panics
    /// If the row has not [`Self::dimensions`] values.
    #[must_use]
    pub fn raw_score(&self, row: &[f32]) -> f64 {
        assert_eq!(row.len(), self.dimensions, "a row has one value per feature");
        self.score_of(match &self.compact {
            Some(form) => self.path_sum(form, &form.values(row)),
            None => kernel::path_sum(&self.trees, row),
        })
    }

    /// Of one row, by the fastest kernel for it.
    fn path_sum(&self, form: &Compact, values: &Values) -> u64 {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = self.avx2 {
            return avx2.path_sum(form, values);
        }
        form.path_sum(values)
    }

    /// Scores of many rows (row-major, n x d), appended to `out`: the same bits as [`Self::raw_score`], faster.
    ///
    /// # Panics
    /// If `rows` is not a whole number of rows.
    pub fn raw_scores(&self, rows: &[f32], out: &mut Vec<f64>) {
        let fastest = *self.kernels().last().expect("invariant: any forest can be walked as it is");
        self.raw_scores_by(fastest, rows, out);
    }

    /// The kernels that can walk this forest on this processor; the last one is the fastest for batches.
    #[must_use]
    pub fn kernels(&self) -> &'static [Kernel] {
        use Kernel::{Avx2, Avx2Rows, Compact, Plain};
        #[cfg(target_arch = "x86_64")]
        match (&self.avx2, &self.abreast, &self.compact) {
            (Some(_), Some(_), _) => return &[Plain, Compact, Avx2, Avx2Rows],
            // Eight high trees at once leave the nearest caches; rows that pass one tree after the other keep it there.
            (Some(_), None, Some(form)) if form.is_tall() => return &[Plain, Avx2, Compact],
            (Some(_), None, _) => return &[Plain, Compact, Avx2],
            (None, ..) => {}
        }
        if self.compact.is_some() { &[Plain, Compact] } else { &[Plain] }
    }

    /// [`Self::raw_scores`] by a kernel of one's choice: for whoever compares them.
    ///
    /// # Panics
    /// As [`Self::raw_scores`]; and if the kernel is not one of [`Self::kernels`].
    pub fn raw_scores_by(&self, kernel: Kernel, rows: &[f32], out: &mut Vec<f64>) {
        assert_eq!(rows.len() % self.dimensions, 0, "rows have one value per feature");
        out.reserve(rows.len() / self.dimensions);
        let emit = |sum| out.push(self.score_of(sum));
        assert!(self.kernels().contains(&kernel), "one of the forest's kernels");
        let Some(form) = self.compact.as_ref().filter(|_| kernel != Kernel::Plain) else {
            return kernel::path_sums(&self.trees, self.dimensions, rows, emit);
        };
        #[cfg(target_arch = "x86_64")]
        match (kernel, self.avx2, &self.abreast) {
            (Kernel::Avx2, Some(avx2), _) => return avx2.path_sums(form, rows, emit),
            (Kernel::Avx2Rows, _, Some(abreast)) => {
                return abreast.path_sums(form, rows, |values| self.path_sum(form, values), emit);
            }
            _ => {}
        }
        form.path_sums(rows, emit);
    }

    fn score_of(&self, path_sum: u64) -> f64 {
        libm::exp2(-(path_sum as f64) / self.normaliser)
    }

    /// Mean path length of a row over the trees, in steps.
    ///
    /// # Panics
    /// As [`Self::raw_score`].
    #[must_use]
    pub fn expected_path(&self, row: &[f32]) -> f64 {
        assert_eq!(row.len(), self.dimensions, "a row has one value per feature");
        let sum: u64 = self.trees.iter().map(|tree| u64::from(tree.path(row))).sum();
        sum as f64 / (self.trees.len() as f64 * PATH_UNIT)
    }

    /// Mean over the trees of the path length expected before any feature is known, in steps.
    #[must_use]
    pub fn bias(&self) -> f64 {
        let sum: u64 = self.trees.iter().map(|tree| u64::from(tree.root_path())).sum();
        sum as f64 / (self.trees.len() as f64 * PATH_UNIT)
    }

    /// How much each feature shortened the row's path, in steps: positive means MORE anomalous.
    ///
    /// Every node v holds L(v), the mean path length of its training rows. Where x goes from v to its child w, the
    /// feature that v splits on gets L(v) - L(w); the sums are averaged over the trees. They telescope:
    /// [`Self::bias`] - sum(out) = [`Self::expected_path`]. This is A. Saabas's path attribution ("Interpreting random
    /// forests", 2014) on path lengths instead of class shares.
    ///
    /// # Panics
    /// If `row` or `out` has not [`Self::dimensions`] values.
    pub fn contributions(&self, row: &[f32], out: &mut [f64]) {
        assert_eq!(row.len(), self.dimensions, "a row has one value per feature");
        assert_eq!(out.len(), self.dimensions, "one contribution per feature");
        out.fill(0.0);
        // Whole numbers of units below 2^53: f64 adds them exactly, in any order.
        for tree in &self.trees {
            tree.walk(row, |feature, gain| out[feature] += gain as f64);
        }
        let unit = self.trees.len() as f64 * PATH_UNIT;
        for share in out {
            *share /= unit;
        }
    }
}

/// c(n): mean path length of an unsuccessful search in a random binary search tree of n keys.
///
/// The harmonic number is summed exactly, so that c(2) = 1 needs no exception.
#[must_use]
pub fn average_path_length(n: usize) -> f64 {
    if n < 2 {
        return 0.0;
    }
    let harmonic: f64 = (1..n).map(|i| 1.0 / i as f64).sum();
    2.0 * harmonic - 2.0 * (n - 1) as f64 / n as f64
}
