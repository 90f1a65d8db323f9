//! `mangrove load` against a running instance: what it reports is what the topics hold.

use std::collections::BTreeSet;
use std::process::Output;
use std::process::Stdio;

use serde_json::{Value, json};

use super::scene::Scene;
use super::service::Service;
use super::until;

const PARTITIONS: u32 = 8;
/// The exit status of a load that was done, but not as well as was asked for.
const MISSED: Option<i32> = Some(3);

/// Payments through an instance that runs.
fn ready(test: &str) -> Option<(Scene, Service)> {
    let scene = Scene::new(test)?.kept_on_failure();
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    Some((scene, service))
}

fn report(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {said}"))
}

fn load(scene: &Scene, arguments: &[&str]) -> Output {
    scene.call(&[&["load", "--json", "--users", "2000"], arguments].concat())
}

/// The fields of the report that a test looks at.
fn counts(report: &Value, names: &[&str]) -> Vec<u64> {
    names.iter().map(|name| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"))).collect()
}

/// Each batch has a report of its own, as small ones at a moderate rate do: what waits for all of them once took 20 ms for each.
#[test]
fn thousands_of_small_batches_are_waited_for_together() {
    let Some((scene, service)) = ready("load-batches") else { return };
    let scene = scene.with("KAFKA_BATCH_NUM_MESSAGES", "1");
    let arguments = ["load", "--json", "--users", "2000", "--count", "6000", "--max-lost", "0"];
    let mut load = scene.command("none", &arguments).stdout(Stdio::null()).spawn().expect("it starts");
    let ended = until("the load ends", || load.try_wait().expect("its status"));
    assert!(ended.success());
    service.stop();
}

#[test]
fn each_payment_is_accounted_for_as_the_topics_do() {
    let Some((scene, service)) = ready("load-counts") else { return };
    let strict = ["--max-lost", "0", "--max-duplicates", "0", "--max-unexpected", "0"];
    let mixed =
        ["--count", "50000", "--seed", "5", "--poison", "0.002", "--late", "0.05", "--late-by", "1h", "--out-of-order", "0.02"];
    let output = load(&scene, &[&mixed[..], &strict].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report = report(&output);
    let names = ["sent", "poison", "verdicts", "dead_letters", "lost", "duplicates", "unexpected_dead_letters", "poison_scored"];
    assert_eq!(counts(&report, &names), [50_000, 100, 49_900, 100, 0, 0, 0, 0], "{report}");
    let [late, behind] = counts(&report, &["late", "out_of_order"])[..] else { unreachable!() };
    assert!(late.abs_diff(2_500) <= 1 && behind.abs_diff(1_000) <= 1, "{report}");
    let latency = &report["latency_ms"];
    let times: Vec<f64> =
        ["p50", "p90", "p99", "p99_9", "max"].iter().map(|name| latency[name].as_f64().expect("a time")).collect();
    assert!(times.is_sorted() && times[0] > 0.0, "{latency}");

    assert_eq!(scene.read(&scene.topic("transactions")).len(), 50_000);
    let verdicts: Vec<Value> = scene.read(&scene.topic("verdicts")).iter().map(super::records::Seen::json).collect();
    let run = report["run"].as_str().expect("a name");
    let ids: BTreeSet<&str> = verdicts.iter().map(|verdict| verdict["tx_id"].as_str().expect("an id")).collect();
    assert!((verdicts.len(), ids.len()) == (49_900, 49_900) && ids.iter().all(|id| id.starts_with(run)), "{}", verdicts.len());
    let dead = scene.read(&scene.topic("dead-letters"));
    assert_eq!(dead.len(), 100);
    let causes: BTreeSet<String> = dead.iter().map(|seen| seen.header("__streams.errors.exception")).collect();
    assert!(causes.len() >= 4, "poison comes in kinds: {causes:?}");
    service.stop();
}

#[test]
fn a_threshold_that_is_missed_has_an_exit_status_of_its_own() {
    let Some((scene, service)) = ready("load-missed") else { return };
    let output = load(&scene, &["--count", "2000", "--max-p50-ms", "0.001", "--min-rate", "1e9", "--max-lost", "0"]);
    assert_eq!(output.status.code(), MISSED, "{}", String::from_utf8_lossy(&output.stderr));
    let missed = report(&output)["missed"].as_array().expect("a list").len();
    assert_eq!(missed, 2, "the latency and the rate, not the losses");
    let output = load(&scene, &["--count", "10", "--no-verdicts", "--max-lost", "0"]);
    assert_eq!(output.status.code(), Some(2), "what is not measured is no threshold");
    // What nobody scores is lost, and said to be.
    service.stop();
    let output = load(&scene, &["--count", "100", "--patience", "1s", "--max-lost", "99"]);
    assert_eq!((output.status.code(), counts(&report(&output), &["lost", "verdicts"])), (MISSED, vec![100, 0]));
}

#[test]
fn a_killed_instance_loses_nothing_and_doubles_nothing() {
    let Some((scene, service)) = ready("load-kill") else { return };
    let arguments =
        ["load", "--json", "--users", "2000", "--rate", "3000", "--count", "30000", "--max-lost", "0", "--max-duplicates", "0"];
    let mut command = scene.command("none", &arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let done = scene.topic("verdicts");
    until("some verdicts", || (scene.ends(&done).iter().sum::<u64>() > 4_000).then_some(()));
    service.kill();
    let service = scene.start("a");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = report(&output);
    assert_eq!(counts(&report, &["sent", "verdicts", "lost", "duplicates"]), [30_000, 30_000, 0, 0], "{report}");
    assert_eq!(report["latency_from"], "intended");
    service.stop();
}

#[test]
fn the_demos_load_is_started_and_stopped_over_http() {
    let Some(scene) = Scene::new("load-demo") else { return };
    let folder = scene.path("demo");
    let mut command = scene.command("unused", &["demo", "--rate", "200", "--dir", folder.to_str().expect("a plain path")]);
    command.env("TOPIC_PARTITIONS", "2").env_remove("STATE_DIR").env_remove("MODEL_PATH");
    let mut service = Service::spawn(&mut command, scene.path("demo.log"));
    service.address();
    let status = |service: &mut Service| -> Value { serde_json::from_str(&service.get("/v1/demo/load").1).expect("JSON") };
    until("the demo's own payments", || (status(&mut service)["state"] == "demo").then_some(()));
    let (code, body) = service.post("/v1/demo/load", r#"{"rate":500,"users":50,"poison":0.01,"count":1000}"#);
    assert_eq!(code, 202, "{body}");
    let ended = until("all of it came back", || Some(status(&mut service)).filter(|status| status["state"] == "stopped"));
    let names = ["sent", "verdicts", "dead_letters", "lost", "duplicates"];
    assert_eq!(counts(&ended["report"], &names), [1_000, 990, 10, 0, 0], "{ended}");
    assert_eq!(service.post("/v1/demo/load", r#"{"rate":300}"#).0, 202);
    assert_eq!(service.post("/v1/demo/load", "").0, 409, "one at a time, and this one has no end");
    until("it runs", || (status(&mut service)["progress"]["verdicts"].as_u64() > Some(50)).then_some(()));
    assert_eq!(service.delete("/v1/demo/load").0, 202);
    let ended = until("it ends", || Some(status(&mut service)).filter(|status| status["state"] == "stopped"));
    assert_eq!((&ended["report"]["stopped"], &ended["report"]["lost"]), (&json!(true), &json!(0)), "{ended}");
    let (code, body) = service.post("/v1/demo/load", r#"{"rate":-1}"#);
    assert!(code == 422 && body.contains("/rate"), "{body}");
    service.stop();
}
