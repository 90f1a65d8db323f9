//! Validation: which candidates pass, and which check stops the others.

use super::Numbers;
use crate::features::FEATURES;
use crate::validate::inject::Kind;
use crate::validate::{Evidence, Labels, Outcome, Report, Rows, jaccard_of_top, validate};
use crate::{Model, TrainParams, Window};
use alloc::vec::Vec;
use ndarray::ArrayView2;

/// Logged rows of settled users: each feature around its usual value.
struct Logged {
    features: Vec<f32>,
    amounts: Vec<f64>,
}

impl Logged {
    fn new(seed: u64, count: usize) -> Self {
        let noise = Numbers(seed).rows(count, FEATURES);
        let mut features = Vec::new();
        let mut amounts = Vec::new();
        for row in noise.rows() {
            let amount = 10.0 + 90.0 * f64::from(row[0].abs());
            amounts.push(amount);
            let unit = |at: usize| row[at].abs().min(1.0);
            let log_amount = libm::log1p(amount) as f32;
            let velocity = 1.0 + unit(3);
            let merchant = 0.05 + 0.4 * unit(7);
            features.extend([
                log_amount,
                row[1],
                unit(2),
                velocity,
                0.6 * unit(4),
                unit(5),
                7.0 + 4.0 * unit(6),
                merchant,
                0.0,
                0.0,
            ]);
        }
        Self { features, amounts }
    }

    fn rows(&self) -> Rows<'_> {
        Rows { features: &self.features, amounts: &self.amounts }
    }

    fn train(&self, seed: u64) -> Model {
        let rows = ArrayView2::from_shape((self.amounts.len(), FEATURES), &self.features).unwrap();
        let params = TrainParams { trees: 100, max_samples: 256, seed };
        Model::train(rows, &self.amounts, params, 0.01, None, Window::default()).unwrap()
    }
}

fn judge(candidate: &Model, active: Option<&Model>, trained: &Logged, held_out: &Logged, labels: Option<Labels<'_>>) -> Report {
    validate(&Evidence {
        candidate,
        active,
        trained: trained.rows(),
        held_out: held_out.rows(),
        held_out_ms: 7 * crate::features::DAY_MS,
        labels,
        threshold: 0.5,
        raw_scores: &|model, rows| {
            let mut scores = Vec::new();
            model.forest.raw_scores(rows, &mut scores);
            scores
        },
    })
}

fn failed(report: &Report) -> Vec<&str> {
    report.failed().collect()
}

fn outcome(report: &Report, name: &str) -> Outcome {
    report.checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check {name}")).outcome
}

#[test]
fn a_candidate_of_the_same_population_passes_every_check() {
    let (trained, held_out) = (Logged::new(1, 6_000), Logged::new(2, 1_000));
    let (active, candidate) = (Logged::new(3, 6_000).train(1), trained.train(2));
    let report = judge(&candidate, Some(&active), &trained, &held_out, None);
    assert_eq!(failed(&report), Vec::<&str>::new(), "{report:#?}");
    assert_eq!((report.trained_rows, report.held_out_rows), (6_000, 1_000));
    let skipped: Vec<_> =
        report.checks.iter().filter(|check| check.outcome == Outcome::Skipped).map(|check| &*check.name).collect();
    assert_eq!(skipped, ["average_precision", "card_precision"], "all else was judged: {report:#?}");
}

#[test]
fn a_feature_that_moved_is_named() {
    let (trained, mut held_out) = (Logged::new(1, 6_000), Logged::new(2, 1_000));
    for row in held_out.features.chunks_exact_mut(FEATURES) {
        row[6] += 3.0;
    }
    let report = judge(&trained.train(1), None, &trained, &held_out, None);
    assert!(failed(&report).contains(&"psi_time_since_last"), "{report:#?}");
    assert_eq!(outcome(&report, "psi_velocity_ratio"), Outcome::Passed);
    assert_eq!(outcome(&report, "top_overlap"), Outcome::Skipped, "no model is active");
}

#[test]
fn a_rate_out_of_bounds_fails_only_where_chance_does_not_explain_it() {
    let trained = Logged::new(1, 6_000);
    let model = trained.train(1);
    let spiked = |count: usize, share: usize| {
        let mut rows = Logged::new(2, count);
        for at in (0..count).step_by(share) {
            let row: [f32; FEATURES] = rows.features[at * FEATURES..(at + 1) * FEATURES].try_into().unwrap();
            let (row, amount) = Kind::AmountSpike.inject(&row, rows.amounts[at]);
            rows.features[at * FEATURES..(at + 1) * FEATURES].copy_from_slice(&row);
            rows.amounts[at] = amount;
        }
        rows
    };
    // One in ten, where one in a hundred is expected.
    let many = judge(&model, None, &trained, &spiked(2_000, 10), None);
    assert!(failed(&many).contains(&"anomaly_rate"), "{many:#?}");
    // One of twelve rows says nothing.
    let few = judge(&model, None, &trained, &spiked(12, 12), None);
    assert_eq!(outcome(&few, "anomaly_rate"), Outcome::Passed);
    assert_eq!(outcome(&few, "recall_burst"), Outcome::Skipped);
}

#[test]
fn a_model_that_does_not_see_what_the_active_one_sees_fails() {
    let (trained, held_out) = (Logged::new(1, 6_000), Logged::new(2, 1_000));
    // A week in which spikes and bursts were normal.
    let mut odd = Logged::new(4, 6_000);
    for at in 0..6_000 {
        let row: [f32; FEATURES] = odd.features[at * FEATURES..(at + 1) * FEATURES].try_into().unwrap();
        let kind = if at % 2 == 0 { Kind::AmountSpike } else { Kind::Burst };
        let (row, amount) = kind.inject(&row, odd.amounts[at]);
        odd.features[at * FEATURES..(at + 1) * FEATURES].copy_from_slice(&row);
        odd.amounts[at] = amount;
    }
    let report = judge(&odd.train(1), Some(&trained.train(1)), &trained, &held_out, None);
    let failed = failed(&report);
    assert!(failed.contains(&"recall_amount_spike") && failed.contains(&"recall_burst"), "{failed:?}");
    assert!(failed.contains(&"top_overlap"), "{failed:?}");
}

#[test]
fn labels_are_judged_beside_the_active_model() {
    let (trained, held_out) = (Logged::new(1, 6_000), Logged::new(2, 1_000));
    let good = trained.train(1);
    let mut scores = Vec::new();
    good.forest.raw_scores(&held_out.features, &mut scores);
    let mut order: Vec<usize> = (0..1_000).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    // Frauds are what the active model ranks highest, or lowest.
    let fraud_at = |at: &[usize]| (0..1_000).map(|row| at.contains(&row)).collect::<Vec<bool>>();
    let (high, low) = (fraud_at(&order[..50]), fraud_at(&order[950..]));
    let (day, card): (Vec<i64>, Vec<u32>) =
        ((0..1_000).map(|row| row / 200).collect(), (0..1_000).map(|row| row % 150).collect());
    let rows: Vec<usize> = (0..1_000).collect();
    let judged = |candidate: &Model, active: &Model, fraud: &[bool]| {
        let labels = Labels { rows: &rows[..fraud.len()], fraud, day: &day[..fraud.len()], card: &card[..fraud.len()] };
        judge(candidate, Some(active), &trained, &held_out, Some(labels))
    };
    let same = judged(&good, &good, &high);
    assert_eq!(outcome(&same, "average_precision"), Outcome::Passed);
    assert_eq!(outcome(&same, "card_precision"), Outcome::Passed);
    // Of a model that ranks them perfectly, one that was trained on other rows falls short.
    let worse = judged(&Logged::new(9, 6_000).train(5), &good, &high);
    let figure = |report: &Report| report.checks.iter().find(|check| check.name == "average_precision").unwrap().clone();
    assert!(figure(&worse).value < figure(&same).value, "{:?} {:?}", figure(&worse), figure(&same));
    assert_eq!(figure(&worse).low, figure(&same).value.map(|value| value * crate::validate::LABELLED_MIN));
    let few = judged(&good, &good, &low.iter().enumerate().map(|(at, &fraud)| fraud && at % 10 == 0).collect::<Vec<_>>());
    assert_eq!(outcome(&few, "average_precision"), Outcome::Skipped);
    // Rows that nobody labelled count for nothing.
    let half = judged(&good, &good, &high[..500]);
    assert_eq!(outcome(&half, "average_precision"), Outcome::Passed);
    assert_ne!(figure(&half).value, figure(&same).value);
}

#[test]
fn overlap_is_the_jaccard_index() {
    let a: Vec<f64> = (0..1_000).map(f64::from).collect();
    let b: Vec<f64> = a.iter().map(|x| if *x >= 995.0 { -x } else { *x }).collect();
    assert_eq!(jaccard_of_top(&a, &a, 0.01), 1.0);
    assert_eq!(jaccard_of_top(&a, &b, 0.01), 5.0 / 15.0);
    assert_eq!(jaccard_of_top(&[], &[], 0.01), 1.0);
}
