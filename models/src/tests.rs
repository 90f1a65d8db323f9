//! Tests of the whole crate, one file per subject.

mod artifacts;
mod causes;
mod compare;
mod data;
mod forests;
mod kernels;
mod profiles;
mod reference;
mod scores;
mod transactions;
mod validation;
mod verdicts;

use crate::forest::{Forest, TrainParams};
use crate::model::{Model, Window};
use alloc::vec::Vec;
use ndarray::Array2;

/// SplitMix64: test data that no crate's release can move.
pub(crate) struct Numbers(pub u64);

impl Numbers {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Rows with a bell-shaped bulk, one constant column if `columns` > 2, and ties.
    pub(crate) fn rows(&mut self, rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(_, column)| {
            let bell: f64 = (0..6).map(|_| self.unit()).sum::<f64>() - 3.0;
            match column {
                2 => 1.0,
                1 => (bell * 4.0).round() as f32,
                _ => bell as f32,
            }
        })
    }
}

pub(crate) fn forest(rows: usize, columns: usize, params: TrainParams) -> (Array2<f32>, Forest) {
    let data = Numbers(7).rows(rows, columns);
    let forest = Forest::train(data.view(), &params).unwrap();
    (data, forest)
}

pub(crate) fn model(rows: usize, params: TrainParams) -> (Array2<f32>, Model) {
    let data = Numbers(11).rows(rows, 10);
    let amounts: Vec<f64> = (0..rows).map(|i| i as f64).collect();
    let window = Window { from_ms: 1, to_ms: 2 };
    let model = Model::train(data.view(), &amounts, params, 0.01, None, window).unwrap();
    (data, model)
}
