//! Rows in groups of 32, for kernels whose registers hold a tree and look it up for many rows at once.

use super::compact::{Compact, Values};
use super::ranks::LANES;

/// Rows of a group.
pub(super) const ROWS: usize = 32;
/// From so many rows on a group is worth filling; fewer walk faster by themselves.
const ROWS_MIN: usize = 12;

/// 32 rows' ranks, and what their path lengths add up to.
pub(super) trait Group: Copy {
    /// No row yet: all ranks and sums are zero. Lanes without a row walk as zeros.
    const EMPTY: Self;

    /// Takes one feature's ranks of the rows from `8 * eight` on.
    fn put(&mut self, feature: usize, eight: usize, ranks: [u32; LANES]);

    /// In order of the rows.
    fn sums(&self) -> &[u64; ROWS];
}

/// Sums of path lengths of many rows, in order: `add_paths` adds those of all trees to up to `GROUPS` groups, `alone_by` sums rows that are too few for a group.
pub(super) fn path_sums<G: Group, const GROUPS: usize>(
    compact: &Compact,
    rows: &[f32],
    add_paths: impl Fn(&mut [G]),
    alone_by: impl Fn(&Values) -> u64,
    mut emit: impl FnMut(u64),
) {
    let dimensions = compact.ranks().len();
    for block in rows.chunks(GROUPS * ROWS * dimensions) {
        let count = block.len() / dimensions;
        let alone = if count % ROWS < ROWS_MIN { count % ROWS } else { 0 };
        let (together, alone) = block.split_at((count - alone) * dimensions);
        let mut groups = [G::EMPTY; GROUPS];
        let mut used = 0;
        for (group, rows) in groups.iter_mut().zip(together.chunks(ROWS * dimensions)) {
            take(group, compact, rows);
            used += 1;
        }
        add_paths(&mut groups[..used]);
        groups.iter().flat_map(Group::sums).take(together.len() / dimensions).for_each(|&sum| emit(sum));
        alone.chunks_exact(dimensions).for_each(|row| emit(alone_by(&compact.values(row))));
    }
}

/// Ranks up to 32 rows.
fn take(group: &mut impl Group, compact: &Compact, rows: &[f32]) {
    let dimensions = compact.ranks().len();
    for (feature, ranks) in compact.ranks().iter().enumerate() {
        for (eight, rows) in rows.chunks(LANES * dimensions).enumerate() {
            let of = |lane: usize| rows.get(lane * dimensions + feature).copied().unwrap_or_default();
            group.put(feature, eight, ranks.ranks(core::array::from_fn(of)));
        }
    }
}
