//! Whatever a body holds, the answer is a verdict or a well-formed problem that blames the body.

use std::cell::RefCell;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::client::Client;
use super::world::World;
use crate::scoring::ScoringParams;

/// JSON of any shape, small.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(field(), inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A field's name, often one that means something.
fn field() -> impl Strategy<Value = String> {
    let known = ["user_id", "transaction", "amount", "merchant", "tx_id", "currency", "timestamp"];
    prop_oneof![4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".{0,8}"]
}

/// A body that is nearly right: one or two parts are replaced by anything.
fn nearly_right() -> impl Strategy<Value = Value> {
    let right = json!({
        "user_id": "u",
        "transaction": {"tx_id": "t", "amount": 1.5, "currency": "EUR", "merchant": "m", "timestamp": 1_699_999_999_000_i64},
    });
    let places = [
        "/user_id",
        "/transaction",
        "/transaction/amount",
        "/transaction/merchant",
        "/transaction/timestamp",
        "/transaction/tx_id",
    ];
    prop::collection::vec((prop::sample::select(places.to_vec()), any_json()), 1..3).prop_map(move |changes| {
        let mut body = right.clone();
        for (place, value) in changes {
            if let Some(part) = body.pointer_mut(place) {
                *part = value;
            }
        }
        body
    })
}

fn check(client: &RefCell<Client>, body: &[u8]) {
    let got = client.borrow_mut().post("/v1/inference", body);
    match got.status {
        200 => {
            let verdict: models::Verdict = serde_json::from_slice(&got.body).expect("a verdict as on the wire");
            assert_eq!(verdict.score, None, "there is no model");
        }
        400 => drop(got.problem(400, "not-json")),
        422 => {
            let problem = got.problem(422, "invalid-request");
            assert!(problem["errors"][0]["pointer"].is_string(), "{problem}");
        }
        other => panic!("{other}: {}", got.text()),
    }
}

#[test]
fn any_body_gets_a_verdict_or_a_problem() {
    let world = World::running(ScoringParams::default());
    let client = RefCell::new(world.client());
    let config = ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let bodies = prop_oneof![
        1 => bytes,
        1 => "\\PC{0,60}".prop_map(String::into_bytes),
        2 => any_json().prop_map(|json| json.to_string().into_bytes()),
        4 => nearly_right().prop_map(|json| json.to_string().into_bytes()),
        // Cut off or with a byte changed.
        2 => (nearly_right(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(|(json, at, byte, cut)| {
            let mut body = json.to_string().into_bytes();
            let at = at.index(body.len());
            if cut { body.truncate(at) } else { body[at] = byte }
            body
        }),
    ];
    proptest!(config, |(body in bodies)| check(&client, &body));
}

#[test]
fn any_path_gets_an_answer_that_blames_the_caller() {
    let world = World::running(ScoringParams::default());
    let client = RefCell::new(world.client());
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    let segment = "([a-z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2}|%[0-9a-z]?){0,20}";
    proptest!(config, |(id in segment)| {
        let got = client.borrow_mut().get(&format!("/v1/users/{id}/profile"));
        prop_assert!([400, 404].contains(&got.status), "{}: {}", id, got.text());
        prop_assert_eq!(got.header("content-type"), Some("application/problem+json"));
    });
}
