//! Models as bytes: read back they are the same, damaged they are refused.

use super::model;
use crate::artifact::ArtifactError;
use crate::forest::{TrainError, TrainParams};
use crate::model::{Model, Window};
use alloc::vec::Vec;
use ndarray::Array2;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const PARAMS: TrainParams = TrainParams { trees: 5, max_samples: 32, seed: 3 };
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| model(200, PARAMS).1.to_bytes());

#[test]
fn read_back_it_is_the_same_model() {
    let (data, model) = model(200, PARAMS);
    let read = Model::from_bytes(&model.to_bytes()).unwrap();
    assert_eq!(read, model);
    assert_eq!(read.to_bytes(), model.to_bytes());
    assert_eq!(read.id.len(), 16);
    for row in data.rows() {
        let row = row.as_slice().unwrap();
        assert_eq!(read.forest.raw_score(row).to_bits(), model.forest.raw_score(row).to_bits());
    }
}

#[test]
fn training_in_steps_gives_the_same_model() {
    let data = super::Numbers(11).rows(200, 10);
    let amounts: Vec<f64> = (0..200).map(f64::from).collect();
    let set = Model::prepare(data.view(), &amounts, PARAMS, 0.01, None, Window { from_ms: 1, to_ms: 2 }).unwrap();
    let mut trees: Vec<_> = (0..set.trees()).rev().map(|i| set.train_tree(i)).collect();
    trees.reverse();
    let forest = set.forest(trees).unwrap();
    let mut raw_scores = Vec::new();
    forest.raw_scores(set.features(), &mut raw_scores);
    let stepped = set.clone().finish(forest.clone(), &raw_scores).unwrap();
    assert_eq!(stepped, model(200, PARAMS).1);
    assert_eq!(stepped.global_amount_p99, 197.01);
    assert_eq!(set.forest(Vec::new()), Err(TrainError::Dimensions));
    assert_eq!(set.finish(forest, &[]), Err(TrainError::Dimensions));
}

#[test]
fn training_refuses_what_does_not_fit() {
    let rows = Array2::zeros((4, 10));
    let train = |rows: &Array2<f32>, amounts: &[f64], contamination| {
        Model::train(rows.view(), amounts, PARAMS, contamination, None, Window::default()).map(|_| ()).unwrap_err()
    };
    assert_eq!(train(&rows, &[1.0; 3], 0.01), TrainError::Dimensions);
    assert_eq!(train(&Array2::zeros((4, 9)), &[1.0; 4], 0.01), TrainError::Dimensions);
    assert_eq!(train(&rows, &[1.0; 4], 0.0), TrainError::Params);
    assert_eq!(train(&rows, &[1.0; 4], f64::NAN), TrainError::Params);
    assert_eq!(train(&rows, &[1.0, 2.0, 3.0, f64::NAN], 0.01), TrainError::NotFinite);
}

#[test]
fn errors_name_the_fault() {
    assert_eq!(Model::from_bytes(b""), Err(ArtifactError::Magic));
    assert_eq!(Model::from_bytes(b"MANGROVE"), Err(ArtifactError::Length));
    assert_eq!(Model::from_bytes(b"MANGROVE\x02\x00"), Err(ArtifactError::Version(2)));
    let mut longer = BYTES.clone();
    longer.push(0);
    assert_eq!(Model::from_bytes(&longer), Err(ArtifactError::Length));
}

/// Puts a right checksum on changed bytes: what the bounds behind the checksum are for.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 32;
    let checksum = Sha256::digest(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changed_byte_is_refused(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = BYTES.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(Model::from_bytes(&bytes).is_err());
    }

    #[test]
    fn any_truncation_is_refused(at in any::<prop::sample::Index>()) {
        prop_assert!(Model::from_bytes(&BYTES[..at.index(BYTES.len())]).is_err());
    }

    #[test]
    fn behind_a_right_checksum_bounds_hold(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = BYTES.clone();
        for (at, byte) in changes {
            let at = 18 + at.index(bytes.len() - 50);
            bytes[at] = byte;
        }
        if let Ok(model) = Model::from_bytes(&sealed(bytes.clone())) {
            prop_assert_eq!(model.to_bytes(), sealed(bytes));
            let score = model.score(model.raw_score(&[f32::NAN; 10]));
            prop_assert!((0.0..=1.0).contains(&score));
        }
    }
}
