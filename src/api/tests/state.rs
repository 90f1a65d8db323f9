//! `GET /v1/users/{id}/profile`.

use std::time::Duration;

use serde_json::json;

use super::client::Client;
use super::moody::{FAR, Mood};
use super::world::{NOW_MS, World};
use crate::api::site::WORK_MAX;
use crate::clock::{monotonic, since};
use crate::scoring::{FxTable, ScoringParams};

/// Tuesday, 2023-11-14T09:30:00Z.
const TUESDAY_MS: i64 = 1_699_954_200_000;
const MINUTE_MS: i64 = 60_000;

fn pay_ten(world: &mut World, user: &str) {
    for i in 0..10 {
        let merchant = if i < 7 { "bakery" } else { "cinema" };
        let t = TUESDAY_MS + i * MINUTE_MS;
        let user_json = serde_json::to_string(user).expect("text");
        let json = format!(r#"{{"user_id":{user_json},"amount":{},"merchant":"{merchant}","timestamp":{t}}}"#, 10 * (i + 1));
        world.pay(user, &json, t);
    }
    world.run();
}

#[test]
fn a_profile_is_told_in_peoples_terms() {
    let mut world = World::running(ScoringParams::default());
    pay_ten(&mut world, "u1");
    let got = world.get("/v1/users/u1/profile");
    assert_eq!((got.status, got.header("content-type")), (200, Some("application/json")), "{}", got.text());
    let shown = got.json();
    let expected = world.profile("u1").expect("committed").0;
    assert_eq!(shown["user_id"], "u1");
    assert_eq!(shown["count"], 10);
    assert_eq!(shown["first_seen"], "2023-11-14T09:30:00Z");
    assert_eq!(shown["last_seen"], "2023-11-14T09:39:00Z");
    assert_eq!(shown["amount"]["mean"], json!(expected.mean()));
    assert_eq!(shown["amount"]["mean"], 55.0);
    assert_eq!(shown["amount"]["deviation"], json!(expected.deviation()));
    assert_eq!(shown["amount"]["currency"], json!(null));
    assert_eq!(shown["amount"]["p50"], json!(expected.amount_quantile(0.5)));
    assert_eq!(shown["amount"]["p99"], json!(expected.amount_quantile(0.99)));
    assert_eq!(shown["velocity"], json!({"last_hour": 10, "hourly_rate": 10.0}));
    assert_eq!(shown["hours"]["usual"], json!([9]));
    assert_eq!(shown["hours"]["counts"][9], 10);
    assert_eq!(shown["days"]["usual"], json!(["Tuesday"]));
    let top = json!([{"merchant": "bakery", "count": 7}, {"merchant": "cinema", "count": 3}]);
    assert_eq!(shown["merchants"], json!({"known": 2, "top": top}));
    let (task, status) = world.tasks.all().into_iter().find(|(_, task)| task.inputs[0].1 == 10).expect("the user's task");
    assert_eq!(shown["position"]["partition"], task.partition);
    assert_eq!(shown["position"]["input_offset"], 10);
    assert_eq!(shown["position"]["changelog_offset"], status.changelogs[0].1);
    assert_eq!(shown["source"], "local");
    assert_eq!(shown["age_ms"], NOW_MS - status.as_of_ms);
}

#[test]
fn ids_are_percent_decoded() {
    let mut world = World::running(ScoringParams::default());
    let longest = "ü".repeat(128);
    for (user, path) in [
        ("a/b c", "a%2Fb%20c".to_owned()),
        ("a+b", "a+b".to_owned()),
        ("über", "%C3%BCber".to_owned()),
        ("../x", "..%2fx".to_owned()),
        (&longest, "%C3%BC".repeat(128)),
    ] {
        pay_ten(&mut world, user);
        let got = world.get(&format!("/v1/users/{path}/profile"));
        assert_eq!((got.status, got.json()["user_id"].as_str()), (200, Some(user)), "{path}");
    }
    for (path, name) in [
        ("%", "bad-path"),
        ("%zz", "bad-path"),
        ("%ff", "bad-path"),
        ("", "invalid-user-id"),
        (&*"a".repeat(257), "invalid-user-id"),
    ] {
        world.get(&format!("/v1/users/{path}/profile")).problem(400, name);
    }
}

#[test]
fn an_unknown_user_is_an_answer_about_committed_state() {
    let mut world = World::running(ScoringParams::default());
    let problem = world.get("/v1/users/nobody/profile").problem(404, "no-such-user");
    assert_eq!(problem["source"], "local");
    assert!(problem["position"]["partition"].is_u64() && problem["age_ms"].is_u64(), "{problem}");
    assert!(!problem.to_string().contains("nobody"), "the id is not echoed");
    // Only what is committed counts: the record lies there and nobody has processed it.
    world.pay("nobody", r#"{"user_id":"nobody","amount":1,"merchant":"m"}"#, NOW_MS);
    world.get("/v1/users/nobody/profile").problem(404, "no-such-user");
    world.run();
    assert_eq!(world.get("/v1/users/nobody/profile").status, 200);
}

#[test]
fn partitions_that_are_elsewhere_or_not_restored_are_not_answered() {
    let mut world = World::idle(ScoringParams::default(), Vec::new());
    world.get("/v1/users/u1/profile").problem(503, "moving");
    world.step_into_restore();
    let got = world.get("/v1/users/u1/profile");
    got.problem(503, "restoring");
    assert_eq!(got.header("retry-after"), Some("2"));
    let ready = world.get("/readyz");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["stores"][0]["phase"], "restoring");
    world.run();
    world.get("/v1/users/u1/profile").problem(404, "no-such-user");
}

#[test]
fn a_store_that_fails_is_never_an_unknown_user() {
    let mut world = World::running(ScoringParams::default());
    pay_ten(&mut world, "u1");
    for mood in [Mood::Failing, Mood::Damaged, Mood::Emptied] {
        world.store.set(mood);
        let got = world.get("/v1/users/u1/profile");
        got.problem(503, "state-unavailable");
        assert!(!got.text().contains("secret") && !got.text().contains("/var"), "{mood:?}: inner texts stay inside");
    }
    world.store.set(Mood::Panicking);
    world.get("/v1/users/u1/profile").problem(500, "internal");
    world.store.set(Mood::Well);
    assert_eq!(world.get("/v1/users/u1/profile").status, 200);
}

#[test]
fn amounts_name_the_currency_they_are_in() {
    let fx = FxTable::parse(br#"{"EUR":2}"#, "USD").expect("a table");
    let mut world = World::running(ScoringParams { fx: Some(fx.into()), ..ScoringParams::default() });
    world.pay("u1", r#"{"user_id":"u1","amount":10,"merchant":"m","currency":"EUR"}"#, NOW_MS);
    world.run();
    let shown = world.get("/v1/users/u1/profile").json();
    assert_eq!(shown["amount"]["currency"], "USD");
    assert_eq!(shown["amount"]["mean"], 20.0);
}

/// A question that needs no waiting waits for nobody: not for a turn beside those who read a disk, and not for another thread to wake.
#[test]
fn what_is_at_hand_is_answered_while_everybody_else_waits_for_the_disk() {
    let mut world = World::running(ScoringParams::default());
    pay_ten(&mut world, "u1");
    let address = world.address;
    let ask = |number: usize| move || Client::connect(address).get(&format!("/v1/users/{FAR}{number}/profile"));
    let asking: Vec<_> = (0..WORK_MAX).map(|number| std::thread::spawn(ask(number))).collect();
    let begun = monotonic();
    while world.store.waiting() < WORK_MAX && since(begun) < Duration::from_secs(60) {
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let got = world.get("/v1/users/u1/profile");
    let waiting = world.store.waiting();
    // The server ends with its readers: they are let go before anything is found to be wrong.
    world.store.bring();
    assert_eq!(waiting, WORK_MAX, "every place was taken");
    assert_eq!((got.status, got.json()["count"].as_u64()), (200, Some(10)), "{}", got.text());
    for asked in asking {
        let status = asked.join().expect("an answer").status;
        assert!([404, 503].contains(&status), "there is no such user, or it took too long to know: {status}");
    }
}
