//! The batch kernel for processors with AVX-512BW: 32 rows walk a tree side by side, in registers.
//!
//! A node is 16 bits here, twelve of rank and four of feature, so a tree of height 8 is eight registers, in heap order: the first 32 nodes are five
//! levels, and a permutation by the rows' positions looks them up for 32 rows at once. The rows' values lie by feature; which one a
//! node asks for is chosen bit by bit of its feature. Path lengths are summed in halves of 16 bits with a carry, and emptied into 64 bits before the upper
//! half could overflow.
//!
//! Only for forests whose trees are at most 8 high, over at most ten features with fewer than 2^12 distinct thresholds each: what 100 x 256
//! over the payments' features gives.

use super::compact::{Compact, Values};
use super::ranks::LANES;
use super::together::{self, ROWS};
use alloc::vec::Vec;
use core::arch::x86_64::{
    __m512i, _mm512_add_epi16, _mm512_cmpgt_epu16_mask, _mm512_cmplt_epu16_mask, _mm512_loadu_si512, _mm512_mask_add_epi16,
    _mm512_mask_blend_epi16, _mm512_permutex2var_epi16, _mm512_permutexvar_epi16, _mm512_set1_epi16, _mm512_storeu_si512,
    _mm512_test_epi16_mask,
};

cpufeatures::new!(avx512bw, "avx512f", "avx512bw");

/// Registers of rows that pass one tree together, while it lies in the first-level cache.
const GROUPS: usize = 4;
const FEATURES_MAX: usize = 10;
const HEIGHT: u32 = 8;
/// Ranks must fit twelve bits.
const RANK_MAX: usize = (1 << 12) - 1;
/// A path length is at most 2^26 (`tree::PATH_MAX`), its upper half 2^10, and a carry may come to each: so many trees fit 16 bits.
const TREES_SUMMED: usize = 32;

/// 32 words, as a register takes them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
struct Line([u16; ROWS]);

const ZERO: Line = Line([0; ROWS]);

/// One tree: its nodes in heap order, and its path lengths' lower and upper halves.
#[derive(Clone, Debug, PartialEq)]
struct Tables {
    nodes: [Line; 8],
    low: [Line; 8],
    high: [Line; 8],
}

/// 32 rows, and what their path lengths add up to.
#[derive(Clone, Copy)]
struct Group {
    /// By feature.
    values: [Line; FEATURES_MAX],
    low: Line,
    high: Line,
    sums: [u64; ROWS],
}

/// A forest for this kernel; it exists only on a processor that has what the kernel needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wide {
    trees: Vec<Tables>,
}

impl Wide {
    /// `None` where the processor or the forest is not of the kind.
    pub(super) fn new(compact: &Compact) -> Option<Self> {
        let fits = compact.height() == HEIGHT
            && compact.ranks().len() <= FEATURES_MAX
            && compact.ranks().iter().all(|ranks| ranks.highest() <= RANK_MAX);
        if !fits || !avx512bw::get() {
            return None;
        }
        let tables = |(nodes, leaves): (&[u32], &[u32])| Tables {
            // Here the first place is the unused one: positions then need no other bits than the tables' sizes.
            nodes: lines(1, nodes, |node| u16::try_from(node).unwrap_or(u16::MAX)),
            low: lines(0, leaves, |path| path as u16),
            high: lines(0, leaves, |path| (path >> 16) as u16),
        };
        Some(Self { trees: compact.trees().map(tables).collect() })
    }

    /// Sums of path lengths of many rows, in order; `compact` is what this was made from, `alone_by` sums those that are too few for a register.
    pub(super) fn path_sums(&self, compact: &Compact, rows: &[f32], alone_by: impl Fn(&Values) -> u64, emit: impl FnMut(u64)) {
        together::path_sums::<Group, GROUPS>(compact, rows, |groups| self.add_paths(groups), alone_by, emit);
    }

    fn add_paths(&self, groups: &mut [Group]) {
        for trees in self.trees.chunks(TREES_SUMMED) {
            for tree in trees {
                for group in &mut *groups {
                    // SAFETY: a `Wide` exists only where `avx512bw::get()` said that the processor has both features.
                    unsafe { walk(tree, group) };
                }
            }
            groups.iter_mut().for_each(Group::empty);
        }
    }
}

fn lines(first: usize, words: &[u32], word: impl Fn(u32) -> u16) -> [Line; 8] {
    let mut lines = [ZERO; 8];
    for (at, &of) in (first..8 * ROWS).zip(words) {
        lines[at / ROWS].0[at % ROWS] = word(of);
    }
    lines
}

impl Group {
    /// Moves what the halves hold into the sums.
    fn empty(&mut self) {
        for ((sum, low), high) in self.sums.iter_mut().zip(self.low.0).zip(self.high.0) {
            *sum += u64::from(high) << 16 | u64::from(low);
        }
        (self.low, self.high) = (ZERO, ZERO);
    }
}

impl together::Group for Group {
    const EMPTY: Self = Self { values: [ZERO; FEATURES_MAX], low: ZERO, high: ZERO, sums: [0; ROWS] };

    fn put(&mut self, feature: usize, eight: usize, ranks: [u32; LANES]) {
        self.values[feature].0.as_chunks_mut().0[eight] = ranks.map(|rank| (rank << 4) as u16);
    }

    fn sums(&self) -> &[u64; ROWS] {
        &self.sums
    }
}

/// Adds one tree's path lengths for 32 rows.
#[target_feature(enable = "avx512f,avx512bw")]
fn walk(tree: &Tables, group: &mut Group) {
    let mut values = [_mm512_set1_epi16(0); FEATURES_MAX];
    for (value, line) in values.iter_mut().zip(&group.values) {
        *value = load(line);
    }
    let nodes = &tree.nodes;
    let mut at = _mm512_set1_epi16(1);
    // Positions 1 to 31: five levels. A permutation takes no more bits of a position than its tables need.
    for _ in 0..5 {
        at = step(at, _mm512_permutexvar_epi16(at, load(&nodes[0])), &values);
    }
    at = step(at, _mm512_permutexvar_epi16(at, load(&nodes[1])), &values);
    at = step(at, of_64(at, &nodes[2], &nodes[3]), &values);
    let sixth = _mm512_test_epi16_mask(at, _mm512_set1_epi16(64));
    let node = _mm512_mask_blend_epi16(sixth, of_64(at, &nodes[4], &nodes[5]), of_64(at, &nodes[6], &nodes[7]));
    at = step(at, node, &values);
    let (low, high) = (of_256(at, &tree.low), of_256(at, &tree.high));
    let sum = _mm512_add_epi16(load(&group.low), low);
    let carried = _mm512_cmplt_epu16_mask(sum, low);
    let upper = _mm512_add_epi16(load(&group.high), high);
    store(&mut group.low, sum);
    store(&mut group.high, _mm512_mask_add_epi16(upper, carried, upper, _mm512_set1_epi16(1)));
}

/// 2 at + (value > node).
#[target_feature(enable = "avx512f,avx512bw")]
fn step(at: __m512i, node: __m512i, values: &[__m512i; FEATURES_MAX]) -> __m512i {
    let right = _mm512_cmpgt_epu16_mask(chosen(node, values), node);
    let left = _mm512_add_epi16(at, at);
    _mm512_mask_add_epi16(left, right, left, _mm512_set1_epi16(1))
}

/// By lane the value of the feature that its node asks for.
#[target_feature(enable = "avx512f,avx512bw")]
fn chosen(node: __m512i, values: &[__m512i; FEATURES_MAX]) -> __m512i {
    let bit = |bit: i16| _mm512_test_epi16_mask(node, _mm512_set1_epi16(bit));
    let (first, second, third, fourth) = (bit(1), bit(2), bit(4), bit(8));
    let two = |at: usize| _mm512_mask_blend_epi16(first, values[2 * at], values[2 * at + 1]);
    let four = |at: usize| _mm512_mask_blend_epi16(second, two(at), two(at + 1));
    _mm512_mask_blend_epi16(fourth, _mm512_mask_blend_epi16(third, four(0), four(2)), two(4))
}

/// Words 0 to 63 by the low six bits of each position.
#[target_feature(enable = "avx512f,avx512bw")]
fn of_64(at: __m512i, first: &Line, second: &Line) -> __m512i {
    _mm512_permutex2var_epi16(load(first), at, load(second))
}

/// Words 0 to 255 by the low eight bits of each position.
#[target_feature(enable = "avx512f,avx512bw")]
fn of_256(at: __m512i, lines: &[Line; 8]) -> __m512i {
    let sixth = _mm512_test_epi16_mask(at, _mm512_set1_epi16(64));
    let seventh = _mm512_test_epi16_mask(at, _mm512_set1_epi16(128));
    let lower = _mm512_mask_blend_epi16(sixth, of_64(at, &lines[0], &lines[1]), of_64(at, &lines[2], &lines[3]));
    let upper = _mm512_mask_blend_epi16(sixth, of_64(at, &lines[4], &lines[5]), of_64(at, &lines[6], &lines[7]));
    _mm512_mask_blend_epi16(seventh, lower, upper)
}

#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    // SAFETY: a line is 64 readable bytes.
    unsafe { _mm512_loadu_si512(line.0.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn store(line: &mut Line, value: __m512i) {
    // SAFETY: a line is 64 writable bytes.
    unsafe { _mm512_storeu_si512(line.0.as_mut_ptr().cast(), value) }
}
