//! Calibration, quantiles and measures of a ranking.

use crate::calibration::{Calibration, quantile};
use crate::metrics::{auroc, average_precision, card_precision, card_precision_of};
use crate::verdict::{Severity, severity};
use alloc::vec::Vec;
use proptest::prelude::*;

#[test]
fn quantiles_are_numpys() {
    let values = [1.0, 2.0, 4.0, 8.0];
    for (p, expected) in [(0.0, 1.0), (0.5, 3.0), (0.99, 7.88), (1.0, 8.0), (0.25, 1.75)] {
        assert!((quantile(&values, p) - expected).abs() < 1e-12, "{p}");
    }
    assert_eq!(quantile(&[3.0], 0.7), 3.0);
}

#[test]
fn calibration_passes_its_knots() {
    let raw: Vec<f64> = (0..=10_000).map(|i| f64::from(i) / 20_000.0).collect();
    let calibration = Calibration::fit(&raw, 0.01);
    for (part, score) in [(1.0, 0.5), (2.0, 0.65), (5.0, 0.8), (20.0, 0.9)] {
        assert_eq!(calibration.apply(quantile(&raw, 1.0 - 0.01 / part)), score);
    }
    assert_eq!((calibration.apply(0.0), calibration.apply(1.0)), (0.0, 1.0));
    let mut before = 0.0;
    for i in 0..=1000 {
        let score = calibration.apply(f64::from(i) / 1000.0);
        assert!(score >= before && score <= 1.0);
        before = score;
    }
}

#[test]
fn of_equal_knots_the_last_stays() {
    let calibration = Calibration::fit(&[0.4; 100], 0.01);
    assert_eq!(calibration.knots(), [(0.0, 0.0), (0.4, 0.9), (1.0, 1.0)]);
    assert_eq!((calibration.apply(0.4), calibration.apply(0.2)), (0.9, 0.45));
}

#[test]
fn severities_begin_at_their_bounds() {
    for (score, expected) in [
        (0.49, Severity::None),
        (0.5, Severity::Low),
        (0.65, Severity::Medium),
        (0.8, Severity::High),
        (0.9, Severity::Critical),
        (1.0, Severity::Critical),
    ] {
        assert_eq!(severity(score, 0.5), expected);
    }
    assert_eq!(severity(0.85, 0.86), Severity::None);
    assert_eq!(severity(0.2, 0.1), Severity::Low);
    assert_eq!(severity(f64::NAN, 0.5), Severity::None);
}

#[test]
fn measures_agree_with_scikit_learn() {
    // sklearn.metrics.roc_auc_score and average_precision_score on the same lists.
    let labels = [false, false, true, true];
    let scores = [0.1, 0.4, 0.35, 0.8];
    assert_eq!(auroc(&labels, &scores), Some(0.75));
    assert!((average_precision(&labels, &scores).unwrap() - 0.8333333333333333).abs() < 1e-15);
    let ties = [0.5, 0.5, 0.5, 0.5];
    assert_eq!((auroc(&labels, &ties), average_precision(&labels, &ties)), (Some(0.5), Some(0.5)));
    assert_eq!((auroc(&[true], &[1.0]), average_precision(&[false], &[1.0])), (None, None));
}

#[test]
fn card_precision_is_the_handbooks() {
    // Two days, k = 2: card 1 is found on both days unless its detection removes it from the second.
    let days = [0, 0, 0, 0, 1, 1, 1];
    let cards = [1, 1, 2, 3, 1, 2, 3];
    let scores = [0.1, 0.9, 0.8, 0.7, 0.9, 0.2, 0.1];
    let labels = [true, false, false, true, true, true, false];
    assert_eq!(card_precision_of(&days, &cards, &scores, &labels, 2, false), Some((0.5 + 1.0) / 2.0));
    assert_eq!(card_precision(&days, &cards, &scores, &labels, 2), Some((0.5 + 0.5) / 2.0));
    assert_eq!(card_precision(&[], &[], &[], &[], 2), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// By definition: the share of (positive, negative) pairs in the right order, ties counting half.
    #[test]
    fn auroc_counts_pairs(rows in prop::collection::vec((any::<bool>(), 0u8..20), 0..60)) {
        let labels: Vec<bool> = rows.iter().map(|row| row.0).collect();
        let scores: Vec<f64> = rows.iter().map(|row| f64::from(row.1)).collect();
        let (mut pairs, mut wins) = (0.0, 0.0);
        for hit in rows.iter().filter(|row| row.0) {
            for miss in rows.iter().filter(|row| !row.0) {
                pairs += 1.0;
                wins += match hit.1.cmp(&miss.1) {
                    core::cmp::Ordering::Greater => 1.0,
                    core::cmp::Ordering::Equal => 0.5,
                    core::cmp::Ordering::Less => 0.0,
                };
            }
        }
        prop_assert_eq!(auroc(&labels, &scores), (pairs > 0.0).then(|| wins / pairs));
    }
}
