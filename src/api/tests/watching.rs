//! Probes, health and metrics.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::world::{NOW_MS, World};
use crate::scoring::ScoringParams;

#[test]
fn probes_follow_the_instances_life() {
    let mut world = World::idle(ScoringParams::default(), Vec::new());
    let statuses = |world: &World| ["/livez", "/readyz", "/startupz"].map(|path| world.get(path).status);
    assert_eq!(statuses(&world), [200, 503, 503]);
    assert_eq!(world.get("/startupz").json(), json!({"status": "failing", "reasons": ["the instance is starting"]}));
    world.run();
    world.health.started();
    assert_eq!(statuses(&world), [200, 200, 200]);
    let ready = world.get("/readyz").json();
    assert_eq!(ready["status"], "ok");
    assert_eq!(
        ready["stores"][3],
        json!({"store": "profiles", "partition": 3, "phase": "running", "restored": 0, "remaining": 0,
            "rate_per_second": 0, "eta_seconds": null})
    );
    world.health.paused(0, true);
    assert_eq!(statuses(&world), [200, 503, 200], "a restart makes no room on the disk");
    let reasons = world.get("/readyz").json()["reasons"].to_string();
    assert!(reasons.contains("1 workers wait for a state store that takes writes: is the disk full?"), "{reasons}");
    world.health.paused(0, false);
    assert_eq!(statuses(&world), [200, 200, 200]);
    world.health.drain();
    assert_eq!(statuses(&world), [200, 503, 200]);
    assert_eq!(world.get("/readyz").json()["reasons"], json!(["the instance is stopping"]));
}

#[test]
fn a_worker_that_hangs_fails_the_liveness_probe() {
    let world = World::running(ScoringParams::default());
    world.clock.advance(61_000);
    let live = world.get("/livez");
    assert_eq!(live.status, 503);
    assert_eq!(live.json()["reasons"], json!(["worker 0 has been in one step for 61 s"]));
    assert_eq!(live.json()["workers"][0]["since_step_ms"], 61_000);
    world.health.stepped(0, (NOW_MS + 61_000).unsigned_abs(), true);
    assert_eq!(world.get("/livez").status, 200);
    world.health.trouble(0, Some("no answer from broker-7.internal"));
    let live = world.get("/livez");
    assert_eq!((live.status, live.json()["workers"][0]["broker_trouble"].as_bool()), (200, Some(true)));
    assert!(!live.text().contains("broker-7"), "an open probe names nothing");
    world.health.stopped(0, "fenced");
    assert_eq!((world.get("/livez").status, world.get("/readyz").status), (503, 503));
}

#[test]
fn health_shows_the_whole_instance() {
    let mut world = World::running(ScoringParams::default());
    for i in 0..100 {
        world.pay("u", &format!(r#"{{"user_id":"u","amount":{i},"merchant":"m"}}"#), NOW_MS + i);
    }
    world.run();
    let model = world.train();
    world.model.set(Some(model.clone()));
    world.health.trouble(0, Some("no answer from broker-7"));
    let health = world.get("/v1/health").json();
    assert_eq!(health["status"], "ok");
    assert_eq!(health["instance"], "one");
    assert_eq!(health["application"], "test");
    assert_eq!(health["guarantee"], "exactly_once");
    assert_eq!(health["model_id"], model.id);
    assert_eq!(health["uptime_seconds"], 5);
    assert_eq!(health["workers"][0]["trouble"], "no answer from broker-7");
    let tasks = health["tasks"].as_array().expect("tasks");
    assert_eq!(tasks.len(), 4);
    let busy = tasks.iter().find(|task| task["stream_time"] != json!(null)).expect("the user's task");
    assert_eq!(busy["inputs"][0]["topic"], "transactions");
    assert_eq!(busy["inputs"][0]["offset"], 100);
    assert_eq!(busy["stream_time"], "2023-11-14T22:13:20.099Z");
    assert_eq!(busy["changelogs"][0]["topic"], "test-profiles-changelog");
}

/// A sample: name, labels, value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads one sample line, strictly: `name{label="text",...} value`.
fn sample(line: &str) -> Sample {
    let is_name = |name: &str| {
        let mut bytes = name.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, rest)) => (name, rest.strip_suffix('}').expect("closed labels")),
    };
    assert!(is_name(name), "{line}");
    let mut found = BTreeMap::new();
    let mut rest = labels;
    while !rest.is_empty() {
        let (label, tail) = rest.split_once("=\"").expect("a label");
        let end = tail.find('"').expect("a closed text");
        assert!(is_name(label) && !tail[..end].contains('\\'), "{line}");
        assert!(found.insert(label.to_owned(), tail[..end].to_owned()).is_none(), "a label twice: {line}");
        rest = &tail[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    let value = if value == "+Inf" { f64::INFINITY } else { value.parse().expect("a number") };
    (name.to_owned(), found, value)
}

/// Reads a whole exposition: every sample belongs to the family announced above it, and no series comes twice.
fn exposition(text: &str) -> Vec<Sample> {
    assert!(text.ends_with('\n'));
    let (mut samples, mut families, mut series) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let (mut family, mut kind) = (String::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && name.starts_with("mangrove_") && families.insert(name.to_owned()), "{line}");
            let announced = lines.next().and_then(|line| line.strip_prefix("# TYPE ")).expect("a type");
            let (of, of_kind) = announced.split_once(' ').expect("a type");
            assert!(of == name && ["counter", "gauge", "histogram"].contains(&of_kind), "{announced}");
            assert!((of_kind == "counter") == name.ends_with("_total"), "{name}");
            (family, kind) = (name.to_owned(), of_kind.to_owned());
            continue;
        }
        let (name, labels, value) = sample(line);
        let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} stands below {family}"));
        let fits = if kind == "histogram" { ["_bucket", "_sum", "_count"].contains(&suffix) } else { suffix.is_empty() };
        assert!(fits && value >= 0.0, "{line}");
        assert!(series.insert((name.clone(), labels.clone())), "{line} comes twice");
        samples.push((name, labels, value));
    }
    samples
}

#[test]
fn metrics_are_well_formed_and_hold_nobody() {
    let mut world = World::running(ScoringParams::default());
    for i in 0..100 {
        world.pay("somebody", &format!(r#"{{"user_id":"somebody","amount":{i},"merchant":"bakery"}}"#), NOW_MS);
    }
    world.run();
    world.model.set(Some(world.train()));
    assert_eq!(world.get("/v1/users/somebody/profile").status, 200);
    assert_eq!(world.get("/no/such/path/somebody").status, 404);
    let input = world.tasks.all().values().find(|task| task.inputs[0].1 == 100).expect("the task").inputs[0].0;
    world.health.input_ends(&[(input, 130)]);
    let got = world.get("/metrics");
    assert_eq!((got.status, got.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    assert!(!got.text().contains("somebody") && !got.text().contains("bakery"));
    let samples = exposition(got.text());
    let value = |name: &str, labels: &[(&str, &str)]| {
        let mut fitting = samples.iter().filter(|(known, of, _)| {
            known == name && labels.iter().all(|(label, text)| of.get(*label).is_some_and(|known| known == text))
        });
        let found = fitting.next().unwrap_or_else(|| panic!("no {name}"));
        assert!(fitting.next().is_none(), "several {name}");
        found.2
    };
    assert_eq!(value("mangrove_records_total", &[]), 100.0);
    assert_eq!(value("mangrove_tasks", &[("phase", "running")]), 4.0);
    assert_eq!(value("mangrove_tasks", &[("phase", "restoring")]), 0.0);
    assert_eq!(value("mangrove_input_lag_records", &[("topic", "transactions")]), 30.0);
    assert_eq!(value("mangrove_commit_duration_seconds_bucket", &[("le", "+Inf")]), value("mangrove_commits_total", &[]));
    assert_eq!(value("mangrove_commit_duration_seconds_count", &[]), value("mangrove_commits_total", &[]));
    let records = value("mangrove_records_total", &[]);
    assert_eq!(value("mangrove_record_latency_seconds_count", &[]), records);
    assert_eq!(value("mangrove_slow_record_stage_seconds", &[("stage", "flush")]), 0.0, "the simulated broker takes no time");
    assert_eq!(value("mangrove_model_info", &[]), 1.0);
    assert_eq!(value("mangrove_model_trained_rows", &[]), 100.0);
    assert_eq!(value("mangrove_build_info", &[("guarantee", "exactly_once")]), 1.0);
    assert_eq!(value("mangrove_ready", &[]), 1.0);
    let profiles = [("route", "/v1/users/{}/profile"), ("status", "200")];
    assert_eq!(value("mangrove_http_request_duration_seconds_count", &profiles), 1.0);
    assert_eq!(value("mangrove_http_request_duration_seconds_count", &[("route", "none"), ("status", "404")]), 1.0);
    assert!(value("mangrove_resident_memory_bytes", &[]) > 1e6);
    let keys = samples.iter().filter(|(name, _, _)| name == "mangrove_store_keys").map(|(_, _, keys)| keys);
    assert_eq!(keys.sum::<f64>(), 1.0);
    assert!(samples.iter().all(|(name, _, _)| !name.contains("micros")), "base units");
}
