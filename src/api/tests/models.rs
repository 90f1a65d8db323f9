//! `/v1/models`, `/v1/train` and `/v1/retrain`.

use std::sync::Arc;

use models::Model;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::world::{NOW_MS, World};
use crate::config::{ApiToken, Scope};
use crate::scoring::ScoringParams;

/// Two models that were registered, none active.
fn world() -> (World, [String; 2]) {
    let mut world = World::running(ScoringParams::default());
    for i in 0..300_i64 {
        let (user, amount) = (format!("user-{}", i % 5), 5 + (i * 7919) % 97);
        let t = NOW_MS - 400_000_000 + i * 1_000_000;
        world.pay(&user, &format!(r#"{{"user_id":"{user}","amount":{amount},"merchant":"m{}","timestamp":{t}}}"#, i % 9), t);
    }
    world.run();
    let first = world.train();
    let second = Arc::new(Model { contamination: 0.02, ..(*first).clone() });
    let second = Model::from_bytes(&second.to_bytes()).expect("a model");
    let ids = [&*first, &second].map(|model| world.registry.register(model, "csv", None, None).expect("registered").id);
    assert_ne!(ids[0], ids[1]);
    (world, ids)
}

fn post(world: &World, path: &str) -> (u16, Value) {
    // No body and no type: one call of curl -X POST.
    let got = world.client().send("POST", path, &["Content-Length: 0"], b"");
    (got.status, got.json())
}

#[test]
fn versions_are_listed_shown_promoted_and_rolled_back() {
    let (world, [a, b]) = world();
    let list = world.get("/v1/models").json();
    assert_eq!((&list["active"], &list["scoring"]), (&Value::Null, &Value::Null));
    let states: Vec<_> = list["models"].as_array().expect("a list").iter().map(|model| &model["state"]).collect();
    assert_eq!(states, ["candidate", "candidate"]);
    world.get("/v1/models/0123456789abcdef").problem(404, "no-such-model");

    let (status, answer) = post(&world, &format!("/v1/models/{a}/promote"));
    assert_eq!((status, &answer["active"]["model"], &answer["scoring"]), (200, &json!(a), &json!(a)));
    assert_eq!(world.model.get().expect("it scores").id, a);
    world.client().post("/v1/models/rollback", b"").problem(409, "no-earlier-model");
    assert_eq!(post(&world, &format!("/v1/models/{b}/promote")).0, 200);
    let shown = world.get(&format!("/v1/models/{b}")).json();
    assert_eq!(
        (&shown["state"], &shown["id"], &shown["rows"], &shown["trees"]),
        (&json!("active"), &json!(b), &json!(300), &json!(20))
    );
    assert_eq!(world.get(&format!("/v1/models/{a}")).json()["state"], "retired");

    let (status, answer) = post(&world, "/v1/models/rollback");
    assert_eq!((status, &answer["active"]["model"], &answer["active"]["why"]), (200, &json!(a), &json!("rolled back")));
    assert_eq!(world.model.get().expect("it scores").id, a);
    let (status, _) = post(&world, "/v1/models/ffffffffffffffff/promote");
    assert_eq!(status, 404);
}

#[test]
fn a_damaged_artifact_is_refused_with_its_reason() {
    let (world, [a, b]) = world();
    assert_eq!(post(&world, &format!("/v1/models/{a}/promote")).0, 200);
    std::fs::write(world.folder.path().join(format!("{b}.forest")), b"MANGROVE and nonsense").expect("written");
    let got = world.client().send("POST", &format!("/v1/models/{b}/promote"), &["Content-Length: 0"], b"");
    let problem = got.problem(409, "artifact-unusable");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("format")), "{problem}");
    assert_eq!(world.get("/v1/models").json()["active"]["model"], json!(a));
    assert_eq!(world.model.get().expect("it scores").id, a);
}

#[test]
fn trainings_are_queued_within_bounds_and_shown() {
    let (world, _) = world();
    let got = world.client().send("POST", "/v1/train", &["Content-Length: 0"], b"");
    assert_eq!(got.status, 202, "{}", got.text());
    let job = got.json()["job_id"].as_str().expect("an id").to_owned();
    assert_eq!(got.header("location"), Some(format!("/v1/train/{job}").as_str()));
    // Nothing works on the queue here.
    let shown = world.get(&format!("/v1/train/{job}")).json();
    assert_eq!((&shown["status"], &shown["order"]["source"]), (&json!("queued"), &json!("verdicts")));
    for _ in 1..4 {
        assert_eq!(world.client().post("/v1/train", br#"{"trees":10,"seed":3}"#).status, 202);
    }
    let full = world.client().post("/v1/train", b"{}");
    full.problem(429, "too-many-requests");
    assert!(full.header("retry-after").is_some());
    world.client().post("/v1/train", br#"{"trees":0}"#).problem(422, "invalid-request");
    world.client().post("/v1/train", br#"{"source":"postgres"}"#).problem(422, "invalid-request");
    world.client().post("/v1/train", b"{").problem(400, "not-json");
    world.get("/v1/train/nothing").problem(404, "no-such-job");
}

#[test]
fn a_retrain_that_is_asked_for_shows_until_somebody_does_it() {
    let (world, _) = world();
    let status = world.get("/v1/retrain/status").json();
    assert_eq!((&status["schedule"], &status["requested"], &status["last"]), (&json!("0 3 * * *"), &Value::Null, &Value::Null));
    assert!(status["next_run_ms"].as_i64().is_some_and(|next| next > NOW_MS && next <= NOW_MS + 86_400_000), "{status}");
    let (status, answer) = post(&world, "/v1/retrain/trigger");
    assert_eq!(status, 202);
    assert_eq!(world.get("/v1/retrain/status").json()["requested"], answer["job_id"]);
}

#[test]
fn changes_need_the_scope_admin() {
    let token = |name: &str, scope| ApiToken { name: name.into(), scopes: [scope].into(), sha256: Sha256::digest(name).into() };
    let world = World::idle(ScoringParams::default(), vec![token("reader", Scope::Query), token("operator", Scope::Admin)]);
    let ask = |method, path, who: &str| {
        world.client().send(method, path, &[&format!("Authorization: Bearer {who}"), "Content-Length: 0"], b"")
    };
    for path in ["/v1/models/0123456789abcdef/promote", "/v1/models/rollback", "/v1/train", "/v1/retrain/trigger"] {
        ask("POST", path, "reader").problem(403, "forbidden");
        assert_ne!(ask("POST", path, "operator").status, 403, "{path}");
    }
    for path in ["/v1/models", "/v1/retrain/status"] {
        assert_eq!(ask("GET", path, "reader").status, 200);
        ask("GET", path, "operator").problem(403, "forbidden");
    }
}
