//! SIGTERM and Ctrl-C: what was begun is committed, the end comes soon and in good order, and nothing is done again. And what a start
//! makes of a state folder that is older than that.

use super::feed::Feed;
use super::ledger::{Ledger, faults, model};
use super::scene::{PARTITIONS, Scene};
use super::until;

#[test]
fn an_instance_that_is_told_to_stop_leaves_nothing_undone() {
    const PAYMENTS: usize = 30_000;
    let Some(scene) = Scene::new("stop") else { return };
    // Longer than anybody's patience: nothing but its owner ends a transaction.
    let scene = scene.with("TRANSACTION_TIMEOUT_MS", "600000").with("MODEL_PATH", model().to_str().expect("a plain path"));
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let mut feed = None;
    for (part, signal) in [(1, "TERM"), (2, "INT")] {
        let mut service = scene.start("a");
        assert_eq!(service.restored(PARTITIONS as usize), 0, "the store was left at its changelog's end");
        feed.get_or_insert_with(|| Feed::new(&scene, &ledger.payments)).reach(PAYMENTS * part / 3);
        // The second worker may have joined late, and its share be on the way.
        until("it is ready", || (service.get("/readyz").0 == 200).then_some(()));
        service.signal(signal);
        let (status, took) = service.end();
        assert!(status.success(), "after SIG{signal} it ended with {status}");
        assert!(took.as_secs() < 10, "it took {took:?} to end after SIG{signal}");
        // The broker answers a commit before it has marked every partition.
        until("no transaction is open", || (scene.open_transactions(&scene.topic("verdicts")) == 0).then_some(()));
    }
    let mut service = scene.start("a");
    assert_eq!(service.restored(PARTITIONS as usize), 0);
    feed.expect("begun above").finish(PAYMENTS);
    service.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
}

#[test]
fn an_older_copy_of_the_folder_is_brought_up_to_date() {
    const PAYMENTS: usize = 15_000;
    let Some(scene) = Scene::new("older") else { return };
    let scene = scene.with("MODEL_PATH", model().to_str().expect("a plain path"));
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    let mut feed = Feed::new(&scene, &ledger.payments);
    let mut changelog = Vec::new();
    for third in 1..=2 {
        feed.finish(PAYMENTS * third / 3);
        service.stop();
        changelog.push(scene.read(&scene.changelog()).len() as u64);
        if third == 1 {
            scene.copy("a", "copy");
        }
        service = scene.start("a");
        assert_eq!(service.restored(PARTITIONS as usize), 0);
    }
    service.stop();
    scene.forget("a");
    scene.copy("copy", "a");
    let mut service = scene.start("a");
    assert_eq!(service.restored(PARTITIONS as usize), changelog[1] - changelog[0], "the tail, and only that");
    feed.finish(PAYMENTS);
    service.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(scene.profiles(), ledger.profiles());
}
