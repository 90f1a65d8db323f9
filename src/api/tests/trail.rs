//! What changes something is recorded before it is answered.

use serde_json::{Value, json};
use topology::broker::Reaction;
use topology::simulated::{Fault, Op};

use super::access::token;
use super::world::{NOW_MS, World};
use crate::config::Scope;
use crate::scoring::ScoringParams;

const JSON: &str = "Content-Type: application/json";

fn guarded() -> World {
    let tokens = vec![token("shop", "shop-secret", &[Scope::Write]), token("boss", "boss-secret", &[Scope::Query, Scope::Admin])];
    World::idle(ScoringParams::default(), tokens)
}

fn ask(world: &World, secret: &str, path: &str, kind: &str, body: &str) -> u16 {
    let got =
        world.client().send("POST", path, &[kind, &format!("Authorization: Bearer {secret}"), "Accept: */*"], body.as_bytes());
    got.status
}

#[test]
fn each_change_says_who_asked_for_what_and_what_came_of_it() {
    let world = guarded();
    let payment = r#"{"user_id":"anna","amount":1,"merchant":"m"}"#;
    assert_eq!(ask(&world, "shop-secret", "/tx", JSON, payment), 202);
    assert_eq!(ask(&world, "shop-secret", "/v1/transactions", JSON, r#"{"user_id":"anna"}"#), 422);
    assert_eq!(ask(&world, "shop-secret", "/v1/transactions", JSON, &format!("[{payment},{payment},1]")), 207);
    assert_eq!(ask(&world, "shop-secret", "/tx", "Content-Type: application/x-ndjson", &format!("{payment}\n{payment}")), 200);
    assert_eq!(ask(&world, "boss-secret", "/v1/models/nothing/promote", JSON, "{}"), 404);
    assert_eq!(world.client().send("GET", "/v1/health", &["Authorization: Bearer boss-secret"], b"").status, 200);
    assert_eq!(ask(&world, "wrong", "/tx", JSON, payment), 401);
    assert_eq!(ask(&world, "boss-secret", "/tx", JSON, payment), 403);
    let trail = world.trail();
    let of =
        |record: &Value| (record["actor"].clone(), record["route"].clone(), record["status"].clone(), record["payments"].clone());
    let shop = |route: &str, status: u16, payments: Value| (json!("shop"), json!(route), json!(status), payments);
    let expected = [
        shop("/tx", 202, json!(1)),
        shop("/v1/transactions", 422, Value::Null),
        shop("/v1/transactions", 202, json!(2)),
        shop("/tx", 200, Value::Null),
        shop("/tx", 200, json!(2)),
        (json!("boss"), json!("/v1/models/{}/promote"), json!(404), Value::Null),
    ];
    assert_eq!(trail.iter().map(of).collect::<Vec<_>>(), expected, "reads and strangers leave no record");
    assert!(trail.iter().all(|record| record["at"] == NOW_MS && record["instance"] == "one" && record["address"] == "127.0.0.1"));
    assert_eq!(trail[0]["user"], crate::logging::keyed_hash(&[7; 32], b"anna"));
    assert!(!trail.iter().any(|record| record.to_string().contains("anna")), "no id of a user");
}

#[test]
fn what_cannot_be_recorded_is_not_answered_as_done() {
    let world = guarded();
    world.broker().set_faults(|of| if of.op == Op::Publish { Fault::Error(Reaction::Retry) } else { Fault::None });
    let boss = ["Authorization: Bearer boss-secret", JSON, "Content-Length: 0"];
    world.client().send("POST", "/v1/train", &boss, b"").problem(503, "audit-unavailable");
    world.client().send("POST", "/v1/models/nothing/promote", &boss, b"").problem(404, "no-such-model");
    assert!(world.trail().is_empty());
}
