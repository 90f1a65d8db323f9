//! Resets and erasures as jobs: ordered anywhere, answered anywhere, known after any restart.

use serde_json::{Value, json};
use topology::partitioner::partition_of;

use super::instances::share;
use super::records::{Raw, now_ms};
use super::scene::{PARTITIONS, Scene};
use super::service::Service;
use super::until;

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

fn pay(scene: &Scene, user: &str) {
    let key = user.as_bytes().to_vec();
    let value = json!({"user_id": user, "amount": 20, "merchant": "m"}).to_string().into_bytes();
    let partition = partition_of(&key, PARTITIONS);
    let raw = Raw { partition, key: Some(key), value: Some(value), timestamp: Some(now_ms()), ..Raw::default() };
    let writer = scene.writer();
    writer.raw(&scene.topic("transactions"), &raw);
    writer.flush();
}

fn json_of((status, body): (u16, String)) -> (u16, Value) {
    (status, serde_json::from_str(&body).unwrap_or_else(|why| panic!("{why}: {body}")))
}

/// Looks until the thing ordered is done.
fn done(service: &mut Service, path: &str) -> Value {
    until("the order is done", || {
        let (status, shown) = json_of(service.get(path));
        assert!([200, 503].contains(&status), "{shown}");
        (shown["status"] == "done").then_some(shown)
    })
}

fn count(service: &mut Service, user: &str) -> (u16, Option<u64>) {
    let (status, profile) = json_of(service.get(&format!("/v1/users/{user}/profile")));
    (status, profile["count"].as_u64())
}

fn place<'r>(receipt: &'r Value, name: &str) -> &'r Value {
    let mut places = receipt["places"].as_array().expect("places").iter();
    places.find(|place| place["place"] == name).unwrap_or_else(|| panic!("{name} in {receipt}"))
}

#[test]
fn orders_are_taken_anywhere_and_known_after_any_restart() {
    let Some(scene) = Scene::new("orders") else { return };
    let scene = scene.with("MEMBER_BEAT_MS", "500").with("KAFKA_SESSION_TIMEOUT_MS", "6000");
    scene.create("transactions", PARTITIONS, &[]);
    scene.create("verdicts", PARTITIONS, &[("retention.ms", "86400000"), ("segment.ms", "3600000")]);
    let mut instances = ["a", "b"].map(|name| scene.start_with(name, &[("INSTANCE_ID", name)]));
    // From here on no partition moves, and who was answered once is answered again.
    let [a, b] = &mut instances;
    share(a, b);
    let users: Vec<String> = (0..8).map(|number| format!("u-{number}")).collect();
    users.iter().for_each(|user| pay(&scene, user));
    for service in &mut instances {
        for user in &users {
            until("the profile is there, whoever is asked", || (count(service, user) == (200, Some(1))).then_some(()));
        }
    }
    // Ordered here, looked up there: done means that whoever reads then reads what the order left.
    let mut job = String::new();
    for (number, user) in users[..6].iter().enumerate() {
        let [here, there] = if number % 2 == 0 { [0, 1] } else { [1, 0] };
        let (status, ordered) = json_of(instances[here].delete(&format!("/v1/users/{user}/profile")));
        assert_eq!((status, &ordered["kind"]), (202, &json!("reset")), "{ordered}");
        job = ordered["status"].as_str().expect("where to look").to_owned();
        let shown = done(&mut instances[there], &job);
        assert_eq!(shown["position"]["partition"], ordered["partition"]);
        assert_eq!(shown["position"]["command_offset"], ordered["command_offset"]);
        assert_eq!(count(&mut instances[there], user), (200, Some(0)), "{user}");
    }
    let (status, ordered) = json_of(instances[0].post("/v1/users/u-7/erase", ""));
    assert_eq!(status, 202, "{ordered}");
    let receipt_at = ordered["receipt"].as_str().expect("where it is").to_owned();
    let receipt = done(&mut instances[1], &receipt_at);
    assert_eq!(count(&mut instances[1], "u-7").0, 404);
    assert_eq!(place(&receipt, "state")["found"], "deleted");
    assert_eq!(place(&receipt, &scene.topic("transactions"))["found"], "kept", "created to keep all");
    let verdicts = place(&receipt, &scene.topic("verdicts"));
    let times = [&receipt["ordered_at"], &verdicts["until"]];
    let [ordered_ms, until_ms] = times.map(|time| {
        let time: jiff::Timestamp = time.as_str().expect("a time").parse().expect("RFC 3339");
        time.as_millisecond()
    });
    assert_eq!((&verdicts["found"], until_ms - ordered_ms), (&json!("expiring"), DAY_MS + HOUR_MS));

    // Nothing of it is in an instance: both die, and another one, with nothing on its disk, tells the same.
    for service in instances {
        service.kill();
    }
    let mut service = scene.start_with("c", &[("INSTANCE_ID", "c")]);
    let again = done(&mut service, &receipt_at);
    assert_eq!(again["ordered_at"], receipt["ordered_at"]);
    assert_eq!(place(&again, "state")["found"], "deleted");
    assert_eq!(done(&mut service, &job)["kind"], "reset");
    // Its partition may come later than those of the orders.
    until("nobody else is touched", || (count(&mut service, "u-6") == (200, Some(1))).then_some(()));
    pay(&scene, "u-7");
    until("the receipt says that the user came back", || {
        let (status, receipt) = json_of(service.get(&receipt_at));
        (status == 200 && place(&receipt, "state")["found"] == "present").then_some(())
    });
    service.stop();
}
