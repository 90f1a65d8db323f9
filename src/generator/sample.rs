//! Draws from distributions, written out so that no release of another crate changes a seed's payments.

use rand_chacha::rand_core::Rng;

/// Uniform in [0, 1), in steps of 2^-53.
pub(crate) fn unit(rng: &mut impl Rng) -> f64 {
    const STEP: f64 = 1.0 / (1u64 << 53) as f64;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in a double")]
    let steps = (rng.next_u64() >> 11) as f64;
    steps * STEP
}

/// Uniform in `low..high`.
pub(super) fn between(rng: &mut impl Rng, low: f64, high: f64) -> f64 {
    low + unit(rng) * (high - low)
}

/// Uniform in `0..bound`, by multiplication; the bias is below 2^-32 and of no account for made-up payments.
pub(crate) fn below(rng: &mut impl Rng, bound: u32) -> u32 {
    let product = u64::from(bound) * u64::from(rng.next_u32());
    u32::try_from(product >> 32).expect("invariant: the product of two u32 has 64 bits")
}

/// The wait for the next event of a process with rate 1.
pub(super) fn exponential(rng: &mut impl Rng) -> f64 {
    // 1 - u is never 0.
    -libm::log(1.0 - unit(rng))
}

/// Standard normal, by Box and Muller. Their second number is not kept: one draw is one call, in an order easy to see.
pub(super) fn normal(rng: &mut impl Rng) -> f64 {
    let radius = libm::sqrt(2.0 * exponential(rng));
    radius * libm::cos(std::f64::consts::TAU * unit(rng))
}

/// A number that belongs to another one for ever (SplitMix64's finaliser), uniform in [0, 1): for what is looked up, not drawn in order.
pub(super) fn unit_of(seed: u64, number: u64) -> f64 {
    let mut mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_add(number.wrapping_mul(0xbf58_476d_1ce4_e5b9));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in a double")]
    let steps = ((mixed ^ (mixed >> 31)) >> 11) as f64;
    steps / (1u64 << 53) as f64
}

/// Draws an index by its weight in constant time (Walker's alias method, built as Vose did).
pub(super) struct Weighted {
    cells: Box<[Cell]>,
}

#[derive(Clone, Copy)]
struct Cell {
    /// Below this the cell's own index is drawn, else its alias.
    threshold: f64,
    alias: u32,
}

impl Weighted {
    /// `weights` must not be empty, and all of them be above 0.
    pub(super) fn new(weights: &[f64]) -> Self {
        assert!(!weights.is_empty(), "invariant: there is something to draw");
        let count = u32::try_from(weights.len()).expect("invariant: indices are u32");
        let mean = weights.iter().sum::<f64>() / f64::from(count);
        let mut cells: Vec<Cell> =
            (0..count).zip(weights).map(|(index, weight)| Cell { threshold: weight / mean, alias: index }).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) = (0..count).partition(|&index| cells[index as usize].threshold < 1.0);
        while let (Some(less), Some(&more)) = (small.pop(), large.last()) {
            cells[less as usize].alias = more;
            let given = 1.0 - cells[less as usize].threshold;
            cells[more as usize].threshold -= given;
            if cells[more as usize].threshold < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        // What is left is 1 but for rounding.
        for index in small.into_iter().chain(large) {
            cells[index as usize].threshold = 1.0;
        }
        Self { cells: cells.into_boxed_slice() }
    }

    pub(super) fn draw(&self, rng: &mut impl Rng) -> u32 {
        let count = u32::try_from(self.cells.len()).expect("invariant: checked when built");
        let index = below(rng, count);
        let cell = self.cells[index as usize];
        if unit(rng) < cell.threshold { index } else { cell.alias }
    }
}
