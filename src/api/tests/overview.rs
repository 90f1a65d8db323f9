//! The routes that show tasks, stores and users.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use topology::record::TopicPartition;

use super::access::token;
use super::anywhere::{Board, NOBODY};
use super::world::{NOW_MS, World};
use crate::config::Scope;
use crate::scoring::ScoringParams;

fn pay(world: &mut World, users: impl Iterator<Item = usize>, at_ms: i64) {
    for user in users {
        world.pay(&format!("u{user}"), &format!(r#"{{"user_id":"u{user}","amount":1,"merchant":"m"}}"#), at_ms);
    }
    world.run();
}

/// Where each task's lead input stands.
fn leads(world: &World) -> Vec<(TopicPartition, u64)> {
    world.tasks.all().values().map(|task| task.inputs[0]).collect()
}

fn metric(world: &World, name: &str) -> Vec<f64> {
    let text = world.get("/metrics").text().to_owned();
    let samples = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
    samples.map(|line| line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a value")).collect()
}

#[test]
fn the_topology_shows_every_task_and_its_lag() {
    let mut world = World::running(ScoringParams::default());
    pay(&mut world, 0..40, NOW_MS - 90_000);
    let shown = world.get("/v1/topology").json();
    assert_eq!(shown["application"], "test");
    assert_eq!(shown["lag"], json!({"records": 0, "seconds": null, "unknown": 4}), "no end is known yet");
    let edge =
        |from: &str, to: &str| shown["graph"]["edges"].as_array().expect("edges").contains(&json!({"from": from, "to": to}));
    assert!(edge("transactions", "score") && edge("score", "verdicts"), "{}", shown["graph"]);
    let nodes = shown["graph"]["nodes"].as_array().expect("nodes");
    assert!(nodes.contains(&json!({"name": "score", "kind": "processor"})));
    assert!(nodes.contains(&json!({"name": "verdicts", "kind": "topic"})));
    // At the end nothing is missing, however old it is.
    world.health.input_ends(&leads(&world));
    let shown = world.get("/v1/topology").json();
    assert_eq!(shown["lag"], json!({"records": 0, "seconds": 0.0, "unknown": 0}));
    let tasks = shown["tasks"].as_array().expect("tasks");
    assert_eq!(tasks.iter().map(|task| task["task"].as_str().expect("a name")).collect::<Vec<_>>(), ["0_0", "0_1", "0_2", "0_3"]);
    assert!(tasks.iter().all(|task| task["instance"] == "one" && task["phase"] == "running" && task["worker"] == 0));
    // 7 records are missing in one partition: what is known is as old as the last record.
    let (of, next) = leads(&world)[2];
    world.health.input_ends(&[(of, next + 7)]);
    let shown = world.get("/v1/topology").json();
    assert_eq!(shown["lag"], json!({"records": 7, "seconds": 90.0, "unknown": 0}));
    let input = &shown["tasks"][2]["inputs"][0];
    assert_eq!(*input, json!({"topic": "transactions", "partition": 2, "offset": next, "end": next + 7, "lag_records": 7}),);
    let mut seconds = metric(&world, "mangrove_input_lag_seconds");
    seconds.sort_by(f64::total_cmp);
    assert_eq!(seconds, [0.0, 0.0, 0.0, 90.0]);
    assert_eq!(metric(&world, "mangrove_input_lag_records").iter().sum::<f64>(), 7.0);
}

#[test]
fn the_topology_is_that_of_all_instances() {
    let board = Board::default();
    let mut one = World::knowing(board.seat("one"), ScoringParams::default(), Vec::new());
    let two = World::knowing(board.seat("two"), ScoringParams::default(), Vec::new());
    one.run();
    board.put("two", two.address, &[], &[]);
    let owners = |shown: &Value| {
        let tasks = shown["tasks"].as_array().expect("tasks").clone();
        tasks.into_iter().map(|task| (task["instance"].clone(), task["phase"].clone())).collect::<Vec<_>>()
    };
    let alone = two.get("/v1/topology").json();
    assert_eq!(owners(&alone), vec![(json!(null), json!("unassigned")); 4], "nobody is known to have them");
    board.put("one", one.address, &[0, 1, 2, 3], &[]);
    board.put("zombie", NOBODY, &[], &[]);
    let (here, there) = (one.get("/v1/topology").json(), two.get("/v1/topology").json());
    assert_eq!(here["tasks"], there["tasks"]);
    assert_eq!(owners(&there), vec![(json!("one"), json!("running")); 4]);
    let instances = there["instances"].as_array().expect("instances");
    let reachable: Vec<_> =
        instances.iter().map(|at| (at["instance"].as_str(), at["reachable"].as_bool(), at["tasks"].as_u64())).collect();
    assert_eq!(
        reachable,
        [(Some("two"), Some(true), Some(0)), (Some("one"), Some(true), Some(4)), (Some("zombie"), Some(false), Some(0))]
    );
    assert!(instances[2]["why"].is_string());
    assert_eq!(instances[1]["endpoint"], one.address.to_string());
}

#[test]
fn the_state_shows_partitions_and_their_restore() {
    let mut world = World::idle(ScoringParams::default(), Vec::new());
    assert_eq!(world.get("/v1/state").json(), json!({"instance": "one", "partitions": []}));
    world.step_into_restore();
    let restoring = world.get("/v1/state").json();
    assert_eq!(restoring["partitions"][0]["phase"], "restoring");
    assert_eq!(restoring["partitions"][0]["restore"]["remaining"], 0);
    world.run();
    pay(&mut world, 0..40, NOW_MS);
    let state = world.get("/v1/state").json();
    let partitions = state["partitions"].as_array().expect("partitions");
    assert_eq!(partitions.len(), 4);
    assert_eq!(partitions.iter().map(|of| of["users_estimate"].as_u64().expect("a number")).sum::<u64>(), 40);
    for (of, (lead, next)) in partitions.iter().zip(leads(&world)) {
        assert_eq!((of["store"].as_str(), of["partition"].as_u64()), (Some("profiles"), Some(lead.partition.into())));
        assert_eq!((of["role"].as_str(), of["phase"].as_str()), (Some("active"), Some("running")));
        assert_eq!(of["input_offsets"][0], json!({"topic": "transactions", "offset": next}));
        assert!(of["bytes"].as_u64().is_some_and(|bytes| bytes > 0) && of["changelog_offset"].as_u64() > Some(0));
        assert_eq!(of["restore"], json!(null));
    }
}

#[test]
fn copies_are_told_from_what_is_left_over() {
    let board = Board::default();
    let mut one = World::knowing(board.seat("one"), ScoringParams::default(), Vec::new());
    let two = World::knowing(board.seat("two"), ScoringParams::default(), Vec::new());
    one.run();
    pay(&mut one, 0..40, NOW_MS);
    two.copy(&one, 1);
    two.copy(&one, 3);
    board.put("two", two.address, &[], &[(3, 9)]);
    let state = two.get("/v1/state").json();
    let roles: Vec<_> =
        state["partitions"].as_array().expect("partitions").iter().map(|of| (&of["partition"], &of["role"])).collect();
    assert_eq!(roles, [(&json!(1), &json!("kept")), (&json!(3), &json!("standby"))]);
    let (_, next) = leads(&one)[3];
    assert!(
        state["partitions"][1]["input_offsets"]
            .as_array()
            .expect("offsets")
            .contains(&json!({"topic": "transactions", "offset": next}))
    );
}

fn page(world: &World, query: &str) -> (Vec<String>, Option<String>) {
    let got = world.get(&format!("/v1/state/users{query}"));
    assert_eq!(got.status, 200, "{}", got.text());
    let page = got.json();
    let users = page["users"].as_array().expect("users").iter().map(|user| user["user_id"].as_str().expect("an id").to_owned());
    (users.collect(), page["next"].as_str().map(str::to_owned))
}

#[test]
fn users_are_listed_once_whatever_changes_meanwhile() {
    let mut world = World::running(ScoringParams::default());
    assert_eq!(page(&world, ""), (Vec::new(), None));
    pay(&mut world, 0..100, NOW_MS);
    let (mut listed, mut next) = page(&world, "?limit=7");
    let mut coming = 100..;
    while let Some(after) = next {
        // Others come, and those who are there change, between any two pages.
        pay(&mut world, coming.by_ref().take(3), NOW_MS);
        pay(&mut world, 0..5, NOW_MS);
        let users;
        (users, next) = page(&world, &format!("?limit=7&after={after}"));
        assert!((1..=7).contains(&users.len()), "{users:?}");
        listed.extend(users);
    }
    let set: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(set.len(), listed.len(), "nobody comes twice");
    assert!((0..100).all(|user| set.contains(&format!("u{user}"))), "nobody is left out");
    // A page that holds all says so; a cursor behind the last user gives an empty page.
    let (all, next) = page(&world, "?limit=1000");
    assert!(all.len() > 100 && next.is_none());
    for query in ["?limit=0", "?limit=1001", "?limit=x", "?after=zz", "?after=00", "?after=", "?before=1"] {
        world.get(&format!("/v1/state/users{query}")).problem(400, "invalid-parameter");
    }
    world.get("/v1/state/users?after=0000000961").problem(410, "cursor-gone");
}

#[test]
fn only_admins_list_users() {
    let tokens = vec![token("reader", "read", &[Scope::Query]), token("admin", "admin", &[Scope::Admin])];
    let mut world = World::idle(ScoringParams::default(), tokens);
    world.run();
    let ask = |path: &str, secret: &str| world.client().send("GET", path, &[&format!("Authorization: Bearer {secret}")], b"");
    assert_eq!(ask("/v1/state/users", "admin").status, 200);
    ask("/v1/state/users", "read").problem(403, "forbidden");
    for path in ["/v1/state", "/v1/topology"] {
        assert_eq!(ask(path, "read").status, 200);
        ask(path, "admin").problem(403, "forbidden");
        ask(path, "none").problem(401, "unauthorized");
    }
}
