//! `POST /v1/inference`.

use models::Verdict;
use serde_json::{Value, json};

use super::world::{NOW_MS, World};
use crate::scoring::{FxTable, ScoringParams};

const HOUR_MS: i64 = 3_600_000;

/// Payments of a few users, with a model trained on them in force.
fn trained() -> World {
    let mut world = World::running(ScoringParams { reasons_for_all: true, ..ScoringParams::default() });
    for i in 0..400_i64 {
        let user = format!("user-{}", i % 5);
        let t = NOW_MS - 400 * HOUR_MS + i * HOUR_MS;
        let amount = 5 + (i * 7919) % 97;
        let json = format!(r#"{{"user_id":"{user}","amount":{amount},"merchant":"m{}","timestamp":{t}}}"#, i % 9);
        world.pay(&user, &json, t);
    }
    world.run();
    let model = world.train();
    world.model.set(Some(model));
    world
}

fn infer(world: &World, body: &Value) -> Value {
    let got = world.client().post("/v1/inference", body.to_string().as_bytes());
    assert_eq!((got.status, got.header("content-type")), (200, Some("application/json")), "{}", got.text());
    got.json()
}

#[test]
fn it_says_what_the_stream_then_says_to_the_last_bit() {
    let mut world = trained();
    for (user, amount, merchant, minutes) in
        [("user-0", 12.5, "m1", 30), ("user-1", 9_999.99, "casino", 0), ("user-2", 0.0, "m2", -600), ("stranger", 42.0, "m3", 5)]
    {
        let t = NOW_MS + minutes * 60_000;
        let payment = json!({"tx_id": "t-1", "amount": amount, "currency": "EUR", "merchant": merchant, "timestamp": t});
        let inferred = infer(&world, &json!({"user_id": user, "transaction": payment}));
        let mut record = payment.clone();
        record["user_id"] = json!(user);
        let before = world.verdicts().len();
        world.pay(user, &record.to_string(), NOW_MS);
        world.run();
        let streamed = world.verdicts().into_iter().find(|verdict| verdict.tx_id == "t-1" && verdict.user_id == user);
        let streamed = streamed.expect("a verdict");
        assert_eq!(world.verdicts().len(), before + 1);
        assert!(streamed.score.is_some() && !streamed.reasons.is_empty(), "a scored, explained verdict");
        let inferred: Verdict = serde_json::from_value(inferred).expect("a verdict as on the wire");
        assert_eq!(inferred, Verdict { id: inferred.id.clone(), ..streamed }, "{user}");
    }
}

#[test]
fn it_stores_nothing() {
    let world = trained();
    let (before, verdicts) = (world.everything(), world.verdicts().len());
    for _ in 0..3 {
        infer(&world, &json!({"user_id": "user-0", "transaction": {"amount": 1e6, "merchant": "casino"}}));
        infer(&world, &json!({"user_id": "stranger", "transaction": {"amount": 1, "merchant": "m"}}));
    }
    assert_eq!((world.everything(), world.verdicts().len()), (before, verdicts));
}

#[test]
fn absent_fields_have_their_defaults() {
    let world = trained();
    let verdict = infer(&world, &json!({"user_id": "user-0", "transaction": {"amount": 10, "merchant": "m1"}}));
    assert_eq!(verdict["event_time"], NOW_MS);
    assert_eq!(verdict["currency"], json!(null));
    let id = verdict["id"].as_str().expect("an id");
    assert!(id.starts_with("inference:"), "{id}");
    assert_eq!(verdict["tx_id"], id);
    assert!(verdict["position"]["input_offset"].is_u64(), "{verdict}");
    assert_eq!(verdict["source"], "local");
    let nulls = json!({"tx_id": null, "amount": 10, "currency": null, "merchant": "m1", "timestamp": null});
    assert_eq!(infer(&world, &json!({"user_id": "user-0", "transaction": nulls}))["score"], verdict["score"]);
    let rfc = json!({"amount": 10, "merchant": "m1", "timestamp": "2023-11-14T22:13:20Z"});
    assert_eq!(infer(&world, &json!({"user_id": "user-0", "transaction": rfc}))["score"], verdict["score"]);
}

#[test]
fn an_anomaly_is_explained_whatever_the_stream_explains() {
    let world = trained();
    let verdict = infer(&world, &json!({"user_id": "user-0", "transaction": {"amount": 1e9, "merchant": "never seen"}}));
    assert_eq!(verdict["is_anomaly"], true);
    assert_ne!(verdict["severity"], "NONE");
    assert!(!verdict["explanation"].as_str().expect("text").is_empty());
    assert!(verdict["reasons"][0]["contribution"].as_f64().expect("a number") > 0.0);
}

#[test]
fn without_a_model_the_score_is_null() {
    let world = World::running(ScoringParams::default());
    let verdict = infer(&world, &json!({"user_id": "u1", "transaction": {"amount": 10, "merchant": "m"}}));
    for null in ["score", "raw_score", "model_id"] {
        assert_eq!(verdict[null], json!(null), "{null}");
    }
    assert_eq!(verdict["severity"], "NONE");
    assert_eq!(verdict["features"].as_array().map(Vec::len), Some(10));
}

#[test]
fn invalid_payments_name_the_field_by_pointer() {
    let world = World::running(ScoringParams::default());
    let long = "x".repeat(257);
    for (body, pointer) in [
        ("[]", ""),
        ("null", ""),
        ("3", ""),
        (r#"{"user_id":"u","user_id":"u","transaction":{}}"#, ""),
        ("{}", "/user_id"),
        (r#"{"user_id":null,"transaction":{"amount":1,"merchant":"m"}}"#, "/user_id"),
        (r#"{"user_id":7,"transaction":{"amount":1,"merchant":"m"}}"#, "/user_id"),
        (r#"{"user_id":"","transaction":{"amount":1,"merchant":"m"}}"#, "/user_id"),
        (&format!(r#"{{"user_id":"{long}","transaction":{{"amount":1,"merchant":"m"}}}}"#), "/user_id"),
        (r#"{"user_id":"u"}"#, "/transaction"),
        (r#"{"user_id":"u","transaction":[1]}"#, "/transaction"),
        (r#"{"user_id":"u","transaction":{}}"#, "/transaction/amount"),
        (r#"{"user_id":"u","transaction":{ }}"#, "/transaction/amount"),
        (r#"{"user_id":"u","transaction":{"user_id":"v","amount":1,"merchant":"m"}}"#, "/transaction/user_id"),
        (r#"{"user_id":"u","transaction":{"amount":"1","merchant":"m"}}"#, "/transaction/amount"),
        (r#"{"user_id":"u","transaction":{"amount":-1,"merchant":"m"}}"#, "/transaction/amount"),
        (r#"{"user_id":"u","transaction":{"amount":1e400,"merchant":"m"}}"#, "/transaction/amount"),
        (r#"{"user_id":"u","transaction":{"amount":1}}"#, "/transaction/merchant"),
        (r#"{"user_id":"u","transaction":{"amount":1,"merchant":"\ud800"}}"#, "/transaction/merchant"),
        (r#"{"user_id":"u","transaction":{"amount":1,"merchant":"m","tx_id":""}}"#, "/transaction/tx_id"),
        (r#"{"user_id":"u","transaction":{"amount":1,"merchant":"m","currency":5}}"#, "/transaction/currency"),
        (r#"{"user_id":"u","transaction":{"amount":1,"merchant":"m","timestamp":"soon"}}"#, "/transaction/timestamp"),
        (r#"{"user_id":"u","transaction":{"amount":1,"merchant":"m","timestamp":-5}}"#, "/transaction/timestamp"),
        (r#"{"user_id":"u","transaction":{"amount":1,"merchant":"m","timestamp":1700007200000}}"#, "/transaction/timestamp"),
    ] {
        let problem = world.client().post("/v1/inference", body.as_bytes()).problem(422, "invalid-request");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
        assert!(!problem["errors"][0]["detail"].as_str().expect("text").is_empty(), "{body}");
    }
    for body in ["", "{", "{} {}", "nope", "{\"user_id\":}", "\u{feff}{}"] {
        world.client().post("/v1/inference", body.as_bytes()).problem(400, "not-json");
    }
    world.client().post("/v1/inference", b"{\"user_id\":\"\xff\"}").problem(400, "not-json");
}

#[test]
fn nesting_without_end_is_no_trouble() {
    let world = World::running(ScoringParams::default());
    let deep = "[".repeat(400_000);
    world.client().post("/v1/inference", deep.as_bytes()).problem(400, "not-json");
    let closed = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let body = format!(r#"{{"user_id":"u","transaction":{{"amount":1,"merchant":"m","more":{closed}}}}}"#);
    assert_eq!(world.client().post("/v1/inference", body.as_bytes()).status, 200);
}

#[test]
fn money_is_converted_as_in_the_stream() {
    let fx = FxTable::parse(br#"{"EUR":2,"XXX":1e300}"#, "USD").expect("a table");
    let world = World::running(ScoringParams { fx: Some(fx.into()), ..ScoringParams::default() });
    let body = |currency: &str| json!({"user_id": "u", "transaction": {"amount": 10, "currency": currency, "merchant": "m"}});
    let verdict = infer(&world, &body("EUR"));
    assert_eq!(verdict["fx"], json!({"base": "USD", "rate": 2.0, "amount": 20.0}));
    assert_eq!(verdict["amount"], 10.0);
    for (currency, pointer) in [("GBP", "/transaction/currency"), ("XXX", "/transaction/amount")] {
        let got = world.client().post("/v1/inference", body(currency).to_string().as_bytes());
        assert_eq!(got.problem(422, "invalid-request")["errors"][0]["pointer"], pointer);
    }
}

#[test]
fn a_user_elsewhere_is_not_scored_as_a_new_one() {
    let world = World::idle(ScoringParams::default(), Vec::new());
    let body = br#"{"user_id":"u","transaction":{"amount":1,"merchant":"m"}}"#;
    world.client().post("/v1/inference", body).problem(503, "moving");
}
