//! Resets and erasures as jobs, and the receipt.

use serde_json::{Value, json};

use super::client::Got;
use super::world::{NOW_MS, World};
use crate::notify::entry::{Delivery, Key, State};
use crate::notify::message::Message;
use crate::scoring::ScoringParams;

fn pay(world: &mut World, user: &str, count: i64) {
    for at in 0..count {
        let json = format!(r#"{{"user_id":"{user}","amount":{},"merchant":"m","timestamp":{}}}"#, 5 + at, NOW_MS - 9_000 + at);
        world.pay(user, &json, NOW_MS);
    }
    world.run();
}

fn reset(world: &World, user: &str) -> Got {
    world.client().send("DELETE", &format!("/v1/users/{user}/profile"), &[], b"")
}

fn erase(world: &World, user: &str) -> Got {
    world.client().send("POST", &format!("/v1/users/{user}/erase"), &["Content-Length: 0"], b"")
}

/// The answer to an order that was taken.
fn taken(got: &Got) -> Value {
    assert_eq!(got.status, 202, "{}", got.text());
    let ordered = got.json();
    assert_eq!(got.header("location"), ordered["status"].as_str());
    ordered
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn place<'r>(receipt: &'r Value, name: &str) -> &'r Value {
    let mut places = receipt["places"].as_array().expect("places").iter();
    places.find(|place| place["place"] == name).unwrap_or_else(|| panic!("{name} in {receipt}"))
}

#[test]
fn a_reset_is_a_job_that_ends_where_the_profile_begins_anew() {
    let mut world = World::running(ScoringParams::default());
    pay(&mut world, "ann", 3);
    let ordered = taken(&reset(&world, "ann"));
    assert_eq!((&ordered["kind"], &ordered["command_offset"], ordered.get("receipt")), (&json!("reset"), &json!(0), None));
    let job = world.get(text(&ordered["status"])).json();
    assert_eq!((&job["status"], &job["position"]), (&json!("queued"), &json!(null)));
    assert_eq!(world.get("/v1/users/ann/profile").json()["count"], 3, "nothing has happened yet");
    world.run();
    let job = world.get(text(&ordered["status"])).json();
    assert_eq!(job["status"], "done");
    let effect = json!({"partition": ordered["partition"], "command_offset": 0, "input_offset": 3, "decision_offset": 0});
    assert_eq!(job["position"], effect);
    assert_eq!(job["ordered_at"], "2023-11-14T22:13:20Z");
    assert_eq!(world.get("/v1/users/ann/profile").json()["count"], 0, "an empty profile that keeps its place");
    pay(&mut world, "ann", 1);
    assert_eq!(world.get("/v1/users/ann/profile").json()["count"], 1);
    world.get(&text(&ordered["status"]).replace("/jobs/", "/erasures/")).problem(404, "no-such-job");
}

#[test]
fn jobs_are_told_apart_and_each_is_answered_by_its_own_decision() {
    let mut world = World::running(ScoringParams::default());
    pay(&mut world, "ann", 2);
    let first = taken(&reset(&world, "ann"));
    world.run();
    let second = taken(&reset(&world, "ann"));
    assert_eq!(world.get(text(&first["status"])).json()["status"], "done");
    assert_eq!(world.get(text(&second["status"])).json()["status"], "queued");
    world.run();
    let [first, second] = [first, second].map(|ordered| world.get(text(&ordered["status"])).json());
    assert_eq!([&first["position"]["command_offset"], &second["position"]["command_offset"]], [&json!(0), &json!(1)]);
    assert_ne!(first["position"]["decision_offset"], second["position"]["decision_offset"]);
}

#[test]
fn what_is_no_job_is_not_found() {
    let world = World::running(ScoringParams::default());
    let ordered = taken(&reset(&world, "ann"));
    let real = text(&ordered["job_id"]).to_owned();
    let other = format!("{}{}", &real[..real.len() - 1], if real.ends_with('0') { '1' } else { '0' });
    for id in ["", "x", "reset-0-0-0-0-0", "reset-ffffffff-0-0-0-0000000000000001", "reset-99-0-0-0-0000000000000001", &other] {
        world.get(&format!("/v1/jobs/{id}")).problem(404, "no-such-job");
        world.get(&format!("/v1/erasures/{id}")).problem(404, "no-such-job");
    }
    assert_eq!(world.get(&format!("/v1/jobs/{real}")).status, 200);
    reset(&world, &"x".repeat(257)).problem(400, "invalid-user-id");
    reset(&world, "").problem(400, "invalid-user-id");
    erase(&world, "").problem(400, "invalid-user-id");
}

#[test]
fn an_erasure_has_a_receipt_that_asks_every_place_anew() {
    let mut world = World::running(ScoringParams::default());
    pay(&mut world, "ann", 3);
    pay(&mut world, "bob", 2);
    let ordered = taken(&erase(&world, "ann"));
    let receipt = world.get(text(&ordered["receipt"])).json();
    assert_eq!((&receipt["status"], &receipt["places"]), (&json!("queued"), &json!([])));
    world.run();
    let receipt = world.get(text(&ordered["receipt"])).json();
    assert_eq!((&receipt["job_id"], &receipt["status"]), (&ordered["job_id"], &json!("done")));
    assert_eq!(place(&receipt, "state")["found"], "deleted");
    assert_eq!(place(&receipt, "training")["found"], "deleted");
    let changelog = place(&receipt, "test-profiles-changelog");
    assert_eq!(changelog["found"], "expiring", "its values are there until the topic is compacted: {changelog}");
    for topic in ["transactions", "commands", "verdicts", "anomalies", "dead-letters", "test-decisions"] {
        assert_eq!(place(&receipt, topic)["found"], "kept", "{topic}: the test's topics keep all");
    }
    world.get("/v1/users/ann/profile").problem(404, "no-such-user");
    assert_eq!(world.get("/v1/users/bob/profile").json()["count"], 2);
    assert!(world.everything().iter().all(|(key, _)| key != b"ann"));

    world.compact("test-profiles-changelog");
    let receipt = world.get(text(&ordered["receipt"])).json();
    assert_eq!(place(&receipt, "test-profiles-changelog")["found"], "deleted", "{receipt}");

    pay(&mut world, "ann", 1);
    let receipt = world.get(text(&ordered["receipt"])).json();
    assert_eq!(place(&receipt, "state")["found"], "present", "who comes back is there again, and the receipt says so");
}

#[test]
fn a_topic_with_a_retention_says_when_the_last_of_it_is_gone() {
    let mut world = World::keeping(Some(86_400_000));
    pay(&mut world, "ann", 1);
    let ordered = taken(&erase(&world, "ann"));
    world.run();
    let receipt = world.get(text(&ordered["receipt"])).json();
    let verdicts = place(&receipt, "verdicts");
    assert_eq!((&verdicts["found"], &verdicts["until"]), (&json!("expiring"), &json!("2023-11-15T22:13:20Z")), "a day on");
}

#[test]
fn an_erasure_ends_the_users_snooze() {
    let mut world = World::running(ScoringParams::default());
    pay(&mut world, "ann", 1);
    let snooze = |world: &World, what: &str, name: &str| {
        let body = json!({what: name, "reason": "on holiday", "hours": 5}).to_string();
        assert_eq!(world.client().post("/v1/snoozes", body.as_bytes()).status, 201);
    };
    for (what, name) in [("user_id", "ann"), ("user_id", "bob"), ("merchant", "ann")] {
        snooze(&world, what, name);
    }
    let ordered = taken(&erase(&world, "ann"));
    world.run();
    let left = world.get("/v1/snoozes").json();
    let left: Vec<&str> = left["snoozes"].as_array().expect("a list").iter().map(|snooze| text(&snooze["id"])).collect();
    assert_eq!(left, ["merchant:ann", "user:bob"]);
    let found = |world: &World, name: &str| place(&world.get(text(&ordered["receipt"])).json(), name)["found"].clone();
    assert_eq!(found(&world, "test-snoozes"), "expiring", "the record is there until the topic is compacted");
    assert_eq!(found(&world, "test-notifications"), "deleted", "nobody was told of the user");
    snooze(&world, "user_id", "ann");
    assert_eq!(found(&world, "test-snoozes"), "present", "somebody did it again");
}

/// Nobody asked over HTTP: somebody wrote the order straight to `commands`.
#[test]
fn an_erasure_that_came_by_the_topic_ends_the_users_snooze_as_well() {
    let mut world = World::running(ScoringParams::default());
    pay(&mut world, "ann", 1);
    let snooze = |world: &World, what: &str, name: &str| {
        let body = json!({what: name, "reason": "on holiday", "hours": 5}).to_string();
        assert_eq!(world.client().post("/v1/snoozes", body.as_bytes()).status, 201);
    };
    let left = |world: &World| -> Vec<String> {
        let left = world.get("/v1/snoozes").json();
        left["snoozes"].as_array().expect("a list").iter().map(|snooze| text(&snooze["id"]).to_owned()).collect()
    };
    for (what, name) in [("user_id", "ann"), ("user_id", "bob"), ("merchant", "ann")] {
        snooze(&world, what, name);
    }
    let mut erasures = world.erasures();
    for command in [json!({"kind": "erase", "user_id": "ann"}), json!({"kind": "reset", "user_id": "bob"})] {
        world.command(&command);
    }
    world.run();
    assert_eq!(left(&world), ["merchant:ann", "user:ann", "user:bob"], "the order alone says nothing to who keeps the snoozes");
    world.follow(&mut erasures);
    assert_eq!(left(&world), ["merchant:ann", "user:bob"]);
    // Who is snoozed afterwards stays so, also where an instance starts and looks at what was decided before.
    world.clock.advance(1);
    snooze(&world, "user_id", "ann");
    world.follow(&mut erasures);
    let mut started_later = world.erasures();
    world.follow(&mut started_later);
    assert_eq!(left(&world), ["merchant:ann", "user:ann", "user:bob"]);
    // What nobody followed while it happened is ended by who starts next.
    world.clock.advance(1);
    world.command(&json!({"kind": "erase", "user_id": "bob"}));
    world.run();
    let mut started_next = world.erasures();
    world.follow(&mut started_next);
    assert_eq!(left(&world), ["merchant:ann", "user:ann"]);
}

#[test]
fn the_receipt_says_whether_a_message_names_the_user() {
    let mut world = World::running(ScoringParams::default());
    pay(&mut world, "ann", 1);
    let mut verdict = world.verdicts().remove(0);
    verdict.user_id = "ann".into();
    let tell = |world: &mut World, id: &str, names: bool| {
        let message = Message::new(&verdict, names);
        let delivery = Delivery {
            id: id.into(),
            target: "ops".into(),
            state: State::Pending,
            made_ms: NOW_MS,
            next_ms: NOW_MS,
            attempts: 0,
            trouble: None,
            message,
        };
        let value = serde_json::to_vec(&delivery).expect("a delivery");
        world.write("test-notifications", &Key::Delivery(id.into()).encode(), &value);
    };
    let ordered = taken(&erase(&world, "ann"));
    world.run();
    let found = |world: &World| place(&world.get(text(&ordered["receipt"])).json(), "test-notifications")["found"].clone();
    tell(&mut world, "msg_1", false);
    assert_eq!(found(&world), "deleted", "a target that is not to know the user does not");
    tell(&mut world, "msg_2", true);
    assert_eq!(found(&world), "present");
    tell(&mut world, "msg_2", false);
    assert_eq!(found(&world), "expiring");
}

#[test]
fn no_answer_names_the_user() {
    let mut world = World::running(ScoringParams::default());
    pay(&mut world, "very-private", 1);
    let ordered = erase(&world, "very-private");
    assert!(!ordered.text().contains("very-private"));
    world.run();
    let ordered = ordered.json();
    for path in [&ordered["status"], &ordered["receipt"]] {
        let got = world.get(text(path));
        assert!(got.status == 200 && !got.text().contains("very-private"), "{}", got.text());
    }
}
