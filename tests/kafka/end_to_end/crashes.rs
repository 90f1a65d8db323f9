//! kill -9 at any moment, under exactly-once.

use std::time::{SystemTime, UNIX_EPOCH};

use super::feed::Feed;
use super::ledger::{Ledger, faults, model};
use super::scene::{PARTITIONS, Scene};

const PAYMENTS: usize = 60_000;
const KILLS: usize = 4;

#[test]
fn random_kills_lose_and_double_nothing() {
    let Some(scene) = Scene::new("kills") else { return };
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").subsec_nanos();
    let seed = std::env::var("MANGROVE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(u64::from(clock));
    println!("MANGROVE_SEED={seed}");
    // Commits follow each other at once, so that kills hit all of their steps.
    let scene = scene.with("COMMIT_INTERVAL_MS", "5").with("MODEL_PATH", model().to_str().expect("a plain path"));
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    let mut feed = Feed::new(&scene, &ledger.payments);
    let mut state = seed;
    for kill in 1..=KILLS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = PAYMENTS / (KILLS + 1);
        let at = share * kill + (state >> 33) as usize % share;
        feed.reach(at);
        println!("kill {kill} at {at} verdicts");
        service.kill();
        // The next one may well be killed before it has begun to work.
        service = scene.start("a");
    }
    feed.finish(PAYMENTS);
    assert_eq!(service.metric("mangrove_stores_rebuilt_total"), 0);
    service.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(ledger.profiles(), scene.profiles());
}
