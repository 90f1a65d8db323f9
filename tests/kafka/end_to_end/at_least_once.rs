//! PROCESSING_GUARANTEE=at_least_once: a crash may show a verdict twice, under one id and with the same bytes, and nothing else.

use super::feed::Feed;
use super::ledger::{Ledger, faults, model};
use super::scene::{PARTITIONS, Scene};
use super::until;

const PAYMENTS: usize = 40_000;
const KILLS: usize = 6;

fn scene(test: &str) -> Option<Scene> {
    let scene = Scene::new(test)?.with("PROCESSING_GUARANTEE", "at_least_once");
    Some(scene.with("MODEL_PATH", model().to_str().expect("a plain path")))
}

#[test]
fn kills_lose_no_verdict_and_count_no_payment_twice() {
    // Commits follow each other at once, so that kills hit all of their steps.
    let Some(scene) = scene("repeats").map(|scene| scene.with("COMMIT_INTERVAL_MS", "5")) else { return };
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    let mut feed = Feed::new(&scene, &ledger.payments);
    for kill in 1..=KILLS {
        feed.reach(PAYMENTS * kill / (KILLS + 1));
        service.kill();
        service = scene.start("a");
    }
    feed.finish(PAYMENTS);
    service.stop();
    let verdicts = scene.read(&scene.topic("verdicts"));
    assert_eq!(faults(&verdicts, &expected, false), "");
    // Without any the crashes would have tested nothing: verdicts are in the log long before their payments' offsets.
    assert!(verdicts.len() > PAYMENTS, "no verdict came twice");
    assert_eq!(scene.profiles(), ledger.profiles());
}

#[test]
fn payments_that_the_state_includes_are_skipped_whole() {
    const BACK: usize = 700;
    let Some(scene) = scene("back") else { return };
    let ledger = Ledger::made(&scene.path("payments.csv"), 10_000);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start_with("a", &[("LEAVE_ON_STOP", "true")]);
    service.restored(PARTITIONS as usize);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.finish(9_000);
    service.stop();
    // As if the last commits of offsets had been lost.
    let topic = scene.topic("transactions");
    let ends = scene.ends(&topic);
    let back: Vec<u64> = ends.iter().map(|end| end - (BACK as u64).min(*end)).collect();
    scene.commit(&topic, &back);
    let mut service = scene.start("a");
    feed.finish(10_000);
    let replayed = ends.iter().sum::<u64>() - back.iter().sum::<u64>();
    until("the last commit is counted", || (service.metric("mangrove_records_replayed_total") >= replayed).then_some(()));
    assert_eq!(service.metric("mangrove_records_replayed_total"), replayed);
    service.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(scene.profiles(), ledger.profiles());
}
