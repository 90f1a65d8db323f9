//! SIGTERM and Ctrl-C: what was begun is committed, the end comes soon and in good order, and nothing is done again.

use super::feed::Feed;
use super::ledger::{Ledger, faults, model};
use super::scene::{PARTITIONS, Scene};

#[test]
fn an_instance_that_is_told_to_stop_leaves_nothing_undone() {
    const PAYMENTS: usize = 30_000;
    let Some(scene) = Scene::new("stop") else { return };
    let scene = scene.with("MODEL_PATH", model().to_str().expect("a plain path"));
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let mut feed = None;
    for (part, signal) in [(1, "TERM"), (2, "INT")] {
        let mut service = scene.start("a");
        assert_eq!(service.restored(PARTITIONS as usize), 0, "the store was left at its changelog's end");
        feed.get_or_insert_with(|| Feed::new(&scene, &ledger.payments)).reach(PAYMENTS * part / 3);
        assert_eq!(service.get("/readyz").0, 200);
        service.signal(signal);
        let (status, took) = service.end();
        assert!(status.success(), "after SIG{signal} it ended with {status}");
        assert!(took.as_secs() < 10, "it took {took:?} to end after SIG{signal}");
        assert_eq!(scene.open_transactions(&scene.topic("verdicts")), 0);
    }
    let mut service = scene.start("a");
    assert_eq!(service.restored(PARTITIONS as usize), 0);
    feed.expect("begun above").finish(PAYMENTS);
    service.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
}
