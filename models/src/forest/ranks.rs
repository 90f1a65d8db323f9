//! Values as ranks among a feature's thresholds, so that a walk compares whole numbers and loses nothing.
//!
//! With the distinct thresholds of a feature in order, t0 < t1 < ..., and rank(x) = how many of them lie below x: x > tj exactly where
//! rank(x) > j. NaN is above no threshold and gets rank 0, and -0.0 is 0.0, as the comparison of floats has it.
//!
//! The thresholds lie in heap order (node k's children are 2k and 2k + 1, filled up to a whole tree with keys that nothing exceeds): a search is a
//! chain of `at = 2 at + (key < x)` without branches or pointers, and where it ends is the rank.

use super::Tree;
use alloc::vec;
use alloc::vec::Vec;

/// Searches that go side by side: each is a chain of dependent loads.
pub(super) const LANES: usize = 8;

/// The thresholds of one feature.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ranks {
    depth: u32,
    /// 2^depth, the first unused.
    heap: Vec<u32>,
}

impl Ranks {
    /// The ranks of each feature, and by feature the distinct thresholds in order.
    pub(super) fn of(trees: &[Tree], dimensions: usize) -> Vec<(Self, Vec<u32>)> {
        let mut keys = vec![Vec::new(); dimensions];
        for node in trees.iter().flat_map(Tree::nodes).filter(|node| !node.is_leaf()) {
            keys[node.feature as usize].push(key(node.threshold));
        }
        let ranked = |mut keys: Vec<u32>| {
            keys.sort_unstable();
            keys.dedup();
            (Self::new(&keys), keys)
        };
        keys.into_iter().map(ranked).collect()
    }

    fn new(sorted: &[u32]) -> Self {
        let size = (sorted.len() + 1).next_power_of_two();
        let depth = size.trailing_zeros();
        let mut heap = vec![u32::MAX; size];
        for (at, slot) in heap.iter_mut().enumerate().skip(1) {
            let level = at.ilog2();
            let place = ((2 * (at - (1 << level)) + 1) << (depth - 1 - level)) - 1;
            *slot = sorted.get(place).copied().unwrap_or(u32::MAX);
        }
        Self { depth, heap }
    }

    /// Rank of one value.
    pub(super) fn rank(&self, x: f32) -> u32 {
        let key = key(x);
        let mut at = 1;
        for _ in 0..self.depth {
            at = self.step(at, key);
        }
        (at - self.heap.len()) as u32
    }

    /// Ranks of several values at once.
    pub(super) fn ranks(&self, values: [f32; LANES]) -> [u32; LANES] {
        let keys = values.map(key);
        let mut at = [1; LANES];
        for _ in 0..self.depth {
            for (at, &key) in at.iter_mut().zip(&keys) {
                *at = self.step(*at, key);
            }
        }
        at.map(|at| (at - self.heap.len()) as u32)
    }

    fn step(&self, at: usize, key: u32) -> usize {
        // The mask says what is so anyway, and spares the check.
        2 * at + usize::from(self.heap[at & (self.heap.len() - 1)] < key)
    }

    /// The rank of what exceeds all thresholds: their number.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn highest(&self) -> usize {
        self.heap.iter().skip(1).filter(|&&key| key != u32::MAX).count()
    }
}

/// A number's place among all numbers: greater exactly where the float is. NaN below all; the greatest key is no number's.
pub(super) fn key(x: f32) -> u32 {
    if x.is_nan() {
        return 0;
    }
    // -0.0 + 0.0 is 0.0.
    let bits = (x + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}
