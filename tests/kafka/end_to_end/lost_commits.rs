//! Requests that end transactions, or their answers, lost on the way or late: the outcome is unknown, and nothing is lost or doubled (I8).

use std::time::Instant;

use super::broker::{Broker, free_address};
use super::feed::Feed;
use super::ledger::{Ledger, faults, model};
use super::proxy::{Fate, Proxy};
use super::scene::{PARTITIONS, Scene};
use crate::common::PATIENCE;

const PAYMENTS: usize = 100_000;
/// Requests of each fate.
const TIMES: usize = 4;

#[test]
fn commits_that_get_lost_or_come_late_lose_and_double_nothing() {
    if crate::world::address("end_to_end::lost_commits").is_none() {
        return;
    }
    let mut proxy = Proxy::new();
    let scene = Scene::at(free_address(), "lost")
        .with("KAFKA_BOOTSTRAP_SERVERS", &proxy.address())
        .with("WORKERS", "1")
        .with("COMMIT_INTERVAL_MS", "20")
        .with("MODEL_PATH", model().to_str().expect("a plain path"));
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    let broker = Broker::start_behind(&scene, Some(proxy.port));
    proxy.serve(broker.proxied_port());
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    let mut feed = Feed::new(&scene, &ledger.payments);
    let fates = [Fate::RequestLost, Fate::AnswerLost, Fate::Late, Fate::LateOffsets];
    let fates: Vec<Fate> = fates.into_iter().cycle().take(fates.len() * TIMES).collect();
    for (at, fate) in fates.iter().enumerate() {
        feed.reach(feed.seen() + 1_000);
        proxy.arm(*fate);
        // A few at a time, whether or not verdicts come: one fate brings silence, and no fate may use up all payments.
        let armed = Instant::now();
        while proxy.done() <= at {
            feed.send(feed.sent() + 10);
            feed.look();
            assert!(armed.elapsed() < PATIENCE, "no request met this within {PATIENCE:?}: {fate:?}");
        }
        if *fate == Fate::LateOffsets {
            // Only a crash shows whether older offsets took the place of newer ones.
            service.kill();
            proxy.disarm();
            proxy.calm();
            service = scene.start("a");
        }
        println!("{fate:?} by {} verdicts, {} doubled", feed.seen(), feed.doubled);
    }
    feed.finish(PAYMENTS);
    service.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(scene.profiles(), ledger.profiles());
}
