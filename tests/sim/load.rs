//! A labelled file of made-up payments is one that a backtest can judge.

use mangrove::generator::{AnomalyMix, GeneratorParams};
use mangrove::load::{LoadParams, TrafficParams, to_file};
use tempfile::TempDir;

use super::backtest::{backtest, train};

#[test]
fn a_backtest_of_a_generated_file_finds_what_was_put_in() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("payments.csv.gz");
    let generator = GeneratorParams {
        users: 500,
        seed: 11,
        anomaly_share: 0.01,
        anomaly_mix: AnomalyMix::EVERY_KIND,
        account_days: Some(730.0),
        ..GeneratorParams::default()
    };
    let traffic = TrafficParams { generator, ..TrafficParams::default() };
    let params = LoadParams { traffic, count: Some(60_000), ..LoadParams::default() };
    let written = to_file(&file, &params, &mut |_| true).unwrap();
    assert!(written.rows == 60_000 && (450..750).contains(&written.fraud), "{written:?}");
    // 1,500 payments a day: 40 days.
    let (report, _) = backtest(&file, train(5, 25, 42), 25).run(None, &|_| {}).unwrap();
    let auroc = report.auroc.expect("both classes are there");
    assert!((0.85..0.9999).contains(&auroc), "anomalies are found, and not because they are marked: {auroc}");
}
