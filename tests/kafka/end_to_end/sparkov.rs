//! The real input: all Sparkov payments, through kill -9 and a lost folder, beside `mangrove backtest`.

use std::collections::HashSet;
use std::path::Path;

use super::feed::Feed;
use super::ledger::{Ledger, faults, sparkov_model};
use super::scene::{PARTITIONS, Scene};
use super::skip;

const DATA: &str = "../shared/data/sparkov_400users_9months.csv.gz";
/// Payments that come only after the state folder was lost.
const AFTER_LOSS: usize = 5_000;

#[test]
fn sparkov_payments_are_scored_once_and_as_in_the_backtest() {
    let csv = Path::new(env!("CARGO_MANIFEST_DIR")).join(DATA);
    if !csv.exists() {
        return skip("sparkov", &format!("{} is not there", csv.display()));
    }
    let Some(scene) = Scene::new("sparkov") else { return };
    let model = sparkov_model(&csv);
    let scene = scene.with("MODEL_PATH", model.to_str().expect("a plain path"));
    let ledger = Ledger::read(&csv);
    let expected = ledger.verdicts(&scene, &model);
    let users = ledger.payments.iter().map(|payment| &payment.user).collect::<HashSet<_>>().len() as u64;
    let all = ledger.payments.len();
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    assert_eq!(service.restored(PARTITIONS as usize), 0);
    let mut feed = Feed::new(&scene, &ledger.payments);
    for third in 1..=2 {
        feed.reach(all * third / 3);
        service.kill();
        service = scene.start("a");
        // The kept store lacks at most what was committed and not yet written: one transaction of each worker.
        let restored = service.restored(PARTITIONS as usize);
        let changelog = scene.read(&scene.changelog()).len() as u64;
        assert!(restored <= users, "restored {restored} records of {changelog}, more than one for each of {users} users");
        assert!(changelog > 5 * users, "the changelog has only {changelog} records: the tail would be all of it");
    }
    feed.finish(all - AFTER_LOSS);
    service.stop();
    // The folder is lost: the state comes back from the changelog alone. (The folder held the identity too.)
    scene.forget("a");
    let kept = scene.read(&scene.changelog()).len() as u64;
    let mut service = scene.start("b");
    assert_eq!(service.restored(PARTITIONS as usize), kept);
    assert_eq!(service.metric("mangrove_restored_records_total"), kept);
    feed.finish(all);
    service.stop();
    let verdicts = scene.read(&scene.topic("verdicts"));
    assert_eq!(faults(&verdicts, &expected, true), "");
    let anomalies = scene.read(&scene.topic("anomalies"));
    let anomalous = verdicts.iter().filter(|seen| seen.json()["is_anomaly"] == true);
    assert_eq!(anomalies.len(), anomalous.count());
    assert!(!anomalies.is_empty());
    let of_verdicts: HashSet<_> = verdicts.iter().map(|seen| (&seen.value, seen.timestamp)).collect();
    assert!(anomalies.iter().all(|seen| of_verdicts.contains(&(&seen.value, seen.timestamp))));
    assert_eq!(scene.read(&scene.topic("dead-letters")), []);
}
