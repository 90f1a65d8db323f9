//! The amount sketch: how many payments fell into each bucket of a logarithmic scale.
//!
//! Bucket 0 is below one cent; bucket k >= 1 starts at 0.01 * 1.1^(k-1), so an estimate is off by at most 10%.
//! Amounts up to 1e12 need buckets 0 to [`BUCKET_MAX`]; only used ones are kept.
//!
//! In memory a bucket is one u64: its number in the high 16 bits, its count in the low 48, sorted by number. A user
//! would need 2^48 payments to overflow a count: at a million a second, nine years.

use alloc::vec::Vec;

/// Step of the scale in natural logarithms, ln 1.1, as FEATURES.md writes it.
const LN_STEP: f64 = 0.095_310_179_804_324_93;
/// Largest bucket that an accepted amount reaches: 1 + floor(ln(1e14) / ln 1.1), and one to spare for rounding.
pub(super) const BUCKET_MAX: u16 = 340;
/// Counts are kept in this many bits.
const COUNT_BITS: u32 = 48;
/// Largest count of one bucket.
pub(super) const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// Room grows by this many buckets at a time: a doubling vector would waste half of a cached profile.
const GROWTH: usize = 8;

/// Bucket of an amount: 0 below one cent, else 1 + floor(log(amount / 0.01) / ln 1.1).
#[must_use]
pub(super) fn bucket_of(amount: f64) -> u16 {
    if amount < 0.01 {
        return 0;
    }
    let steps = libm::floor(libm::log(amount / 0.01) / LN_STEP);
    // The cast saturates; amounts beyond the limit are refused at the door, the minimum only keeps the type's promise.
    (steps as u16).saturating_add(1).min(BUCKET_MAX)
}

/// Lower and upper bound of a bucket's amounts.
fn bounds_of(bucket: u16) -> (f64, f64) {
    if bucket == 0 {
        return (0.0, 0.01);
    }
    let from = 0.01 * libm::exp(f64::from(bucket - 1) * LN_STEP);
    (from, from * 1.1)
}

/// Sparse counts per bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sketch {
    bins: Vec<u64>,
}

impl Sketch {
    /// Builds a sketch from (bucket, count), which must ascend strictly by bucket and have counts in 1..=COUNT_MAX.
    pub(super) fn from_bins(bins: impl ExactSizeIterator<Item = (u16, u64)>) -> Self {
        Self { bins: bins.map(|(bucket, count)| pack(bucket, count)).collect() }
    }

    /// Buckets in ascending order with their counts.
    pub(super) fn bins(&self) -> impl ExactSizeIterator<Item = (u16, u64)> + Clone {
        self.bins.iter().map(|&bin| unpack(bin))
    }

    /// Counts strictly below the bucket, and in it.
    pub(super) fn below_and_same(&self, bucket: u16) -> (u64, u64) {
        let mut below = 0;
        for (b, count) in self.bins() {
            if b >= bucket {
                return (below, if b == bucket { count } else { 0 });
            }
            below += count;
        }
        (below, 0)
    }

    /// Counts one more payment in the bucket.
    pub(super) fn add(&mut self, bucket: u16) {
        debug_assert!(bucket <= BUCKET_MAX, "bucket_of keeps within the scale");
        let at = self.bins.partition_point(|&bin| unpack(bin).0 < bucket);
        match self.bins.get_mut(at) {
            Some(bin) if unpack(*bin).0 == bucket => *bin += 1,
            _ => {
                if self.bins.len() == self.bins.capacity() {
                    self.bins.reserve_exact(GROWTH);
                }
                self.bins.insert(at, pack(bucket, 1));
            }
        }
    }

    /// Estimate of the p-quantile (0 to 1) of the amounts, linear within its bucket; `None` when empty.
    pub(super) fn quantile(&self, p: f64) -> Option<f64> {
        let total: u64 = self.bins().map(|(_, count)| count).sum();
        let rank = p.clamp(0.0, 1.0) * total as f64;
        let mut before = 0.0;
        let mut answer = None;
        for (bucket, count) in self.bins() {
            let (from, to) = bounds_of(bucket);
            let share = ((rank - before) / count as f64).clamp(0.0, 1.0);
            answer = Some(from + (to - from) * share);
            before += count as f64;
            if before >= rank {
                break;
            }
        }
        answer
    }

    /// Bytes held on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bins.capacity() * size_of::<u64>()
    }
}

fn pack(bucket: u16, count: u64) -> u64 {
    debug_assert!(count <= COUNT_MAX, "counts are bounded where they are decoded");
    u64::from(bucket) << COUNT_BITS | count
}

fn unpack(bin: u64) -> (u16, u64) {
    ((bin >> COUNT_BITS) as u16, bin & COUNT_MAX)
}
