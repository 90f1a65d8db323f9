//! The batch kernel for processors with AVX2: 32 rows walk a tree side by side, in registers of 32 bytes.
//!
//! No node is gathered. A node is three bytes, its feature and its threshold's rank in two halves, and 16 nodes are one table per byte, which a
//! permutation looks up for 32 rows at once. A level of up to 16 nodes is one table; a larger one is several, all of them looked up, and the rows'
//! decisions choose between what was found. So a row costs as many permutations as there are tables, 1/32 each: far less than a load per row and level up to
//! the tenth level, and more from the twelfth on. Path lengths are loaded row by row.
//!
//! A node's place in its level is counted with the FIRST decision as its lowest bit: the children of place p lie at p and p + 2^level. So the first four
//! decisions are the place in a table, the same one for all lower levels, and what is looked up there waits for no later decision; those
//! only choose between tables, the last one last.
//!
//! The rows' ranks lie by feature, in two lines of bytes; which feature's a node asks for is chosen bit by bit. Bytes are compared as signed numbers, so all
//! halves of ranks are kept with their upper bit turned.
//!
//! For forests whose trees are at most 10 high, over at most ten features with fewer than 65,280 distinct thresholds each: what the payments' features
//! give, up to 300 x 1024 and beyond.

use super::Avx2;
use crate::forest::compact::{Compact, NONE, Values};
use crate::forest::ranks::LANES;
use alloc::vec::Vec;
use core::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_blendv_epi8, _mm256_broadcastsi128_si256, _mm256_cmpgt_epi8,
    _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16,
    _mm256_storeu_si256, _mm256_sub_epi8, _mm256_unpackhi_epi8, _mm256_unpacklo_epi8,
};

/// Rows of a group.
const ROWS: usize = 32;
/// From so many rows on a group is worth filling; fewer walk faster by themselves.
const ROWS_MIN: usize = 8;
/// Groups of rows that pass two trees together, while those lie in the first-level cache.
const GROUPS: usize = 16;
/// Trees whose path lengths are added before they are added to a sum: at most 2^26 each (`tree::PATH_MAX`).
const PAIR: usize = 2;
const FEATURES_MAX: usize = 10;
/// The greatest rank's upper half, with one more where the lower half is greater, must still be a byte.
const RANK_MAX: usize = 0xfeff;
/// Nodes of a table.
const NODES: usize = 16;
/// Decisions that choose between tables.
const LATE: usize = 6;
/// Turns unsigned order into that of signed numbers.
const TURN: u8 = 0x80;

/// 16 nodes' bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(16))]
struct Table([u8; NODES]);

/// 32 rows' bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(32))]
struct Line([u8; ROWS]);

/// One tree of 2^4 * `COUNT` leaves. Level n begins at node 2^n; node 0 is unused.
#[derive(Clone, Debug, PartialEq)]
struct Tables<const COUNT: usize> {
    /// In the upper four bits.
    features: [Table; COUNT],
    low: [Table; COUNT],
    high: [Table; COUNT],
    leaves: [[u32; NODES]; COUNT],
}

/// By the trees' height: 8 or 10.
#[derive(Clone, Debug, PartialEq)]
enum Trees {
    Eight(Vec<Tables<16>>),
    Ten(Vec<Tables<64>>),
}

/// A forest for this kernel; it exists only on a processor that has what the kernel needs.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::forest) struct Rows {
    trees: Trees,
}

/// The halves of 32 rows' ranks by feature, in the order of bytes that unpacking into words undoes; and what their path lengths add up to.
#[derive(Clone, Copy)]
struct Group {
    low: [Line; FEATURES_MAX],
    high: [Line; FEATURES_MAX],
    sums: [u64; ROWS],
}

const EMPTY: Group = Group { low: [Line([0; ROWS]); FEATURES_MAX], high: [Line([0; ROWS]); FEATURES_MAX], sums: [0; ROWS] };

impl Rows {
    /// `None` where the forest, of `count` trees, is not of the kind.
    pub(in crate::forest) fn new(_proof: Avx2, compact: &Compact, count: usize) -> Option<Self> {
        let ranks = compact.ranks();
        if ranks.len() > FEATURES_MAX || ranks.iter().any(|ranks| ranks.highest() > RANK_MAX) {
            return None;
        }
        // Compact forms are filled up to whole eights with trees that add nothing.
        let trees = compact.trees().take(count.next_multiple_of(PAIR));
        let trees = match compact.height() {
            8 => Trees::Eight(trees.map(Tables::new).collect()),
            10 => Trees::Ten(trees.map(Tables::new).collect()),
            _ => return None,
        };
        Some(Self { trees })
    }

    /// Sums of path lengths of many rows, in order; `compact` is what this was made from, `alone_by` sums those that are too few for a group.
    pub(in crate::forest) fn path_sums(
        &self,
        compact: &Compact,
        rows: &[f32],
        alone_by: impl Fn(&Values) -> u64,
        mut emit: impl FnMut(u64),
    ) {
        let dimensions = compact.ranks().len();
        for block in rows.chunks(GROUPS * ROWS * dimensions) {
            let count = block.len() / dimensions;
            let alone = if count % ROWS < ROWS_MIN { count % ROWS } else { 0 };
            let (together, alone) = block.split_at((count - alone) * dimensions);
            let mut groups = [EMPTY; GROUPS];
            let mut used = 0;
            for (group, rows) in groups.iter_mut().zip(together.chunks(ROWS * dimensions)) {
                group.take(compact, rows);
                used += 1;
            }
            self.add_paths(&mut groups[..used]);
            groups.iter().flat_map(|group| &group.sums).take(together.len() / dimensions).for_each(|&sum| emit(sum));
            alone.chunks_exact(dimensions).for_each(|row| emit(alone_by(&compact.values(row))));
        }
    }

    fn add_paths(&self, groups: &mut [Group]) {
        match &self.trees {
            Trees::Eight(trees) => trees.as_chunks().0.iter().for_each(|pair| add_paths(pair, groups)),
            Trees::Ten(trees) => trees.as_chunks().0.iter().for_each(|pair| add_paths(pair, groups)),
        }
    }
}

fn add_paths<const COUNT: usize>(pair: &[Tables<COUNT>; PAIR], groups: &mut [Group]) {
    let [first, second] = pair;
    for group in groups {
        // SAFETY: tables are only in a `Rows`, which takes an `Avx2` to make: the processor has the feature.
        let places = unsafe { [walk(first, group), walk(second, group)] };
        for ((sum, &one), &other) in group.sums.iter_mut().zip(&places[0]).zip(&places[1]) {
            *sum += u64::from(first.leaf(one) + second.leaf(other));
        }
    }
}

impl<const COUNT: usize> Tables<COUNT> {
    fn new((nodes, leaves): (&[u32], &[u32])) -> Self {
        const NO_BYTES: Table = Table([0; NODES]);
        let none = [NO_BYTES; COUNT];
        let mut tables = Self { features: none, low: none, high: none, leaves: [[0; NODES]; COUNT] };
        // Compact trees begin with node 0, this one with node 1.
        for (at, &node) in (1..NODES * COUNT).zip(nodes) {
            let level = at.ilog2();
            let to = (1 << level) + turned(at - (1 << level), level);
            let (feature, rank) = if node == NONE { (0, u16::MAX) } else { (node as u8 % 16, (node >> 4) as u16) };
            let [low, high] = rank.to_le_bytes();
            tables.features[to / NODES].0[to % NODES] = feature << 4;
            tables.low[to / NODES].0[to % NODES] = low ^ TURN;
            tables.high[to / NODES].0[to % NODES] = high ^ TURN;
        }
        for (at, &path) in leaves.iter().enumerate() {
            let to = turned(at, (NODES * COUNT).ilog2());
            tables.leaves[to / NODES][to % NODES] = path;
        }
        tables
    }

    /// The remainder says what is so anyway, and spares the check.
    #[inline]
    fn leaf(&self, place: u16) -> u32 {
        self.leaves.as_flattened()[usize::from(place) % (NODES * COUNT)]
    }
}

/// A place with its bits in the opposite order.
fn turned(place: usize, bits: u32) -> usize {
    (place.reverse_bits() >> 1) >> (usize::BITS - 1 - bits)
}

impl Group {
    /// Takes the ranks of up to 32 rows; lanes without a row walk with some rank or other.
    fn take(&mut self, compact: &Compact, rows: &[f32]) {
        let dimensions = compact.ranks().len();
        let lines = self.low.iter_mut().zip(&mut self.high);
        for (feature, (ranks, (low, high))) in compact.ranks().iter().zip(lines).enumerate() {
            // Words are unpacked from the registers' lower and upper eights, in each half.
            for (from, rows) in [0, 16, 8, 24].into_iter().zip(rows.chunks(LANES * dimensions)) {
                let of = |lane: usize| rows.get(lane * dimensions + feature).copied().unwrap_or_default();
                let ranks = ranks.ranks(core::array::from_fn(of));
                low.0[from..from + LANES].copy_from_slice(&ranks.map(|rank| rank as u8 ^ TURN));
                high.0[from..from + LANES].copy_from_slice(&ranks.map(|rank| (rank >> 8) as u8 ^ TURN));
            }
        }
    }
}

/// The leaves' places that 32 rows come to, in order of the rows.
#[target_feature(enable = "avx2")]
fn walk<const COUNT: usize>(tree: &Tables<COUNT>, group: &Group) -> [u16; ROWS] {
    // Where a level has few nodes, every row answers them all: their features are no row's own then.
    let first = answer(tree, 1, group);
    let second = _mm256_blendv_epi8(answer(tree, 2, group), answer(tree, 3, group), first);
    let low = _mm256_blendv_epi8(answer(tree, 4, group), answer(tree, 5, group), first);
    let high = _mm256_blendv_epi8(answer(tree, 6, group), answer(tree, 7, group), first);
    let third = _mm256_blendv_epi8(low, high, second);
    let at = _mm256_or_si256(_mm256_or_si256(bit(first, 1), bit(second, 2)), bit(third, 4));
    let (features, low, high) = (&tree.features, &tree.low, &tree.high);
    // The fourth level is the upper half of the first table.
    let eighth = _mm256_or_si256(at, _mm256_set1_epi8(8));
    let fourth = step(group, of_16(&features[0], eighth), of_16(&low[0], eighth), of_16(&high[0], eighth));
    let at = _mm256_or_si256(at, bit(fourth, 8));
    let mut late = [_mm256_setzero_si256(); LATE];
    late[0] = step(group, of_16(&features[1], at), of_16(&low[1], at), of_16(&high[1], at));
    late[1] = step(group, of_32(level(features), at, &late), of_32(level(low), at, &late), of_32(level(high), at, &late));
    late[2] = step(group, of_64(level(features), at, &late), of_64(level(low), at, &late), of_64(level(high), at, &late));
    late[3] = step(group, of_128(level(features), at, &late), of_128(level(low), at, &late), of_128(level(high), at, &late));
    if COUNT == 64 {
        late[4] = step(group, of_256(level(features), at, &late), of_256(level(low), at, &late), of_256(level(high), at, &late));
        late[5] = step(group, of_512(level(features), at, &late), of_512(level(low), at, &late), of_512(level(high), at, &late));
    }
    let upper = _mm256_or_si256(_mm256_or_si256(bit(late[0], 16), bit(late[1], 32)), bit(late[2], 64));
    let lower = _mm256_or_si256(_mm256_or_si256(at, upper), bit(late[3], -128));
    let upper = _mm256_or_si256(bit(late[4], 1), bit(late[5], 2));
    let mut places = [0; ROWS];
    store(&mut places, 0, _mm256_unpacklo_epi8(lower, upper));
    store(&mut places, ROWS / 2, _mm256_unpackhi_epi8(lower, upper));
    places
}

/// What all rows decide at one node.
#[target_feature(enable = "avx2")]
#[inline]
fn answer<const COUNT: usize>(tree: &Tables<COUNT>, node: usize, group: &Group) -> __m256i {
    let feature = usize::from(tree.features[0].0[node] >> 4);
    let (low, high) = (_mm256_set1_epi8(tree.low[0].0[node] as i8), _mm256_set1_epi8(tree.high[0].0[node] as i8));
    exceeds(load(&group.low[feature]), load(&group.high[feature]), low, high)
}

/// What each row decides at its node.
#[target_feature(enable = "avx2")]
#[inline]
fn step(group: &Group, features: __m256i, low: __m256i, high: __m256i) -> __m256i {
    exceeds(chosen(features, &group.low), chosen(features, &group.high), low, high)
}

/// Where the value's halves exceed the node's: its upper half does, or is equal, which one more makes the greater, and the lower half does.
#[target_feature(enable = "avx2")]
#[inline]
fn exceeds(low: __m256i, high: __m256i, node_low: __m256i, node_high: __m256i) -> __m256i {
    _mm256_cmpgt_epi8(_mm256_sub_epi8(high, _mm256_cmpgt_epi8(low, node_low)), node_high)
}

/// By lane the byte of the feature that its node asks for.
#[target_feature(enable = "avx2")]
#[inline]
fn chosen(features: __m256i, lines: &[Line; FEATURES_MAX]) -> __m256i {
    // A blend looks at a byte's uppermost bit alone; what comes into lower ones from the byte beside does nothing.
    let (first, second) = (_mm256_slli_epi16::<3>(features), _mm256_slli_epi16::<2>(features));
    let (third, fourth) = (_mm256_slli_epi16::<1>(features), features);
    let two = |at: usize| _mm256_blendv_epi8(load(&lines[at]), load(&lines[at + 1]), first);
    let four = |at: usize| _mm256_blendv_epi8(two(at), two(at + 2), second);
    _mm256_blendv_epi8(_mm256_blendv_epi8(four(0), four(4), third), two(8), fourth)
}

/// The lowest level that is `N` tables.
fn level<const COUNT: usize, const N: usize>(tables: &[Table; COUNT]) -> &[Table; N] {
    tables[N..].first_chunk().expect("invariant: level n begins at node 2^n")
}

/// Bytes of 16 nodes, by the place in their table.
#[target_feature(enable = "avx2")]
#[inline]
fn of_16(table: &Table, at: __m256i) -> __m256i {
    // SAFETY: a table is 16 readable bytes.
    let table = unsafe { _mm_loadu_si128(table.0.as_ptr().cast()) };
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), at)
}

/// Bytes of a level of so many nodes: the latest decision chooses between its halves.
macro_rules! of_level {
    ($($name:ident is $tables:literal tables by $half:ident, then $latest:literal;)*) => {$(
        #[target_feature(enable = "avx2")]
        #[inline]
        fn $name(tables: &[Table; $tables], at: __m256i, late: &[__m256i; LATE]) -> __m256i {
            let (first, second) = tables.split_at($tables / 2);
            let half = |tables: &[Table]| $half(tables.first_chunk().expect("invariant: half of the tables"), at, late);
            _mm256_blendv_epi8(half(first), half(second), late[$latest])
        }
    )*};
}

of_level! {
    of_64 is 4 tables by of_32, then 1;
    of_128 is 8 tables by of_64, then 2;
    of_256 is 16 tables by of_128, then 3;
    of_512 is 32 tables by of_256, then 4;
}

#[target_feature(enable = "avx2")]
#[inline]
fn of_32(tables: &[Table; 2], at: __m256i, late: &[__m256i; LATE]) -> __m256i {
    _mm256_blendv_epi8(of_16(&tables[0], at), of_16(&tables[1], at), late[0])
}

/// This bit where the row went right.
#[target_feature(enable = "avx2")]
#[inline]
fn bit(decision: __m256i, bit: i8) -> __m256i {
    _mm256_and_si256(decision, _mm256_set1_epi8(bit))
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(line: &Line) -> __m256i {
    // SAFETY: a line is 32 readable bytes.
    unsafe { _mm256_loadu_si256(line.0.as_ptr().cast()) }
}

/// Half of the rows' words.
#[target_feature(enable = "avx2")]
#[inline]
fn store(places: &mut [u16; ROWS], from: usize, words: __m256i) {
    let half: &mut [u16; ROWS / 2] = places[from..].first_chunk_mut().expect("invariant: half of the rows");
    // SAFETY: sixteen words are 32 writable bytes.
    unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), words) };
}
