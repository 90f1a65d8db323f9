//! Not benchmarks, readings: `cargo test --release -p mangrove-models -- --ignored --nocapture speed`.
#![allow(clippy::disallowed_methods, reason = "a timing needs a clock")]

use super::{Numbers, forest};
use crate::features::FEATURES;
use crate::forest::TrainParams;
use crate::profile::Profile;
use crate::transaction::{Limits, Transaction};
use crate::verdict::{Severity, VerdictRef};
use alloc::format;
use alloc::vec::Vec;
use std::hint::black_box;
use std::println;
use std::time::Instant;

/// Best of many runs, in ns per unit of work.
fn best(units: usize, mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..30 {
        let begin = Instant::now();
        run();
        best = best.min(begin.elapsed().as_secs_f64() * 1e9 / units as f64);
    }
    best
}

fn ignore<T>(_: T) {}

#[test]
#[ignore = "prints a timing"]
fn speed_of_the_forest() {
    let (_, forest) = forest(5000, FEATURES, TrainParams::default());
    let data = Numbers(5).rows(4096, FEATURES);
    for rows in [1, 8, 64, 4096] {
        let slice = &data.as_slice().unwrap()[..rows * FEATURES];
        let mut out = Vec::new();
        let ns = best(4096, || {
            for _ in 0..4096 / rows {
                out.clear();
                forest.raw_scores(black_box(slice), &mut out);
            }
        });
        println!("forest, batch of {rows}: {ns:.0} ns a row");
    }
}

#[test]
#[ignore = "prints a timing"]
fn speed_of_the_profile() {
    for (payments, merchants) in [(20u64, 16u64), (2000, 200)] {
        let mut numbers = Numbers(1);
        let mut profile = Profile::default();
        for i in 0..payments {
            let merchant = format!("m{:04}", numbers.word() % merchants);
            profile.update(numbers.unit() * 90.0, 1_700_000_000_000 + i as i64 * 9_000_000, &merchant);
        }
        let t = profile.last_seen_ms().unwrap() + 5_000_000;
        let observe =
            best(1000, || (0..1000).for_each(|_| ignore(black_box(profile.observe(black_box(12.0), t, "m0003", None)))));
        let cloned = best(1000, || (0..1000).for_each(|_| ignore(black_box(profile.clone()))));
        let both = best(1000, || {
            (0..1000).for_each(|_| ignore(black_box(profile.clone().score_then_update(black_box(12.0), t, "m0003", None))))
        });
        let mut buffer = Vec::new();
        let config = bincode::config::standard();
        let encode = best(1000, || {
            for _ in 0..1000 {
                buffer = black_box(bincode::serde::encode_to_vec(&profile, config).unwrap());
            }
        });
        let decode = best(1000, || {
            (0..1000).for_each(|_| ignore(black_box(bincode::serde::decode_from_slice::<Profile, _>(&buffer, config))))
        });
        println!(
            "profile of {payments}: observe {observe:.0} ns, score then update {:.0} ns, encode {encode:.0} ns, \
             decode {decode:.0} ns, {} bytes",
            both - cloned,
            buffer.len()
        );
    }
}

#[test]
#[ignore = "prints a timing"]
fn speed_of_the_wire() {
    let json = br#"{"user_id":"user-004711","amount":37.25,"merchant":"merchant-0815","tx_id":"7f9c2ba4e88f827d","currency":"EUR","timestamp":"2023-11-14T22:13:20.123Z"}"#;
    let limits = Limits::default();
    let parse = best(1000, || {
        (0..1000).for_each(|_| ignore(black_box(Transaction::from_json(black_box(json), 1_700_000_000_000, &limits))))
    });
    let features = [3.6428, 0.31234, 0.5, 1.0321, 0.12345, 0.2, 9.123_456, 0.0625, 0.0, 0.0];
    let verdict = VerdictRef {
        tx_id: "7f9c2ba4e88f827d",
        id: "transactions:3:4711",
        user_id: "user-004711",
        event_time: 1_700_000_000_123,
        amount: 37.25,
        currency: Some("EUR"),
        merchant: "merchant-0815",
        score: Some(0.123_456_789_012),
        raw_score: Some(0.412_345_678_901_2),
        is_anomaly: false,
        severity: Severity::None,
        explanation: "",
        reasons: &[],
        features: &features,
        model_id: Some("0123456789abcdef"),
        fx: None,
    };
    let mut out = Vec::new();
    let write = best(1000, || {
        for _ in 0..1000 {
            out.clear();
            black_box(&verdict).write_json(&mut out);
        }
    });
    println!("transaction read {parse:.0} ns ({} bytes), verdict written {write:.0} ns ({} bytes)", json.len(), out.len());
}
