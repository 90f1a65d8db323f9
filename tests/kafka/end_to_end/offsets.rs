//! The group's offsets against the state: lost, set back, beyond the end.

use serde_json::json;

use super::feed::Feed;
use super::ledger::{Ledger, faults, model};
use super::records::{Raw, Seen};
use super::scene::{PARTITIONS, Scene};
use super::until;

const PAYMENTS: usize = 12_000;
const LEAVE: &[(&str, &str)] = &[("LEAVE_ON_STOP", "true")];

/// Runs an instance that must refuse to go on, and gives its error.
fn refusal(scene: &Scene, state: &str) -> String {
    let mut service = scene.start_with(state, LEAVE);
    let (status, _) = service.end();
    let said = service.text();
    assert_eq!(status.code(), Some(1), "{said}");
    said.lines().find(|line| line.starts_with("error: ")).expect("an error").to_owned()
}

#[test]
fn state_without_offsets_is_refused_until_someone_says_where_to_begin() {
    let Some(scene) = Scene::new("nooffsets") else { return };
    let scene = scene.with("MODEL_PATH", model().to_str().expect("a plain path"));
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start_with("a", LEAVE);
    service.restored(PARTITIONS as usize);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.finish(PAYMENTS / 3);
    service.stop();
    scene.delete_group();
    // Also with a lost folder, and with one that a start restored in vain.
    for state in ["b", "b", "a"] {
        let error = refusal(&scene, state);
        for part in [&scene.topic("transactions"), "START_FROM=changelog", "START_FROM=earliest"] {
            assert!(error.contains(part), "{part} in: {error}");
        }
    }
    scene.forget("b");
    // With the kept folder, and without it, where the changelog alone tells how far the state is.
    for (state, count) in [("a", PAYMENTS * 2 / 3), ("b", PAYMENTS)] {
        let mut service = scene.start_with(state, &[LEAVE[0], ("START_FROM", "changelog")]);
        service.restored(PARTITIONS as usize);
        feed.finish(count);
        service.stop();
        scene.delete_group();
    }
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(scene.profiles(), ledger.profiles());
}

#[test]
fn someone_may_choose_to_begin_anew() {
    const PAYMENTS: usize = 4_000;
    let Some(scene) = Scene::new("anew") else { return };
    let scene = scene.with("MODEL_PATH", model().to_str().expect("a plain path"));
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start_with("a", LEAVE);
    service.restored(PARTITIONS as usize);
    Feed::new(&scene, &ledger.payments).finish(PAYMENTS);
    service.stop();
    scene.delete_group();
    let service = scene.start_with("a", &[LEAVE[0], ("START_FROM", "earliest")]);
    let verdicts = until("every payment is scored again", || {
        Some(scene.read(&scene.topic("verdicts"))).filter(|verdicts| verdicts.len() >= 2 * PAYMENTS)
    });
    service.stop();
    assert_eq!(verdicts.len(), 2 * PAYMENTS);
    assert_eq!(faults(&verdicts, &expected, false), "", "the same verdicts as the first time");
    assert_eq!(scene.profiles(), ledger.profiles());
}

#[test]
fn commands_do_not_act_again_when_offsets_are_lost() {
    let Some(scene) = Scene::new("again") else { return };
    let user = "u-1";
    scene.create("transactions", 1, &[]);
    let write = |topic: &str, value: serde_json::Value| {
        let (key, value) = (Some(user.as_bytes().to_vec()), Some(value.to_string().into_bytes()));
        let writer = scene.writer();
        writer.raw(&scene.topic(topic), &Raw { key, value, ..Raw::default() });
        writer.flush();
    };
    let pay = |count: usize| {
        write("transactions", json!({"user_id": user, "amount": 1, "merchant": "m"}));
        until("the verdict", || (scene.read(&scene.topic("verdicts")).len() == count).then_some(()));
    };
    let command = |count: usize, kind: &str| {
        let decided = |seen: &Seen| seen.json()["topic"] != serde_json::Value::Null;
        let decisions = || scene.read(&scene.topic("app-decisions")).iter().filter(|seen| decided(seen)).count();
        write("commands", json!({"kind": kind, "user_id": user}));
        until("the decision", || (decisions() == count).then_some(()));
    };
    let mut service = scene.start_with("a", LEAVE);
    service.restored(1);
    pay(1);
    command(1, "reset");
    command(2, "erase");
    pay(2);
    pay(3);
    // With the kept folder, and without it.
    for (state, count) in [("a", 4), ("b", 5)] {
        service.stop();
        scene.delete_group();
        service = scene.start_with(state, &[LEAVE[0], ("START_FROM", "changelog")]);
        service.restored(1);
        pay(count);
        let profile = scene.profiles().remove(user.as_bytes()).expect("a profile");
        assert_eq!(profile.0.seen(), count as u64 - 1, "payments since the erasure");
    }
    service.stop();
}

#[test]
fn offsets_that_contradict_the_state_are_refused() {
    let Some(scene) = Scene::new("contradict") else { return };
    let ledger = Ledger::made(&scene.path("payments.csv"), 2_000);
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start_with("a", LEAVE);
    service.restored(PARTITIONS as usize);
    Feed::new(&scene, &ledger.payments).finish(2_000);
    service.stop();
    let topic = scene.topic("transactions");
    let ends = scene.ends(&topic);
    scene.commit(&topic, &ends.iter().map(|end| end - 5).collect::<Vec<_>>());
    let error = refusal(&scene, "a");
    assert!(error.contains("set back") && error.contains(&topic), "{error}");
    scene.commit(&topic, &ends.iter().map(|end| end + 5).collect::<Vec<_>>());
    let error = refusal(&scene, "a");
    assert!(error.contains("lost data or was re-created") && error.contains("APPLICATION_ID"), "{error}");
}
