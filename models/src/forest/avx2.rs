//! The kernel for processors with AVX2: one row walks eight trees in a register.
//!
//! Their nodes are gathered from the compact form; the row's values lie in two registers, and a permutation by the nodes' features takes what each
//! asks for. Four such registers go side by side, since each is a chain of dependent gathers. A batch is ranked together and walks row by row, unless the
//! forest is one for [`rows`].

mod rows;

use super::compact::{Compact, Values};
use super::ranks::LANES;
use core::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_add_epi64, _mm256_and_si256, _mm256_blendv_epi8, _mm256_cmpgt_epi32,
    _mm256_i32gather_epi32, _mm256_loadu_si256, _mm256_mullo_epi32, _mm256_permutevar8x32_epi32, _mm256_set1_epi32,
    _mm256_set1_epi64x, _mm256_setr_epi32, _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srai_epi32, _mm256_srli_epi64,
    _mm256_storeu_si256, _mm256_sub_epi32,
};

pub(super) use rows::Rows;

cpufeatures::new!(avx2, "avx2");

/// Registers that go side by side.
const ABREAST: usize = 4;

/// Proof that the processor has what the kernel needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Avx2(());

impl Avx2 {
    /// `None` where the processor has it not.
    pub(super) fn new() -> Option<Self> {
        avx2::get().then_some(Self(()))
    }

    /// Sums of path lengths of many rows, in order.
    pub(super) fn path_sums(self, form: &Compact, rows: &[f32], emit: impl FnMut(u64)) {
        let each = |groups: &[[Values; LANES]], sums: &mut [[u64; LANES]]| {
            for (values, sum) in groups.iter().flatten().zip(sums.iter_mut().flatten()) {
                *sum = self.path_sum(form, values);
            }
        };
        form.by_block(rows, each, |values| self.path_sum(form, values), emit);
    }

    /// Sum of path lengths of one row, by its ranks.
    pub(super) fn path_sum(self, form: &Compact, values: &Values) -> u64 {
        // SAFETY: an `Avx2` exists only where `avx2::get()` said that the processor has the feature.
        unsafe { path_sum(form, values) }
    }
}

#[target_feature(enable = "avx2")]
fn path_sum(form: &Compact, values: &Values) -> u64 {
    let groups = LANES << form.height();
    let (nodes, leaves) = (form.nodes(), form.leaves());
    let abreast = ABREAST * groups;
    let whole = nodes.len() / abreast * abreast;
    let mut sums = _mm256_setzero_si256();
    for (nodes, leaves) in nodes[..whole].chunks_exact(abreast).zip(leaves[..whole].chunks_exact(abreast)) {
        sums = _mm256_add_epi64(sums, walk::<ABREAST>(form.height(), nodes, leaves, values));
    }
    for (nodes, leaves) in nodes[whole..].chunks_exact(groups).zip(leaves[whole..].chunks_exact(groups)) {
        sums = _mm256_add_epi64(sums, walk::<1>(form.height(), nodes, leaves, values));
    }
    let mut each = [0u64; 4];
    // SAFETY: four numbers of 64 bits are 32 writable bytes.
    unsafe { _mm256_storeu_si256(each.as_mut_ptr().cast(), sums) };
    each.iter().sum()
}

/// Walks `GROUPS` times eight trees: nodes and leaves are exactly theirs. Returns sums as four numbers of 64 bits.
#[target_feature(enable = "avx2")]
#[inline]
fn walk<const GROUPS: usize>(height: u32, nodes: &[u32], leaves: &[u32], values: &Values) -> __m256i {
    let (first, second) = (load(values, 0), load(values, 8));
    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let roots = _mm256_mullo_epi32(lane, _mm256_set1_epi32(1 << height));
    // A place is its tree's root and k; the next one is that root and 2k + 1, or one more.
    let down = _mm256_sub_epi32(_mm256_set1_epi32(1), roots);
    let mut at = [roots; GROUPS];
    assert!(nodes.len() == (GROUPS * LANES) << height && leaves.len() == nodes.len());
    for _ in 0..height {
        for (group, at) in at.iter_mut().enumerate() {
            let node = gather(&nodes[(group * LANES) << height..], *at);
            // Of a feature's four bits a permutation takes three; the last one chooses between both.
            let upper = _mm256_srai_epi32::<31>(_mm256_slli_epi32::<28>(node));
            let chosen =
                _mm256_blendv_epi8(_mm256_permutevar8x32_epi32(first, node), _mm256_permutevar8x32_epi32(second, node), upper);
            let right = _mm256_cmpgt_epi32(chosen, node);
            *at = _mm256_sub_epi32(_mm256_add_epi32(_mm256_add_epi32(*at, *at), down), right);
        }
    }
    let splits = _mm256_set1_epi32((1 << height) - 1);
    let mut sums = _mm256_setzero_si256();
    for (group, &at) in at.iter().enumerate() {
        let paths = gather(&leaves[(group * LANES) << height..], _mm256_sub_epi32(at, splits));
        let low = _mm256_and_si256(paths, _mm256_set1_epi64x(0xffff_ffff));
        sums = _mm256_add_epi64(sums, _mm256_add_epi64(low, _mm256_srli_epi64::<32>(paths)));
    }
    sums
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(values: &Values, from: usize) -> __m256i {
    let eight: &[u32; 8] = values[from..].first_chunk().expect("invariant: sixteen values");
    // SAFETY: eight numbers of 32 bits are 32 readable bytes.
    unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) }
}

/// The words at these places of eight trees.
#[target_feature(enable = "avx2")]
#[inline]
fn gather(words: &[u32], at: __m256i) -> __m256i {
    // SAFETY: the slice begins with eight whole trees, of 2^height words each (`walk` checks its length). A place is its lane's root and k: k begins
    // as 0 and becomes 2k + 1 or 2k + 2 in each of `height` steps, so it is at most 2^height - 2 when a node is read; a leaf's is
    // k - (2^height - 1) after the last step, at most 2^height - 1. No content of the words takes part in that.
    unsafe { _mm256_i32gather_epi32::<4>(words.as_ptr().cast(), at) }
}
