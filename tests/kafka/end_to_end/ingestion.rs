//! Payments over HTTP: into Kafka through several instances, and into the embedded broker of one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::broker::{Broker, free_address};
use super::proxy::{Proxy, Trouble};
use super::scene::{PARTITIONS, Scene};
use super::service::Service;
use super::until;

fn payment(user: usize, tx: &str) -> String {
    format!(r#"{{"user_id":"user-{user}","amount":{}.5,"merchant":"m","tx_id":"{tx}"}}"#, user % 90 + 1)
}

/// A request on a connection of its own: status, head and body; none where the connection fails.
fn post(address: &str, path: &str, kind: &str, body: &str) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
    let head =
        format!("POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Some((status, head.to_owned(), body.to_owned()))
}

/// The id and whether it was there before, once the payment is taken.
fn taken(address: &str, body: &str) -> (String, bool) {
    until("a payment is taken", || {
        let (status, _, answer) = post(address, "/tx", "application/json", body)?;
        let json: Value = serde_json::from_str(&answer).expect("JSON");
        match status {
            202 => Some((json["id"].as_str().expect("an id").to_owned(), json["duplicate"].as_bool().expect("one"))),
            503 | 429 => None,
            _ => panic!("{status}: {answer}"),
        }
    })
}

/// Sends payments as lines until all are taken; the id of each.
fn take_lines(address: &str, payments: &[String]) -> Vec<String> {
    let mut ids: Vec<Option<String>> = vec![None; payments.len()];
    until("all lines are taken", || {
        let missing: Vec<usize> = (0..ids.len()).filter(|at| ids[*at].is_none()).collect();
        let body: Vec<&str> = missing.iter().map(|at| payments[*at].as_str()).collect();
        let (status, _, answer) = post(address, "/v1/transactions", "application/x-ndjson", &body.join("\n"))?;
        if [429, 503].contains(&status) {
            return None;
        }
        assert_eq!(status, 200, "{answer}");
        for line in answer.lines() {
            let told: Value = serde_json::from_str(line).expect("JSON");
            let at = missing[told["line"].as_u64().expect("a number") as usize - 1];
            ids[at] = told["id"].as_str().map(str::to_owned);
            assert!(ids[at].is_some() || [429, 503].contains(&told["status"].as_u64().expect("one")), "{told}");
        }
        ids.iter().all(Option::is_some).then_some(())
    });
    ids.into_iter().map(|id| id.expect("taken")).collect()
}

/// Everything in the topic by `topic:partition:offset`.
fn in_topic(scene: &Scene) -> BTreeMap<String, Vec<u8>> {
    let topic = scene.topic("transactions");
    let records = scene.read(&topic).into_iter();
    records.map(|seen| (format!("{topic}:{}:{}", seen.partition, seen.offset), seen.value.expect("a value"))).collect()
}

#[test]
fn a_tx_id_is_written_once_through_any_of_two_instances_and_a_kill() {
    let Some(scene) = Scene::new("ingest") else { return };
    let scene = scene.with("MEMBER_BEAT_MS", "500");
    scene.create("transactions", PARTITIONS, &[]);
    let start = |name: &str| scene.start_with(name, &[("INSTANCE_ID", name)]);
    let (mut a, mut b) = (start("a"), start("b"));
    let addresses = [a.address(), b.address()];
    // Both know each other once each says of some payment that the other has its ids: from then on homes stand still.
    for service in [&mut a, &mut b] {
        until("two members", || {
            let (_, body) = service.get("/v1/topology");
            let shown: Value = serde_json::from_str(&body).expect("JSON");
            shown["instances"].as_array().is_some_and(|all| all.len() == 2).then_some(())
        });
    }
    let payments: Vec<String> = (0..2_000).map(|n| payment(n % 300, &format!("t{n}"))).collect();
    let ids = take_lines(&addresses[0], &payments);
    for n in [0, 7, 300, 1_999] {
        for address in &addresses {
            assert_eq!(taken(address, &payments[n]), (ids[n].clone(), true), "payment {n} asked of {address}");
        }
    }
    assert_eq!(take_lines(&addresses[1], &payments), ids);
    // The one that is left takes the other's partitions over, with what is known of them.
    b.kill();
    assert_eq!(take_lines(&addresses[0], &payments), ids);
    let topic = in_topic(&scene);
    assert_eq!(topic.len(), payments.len(), "each once");
    assert!(ids.iter().zip(&payments).all(|(id, payment)| topic[id] == payment.as_bytes()));
    a.stop();
}

#[test]
fn the_verdict_waited_for_is_the_one_in_the_topic() {
    let Some(scene) = Scene::new("verdict") else { return };
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    let address = service.address();
    service.restored(PARTITIONS as usize);
    let mut got = BTreeMap::new();
    for user in 0..20 {
        let body = payment(user, "waited");
        let answer = until("a verdict", || {
            let (status, _, answer) = post(&address, "/tx?wait=verdict&timeout=20s", "application/json", &body)?;
            assert!([200, 202, 503].contains(&status), "{status}: {answer}");
            // What was taken by an attempt whose verdict came too late is a duplicate now: its verdict is in the topic all the same.
            (status == 200).then_some(answer)
        });
        let verdict: Value = serde_json::from_str(&answer).expect("JSON");
        got.insert(verdict["id"].as_str().expect("an id").to_owned(), answer.into_bytes());
    }
    service.stop();
    let verdicts = scene.read(&scene.topic("verdicts")).into_iter().map(|seen| seen.value.expect("a value"));
    let verdicts: BTreeSet<Vec<u8>> = verdicts.collect();
    assert_eq!(got.len(), 20);
    assert!(got.values().all(|bytes| verdicts.contains(bytes)));
}

#[test]
fn a_broker_that_stalls_is_told_to_callers_and_nothing_acknowledged_is_lost() {
    if super::super::common::address("end_to_end::ingest_stalled").is_none() {
        return;
    }
    let mut proxy = Proxy::new();
    let scene = Scene::at(free_address(), "stalled")
        .with("KAFKA_BOOTSTRAP_SERVERS", &proxy.address())
        .with("KAFKA_MESSAGE_TIMEOUT_MS", "5000")
        .with("KAFKA_SOCKET_TIMEOUT_MS", "4000");
    let broker = Broker::start_behind(&scene, Some(proxy.port));
    proxy.serve(broker.proxied_port());
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    let address = service.address();
    let before: Vec<String> = (0..500).map(|n| payment(n % 50, &format!("before{n}"))).collect();
    let ids = take_lines(&address, &before);
    proxy.trouble("", Trouble::Silent);
    // One caller after the other, for longer than a stall is waited out: the first ones wait in vain, later ones are told at once.
    let during: Vec<String> = (0..60).map(|n| payment(n % 50, &format!("during{n}"))).collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asking: Vec<_> = during
            .iter()
            .map(|body| {
                let address = &address;
                let asking = scope.spawn(move || post(address, "/tx", "application/json", body).expect("an answer").0);
                std::thread::park_timeout(Duration::from_millis(50));
                asking
            })
            .collect();
        asking.into_iter().map(|asking| asking.join().expect("no panic")).collect()
    });
    assert!(statuses.iter().all(|status| [429, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}: who comes while the broker stalls is refused at once");
    let (status, body) = service.get("/livez");
    assert!([200, 503].contains(&status), "the loop goes on: {body}");
    proxy.calm();
    let later = take_lines(&address, &during);
    let topic = in_topic(&scene);
    let all: BTreeSet<&String> = ids.iter().chain(&later).collect();
    assert_eq!(all.len(), before.len() + during.len());
    assert!(ids.iter().zip(&before).chain(later.iter().zip(&during)).all(|(id, payment)| topic[id] == payment.as_bytes()));
    service.stop();
}

/// The embedded broker's topic, read once no process holds it: what a payment's id stands for.
fn embedded(scene: &Scene, state: &str) -> Service {
    let folder = scene.path("broker");
    scene.start_with(state, &[("BROKER", "embedded"), ("EMBEDDED_DIR", folder.to_str().expect("a plain path"))])
}

#[test]
fn the_embedded_broker_keeps_what_it_acknowledged_through_a_kill() {
    let scene = Scene::at("127.0.0.1:1".to_owned(), "embedded");
    let mut service = embedded(&scene, "a");
    let address = service.address();
    let payments: Vec<String> = (0..3_000).map(|n| payment(n % 200, &format!("e{n}"))).collect();
    let ids = take_lines(&address, &payments);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), payments.len());
    service.kill();
    let mut service = embedded(&scene, "a");
    let address = service.address();
    assert_eq!(take_lines(&address, &payments), ids, "each is known again, under its own id");
    let (id, duplicate) = taken(&address, &payment(1, "new"));
    assert!(!duplicate && !ids.contains(&id));
    let verdict = until("the verdict", || {
        let (status, _, answer) = post(&address, "/tx?wait=verdict&timeout=20s", "application/json", &payment(2, "verdict"))?;
        (status == 200).then_some(answer)
    });
    let verdict: Value = serde_json::from_str(&verdict).expect("JSON");
    assert_eq!((verdict["tx_id"].as_str(), verdict["user_id"].as_str()), (Some("verdict"), Some("user-2")));
    service.stop();
}
