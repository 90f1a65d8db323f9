//! Walking many rows through many trees.
//!
//! A walk is a chain of dependent loads, about 15 cycles a step whatever the processor could do beside it. So [`LANES`]
//! rows walk the same tree side by side, without branches, and a block of [`BLOCK`] rows passes one tree after the
//! other while that tree's few KiB stay in the first-level cache. A row that finds no company walks several trees
//! side by side instead. Sums are exact integers, so both give the same bits.

use super::tree::{Node, Tree};

/// Rows that walk side by side.
const LANES: usize = 8;
/// Rows that pass all trees together.
const BLOCK: usize = 64;

/// Sum of path lengths over all trees, in units of 2^-20, for each row in order.
pub(super) fn path_sums(trees: &[Tree], dimensions: usize, rows: &[f32], mut emit: impl FnMut(u64)) {
    for block in rows.chunks(BLOCK * dimensions) {
        let groups = block.chunks_exact(LANES * dimensions);
        let rest = groups.remainder();
        let mut sums = [[0u64; LANES]; BLOCK / LANES];
        for tree in trees {
            for (lanes, sums) in groups.clone().zip(&mut sums) {
                add_paths(tree, dimensions, lanes, sums);
            }
        }
        sums.iter().take(groups.len()).flatten().for_each(|&sum| emit(sum));
        rest.chunks_exact(dimensions).for_each(|row| emit(path_sum(trees, row)));
    }
}

/// Adds one tree's path lengths for exactly [`LANES`] rows.
fn add_paths(tree: &Tree, dimensions: usize, lanes: &[f32], sums: &mut [u64; LANES]) {
    let nodes = tree.nodes();
    let mut at = [0u32; LANES];
    for _ in 0..tree.height() {
        for (lane, at) in at.iter_mut().enumerate() {
            let node = &nodes[*at as usize];
            let x = lanes[lane * dimensions + node.feature as usize];
            *at = node.left + u32::from(x > node.threshold);
        }
    }
    for (at, sum) in at.iter().zip(sums) {
        *sum += u64::from(nodes[*at as usize].path);
    }
}

/// One row's sum of path lengths: here [`LANES`] trees are walked side by side.
///
/// Trees of unequal height walk as long as the highest: steps on a leaf change nothing.
pub(super) fn path_sum(trees: &[Tree], row: &[f32]) -> u64 {
    let groups = trees.chunks_exact(LANES);
    let mut sum: u64 = groups.remainder().iter().map(|tree| u64::from(tree.path(row))).sum();
    for group in groups {
        let nodes: [&[Node]; LANES] = core::array::from_fn(|lane| group[lane].nodes());
        let height = group.iter().map(Tree::height).max().unwrap_or(0);
        let mut at = [0u32; LANES];
        for _ in 0..height {
            for (nodes, at) in nodes.iter().zip(&mut at) {
                let node = &nodes[*at as usize];
                *at = node.left + u32::from(row[node.feature as usize] > node.threshold);
            }
        }
        sum += nodes.iter().zip(at).map(|(nodes, at)| u64::from(nodes[at as usize].path)).sum::<u64>();
    }
    sum
}
