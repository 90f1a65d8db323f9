//! Two instances of one application: both work, each takes over from the other, and one that comes back from the dead does no harm.

use serde_json::Value;

use super::feed::Feed;
use super::ledger::{Ledger, faults, model};
use super::scene::{PARTITIONS, Scene};
use super::service::Service;
use super::until;

const PAYMENTS: usize = 45_000;
/// Of each instance, as scenes have it.
const WORKERS: usize = 2;

fn scene(test: &str) -> Option<Scene> {
    let scene = Scene::new(test)?.with("KAFKA_SESSION_TIMEOUT_MS", "5000").with("TRANSACTION_TIMEOUT_MS", "5000");
    Some(scene.with("MODEL_PATH", model().to_str().expect("a plain path")))
}

fn health(service: &mut Service) -> Vec<Value> {
    let (status, body) = service.get("/v1/health");
    assert_eq!(status, 200, "{body}");
    let health: Value = serde_json::from_str(&body).expect("JSON");
    health["tasks"].as_array().expect("tasks").clone()
}

/// How many partitions an instance has, and whether all of them run.
pub fn tasks(service: &mut Service) -> (usize, bool) {
    let tasks = health(service);
    (tasks.len(), tasks.iter().all(|task| task["phase"] == "running"))
}

/// Whether an instance's state includes all payments that there are of its partitions.
pub fn is_done(service: &mut Service, scene: &Scene) -> bool {
    let ends = scene.ends(&scene.topic("transactions"));
    let end = |task: &Value| task["partition"].as_u64().map(|partition| ends[partition as usize]);
    health(service).iter().all(|task| task["inputs"][0]["offset"].as_u64() == end(task))
}

/// Waits until two instances share the partitions in halves and all of them run. Each worker has its part: with one of them still on its
/// way, partitions would move once more.
pub fn share(a: &mut Service, b: &mut Service) {
    let part = PARTITIONS as usize / (2 * WORKERS);
    let shares = |service: &mut Service| {
        let tasks = health(service);
        let runs = |worker: usize| tasks.iter().filter(|task| task["worker"] == worker && task["phase"] == "running").count();
        (0..WORKERS).all(|worker| runs(worker) == part) && tasks.len() == WORKERS * part
    };
    until("each worker of both instances runs its part", || (shares(a) && shares(b)).then_some(()));
}

fn records(service: &mut Service) -> u64 {
    service.metric("mangrove_records_total")
}

#[test]
fn two_instances_share_take_over_and_share_again() {
    let Some(scene) = scene("two") else { return };
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let mut a = scene.start("a");
    a.restored(PARTITIONS as usize);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.reach(PAYMENTS / 6);
    // While payments flow a second one takes its half.
    let mut b = scene.start("b");
    feed.reach(PAYMENTS / 3);
    share(&mut a, &mut b);
    let before = (records(&mut a), records(&mut b));
    feed.reach(PAYMENTS / 2);
    let after = (records(&mut a), records(&mut b));
    assert!(after.0 > before.0 && after.1 > before.1, "both work: from {before:?} to {after:?}");
    b.kill();
    feed.reach(PAYMENTS * 2 / 3);
    until("the other one runs all partitions", || (tasks(&mut a) == (PARTITIONS as usize, true)).then_some(()));
    let mut b = scene.start("b");
    b.restored(PARTITIONS as usize / 2);
    share(&mut a, &mut b);
    feed.finish(PAYMENTS);
    assert!(records(&mut b) > 0, "the one that came back works");
    a.stop();
    b.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(scene.profiles(), ledger.profiles());
}

/// One of two instances sleeps, with records in hand, until the other one has all partitions; then it wakes.
fn freeze(test: &str, transaction_timeout_ms: &str) {
    let Some(scene) = scene(test) else { return };
    let scene = scene.with("TRANSACTION_TIMEOUT_MS", transaction_timeout_ms);
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let (mut a, mut b) = (scene.start("a"), scene.start("b"));
    share(&mut a, &mut b);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.reach(PAYMENTS / 3);
    b.signal("STOP");
    feed.send(PAYMENTS / 2);
    // Where the sleeper's transaction already holds offsets, nobody can go on with them before it ends.
    until("the other one has all partitions", || (tasks(&mut a).0 == PARTITIONS as usize).then_some(()));
    b.signal("CONT");
    feed.reach(PAYMENTS * 2 / 3);
    share(&mut a, &mut b);
    feed.finish(PAYMENTS);
    a.stop();
    b.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(scene.profiles(), ledger.profiles());
}

#[test]
fn one_that_slept_longer_than_its_transaction_does_no_harm_when_it_wakes() {
    freeze("asleep", "1000");
}

#[test]
fn one_that_wakes_with_its_transaction_open_is_fenced_by_the_group() {
    // Where it froze with changelog records in its transaction, the other one's restore waits for that to time out.
    freeze("fenced", "20000");
}
