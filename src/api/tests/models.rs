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
fn a_shadow_is_begun_shown_and_ended() {
    let (world, [a, b]) = world();
    let path = format!("/v1/models/{b}/shadow");
    assert_eq!(post(&world, &format!("/v1/models/{a}/promote")).0, 200);
    world.get("/v1/models/0123456789abcdef/shadow").problem(404, "no-such-model");
    world.get(&path).problem(404, "no-shadow");
    world.client().send("DELETE", &path, &[], b"").problem(404, "no-shadow");
    world.client().post(&format!("/v1/models/{a}/shadow"), b"{}").problem(409, "shadow-refused");
    for body in [&br#"{"from":"never"}"#[..], br#"{"hours":1}"#] {
        world.client().post(&path, body).problem(422, "invalid-request");
    }
    let (status, begun) = post(&world, &path);
    assert_eq!((status, &begun["beside"], &begun["whole_log"]), (200, &json!(a), &json!(false)));
    let shown = world.get(&path).json();
    assert_eq!((&shown["running"], &shown["compared"], &shown["as_of_ms"]), (&json!(true), &json!(0), &Value::Null));
    assert_eq!(
        shown["scores"]["bounds"].as_array().map(Vec::len),
        shown["scores"]["active"].as_array().map(|bins| bins.len() + 1)
    );
    assert_eq!(world.get(&format!("/v1/models/{b}")).json()["state"], "shadow");
    assert_eq!(world.client().send("DELETE", &path, &[], b"").status, 200);
    assert_eq!(world.get(&path).json()["running"], json!(false));
    assert_eq!(world.get(&format!("/v1/models/{b}")).json()["state"], "candidate");
}

#[test]
fn a_label_by_its_verdicts_id_names_the_payment_and_makes_quality() {
    let (mut world, [a, _]) = world();
    assert_eq!(post(&world, &format!("/v1/models/{a}/promote")).0, 200);
    let t = NOW_MS - 1_000;
    world.pay("user-1", &format!(r#"{{"user_id":"user-1","amount":9000,"merchant":"m1","tx_id":"t9","timestamp":{t}}}"#), t);
    world.run();
    let verdict = world.verdicts().into_iter().find(|verdict| verdict.tx_id == "t9").expect("a verdict");
    let label = |body: Value| world.client().post("/v1/labels", body.to_string().as_bytes());
    for (body, status, name) in [
        (json!({"verdict_id": "transactions:0:999999", "label": "fraud"}), 404, "no-such-verdict"),
        (json!({"verdict_id": "models:0:0", "label": "fraud"}), 404, "no-such-verdict"),
        (json!({"verdict_id": verdict.id, "user_id": "user-2", "label": "fraud"}), 422, "invalid-request"),
        (json!({"tx_id": "t9", "label": "fraud"}), 422, "invalid-request"),
        (json!({"verdict_id": verdict.id, "label": "perhaps"}), 422, "invalid-request"),
        (json!({"verdict_id": verdict.id, "label": "fraud", "at": "yesterday"}), 422, "invalid-request"),
        (json!({"verdict_id": verdict.id, "label": "fraud", "by": ""}), 422, "invalid-request"),
        (json!({"verdict_id": verdict.id, "label": "fraud", "reason": "x".repeat(2_001)}), 422, "invalid-request"),
        (json!([]), 422, "invalid-request"),
    ] {
        label(body).problem(status, name);
    }
    let taken = label(
        json!({"verdict_id": verdict.id, "label": "fraud", "by": "ann", "reason": "she called", "at": "2024-01-02T03:04:05Z"}),
    );
    assert_eq!(taken.status, 201, "{}", taken.text());
    let taken = taken.json();
    assert_eq!((&taken["by"], &taken["reason"]), (&json!("ann"), &json!("she called")), "without tokens, whoever it says");
    assert_eq!(
        (&taken["user_id"], &taken["tx_id"], &taken["at"]),
        (&json!("user-1"), &json!("t9"), &json!(1_704_164_645_000_i64))
    );
    assert_eq!(label(json!({"tx_id": "nobody's", "user_id": "user-3", "label": "legitimate"})).status, 201);
    let quality = world.get("/v1/quality?days=1").json();
    let found = if verdict.is_anomaly { 1.0 } else { 0.0 };
    assert_eq!(
        (&quality["labelled"], &quality["frauds"], &quality["recall"]),
        (&json!(1), &json!(1), &json!(found)),
        "{quality}"
    );
    assert_eq!(quality["by_model"][0]["model"], json!(a));
    for query in ["days=0", "days=x", "weeks=1"] {
        world.get(&format!("/v1/quality?{query}")).problem(400, "invalid-parameter");
    }
}

#[test]
fn who_is_snoozed_is_listed_until_it_is_over_or_ended() {
    let world = World::idle(ScoringParams::default(), Vec::new());
    let snooze = |body: Value| world.client().post("/v1/snoozes", body.to_string().as_bytes());
    let begun = snooze(json!({"user_id": "u/1", "reason": "travels", "hours": 2}));
    assert_eq!(begun.status, 201, "{}", begun.text());
    assert_eq!(begun.json()["id"], "user:u/1");
    assert_eq!(snooze(json!({"merchant": "m1", "reason": "a sale", "by": "ann", "until": NOW_MS + 1_000})).status, 201);
    let ids = || -> Vec<String> {
        let list = world.get("/v1/snoozes").json();
        list["snoozes"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|snooze| snooze["id"].as_str().expect("an id").to_owned())
            .collect()
    };
    assert_eq!(ids(), ["merchant:m1", "user:u/1"]);
    world.clock.advance(1_000);
    assert_eq!(ids(), ["user:u/1"], "a sale ends");
    for body in [
        json!({"user_id": "u1", "merchant": "m1", "reason": "x", "hours": 1}),
        json!({"reason": "x", "hours": 1}),
        json!({"user_id": "u1", "hours": 1}),
        json!({"user_id": "u1", "reason": "", "hours": 1}),
        json!({"user_id": "u1", "reason": "x"}),
        json!({"user_id": "u1", "reason": "x", "hours": 0}),
        json!({"user_id": "u1", "reason": "x", "until": NOW_MS}),
        json!({"user_id": "u1", "reason": "x", "until": i64::MAX}),
        json!({"user_id": "u".repeat(600), "reason": "x", "hours": 1}),
    ] {
        snooze(body).problem(422, "invalid-request");
    }
    assert_eq!(world.client().send("DELETE", "/v1/snoozes/user:u%2F1", &[], b"").status, 200);
    world.client().send("DELETE", "/v1/snoozes/user:u%2F1", &[], b"").problem(404, "no-such-snooze");
    assert!(ids().is_empty());
}

/// Nobody labels or snoozes in another's name.
#[test]
fn who_says_something_is_the_tokens_name() {
    let token = ApiToken { name: "desk".into(), scopes: [Scope::Write].into(), sha256: Sha256::digest("secret").into() };
    let world = World::idle(ScoringParams::default(), vec![token]);
    let by = |path: &str, body: Value| {
        let said = world.client().send(
            "POST",
            path,
            &["Authorization: Bearer secret", "Content-Type: application/json"],
            body.to_string().as_bytes(),
        );
        assert_eq!(said.status, 201, "{}", said.text());
        said.json()["by"].clone()
    };
    let label = json!({"tx_id": "t", "user_id": "u", "label": "fraud"});
    assert_eq!(by("/v1/labels", label.clone()), "desk");
    let mut of_ann = label;
    of_ann["by"] = json!("ann");
    assert_eq!(by("/v1/labels", of_ann), "desk: ann");
    assert_eq!(by("/v1/snoozes", json!({"user_id": "u", "reason": "travels", "hours": 1, "by": "ann"})), "desk: ann");
}

#[test]
fn changes_need_the_scope_admin() {
    let token = |name: &str, scope| ApiToken { name: name.into(), scopes: [scope].into(), sha256: Sha256::digest(name).into() };
    let world = World::idle(ScoringParams::default(), vec![token("reader", Scope::Query), token("operator", Scope::Admin)]);
    let ask = |method, path, who: &str| {
        world.client().send(method, path, &[&format!("Authorization: Bearer {who}"), "Content-Length: 0"], b"")
    };
    for path in [
        "/v1/models/0123456789abcdef/promote",
        "/v1/models/0123456789abcdef/shadow",
        "/v1/models/rollback",
        "/v1/train",
        "/v1/retrain/trigger",
    ] {
        ask("POST", path, "reader").problem(403, "forbidden");
        assert_ne!(ask("POST", path, "operator").status, 403, "{path}");
    }
    for path in ["/v1/labels", "/v1/snoozes"] {
        // What people say needs the scope that payments need.
        ask("POST", path, "reader").problem(403, "forbidden");
        ask("POST", path, "operator").problem(403, "forbidden");
    }
    for path in ["/v1/models", "/v1/retrain/status", "/v1/quality", "/v1/snoozes"] {
        assert_eq!(ask("GET", path, "reader").status, 200);
        ask("GET", path, "operator").problem(403, "forbidden");
    }
}
