//! The forest: determinism, equality of its kernels, additivity, odd inputs.

use super::{Numbers, forest};
use crate::forest::{Forest, TrainError, TrainParams, average_path_length, train_tree};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use ndarray::Array2;
use sha2::{Digest, Sha256};

const SMALL: TrainParams = TrainParams { trees: 25, max_samples: 64, seed: 42 };

fn batch(forest: &Forest, rows: &Array2<f32>) -> Vec<f64> {
    let mut scores = Vec::new();
    forest.raw_scores(rows.as_slice().unwrap(), &mut scores);
    scores
}

#[test]
fn path_lengths_are_the_papers() {
    assert_eq!((average_path_length(0), average_path_length(1), average_path_length(2)), (0.0, 0.0, 1.0));
    assert!((average_path_length(256) - 10.248689925634562).abs() < 1e-12);
}

#[test]
fn a_seed_gives_one_forest_forever() {
    let (data, forest) = forest(500, 7, SMALL);
    let mut digest = Sha256::new();
    for score in batch(&forest, &data) {
        digest.update(score.to_bits().to_le_bytes());
    }
    let hex: String = digest.finalize().iter().take(8).map(|byte| alloc::format!("{byte:02x}")).collect();
    assert_eq!(hex, "edcc6475076f1fe7", "a forest must not change between releases: artifacts and replays depend on it");
}

#[test]
fn trees_may_be_trained_in_any_order() {
    let data = Numbers(1).rows(300, 5);
    let trained = Forest::train(data.view(), &SMALL).unwrap();
    let mut trees: Vec<_> = (0..SMALL.trees).rev().map(|i| train_tree(data.view(), &SMALL, i)).collect();
    trees.reverse();
    assert_eq!(Forest::from_trees(trees, 5, SMALL.effective_samples(300)).unwrap(), trained);
    assert_ne!(trained.trees()[0], trained.trees()[1]);
}

#[test]
fn a_batch_gives_the_bits_of_single_scores() {
    for (rows, columns) in [(1, 3), (7, 1), (8, 10), (64, 10), (203, 10), (130, 40)] {
        let (_, forest) = forest(400, columns, SMALL);
        let data = Numbers(99).rows(rows, columns);
        let single: Vec<u64> = data.rows().into_iter().map(|row| forest.raw_score(row.as_slice().unwrap()).to_bits()).collect();
        let batch: Vec<u64> = batch(&forest, &data).into_iter().map(f64::to_bits).collect();
        assert_eq!(batch, single, "{rows} x {columns}");
    }
}

#[test]
fn contributions_add_up() {
    let (data, forest) = forest(600, 6, SMALL);
    let mut shares = [0.0; 6];
    for row in data.rows() {
        let row = row.as_slice().unwrap();
        forest.contributions(row, &mut shares);
        let rebuilt = forest.bias() - shares.iter().sum::<f64>();
        assert!((rebuilt - forest.expected_path(row)).abs() < 1e-9);
        assert_eq!(shares[2], 0.0, "a constant feature explains nothing");
    }
}

#[test]
fn an_outlier_scores_high_because_of_its_own_feature() {
    let (data, forest) = forest(2000, 6, TrainParams::default());
    let mut row: Vec<f32> = vec![0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
    let usual = forest.raw_score(&row);
    row[4] = 40.0;
    let unusual = forest.raw_score(&row);
    assert!(usual < 0.4 && unusual > usual + 0.05, "{usual} {unusual}");
    assert!(forest.raw_score(&[40.0; 6]) > 0.6, "unusual in every feature");
    let mut shares = [0.0; 6];
    forest.contributions(&row, &mut shares);
    let strongest = (0..6).max_by(|&a, &b| shares[a].total_cmp(&shares[b])).unwrap();
    assert_eq!(strongest, 4);
    let mean = batch(&forest, &data).iter().sum::<f64>() / 2000.0;
    assert!((0.4..0.5).contains(&mean), "the bulk scores around 0.45: {mean}");
}

#[test]
fn odd_inputs_score_without_panic() {
    let (_, forest) = forest(300, 4, SMALL);
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -0.0] {
        let rows = vec![odd; 4 * 9];
        let mut scores = Vec::new();
        forest.raw_scores(&rows, &mut scores);
        assert!(scores.iter().all(|&score| score == forest.raw_score(&rows[..4]) && score > 0.0 && score <= 1.0));
    }
}

#[test]
fn odd_training_rows_are_refused_or_survived() {
    let train = |rows: Array2<f32>| Forest::train(rows.view(), &SMALL).map(|forest| forest.raw_score(&[1.0, 1.0]));
    assert_eq!(train(Array2::zeros((0, 2))), Err(TrainError::TooFewRows));
    assert_eq!(train(Array2::zeros((1, 2))), Err(TrainError::TooFewRows));
    assert_eq!(train(Array2::from_elem((5, 2), f32::NAN)), Err(TrainError::NotFinite));
    assert_eq!(train(Array2::zeros((5, 0))), Err(TrainError::Dimensions));
    assert!(train(Array2::zeros((5, 2))).is_ok(), "all rows equal: every tree is one leaf");
    // Neighbouring floats: the only threshold between them is the lower one.
    let neighbours = Array2::from_shape_fn((64, 2), |(i, _)| if i % 2 == 0 { 1.0 } else { 1.0f32.next_up() });
    assert!(train(neighbours).is_ok());
    let extremes = Array2::from_shape_fn((64, 2), |(i, _)| if i % 2 == 0 { f32::MIN } else { f32::MAX });
    assert!(train(extremes).is_ok());
    let broken = TrainParams { max_samples: 1, ..SMALL };
    assert_eq!(Forest::train(Array2::zeros((5, 2)).view(), &broken), Err(TrainError::Params));
}

#[test]
fn samples_are_without_replacement() {
    // As many samples as rows, all different: with repetition some tree would miss a row and be smaller.
    let data = Array2::from_shape_fn((64, 1), |(i, _)| i as f32);
    let params = TrainParams { trees: 20, max_samples: 64, seed: 1 };
    for i in 0..params.trees {
        let tree = train_tree(data.view(), &params, i);
        assert!(tree.len() <= 127 && tree.len() > 40);
    }
}

#[test]
fn trees_of_unequal_height_sum_alike() {
    // 23 trees over mostly equal rows: heights from 0 up, and a remainder of seven beside two groups of eight.
    let data = Array2::from_shape_fn((400, 3), |(i, j)| if (i + j) % 97 == 0 { i as f32 } else { 0.0 });
    let forest = Forest::train(data.view(), &TrainParams { trees: 23, max_samples: 16, seed: 8 }).unwrap();
    let heights: Vec<u32> = forest.trees().iter().map(super::super::Tree::height).collect();
    assert!(heights.iter().min() < heights.iter().max(), "{heights:?}");
    for row in data.rows() {
        let row = row.as_slice().unwrap();
        let slow: u64 = forest.trees().iter().map(|tree| u64::from(tree.path(row))).sum();
        let expected = slow as f64 / (23.0 * crate::forest::PATH_UNIT);
        assert_eq!(forest.expected_path(row), expected);
    }
}
