//! A forest as its fast kernels walk it: nodes of four bytes, in heap order, compared as whole numbers.
//!
//! All trees are filled up to one height, so that node k's children are 2k + 1 and 2k + 2 and none is stored. A node is its threshold's
//! rank ([`Ranks`]) above four bits of feature, a row the ranks of its values above four zero bits: one comparison of whole numbers per step. A leaf
//! above the last level is a node that nothing exceeds, with its path length below it. Trees are filled up to a multiple of [`LANES`] with ones
//! that add nothing.
//!
//! Either [`LANES`] trees are walked by one row or one tree by as many rows: a walk is a chain of dependent loads, about 12 cycles a step, and
//! eight chains side by side keep the processor busy.

use super::Tree;
use super::ranks::{LANES, Ranks, key};
use super::tree::Node;
use alloc::vec;
use alloc::vec::Vec;

/// Most features: what four bits tell apart.
pub(super) const FEATURES_MAX: usize = 16;
/// Heights that trees are filled up to; a forest with a higher tree has no compact form.
const HEIGHTS: [u32; 3] = [8, 10, 12];
/// A compact form larger than this would only displace what else is cached.
const BYTES_MAX: usize = 64 << 20;
/// Rows that pass one tree after the other together.
const BLOCK: usize = 64;
/// A node that nothing exceeds, as a signed number too: a rank has fewer than 24 bits.
pub(super) const NONE: u32 = i32::MAX as u32;

/// A row's ranks, shifted beside the features of nodes.
pub(super) type Values = [u32; FEATURES_MAX];

/// See the module's header.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compact {
    ranks: Vec<Ranks>,
    height: u32,
    /// By tree 2^height, the last unused.
    nodes: Vec<u32>,
    /// By tree 2^height path lengths.
    leaves: Vec<u32>,
}

impl Compact {
    /// `None` where the forest has too many features, too high trees or is too large.
    pub(super) fn new(trees: &[Tree], dimensions: usize) -> Option<Self> {
        if dimensions > FEATURES_MAX {
            return None;
        }
        let highest = trees.iter().map(Tree::height).max()?;
        let height = HEIGHTS.into_iter().find(|&height| height >= highest)?;
        let count = trees.len().next_multiple_of(LANES);
        if (count << height) * 2 * size_of::<u32>() > BYTES_MAX {
            return None;
        }
        let (ranks, keys): (Vec<Ranks>, Vec<Vec<u32>>) = Ranks::of(trees, dimensions).into_iter().unzip();
        let mut form = Self { ranks, height, nodes: vec![NONE; count << height], leaves: vec![0; count << height] };
        let size = 1 << height;
        for (tree, (nodes, leaves)) in trees.iter().zip(form.nodes.chunks_mut(size).zip(form.leaves.chunks_mut(size))) {
            Filling { tree: tree.nodes(), keys: &keys, nodes, leaves }.fill(0, &tree.nodes()[0]);
        }
        Some(form)
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn height(&self) -> u32 {
        self.height
    }

    /// The ranks of each feature.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn ranks(&self) -> &[Ranks] {
        &self.ranks
    }

    /// By tree its nodes and its leaves' path lengths.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn trees(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        self.nodes.chunks(1 << self.height).zip(self.leaves.chunks(1 << self.height))
    }

    /// True where a tree takes more than a few KiB.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn is_tall(&self) -> bool {
        self.height > HEIGHTS[0]
    }

    /// All nodes, tree by tree.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn nodes(&self) -> &[u32] {
        &self.nodes
    }

    /// All leaves' path lengths, tree by tree.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn leaves(&self) -> &[u32] {
        &self.leaves
    }

    /// A row as the trees take it.
    pub(super) fn values(&self, row: &[f32]) -> Values {
        let mut values = Values::default();
        for ((value, ranks), &x) in values.iter_mut().zip(&self.ranks).zip(row) {
            *value = ranks.rank(x) << 4;
        }
        values
    }

    /// Sum of path lengths of one row, in units of 2^-20.
    pub(super) fn path_sum(&self, values: &Values) -> u64 {
        match self.height {
            8 => self.row_by_trees::<256>(values),
            10 => self.row_by_trees::<1_024>(values),
            _ => self.row_by_trees::<4_096>(values),
        }
    }

    /// Sums of path lengths of many rows, in order.
    pub(super) fn path_sums(&self, rows: &[f32], emit: impl FnMut(u64)) {
        let together = |groups: &[[Values; LANES]], sums: &mut [[u64; LANES]]| match self.height {
            8 => self.rows_by_tree::<256>(groups, sums),
            10 => self.rows_by_tree::<1_024>(groups, sums),
            _ => self.rows_by_tree::<4_096>(groups, sums),
        };
        self.by_block(rows, together, |values| self.path_sum(values), emit);
    }

    /// Ranks rows block by block, and has whole groups summed by `together` and the rest by `alone`.
    pub(super) fn by_block(
        &self,
        rows: &[f32],
        together: impl Fn(&[[Values; LANES]], &mut [[u64; LANES]]),
        alone: impl Fn(&Values) -> u64,
        mut emit: impl FnMut(u64),
    ) {
        let dimensions = self.ranks.len();
        for block in rows.chunks(BLOCK * dimensions) {
            let groups = block.chunks_exact(LANES * dimensions);
            let rest = groups.remainder();
            let count = groups.len();
            let mut values = [[Values::default(); LANES]; BLOCK / LANES];
            for (values, rows) in values.iter_mut().zip(groups) {
                for (feature, ranks) in self.ranks.iter().enumerate() {
                    let ranks = ranks.ranks(core::array::from_fn(|lane| rows[lane * dimensions + feature]));
                    values.iter_mut().zip(ranks).for_each(|(values, rank)| values[feature] = rank << 4);
                }
            }
            let mut sums = [[0; LANES]; BLOCK / LANES];
            together(&values[..count], &mut sums[..count]);
            sums[..count].iter().flatten().for_each(|&sum| emit(sum));
            rest.chunks_exact(dimensions).for_each(|row| emit(alone(&self.values(row))));
        }
    }

    fn row_by_trees<const SIZE: usize>(&self, values: &Values) -> u64 {
        let (nodes, leaves) = (self.nodes.as_chunks::<SIZE>().0, self.leaves.as_chunks::<SIZE>().0);
        let mut sums = [0; LANES];
        for (nodes, leaves) in nodes.as_chunks::<LANES>().0.iter().zip(leaves.as_chunks::<LANES>().0) {
            let mut at = [0; LANES];
            for _ in 0..SIZE.ilog2() {
                for (at, nodes) in at.iter_mut().zip(nodes) {
                    *at = step(nodes, *at, values);
                }
            }
            for ((sum, leaves), at) in sums.iter_mut().zip(leaves).zip(at) {
                *sum += u64::from(leaves[(at + 1) % SIZE]);
            }
        }
        sums.iter().sum()
    }

    fn rows_by_tree<const SIZE: usize>(&self, groups: &[[Values; LANES]], sums: &mut [[u64; LANES]]) {
        let (nodes, leaves) = (self.nodes.as_chunks::<SIZE>().0, self.leaves.as_chunks::<SIZE>().0);
        for (nodes, leaves) in nodes.iter().zip(leaves) {
            for (values, sums) in groups.iter().zip(&mut *sums) {
                let mut at = [0; LANES];
                for _ in 0..SIZE.ilog2() {
                    for (at, values) in at.iter_mut().zip(values) {
                        *at = step(nodes, *at, values);
                    }
                }
                for (sum, at) in sums.iter_mut().zip(at) {
                    *sum += u64::from(leaves[(at + 1) % SIZE]);
                }
            }
        }
    }
}

/// One step down. The remainders say what is so anyway, and spare the checks.
#[inline(always)]
fn step<const SIZE: usize>(nodes: &[u32; SIZE], at: usize, values: &Values) -> usize {
    let node = nodes[at % SIZE];
    2 * at + 1 + usize::from(node < values[node as usize % FEATURES_MAX])
}

/// Copies one tree into its place.
struct Filling<'a> {
    tree: &'a [Node],
    keys: &'a [Vec<u32>],
    nodes: &'a mut [u32],
    leaves: &'a mut [u32],
}

impl Filling<'_> {
    /// Fills the place `at` and all below it: as deep as the trees are high.
    fn fill(&mut self, at: usize, node: &Node) {
        // The last of the places is unused: 2^height - 1 splits, 2^height leaves.
        let splits = self.nodes.len() - 1;
        if at >= splits {
            self.leaves[at - splits] = node.path;
            return;
        }
        let tree = self.tree;
        let (left, right) = if node.is_leaf() {
            (node, node)
        } else {
            let keys = &self.keys[node.feature as usize];
            let rank = keys.binary_search(&key(node.threshold)).expect("invariant: every threshold was collected");
            self.nodes[at] = (rank as u32) << 4 | node.feature;
            (&tree[node.left as usize], &tree[node.left as usize + 1])
        };
        self.fill(2 * at + 1, left);
        self.fill(2 * at + 2, right);
    }
}
