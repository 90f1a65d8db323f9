//! Notifications on real Kafka: killed between arrival and commit, a message comes again under its id, and nothing is lost.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use models::features::FEATURES;
use models::{Severity, Verdict};
use serde_json::{Value, json};

use super::records::{Raw, now_ms};
use super::scene::Scene;
use super::{until, until_count};

const PARTITIONS: u32 = 3;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Stands for no answer at all.
const SILENT: u16 = 0;

/// A target that answers with the status it is told to.
struct Target {
    port: u16,
    status: Arc<AtomicU16>,
    seen: Receiver<(String, Value)>,
}

impl Target {
    fn new(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let status = Arc::new(AtomicU16::new(status));
        let (tell, seen) = channel();
        let (answer, held) = (Arc::clone(&status), Mutex::new(Vec::new()));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let Some(request) = request(&stream) else { continue };
                let status = answer.load(Ordering::SeqCst);
                if tell.send(request).is_err() {
                    break;
                }
                if status == SILENT {
                    held.lock().expect("a list").push(stream);
                } else {
                    // A killed client hears nothing.
                    let _ = write!(stream, "HTTP/1.1 {status} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                }
            }
        });
        Self { port, status, seen }
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn next(&self, what: &str) -> (String, Value) {
        until(what, || self.seen.try_recv().ok())
    }

    /// A scene whose settings name this target.
    fn known_to(&self, scene: Scene) -> Scene {
        let file = scene.path("targets.json");
        let url = format!("http://127.0.0.1:{}/hook", self.port);
        let target = json!({"name": "ops", "kind": "webhook", "url": url, "secrets": [SECRET], "rate_per_minute": 5});
        std::fs::write(&file, json!({"targets": [target]}).to_string()).expect("a file");
        scene
            .with("NOTIFY_TARGETS", file.to_str().expect("a plain path"))
            .with("NOTIFY_WINDOW", "1")
            .with("NOTIFY_ALLOW_PRIVATE", "true")
    }
}

/// The webhook's id and body.
fn request(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let (mut id, mut length, mut line) = (String::new(), 0, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some(("webhook-id", value)) => value.clone_into(&mut id),
            Some(("content-length", value)) => length = value.parse().expect("a length"),
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((id, serde_json::from_slice(&body).expect("JSON")))
}

fn anomaly(number: u64, user: &str) -> Vec<u8> {
    let verdict = Verdict {
        tx_id: format!("t{number}"),
        id: format!("transactions:0:{number}"),
        user_id: user.to_owned(),
        event_time: now_ms(),
        amount: 5.0,
        currency: None,
        merchant: "m".into(),
        score: Some(0.95),
        raw_score: Some(0.95),
        is_anomaly: true,
        severity: Severity::Critical,
        explanation: "because".into(),
        reasons: Vec::new(),
        features: [0.0; FEATURES],
        model_id: None,
        fx: None,
    };
    serde_json::to_vec(&verdict).expect("JSON")
}

fn write(scene: &Scene, numbers: std::ops::Range<u64>, user: impl Fn(u64) -> String) {
    let (topic, writer) = (scene.topic("anomalies"), scene.writer());
    for number in numbers {
        let user = user(number);
        let partition = topology::partitioner::partition_of(user.as_bytes(), PARTITIONS);
        let value = Some(anomaly(number, &user));
        writer.raw(&topic, &Raw { partition, key: Some(user.into_bytes()), value, timestamp: Some(now_ms()), headers: vec![] });
    }
    writer.flush();
}

fn list(scene: &Scene) -> Value {
    let output = scene.call(&["notify", "list", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn what_arrived_before_a_kill_and_was_not_committed_comes_again_and_nothing_is_lost() {
    let Some(scene) = Scene::new("notifications-kill") else { return };
    let target = Target::new(SILENT);
    let scene = target.known_to(scene);
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    write(&scene, 0..3, |_| "u1".to_owned());
    let (id, first) = target.next("the first delivery arrives");
    // It has arrived; nobody but the target knows.
    service.kill();
    write(&scene, 3..5, |_| "u2".to_owned());
    target.answer(200);
    let mut service = scene.start("a");
    let mut told = std::collections::BTreeMap::new();
    until("all five are told of", || {
        let (id, body) = target.seen.try_recv().ok()?;
        told.insert(id, body["data"]["count"].as_u64().expect("a count"));
        (told.values().sum::<u64>() == 5).then_some(())
    });
    assert_eq!(told.get(&id), first["data"]["count"].as_u64().as_ref(), "the same id with the same count: {told:?}");
    until("all of it is committed", || {
        let waiting = list(&scene)["deliveries"].as_array().map(Vec::len);
        (waiting == Some(0)).then_some(())
    });
    let (status, metrics) = service.get("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("mangrove_notify_sent_total{target=\"ops\"}"), "{metrics}");
    assert!(!service.text().contains(SECRET) && !service.text().contains("\"u1\""), "neither secrets nor users are logged");
    service.stop();
    // What was committed is not told again.
    let service = scene.start("a");
    write(&scene, 5..6, |_| "u3".to_owned());
    let (other, body) = target.next("the next one");
    assert!(!told.contains_key(&other), "{body}");
    service.stop();
}

#[test]
fn a_flood_a_target_that_fails_and_another_instance_that_goes_on() {
    let Some(scene) = Scene::new("notifications-flood") else { return };
    let target = Target::new(500);
    let scene = target.known_to(scene);
    scene.create("transactions", PARTITIONS, &[]);
    let tested = scene.call(&["notify", "test", "ops"]);
    assert_eq!(tested.status.code(), Some(1));
    let said = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert!(said.contains("answer  500"), "{said}");
    assert_eq!(target.next("the test message").1["type"], "mangrove.test");
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    write(&scene, 0..10_000, |number| format!("u{}", number % 1_000));
    for attempt in 0..5 {
        target.next(&format!("attempt {attempt}"));
    }
    let waiting = until("five wait, and the rest is one flood to come", || {
        let listed: Value = serde_json::from_str(&service.get("/v1/notifications").1).expect("JSON");
        let deliveries = listed["deliveries"].as_array().expect("a list").clone();
        let failed = deliveries.iter().filter(|delivery| delivery["attempts"].as_u64() >= Some(1)).count();
        (failed == 5).then_some(deliveries)
    });
    assert!(waiting.iter().all(|delivery| delivery["trouble"] == "it answered 500"), "{waiting:?}");
    service.stop();
    target.answer(200);
    // Under another name and folder: the work moves, with all that waits.
    let mut other = scene.start("b");
    let ids: Vec<&str> = waiting.iter().map(|delivery| delivery["id"].as_str().expect("an id")).collect();
    for id in &ids {
        let (status, body) = until("the other one knows the delivery", || {
            let answer = other.post(&format!("/v1/notifications/{id}/resend"), "");
            (![404, 503].contains(&answer.0)).then_some(answer)
        });
        assert_eq!(status, 202, "{body}");
    }
    let mut told = std::collections::BTreeMap::new();
    // The flood comes a minute after the first message.
    until_count("anomalies told of", 10_000, || {
        while let Ok((id, body)) = target.seen.try_recv() {
            told.insert(id, body["data"]["count"].as_u64().expect("a count"));
        }
        told.values().sum()
    });
    assert_eq!(told.values().sum::<u64>(), 10_000);
    let tested = scene.call(&["notify", "test", "ops", "--json"]);
    let said: Value = serde_json::from_slice(&tested.stdout).expect("JSON");
    assert_eq!((tested.status.code(), &said["delivered"], &said["answer"]), (Some(0), &json!(true), &json!("200")));
    assert_eq!(scene.call(&["notify", "enable", "nobody"]).status.code(), Some(1));
    assert!(told.len() <= 11 && ids.iter().all(|id| told.contains_key(*id)), "{} messages", told.len());
    other.stop();
}
