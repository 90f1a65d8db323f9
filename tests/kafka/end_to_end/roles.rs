//! Instances that play some of the roles: only those parts run, and the others answer for what they lack.

use serde_json::Value;

use super::scene::{PARTITIONS, Scene};
use super::service::Service;
use super::until;

/// Users enough for every partition, so that each instance is the home of some ids.
const USERS: usize = 24;

/// Waits for an answer other than "not known yet, come again".
fn asked(service: &mut Service, method: &str, path: &str, body: &str) -> (u16, Value) {
    let (status, answer) = until(&format!("an answer to {path}"), || {
        let got = if method == "GET" { service.get(path) } else { service.post(path, body) };
        (![429, 503].contains(&got.0)).then_some(got)
    });
    (status, serde_json::from_str(&answer).expect("JSON"))
}

fn ready(service: &mut Service) {
    until("it is ready", || (service.get("/readyz").0 == 200).then_some(()));
    assert_eq!(service.get("/livez").0, 200);
    assert_eq!(service.get("/startupz").0, 200);
}

#[test]
fn each_role_runs_apart_and_the_one_without_state_answers_through_the_one_that_has_it() {
    let Some(scene) = Scene::new("roles") else { return };
    let scene = scene.with("MEMBER_BEAT_MS", "500").with("STANDBY_REPLICAS", "1");
    scene.create("transactions", PARTITIONS, &[]);
    let play = |roles: &str| scene.start_with(roles, &[("ROLES", roles), ("INSTANCE_ID", roles)]);
    let (mut stream, mut api, mut notify) = (play("stream"), play("api"), play("notify"));
    for service in [&mut stream, &mut api, &mut notify] {
        ready(service);
    }
    stream.restored(PARTITIONS as usize);

    // Payments are taken by the one that scores none: each is scored once, and known again wherever its id is remembered.
    for user in 0..USERS {
        let body = format!(r#"{{"user_id":"user-{user}","amount":7.5,"merchant":"m","tx_id":"tx-{user}"}}"#);
        let (status, verdict) = asked(&mut api, "POST", "/tx?wait=verdict&timeout=20s", &body);
        assert!([200, 202].contains(&status), "{verdict}");
        let (status, again) = asked(&mut api, "POST", "/tx", &body);
        assert_eq!((status, &again["id"], &again["duplicate"]), (202, &verdict["id"], &Value::Bool(true)));
        let path = format!("/v1/users/user-{user}/profile");
        let profile = until("its profile", || Some(asked(&mut api, "GET", &path, "").1).filter(|it| it["count"].is_u64()));
        assert_eq!((&profile["count"], &profile["source"]), (&Value::from(1), &Value::from("owner")), "{profile}");
    }
    assert_eq!(scene.read(&scene.topic("verdicts")).len(), USERS);
    let inference = r#"{"user_id":"user-3","transaction":{"amount":3,"merchant":"m","timestamp":1704067200000}}"#;
    assert_eq!(asked(&mut api, "POST", "/v1/inference", inference).1["source"], "owner");

    // It has no task, no worker, no copy and no store; the partitions are all at the other.
    for service in [&mut api, &mut notify] {
        let health = asked(service, "GET", "/v1/health", "").1;
        assert_eq!((&health["status"], &health["tasks"], &health["workers"]), (&"ok".into(), &empty(), &empty()), "{health}");
    }
    let topology = asked(&mut api, "GET", "/v1/topology", "").1;
    let tasks = topology["tasks"].as_array().expect("tasks");
    assert!(tasks.len() == PARTITIONS as usize && tasks.iter().all(|task| task["instance"] == "stream"), "{topology}");
    for without in ["api", "notify"] {
        assert!(!scene.path(without).join("rocksdb").exists(), "{without} has a store");
    }
    assert!(scene.path("stream").join("rocksdb").exists());

    // Who does not play `api` says so to people, and answers other instances all the same (above).
    for service in [&mut stream, &mut notify] {
        assert_eq!(service.get("/metrics").0, 200);
        let (status, problem) = asked(service, "GET", "/v1/users/user-1/profile", "");
        assert_eq!((status, &problem["type"]), (404, &Value::from("/problems/no-such-route")));
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("role `api`")), "{problem}");
    }
    for service in [stream, api, notify] {
        service.stop();
    }
}

fn empty() -> Value {
    Value::Array(Vec::new())
}
