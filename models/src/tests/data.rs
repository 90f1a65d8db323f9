//! The product's accuracy on simulated cards: the whole path from payments to a ranking.
//!
//! Reads `../shared/data` beside the workspace (see its README.md for sources) and says so and skips where it is absent.

use crate::features::{FEATURES, GLOBAL_AMOUNT_FLAG, global_amount_flag};
use crate::forest::TrainParams;
use crate::metrics::{auroc, average_precision, card_precision};
use crate::model::{Model, Window};
use crate::profile::Profile;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use ndarray::ArrayView2;
use std::path::Path;
use std::println;

/// A file of payments in order, with the features that each was met with (column 9 still 0).
#[derive(Default)]
struct Payments {
    rows: Vec<f32>,
    amounts: Vec<f64>,
    labels: Vec<bool>,
    days: Vec<i64>,
    users: Vec<u32>,
}

/// Columns: ts_s, user_id, merchant_id, category_id, amount, fraud.
fn sparkov() -> Option<Payments> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/sparkov_400users_9months.csv.gz");
    let Ok(file) = std::fs::File::open(&path) else {
        println!("SKIPPED: {} is not here", path.display());
        return None;
    };
    let mut reader = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
    let mut profiles: BTreeMap<u32, Profile> = BTreeMap::new();
    let mut payments = Payments::default();
    for record in reader.deserialize() {
        let (seconds, user, merchant, _, amount, fraud): (i64, u32, String, String, f64, u8) = record.unwrap();
        let profile = profiles.entry(user).or_default();
        let observation = profile.score_then_update(amount, seconds * 1000, &merchant, None);
        payments.rows.extend(observation.features);
        payments.amounts.push(amount);
        payments.labels.push(fraud == 1);
        payments.days.push(seconds / 86_400);
        payments.users.push(user);
    }
    Some(payments)
}

#[test]
fn accuracy_on_sparkov_holds() {
    let Some(all) = sparkov() else { return };
    let day = |d: i64| all.days.partition_point(|&day| day < d);
    let (from, to) = (day(193), day(200));
    let rows = ArrayView2::from_shape((to - from, FEATURES), &all.rows[from * FEATURES..to * FEATURES]).unwrap();
    let (mut aurocs, mut precisions) = (0.0, 0.0);
    for seed in 0..5 {
        let params = TrainParams { seed, ..TrainParams::default() };
        let model = Model::train(rows, &all.amounts[from..to], params, 0.01, None, Window::default()).unwrap();
        let mut judged = all.rows[to * FEATURES..].to_vec();
        for (row, &amount) in judged.chunks_mut(FEATURES).zip(&all.amounts[to..]) {
            row[GLOBAL_AMOUNT_FLAG] = global_amount_flag(amount, Some(model.global_amount_p99));
        }
        let mut scores = Vec::new();
        model.forest.raw_scores(&judged, &mut scores);
        let roc = auroc(&all.labels[to..], &scores).unwrap();
        let precision = average_precision(&all.labels[to..], &scores).unwrap();
        let cards = card_precision(&all.days[to..], &all.users[to..], &scores, &all.labels[to..], 100).unwrap();
        let flagged = scores.iter().filter(|&&raw| model.score(raw) >= 0.5).count() as f64 / scores.len() as f64;
        println!(
            "seed {seed}: AUROC {roc:.4}, AP {precision:.4}, card precision@100 {cards:.4}, p99 {:.2}, flagged {flagged:.4}",
            model.global_amount_p99
        );
        aurocs += roc / 5.0;
        precisions += precision / 5.0;
    }
    println!("{} rows trained, {} judged: AUROC {aurocs:.4}, AP {precisions:.4}", to - from, all.amounts.len() - to);
    assert!(aurocs >= 0.90, "AUROC {aurocs}");
    assert!(precisions >= 0.38, "average precision {precisions}");
}
