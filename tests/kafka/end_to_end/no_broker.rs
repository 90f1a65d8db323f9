//! A broker that is not there, comes later, goes and comes back.

use super::broker::{Broker, free_address};
use super::feed::Feed;
use super::ledger::{Ledger, faults, model};
use super::scene::{PARTITIONS, Scene};
use super::service::Service;

#[test]
fn an_absent_broker_is_named_and_waited_for() {
    let address = free_address();
    let scene = Scene::at(address.clone(), "absent");
    let mut service = scene.start("a");
    let said = service.says("that the broker does not answer", |line| {
        let about_it = line["message"].as_str()?.contains("broker does not answer");
        line["what"].as_str().filter(|_| about_it).map(str::to_owned)
    });
    for part in [address.as_str(), "Is it running", "security.protocol", "Connection refused"] {
        assert!(said.contains(part), "{part} in: {said}");
    }
    assert!(service.lives());
    service.stop();
}

#[test]
fn check_tells_that_a_broker_is_absent() {
    let address = free_address();
    let scene = Scene::at(address.clone(), "checked");
    assert_eq!(scene.call(&["check"]).status.code(), Some(0), "without --connect nobody is asked");
    let output = scene.call(&["check", "--connect"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().any(|line| line.starts_with("wrong") && line.contains(&address)), "{said}");
}

/// An instance that is started first, and its broker after it.
fn late(test: &str) -> Option<(Scene, Broker, Service)> {
    // The other tests' broker is not used, but where there is none there is nothing to start one with.
    crate::world::address(&format!("end_to_end::{test}"))?;
    let scene = Scene::at(free_address(), test).with("MODEL_PATH", model().to_str().expect("a plain path"));
    let mut service = scene.start("a");
    service.says("that the broker does not answer", |line| {
        line["message"].as_str()?.contains("broker does not answer").then_some(())
    });
    let broker = Broker::start(&scene);
    service.restored(PARTITIONS as usize);
    Some((scene, broker, service))
}

#[test]
fn a_broker_that_comes_late_and_crashes_is_waited_for() {
    const PAYMENTS: usize = 40_000;
    let Some((scene, broker, mut service)) = late("late") else { return };
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.reach(PAYMENTS / 8);
    // The input is whole before the crash: a producer may well write twice what a crashed broker did not acknowledge.
    service.signal("STOP");
    feed.send(PAYMENTS);
    feed.flush();
    service.signal("CONT");
    feed.reach(PAYMENTS / 4);
    broker.kill();
    broker.restart();
    feed.finish(PAYMENTS);
    assert_eq!(service.get("/livez").0, 200);
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(scene.profiles(), ledger.profiles());
    service.stop();
}

#[test]
fn a_stop_does_not_wait_for_a_broker_that_is_gone() {
    let Some((scene, broker, mut service)) = late("gone") else { return };
    let ledger = Ledger::made(&scene.path("payments.csv"), 20_000);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.reach(2_000);
    feed.send(20_000);
    broker.kill();
    service.signal("TERM");
    let (status, took) = service.end();
    assert!(took.as_secs() < 10, "it took {took:?} to end after SIGTERM");
    // What was under way could not be committed: it says so, and in its status too.
    let said = service.text();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.lines().any(|line| line.starts_with("error: ") && line.contains("processed again")), "{said}");
}
