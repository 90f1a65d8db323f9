//! Taking over from an instance that died: from a copy, and past what it left open.

use super::instances::{is_done, share, tasks};
use super::members::announced;
use crate::common::feed::Feed;
use crate::common::ledger::{Ledger, faults, model};
use crate::common::records::ends;
use crate::common::scene::{PARTITIONS, Scene};
use crate::common::service::Service;
use crate::common::until;

const PAYMENTS: usize = 45_000;
const HALF: usize = PARTITIONS as usize / 2;

fn scene(test: &str) -> Option<Scene> {
    let scene = Scene::new(test)?.with("KAFKA_SESSION_TIMEOUT_MS", "6000").with("MEMBER_BEAT_MS", "500");
    // Longer than anybody's patience: what ends a transaction here is never its timeout.
    let scene = scene.with("TRANSACTION_TIMEOUT_MS", "600000").with("COMMIT_INTERVAL_MS", "10");
    Some(scene.with("MODEL_PATH", model().to_str().expect("a plain path")))
}

fn pair(scene: &Scene) -> (Service, Service) {
    let start = |name| scene.start_with(name, &[("INSTANCE_ID", name)]);
    let (mut a, mut b) = (start("a"), start("b"));
    share(&mut a, &mut b);
    (a, b)
}

/// The lag of each copy that an instance keeps.
fn copies(service: &mut Service) -> Vec<u64> {
    let (_, body) = service.get("/metrics");
    let lags = body.lines().filter(|line| line.starts_with("mangrove_standby_lag_records{"));
    lags.map(|line| line.rsplit(' ').next().and_then(|lag| lag.parse().ok()).expect("a whole number")).collect()
}

#[test]
fn a_copy_takes_over_with_the_tail_only() {
    let Some(scene) = scene("copy") else { return };
    let scene = scene.with("STANDBY_REPLICAS", "1");
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let (mut a, b) = pair(&scene);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.reach(PAYMENTS / 2);
    until("a keeps copies of all that b has, with nothing missing", || {
        let lags = copies(&mut a);
        (lags.len() == HALF && lags.iter().all(|lag| *lag == 0)).then_some(())
    });
    let before = a.metric("mangrove_restored_records_total");
    // Some more, so that it dies busy.
    feed.reach(PAYMENTS * 2 / 3);
    b.kill();
    feed.send(PAYMENTS * 3 / 4);
    until("a runs all partitions", || (tasks(&mut a) == (PARTITIONS as usize, true)).then_some(()));
    let restored = a.metric("mangrove_restored_records_total") - before;
    let written: u64 = scene.ends(&scene.changelog()).iter().sum();
    assert!(restored < written / 20, "{restored} changelog records were restored of {written}");
    assert!(copies(&mut a).is_empty(), "what it runs it does not copy");
    feed.finish(PAYMENTS);
    a.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(scene.profiles(), ledger.profiles());
}

/// The partitions of the changelog in which an instance's transaction is open.
fn left_open(scene: &Scene, instance: &str) -> usize {
    let changelog = scene.changelog();
    let (stable, all) =
        (ends(&scene.address, &changelog, "read_committed"), ends(&scene.address, &changelog, "read_uncommitted"));
    let said = announced(scene);
    let held = said[instance].workers.iter().flat_map(|worker| &worker.tasks).map(|(_, partition)| *partition as usize);
    held.filter(|&partition| stable[partition] < all[partition]).count()
}

#[test]
fn a_dead_owners_transaction_does_not_hold_up_its_successor() {
    let Some(scene) = scene("left-open") else { return };
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let (mut a, b) = pair(&scene);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.reach(PAYMENTS / 6);
    // Frozen at random moments of being busy, until one is in the middle of a commit.
    let caught = (1..=60).any(|_| {
        let seen = feed.seen();
        feed.send(feed.sent() + 500);
        until("some of them are scored", || {
            feed.look();
            (feed.seen() > seen).then_some(())
        });
        b.signal("STOP");
        let open = left_open(&scene, "b") > 0;
        if !open {
            b.signal("CONT");
        }
        open
    });
    assert!(caught, "in 60 attempts it was never frozen within a commit");
    b.kill();
    until("the other one runs all partitions", || (tasks(&mut a) == (PARTITIONS as usize, true)).then_some(()));
    assert!(a.metric("mangrove_predecessors_ended_total") > 0);
    feed.finish(PAYMENTS);
    a.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(scene.profiles(), ledger.profiles());
}

/// One that only sleeps is given up in the same way: it finds itself fenced when it wakes, and joins again.
#[test]
fn one_that_wakes_after_its_transaction_was_ended_joins_again() {
    let Some(scene) = scene("woken") else { return };
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let (mut a, mut b) = pair(&scene);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.reach(PAYMENTS / 3);
    b.signal("STOP");
    feed.send(PAYMENTS / 2);
    until("the other one runs all partitions", || (tasks(&mut a) == (PARTITIONS as usize, true)).then_some(()));
    b.signal("CONT");
    feed.reach(PAYMENTS * 2 / 3);
    share(&mut a, &mut b);
    feed.finish(PAYMENTS);
    a.stop();
    b.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(scene.profiles(), ledger.profiles());
}

/// A worker whose loop stalls while the client's own threads go on: neither session nor transaction ends within minutes, so only the
/// watchdog can give its partitions away. It is stopped from outside, thread and all, as a hung disk or a lost lock would stop it.
#[test]
fn a_worker_that_is_stuck_gives_its_partitions_away_and_comes_back() {
    let Some(scene) = scene("stuck") else { return };
    let scene = scene.with("STALL_MS", "4000");
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let (mut a, mut b) = pair(&scene);
    let mut feed = Feed::new(&scene, &ledger.payments);
    // Quiet: a thread that stops in the middle of an allocation or a write, say, would take the whole process with it.
    feed.finish(PAYMENTS / 3);
    until("b has nothing more to do", || is_done(&mut b, &scene).then_some(()));
    let frozen = b.freeze("worker-0");
    until("the watchdog has seen it", || (b.get("/livez").0 == 503).then_some(()));
    feed.finish(PAYMENTS * 2 / 3);
    assert!(a.lives() && b.lives());
    drop(frozen);
    until("the worker is replaced", || (b.metric("mangrove_workers_replaced_total") == 1).then_some(()));
    until("all is well", || (b.get("/livez").0 == 200).then_some(()));
    feed.finish(PAYMENTS);
    a.stop();
    b.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(scene.profiles(), ledger.profiles());
}

/// State on disk of partitions that went elsewhere goes after the delay.
#[test]
fn state_of_partitions_that_went_elsewhere_is_dropped() {
    let Some(scene) = scene("cleanup") else { return };
    let scene = scene.with("STATE_CLEANUP_DELAY", "1");
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS / 3);
    scene.create("transactions", PARTITIONS, &[]);
    let mut a = scene.start("a");
    a.restored(PARTITIONS as usize);
    Feed::new(&scene, &ledger.payments).finish(PAYMENTS / 3);
    let stores = |service: &mut Service| {
        let (_, body) = service.get("/metrics");
        body.lines().filter(|line| line.starts_with("mangrove_store_bytes{")).count()
    };
    assert_eq!(stores(&mut a), PARTITIONS as usize);
    let mut b = scene.start("b");
    share(&mut a, &mut b);
    until("a has only its own half on disk", || (stores(&mut a) == HALF).then_some(()));
    b.stop();
    a.stop();
    assert_eq!(scene.profiles(), ledger.profiles());
}
