//! Models that change while payments flow: every instance goes over, and each verdict is the one that the decisions name a model for.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Value, json};

use super::feed::Feed;
use super::instances::share;
use super::ledger::{Ledger, id_of, model, other_model};
use super::scene::{PARTITIONS, Scene};
use super::service::Service;
use super::until;

const PAYMENTS: usize = 40_000;

fn scene(test: &str) -> Option<Scene> {
    let scene = Scene::new(test)?.with("KAFKA_SESSION_TIMEOUT_MS", "5000").with("TRANSACTION_TIMEOUT_MS", "5000");
    Some(scene.with("MODEL_PATH", model().to_str().expect("a plain path")).with("COMMIT_INTERVAL_MS", "20"))
}

fn asked(service: &mut Service, path: &str) -> Value {
    let (status, body) = service.get(path);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

fn post(service: &mut Service, path: &str) -> (u16, Value) {
    let (status, body) = service.post(path, "");
    (status, serde_json::from_str(&body).unwrap_or_else(|why| panic!("{why}: {body}")))
}

/// Waits until an instance has read of a version that another process made known.
fn known(service: &mut Service, model: &str) {
    until("the version is known", || (service.get(&format!("/v1/models/{model}")).0 == 200).then_some(()));
}

fn id_of_model(path: &Path) -> String {
    models::Model::from_bytes(&std::fs::read(path).expect("a model")).expect("a model").id
}

/// The model in force for each partition's offsets, as the decisions have it: from this offset on, this model.
fn decided(scene: &Scene) -> BTreeMap<u32, Vec<(u64, String)>> {
    let mut decided: BTreeMap<u32, Vec<(u64, String)>> = BTreeMap::new();
    for seen in scene.read(&scene.topic("app-decisions")) {
        let decision = seen.json();
        if decision["kind"] == "model" {
            let after = decision["after"].as_u64().expect("an offset");
            let subject = decision["subject"].as_str().expect("a model").to_owned();
            decided.entry(seen.partition).or_default().push((after, subject));
        }
    }
    decided
}

/// Each payment has one verdict, of the model that the decisions name for its offset, with the bytes that a backtest by that model gives.
/// Returns how many verdicts each model gave.
fn check(scene: &Scene, expected: &HashMap<String, HashMap<String, Vec<u8>>>, count: usize) -> BTreeMap<String, usize> {
    let decided = decided(scene);
    let mut given: BTreeMap<String, usize> = BTreeMap::new();
    let verdicts = scene.read(&scene.topic("verdicts"));
    assert_eq!(verdicts.len(), count, "one verdict for each payment");
    for seen in &verdicts {
        let value = seen.value.as_deref().expect("a value");
        let id = id_of(value);
        let mut parts = id.rsplit(':');
        let offset: u64 = parts.next().and_then(|offset| offset.parse().ok()).expect("an offset");
        let partition: u32 = parts.next().and_then(|partition| partition.parse().ok()).expect("a partition");
        // Of those that begin at the same offset, or were written again after a restart, the last one written counts.
        let in_force = decided[&partition].iter().rev().find(|(after, _)| *after <= offset);
        let (_, model) = in_force.unwrap_or_else(|| panic!("no decision for {id}"));
        let by_model = &expected[model][&id];
        assert!(
            by_model == value,
            "{id}, by {model}:\n{}\n{}",
            String::from_utf8_lossy(value),
            String::from_utf8_lossy(by_model)
        );
        *given.entry(model.clone()).or_default() += 1;
    }
    given
}

#[test]
fn two_instances_switch_and_roll_back_while_one_is_killed() {
    let Some(scene) = scene("switch") else { return };
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let paths = [model(), other_model()];
    let [a_model, b_model] = paths.map(id_of_model);
    let expected: HashMap<String, HashMap<String, Vec<u8>>> =
        paths.iter().map(|path| (id_of_model(path), ledger.verdicts(&scene, path))).collect();
    scene.create("transactions", PARTITIONS, &[]);
    let (mut a, mut b) = (scene.start("a"), scene.start("b"));
    share(&mut a, &mut b);
    let active = until("a model is active", || Some(asked(&mut b, "/v1/models")["active"].clone()).filter(Value::is_object));
    assert_eq!((&active["model"], &active["why"]), (&json!(a_model), &json!("imported")));
    // A second version, registered by the command, as an operator would.
    let registered = scene.register(paths[1]);
    assert_eq!(registered, b_model);
    known(&mut b, &b_model);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.reach(PAYMENTS / 5);
    let (status, answer) = post(&mut b, &format!("/v1/models/{b_model}/promote"));
    assert_eq!((status, &answer["scoring"]), (200, &json!(b_model)), "{answer}");
    until("the other instance goes over", || (asked(&mut a, "/v1/models")["scoring"] == json!(b_model)).then_some(()));
    feed.reach(PAYMENTS * 2 / 5);
    // Killed in the middle of a switch, and of its transactions.
    let (status, _) = post(&mut a, "/v1/models/rollback");
    assert_eq!(status, 200);
    b.kill();
    feed.reach(PAYMENTS * 3 / 5);
    let mut b = scene.start("b");
    until("it begins with the active model", || (asked(&mut b, "/v1/models")["scoring"] == json!(a_model)).then_some(()));
    // From both at once: whichever is later in the topic wins, on both.
    let (one, two) = std::thread::scope(|scope| {
        let (to_b, to_a) = (format!("/v1/models/{b_model}/promote"), format!("/v1/models/{a_model}/promote"));
        let (a, b) = (&mut a, &mut b);
        let one = scope.spawn(move || post(a, &to_b).0);
        let two = scope.spawn(move || post(b, &to_a).0);
        (one.join().expect("answered"), two.join().expect("answered"))
    });
    assert_eq!((one, two), (200, 200));
    until("both score with the same model", || {
        let (one, two) = (asked(&mut a, "/v1/models"), asked(&mut b, "/v1/models"));
        (one["scoring"] == two["scoring"] && one["active"] == two["active"] && one["position"] == two["position"]).then_some(())
    });
    feed.finish(PAYMENTS);
    a.stop();
    b.stop();
    let given = check(&scene, &expected, PAYMENTS);
    assert!(given.get(&a_model) > Some(&1_000) && given.get(&b_model) > Some(&1_000), "both models gave verdicts: {given:?}");
}

#[test]
fn a_damaged_artifact_is_refused_and_the_old_model_goes_on() {
    let Some(scene) = scene("damaged") else { return };
    let ledger = Ledger::made(&scene.path("payments.csv"), 4_000);
    let (a_model, b_path) = (id_of_model(model()), other_model());
    let expected = HashMap::from([(a_model.clone(), ledger.verdicts(&scene, model()))]);
    scene.create("transactions", PARTITIONS, &[]);
    let mut a = scene.start("a");
    a.restored(PARTITIONS as usize);
    let b_model = scene.register(b_path);
    known(&mut a, &b_model);
    let artifact = scene.path(&format!("data/models/{b_model}.forest"));
    let whole = std::fs::read(&artifact).expect("the artifact");
    std::fs::write(&artifact, &whole[..whole.len() / 2]).expect("truncated");
    let (status, problem) = post(&mut a, &format!("/v1/models/{b_model}/promote"));
    assert_eq!((status, &problem["type"]), (409, &json!("/problems/artifact-unusable")));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("truncated")), "{problem}");
    // Somebody writes past the registry: the instance finds it damaged by itself.
    let active = json!({"model": b_model, "previous": [a_model], "at_ms": 1, "why": "by hand", "instance": "none"}).to_string();
    let writer = scene.writer();
    writer.keyed(&scene.topic("models"), b"active", active.as_bytes(), 1);
    writer.flush();
    let refused = until("it refuses", || {
        let list = asked(&mut a, "/v1/models");
        (list["refused"]["model"] == json!(b_model)).then_some(list)
    });
    assert_eq!(refused["scoring"], json!(a_model), "the old one goes on");
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.finish(4_000);
    a.stop();
    assert_eq!(check(&scene, &expected, 4_000), BTreeMap::from([(a_model, 4_000)]));
}

#[test]
fn only_the_owner_of_partition_0_retrains_and_all_follow() {
    let Some(scene) = Scene::new("retrain") else { return };
    let scene = scene.with("KAFKA_SESSION_TIMEOUT_MS", "5000").with("AUTO_TRAIN", "on");
    let ledger = Ledger::made(&scene.path("payments.csv"), 20_000);
    scene.create("transactions", PARTITIONS, &[]);
    let (mut a, mut b) = (scene.start("a"), scene.start("b"));
    let status = |service: &mut Service| asked(service, "/v1/retrain/status");
    until("one of them has partition 0", || (status(&mut a)["here"] != status(&mut b)["here"]).then_some(()));
    // Asked for where it is not done, with nothing logged yet.
    let other = if status(&mut a)["here"] == true { &mut b } else { &mut a };
    assert_eq!(post(other, "/v1/retrain/trigger").0, 202);
    let last = until("it is skipped", || Some(status(&mut b)["last"].clone()).filter(|last| last["outcome"] == "skipped"));
    assert!(last["why"].as_str().is_some_and(|why| why.contains("1000")), "{last}");
    let mut feed = Feed::new(&scene, &ledger.payments);
    // Nothing beyond is sent: the two trainings must not see the same payments.
    feed.finish(15_000);
    let first = until("the first model trains itself on both", || {
        let (one, two) = (asked(&mut a, "/v1/models"), asked(&mut b, "/v1/models"));
        one["scoring"].as_str().filter(|_| one["scoring"] == two["scoring"]).map(str::to_owned)
    });
    feed.finish(20_000);
    assert_eq!(post(&mut a, "/v1/retrain/trigger").0, 202);
    let done = |last: &Value| last["ended_ms"].is_number() && last["outcome"] != "skipped";
    let last = until("the retrain ends", || Some(status(&mut b)["last"].clone()).filter(done));
    let candidate = last["model"].as_str().unwrap_or_else(|| panic!("a candidate: {last}")).to_owned();
    let list = asked(&mut b, "/v1/models");
    let ids: Vec<&str> = list["models"].as_array().expect("a list").iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(ids.len(), 2, "each training was done once: {ids:?}");
    assert!(ids.contains(&first.as_str()) && ids.contains(&candidate.as_str()));
    known(&mut a, &candidate);
    let shown = asked(&mut a, &format!("/v1/models/{candidate}"));
    assert!(shown["report"]["checks"].as_array().is_some_and(|checks| checks.len() > 15), "{shown}");
    // What it decided is what the report says, on both.
    let failed = shown["report"]["checks"].as_array().expect("checks").iter().any(|check| check["outcome"] == "failed");
    assert_eq!(last["outcome"], if failed { "kept" } else { "promoted" }, "{last}");
    let scores = if failed { first } else { candidate };
    until("both score with it", || {
        let both = [asked(&mut a, "/v1/models"), asked(&mut b, "/v1/models")];
        both.iter().all(|list| list["scoring"] == json!(scores)).then_some(())
    });
    a.stop();
    b.stop();
}

/// Whether each payment was an anomaly, by its verdict's id.
fn alerts(verdicts: &HashMap<String, Vec<u8>>) -> HashMap<&str, bool> {
    let is_anomaly = |verdict: &[u8]| serde_json::from_slice::<Value>(verdict).expect("JSON")["is_anomaly"] == true;
    verdicts.iter().map(|(id, verdict)| (id.as_str(), is_anomaly(verdict))).collect()
}

#[test]
fn a_shadow_counts_each_payment_once_while_its_holder_is_killed_and_changes_no_verdict() {
    let Some(scene) = scene("shadow") else { return };
    let ledger = Ledger::made(&scene.path("payments.csv"), 20_000);
    let [a_model, b_model] = [model(), other_model()].map(id_of_model);
    let [by_a, by_b] = [model(), other_model()].map(|path| ledger.verdicts(&scene, path));
    scene.create("transactions", PARTITIONS, &[]);
    let (mut a, mut b) = (scene.start("a"), scene.start("b"));
    let here = |service: &mut Service| asked(service, "/v1/retrain/status")["here"] == true;
    until("one of them has partition 0", || (here(&mut a) != here(&mut b)).then_some(()));
    assert_eq!(scene.register(other_model()), b_model);
    known(&mut a, &b_model);
    let path = format!("/v1/models/{b_model}/shadow");
    assert_eq!(a.get(&path).0, 404);
    let (status, begun) = a.post(&path, r#"{"from":"earliest"}"#);
    assert_eq!(status, 200, "{begun}");
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.reach(8_000);
    until("it counts", || {
        let (status, body) = b.get(&path);
        (status == 200 && serde_json::from_str::<Value>(&body).expect("JSON")["compared"].as_u64() > Some(1_000)).then_some(())
    });
    let mut survivor = if here(&mut a) {
        a.kill();
        b
    } else {
        b.kill();
        a
    };
    feed.finish(20_000);
    let shown = until("all are compared", || Some(asked(&mut survivor, &path)).filter(|shown| shown["compared"] == 20_000));
    let (active, shadow) = (alerts(&by_a), alerts(&by_b));
    let count = |wanted: (bool, bool)| active.iter().filter(|(id, alert)| (**alert, shadow[*id]) == wanted).count();
    let (more, fewer, both) = (count((false, true)), count((true, false)), count((true, true)));
    assert_eq!(shown["would_alert"]["more"], json!(more), "{shown}");
    assert_eq!((&shown["would_alert"]["fewer"], &shown["would_alert"]["both"]), (&json!(fewer), &json!(both)));
    assert!(more > 0, "the two models are not the same");
    for example in shown["examples"]["more"].as_array().expect("a list") {
        let id = example["verdict_id"].as_str().expect("an id");
        assert!(!active[id] && shadow[id], "{example}");
    }
    assert!(shown["cost"]["micros_per_payment"].as_f64() > Some(0.0), "{shown}");

    // The command reads the same from the topic.
    let output = scene.call(&["models", "shadow", &b_model, "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["would_alert"], shown["would_alert"]);

    // What people find out, by the verdict's id alone.
    let frauds: Vec<&str> = active.iter().filter(|(_, alert)| **alert).map(|(id, _)| *id).take(3).collect();
    for (at, id) in frauds.iter().enumerate() {
        let label = if at == 0 { "legitimate" } else { "fraud" };
        let (status, answer) = survivor.post("/v1/labels", &json!({"verdict_id": id, "label": label, "by": "ann"}).to_string());
        assert_eq!(status, 201, "{answer}");
    }
    let quality = asked(&mut survivor, "/v1/quality?days=3660");
    assert_eq!((&quality["labelled"], &quality["frauds"], &quality["alerts"]), (&json!(3), &json!(2), &json!(3)), "{quality}");
    assert_eq!((&quality["recall"], &quality["by_model"][0]["model"]), (&json!(1.0), &json!(a_model)));
    survivor.stop();
    let expected = HashMap::from([(a_model.clone(), by_a)]);
    assert_eq!(check(&scene, &expected, 20_000), BTreeMap::from([(a_model, 20_000)]), "no verdict knows of the shadow");
}
