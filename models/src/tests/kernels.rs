//! Every kernel gives the bits of the plain walk: on trained forests and on made-up ones, at thresholds and beside them, for every odd number.

use super::{Numbers, forest};
use crate::forest::{Forest, Kernel, PATH_UNIT, Part, TrainParams, Tree, average_path_length};
use alloc::vec::Vec;
use proptest::prelude::*;
use std::vec;

/// What no threshold is, or what lies at the edges.
const ODD: [f32; 12] =
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0, -0.0, f32::MIN_POSITIVE, 1e-45, -1e-45, 1.0, -1.0];

/// The score's bits by the reference: one node after the other, in the trees as they were trained.
fn reference(forest: &Forest, row: &[f32]) -> u64 {
    let sum: u64 = forest.trees().iter().map(|tree| u64::from(tree.path(row))).sum();
    let normaliser = forest.trees().len() as f64 * PATH_UNIT * average_path_length(forest.samples());
    libm::exp2(-(sum as f64) / normaliser).to_bits()
}

/// Checks all kernels, and the row alone, against the reference.
fn check(forest: &Forest, rows: &[f32]) {
    let each = || rows.chunks_exact(forest.dimensions());
    let expected: Vec<u64> = each().map(|row| reference(forest, row)).collect();
    let alone: Vec<u64> = each().map(|row| forest.raw_score(row).to_bits()).collect();
    assert_eq!(alone, expected, "alone");
    for &kernel in forest.kernels() {
        let mut scores = Vec::new();
        forest.raw_scores_by(kernel, rows, &mut scores);
        let bits: Vec<u64> = scores.into_iter().map(f64::to_bits).collect();
        assert_eq!(bits, expected, "{kernel:?}");
    }
}

/// Rows of the thresholds themselves, their neighbours, odd numbers and others.
fn hard_rows(forest: &Forest, count: usize, numbers: &mut Numbers) -> Vec<f32> {
    let nodes = || forest.trees().iter().flat_map(Tree::nodes).filter(|node| !node.is_leaf());
    let mut at: Vec<Vec<f32>> = vec![Vec::new(); forest.dimensions()];
    nodes().for_each(|node| at[node.feature as usize].push(node.threshold));
    let mut value = |thresholds: &Vec<f32>| {
        let pick = |word: u64| thresholds.get(word as usize % thresholds.len().max(1)).copied().unwrap_or(0.5);
        match (numbers.word() % 8, numbers.word()) {
            (0 | 1, word) => pick(word),
            (2, word) => pick(word).next_up(),
            (3, word) => pick(word).next_down(),
            (4, word) => ODD[word as usize % ODD.len()],
            (_, _) => (numbers.unit() * 8.0 - 4.0) as f32,
        }
    };
    (0..count).flat_map(|_| at.iter().map(&mut value).collect::<Vec<f32>>()).collect()
}

#[test]
fn trained_forests_score_alike_by_every_kernel() {
    // Rows: below and above what a group, a register and a block take, and remainders of all. The last two forests have no compact form.
    for (rows, columns, trees, max_samples) in [
        (1, 1, 1, 2),
        (7, 3, 9, 16),
        (32, 10, 100, 256),
        (1_003, 10, 100, 256),
        (140, 10, 37, 200),
        (77, 16, 20, 300),
        (203, 10, 30, 1_024),
        (555, 10, 200, 1_024),
        (70, 9, 300, 1_024),
        (64, 4, 10, 4_096),
        (45, 17, 20, 64),
        (20, 4, 3, 8_192),
    ] {
        let (_, forest) = forest(9_000, columns, TrainParams { trees, max_samples, seed: 3 });
        let compact = columns <= 16 && max_samples <= 4_096;
        assert_eq!(forest.kernels().contains(&Kernel::Compact), compact, "{columns} columns, {max_samples} samples");
        check(&forest, &hard_rows(&forest, rows, &mut Numbers(rows as u64)));
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_fastest_kernel_is_the_one_that_processor_and_forest_allow() {
    let has_avx2 = std::is_x86_feature_detected!("avx2");
    let fastest = |columns, trees, max_samples| {
        let (_, forest) = forest(9_000, columns, TrainParams { trees, max_samples, seed: 3 });
        check(&forest, &hard_rows(&forest, 70, &mut Numbers(1)));
        *forest.kernels().last().unwrap()
    };
    let (by_rows, by_trees) = if has_avx2 { (Kernel::Avx2Rows, Kernel::Avx2) } else { (Kernel::Compact, Kernel::Compact) };
    assert_eq!(fastest(10, 100, 256), by_rows);
    assert_eq!(fastest(10, 200, 1_024), by_rows);
    assert_eq!(fastest(11, 100, 256), by_trees, "one feature too many");
    assert_eq!(fastest(11, 100, 512), Kernel::Compact, "one feature too many, and trees too high");
    assert_eq!(fastest(10, 10, 2_048), Kernel::Compact, "trees too high");
}

/// A tree of so many splits on feature 0, without gaps, by the thresholds from `first` on.
fn full_tree(first: usize, splits: usize) -> Tree {
    let split = |at: usize| (Some((0, (first + at) as f32)), 7);
    let leaf = |at: usize| (None, at as u32 * 1_000);
    let parts: Vec<Part> = (0..splits).map(split).chain((0..=splits).map(leaf)).collect();
    Tree::from_parts(parts.into_iter()).unwrap()
}

#[cfg(target_arch = "x86_64")]
#[test]
fn ranks_reach_to_the_last_that_two_bytes_tell_apart() {
    for (thresholds, fits) in [(65_279, true), (65_280, false)] {
        let trees = (0..thresholds).step_by(1_023).map(|first| full_tree(first, (thresholds - first).min(1_023))).collect();
        let forest = Forest::from_trees(trees, 1, 1_024).unwrap();
        let fits = fits && std::is_x86_feature_detected!("avx2");
        assert_eq!(forest.kernels().contains(&Kernel::Avx2Rows), fits, "{thresholds} thresholds");
        let edges = [0, 1, 255, 256, 257, 32_767, 32_768, 32_769, 65_023, 65_024, 65_025, 65_278, 65_279, 65_280, 65_281];
        let beside = |at: usize| [(at as f32).next_down(), at as f32, (at as f32).next_up()];
        check(&forest, &edges.into_iter().flat_map(beside).chain(ODD).collect::<Vec<f32>>());
    }
}

/// A tree of at most this height with any thresholds, some of them equal; its path lengths reach from 0 to the largest.
fn any_tree(height: u32, dimensions: u32, numbers: &mut Numbers) -> Tree {
    let mut depths = vec![0];
    let mut parts: Vec<Part> = Vec::new();
    while parts.len() < depths.len() {
        let depth = depths[parts.len()];
        let path = if numbers.word().is_multiple_of(4) { 64 << 20 } else { (numbers.word() % (64 << 20)) as u32 };
        let split = depth < height && !numbers.word().is_multiple_of(5);
        if split {
            depths.extend([depth + 1; 2]);
        }
        let odd = ODD[3 + numbers.word() as usize % (ODD.len() - 3)];
        let threshold = if numbers.word().is_multiple_of(2) { odd } else { (numbers.word() % 7) as f32 };
        parts.push((split.then_some((numbers.word() as u32 % dimensions, threshold)), path));
    }
    Tree::from_parts(parts.into_iter()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_forest_scores_alike_by_every_kernel(
        seed: u64, trees in 1..150_usize, height in 0..10_u32, dimensions in 1..18_usize, rows in 0..150_usize,
    ) {
        let mut numbers = Numbers(seed);
        let trees = (0..trees).map(|_| any_tree(height, dimensions as u32, &mut numbers)).collect();
        let forest = Forest::from_trees(trees, dimensions, 256).unwrap();
        check(&forest, &hard_rows(&forest, rows, &mut numbers));
    }
}
