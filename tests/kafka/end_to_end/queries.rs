//! Queries across instances: whoever is asked answers for everybody, says so when nobody can, and never goes back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::feed::Feed;
use super::ledger::Ledger;
use super::scene::{PARTITIONS, Scene};
use super::until;

const TOKEN: &str = "Authorization: Bearer e2e-secret";
const PAYMENTS: usize = 24_000;
const INFERENCE: &str = r#"{"user_id":"user-7","transaction":{"amount":3,"merchant":"shop-1","timestamp":1704067200000}}"#;

/// Workers of each instance, as scenes have it.
const WORKERS: usize = 2;

fn scene(test: &str) -> Option<Scene> {
    let digest = Sha256::digest(b"e2e-secret");
    let digest = digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("memory");
        text
    });
    let scene = Scene::new(test)?.with("API_TOKENS", &format!("tests:query+admin:{digest}"));
    Some(scene.with("MEMBER_BEAT_MS", "500").with("KAFKA_SESSION_TIMEOUT_MS", "6000"))
}

#[derive(Debug)]
struct Got {
    status: u16,
    retry_after: Option<String>,
    json: Value,
}

impl Got {
    /// The last part of a problem's type.
    fn problem(&self) -> &str {
        self.json["type"].as_str().and_then(|uri| uri.strip_prefix("/problems/")).unwrap_or_default()
    }
}

/// One request on a connection of its own; none where the connection fails.
fn ask(address: &str, method: &str, path: &str, header: &str, body: &str) -> Option<Got> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(40))).expect("a time-out");
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{header}\r\nContent-Length: {length}\r\n");
    write!(stream, "{head}Content-Type: application/json\r\nConnection: close\r\n\r\n{body}").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let retry_after = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("retry-after: ").map(str::to_owned));
    Some(Got { status, retry_after, json: serde_json::from_str(body).expect("JSON") })
}

fn get(address: &str, path: &str) -> Got {
    ask(address, "GET", path, TOKEN, "").expect("an answer")
}

/// Each partition's owner, once all of them run at so many instances.
fn shared(address: &str, instances: usize) -> Vec<String> {
    until(&format!("{instances} instances run all partitions"), || {
        let shown = get(address, "/v1/topology").json;
        let tasks = shown["tasks"].as_array().expect("tasks");
        let running = || tasks.iter().filter(|task| task["phase"] == "running");
        let owners: Vec<String> = running().map(|task| task["instance"].as_str().expect("a name").to_owned()).collect();
        let mut parts: BTreeMap<(&str, u64), usize> = BTreeMap::new();
        for task in running() {
            let (instance, worker) = (task["instance"].as_str().expect("a name"), task["worker"].as_u64().expect("a number"));
            *parts.entry((instance, worker)).or_default() += 1;
        }
        // While a worker is still on its way partitions will move once more, though instances may have equal shares already.
        let fair = parts.values().max().zip(parts.values().min()).is_some_and(|(most, least)| most - least <= 1);
        let equal = fair && parts.len() == WORKERS * instances;
        let all = tasks.len() == PARTITIONS as usize && owners.len() == tasks.len();
        (all && equal).then_some(owners)
    })
}

/// Waits until an instance answers for partitions that it may have heard of only by now.
fn answered(address: &str, path: &str) -> Got {
    until(&format!("an answer to {path}"), || Some(get(address, path)).filter(|got| got.status != 503))
}

#[test]
fn any_instance_answers_for_any_user() {
    let Some(scene) = scene("anyone") else { return };
    let ledger = Ledger::made(&scene.path("payments.csv"), 6_000);
    scene.create("transactions", PARTITIONS, &[]);
    let mut instances = ["a", "b"].map(|name| scene.start_with(name, &[("INSTANCE_ID", name)]));
    let addresses = instances.each_mut().map(super::service::Service::address);
    let owners = shared(&addresses[0], 2);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.finish(ledger.payments.len());
    // Whoever is asked: the same answer, of the committed state, with where it is from.
    let all = positions(&scene);
    for (user, profile) in ledger.profiles() {
        let user = String::from_utf8(user).expect("text");
        let path = format!("/v1/users/{user}/profile?min_position={all}&timeout=20s");
        let mut answers = addresses.each_ref().map(|address| answered(address, &path).json);
        assert_eq!(answers[0]["count"], profile.0.seen(), "{user}");
        let partition = answers[0]["position"]["partition"].as_u64().expect("a partition") as usize;
        for (answer, name) in answers.iter_mut().zip(["a", "b"]) {
            let expected = if owners[partition] == name { "local" } else { "owner" };
            assert_eq!(answer["source"], expected, "{user} asked of {name}");
            answer["source"].take();
            answer["age_ms"].take();
        }
        assert_eq!(answers[0], answers[1]);
    }
    let judged =
        addresses.each_ref().map(|address| ask(address, "POST", "/v1/inference", TOKEN, INFERENCE).expect("an answer").json);
    assert_eq!(judged[0]["features"], judged[1]["features"]);
    let mut sources = judged.each_ref().map(|verdict| verdict["source"].as_str().expect("a source"));
    sources.sort_unstable();
    assert_eq!(sources, ["local", "owner"]);
    for address in &addresses {
        assert_eq!(get(address, "/v1/users/nobody/profile").problem(), "no-such-user");
        // The caller's token goes with the request: without one nobody passes anything on.
        let refused = ask(address, "GET", "/v1/users/user-7/profile", "X-None: 1", "").expect("an answer");
        assert_eq!((refused.status, refused.problem()), (401, "unauthorized"));
    }
    read_your_writes(&scene, &addresses);
    until("the lag is nothing", || {
        let lag = get(&addresses[1], "/v1/topology").json["lag"].clone();
        (lag == serde_json::json!({"records": 0, "seconds": 0.0, "unknown": 0})).then_some(())
    });
    users_are_listed(&addresses, &ledger);
    for instance in instances {
        instance.stop();
    }
}

/// Behind all payments that there are: what an answer has to include to know of every one.
fn positions(scene: &Scene) -> String {
    let ends = scene.ends(&scene.topic("transactions"));
    let ends: Vec<String> = ends.iter().enumerate().map(|(partition, end)| format!("{partition}:{end}")).collect();
    ends.join(",")
}

/// What was just written is read where it was written to, from anyone, by its position alone.
fn read_your_writes(scene: &Scene, addresses: &[String]) {
    let writer = scene.writer();
    for round in 1..=20_u64 {
        let json = format!(r#"{{"user_id":"own","amount":{round},"merchant":"m"}}"#);
        writer.keyed(&scene.topic("transactions"), b"own", json.as_bytes(), super::records::now_ms());
        writer.flush();
        let path = format!("/v1/users/own/profile?min_position={}&timeout=20s", positions(scene));
        let got = get(&addresses[round as usize % addresses.len()], &path);
        assert_eq!((got.status, got.json["count"].as_u64()), (200, Some(round)), "{}", got.json);
    }
}

/// The instances' lists together are everybody, once.
fn users_are_listed(addresses: &[String], ledger: &Ledger) {
    let mut listed: Vec<String> = Vec::new();
    for address in addresses {
        let mut after = String::new();
        loop {
            let page = get(address, &format!("/v1/state/users?limit=50{after}")).json;
            let users = page["users"].as_array().expect("users").iter();
            listed.extend(users.map(|user| user["user_id"].as_str().expect("an id").to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        let state = get(address, "/v1/state").json;
        let partitions = state["partitions"].as_array().expect("partitions");
        assert!(partitions.iter().filter(|of| of["role"] == "active").count() == PARTITIONS as usize / 2, "{state}");
    }
    listed.sort();
    let mut expected: Vec<String> = ledger.profiles().into_keys().map(|user| String::from_utf8(user).expect("text")).collect();
    expected.push("own".to_owned());
    expected.sort();
    assert_eq!(listed, expected);
}

/// A client that passes the positions it has seen along, and asks now this instance, now that one.
#[derive(Default)]
struct Watcher {
    seen: BTreeMap<u64, u64>,
    counts: BTreeMap<usize, u64>,
    answers: BTreeMap<String, u64>,
}

impl Watcher {
    fn ask(&mut self, address: &str, user: usize) {
        let seen: Vec<String> = self.seen.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
        let min = if seen.is_empty() { String::new() } else { format!("&min_position={}", seen.join(",")) };
        let path = format!("/v1/users/user-{user}/profile?timeout=1s{min}");
        let Some(got) = ask(address, "GET", &path, TOKEN, "") else {
            *self.answers.entry("no connection".to_owned()).or_default() += 1;
            return;
        };
        let what = if got.status == 200 { got.json["source"].as_str().expect("a source") } else { got.problem() };
        *self.answers.entry(what.to_owned()).or_default() += 1;
        if got.status == 503 {
            assert!(got.retry_after.is_some(), "{got:?}");
            return;
        }
        // Anything else is an answer about the user.
        assert!(got.status == 200 || what == "no-such-user", "{got:?}");
        let position = &got.json["position"];
        let (partition, offset) = (position["partition"].as_u64().expect("one"), position["input_offset"].as_u64().expect("one"));
        let before = self.seen.insert(partition, offset).unwrap_or(0);
        assert!(offset >= before, "partition {partition} went back from {before} to {offset}: {got:?}");
        let count = got.json["count"].as_u64().unwrap_or(0);
        let before = self.counts.insert(user, count).unwrap_or(0);
        assert!(count >= before, "user-{user} went back from {before} payments to {count}: {got:?}");
    }
}

/// The addresses of those that live; a place is empty while its instance is down.
struct Places(Mutex<Vec<Option<String>>>);

impl Places {
    fn set(&self, at: usize, address: Option<String>) {
        self.0.lock().expect("nobody panicked")[at] = address;
    }

    fn nth(&self, number: usize) -> Option<String> {
        let places = self.0.lock().expect("nobody panicked");
        places[number % places.len()].clone()
    }
}

/// Ends the watchers when the test's own thread is done, by a failure too.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks on and on.
fn watch(first: usize, places: &Places, over: &AtomicBool) -> Watcher {
    let mut watcher = Watcher::default();
    let mut number = first;
    while !over.load(Ordering::Relaxed) {
        // A step that shares no divisor with the counts of places and users.
        number += 7;
        if let Some(address) = places.nth(number) {
            watcher.ask(&address, number % 300);
        }
    }
    watcher
}

#[test]
fn answers_never_go_back_through_a_kill_and_a_return() {
    let Some(scene) = scene("kill") else { return };
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    scene.create("transactions", PARTITIONS, &[]);
    let start = |name: &str| scene.start_with(name, &[("INSTANCE_ID", name)]);
    let (mut a, mut b, mut c) = (start("a"), start("b"), start("c"));
    let places = Places(Mutex::new([&mut a, &mut b, &mut c].map(|service| Some(service.address())).to_vec()));
    let at_a = a.address();
    shared(&at_a, 3);
    let over = AtomicBool::new(false);
    let tallies: [Watcher; 3] = std::thread::scope(|scope| {
        let watchers = [0, 1, 2].map(|first| {
            scope.spawn({
                let (places, over) = (&places, &over);
                move || watch(first, places, over)
            })
        });
        let ending = Over(&over);
        let mut feed = Feed::new(&scene, &ledger.payments);
        feed.reach(PAYMENTS / 4);
        assert!(get(&at_a, "/v1/topology").json["lag"]["records"].is_u64());
        // A user of the one that is killed: refused, then answered by the successor, no earlier than before.
        let (user, before) = until("a user of c", || {
            (0..300).find_map(|user| {
                let got = get(&at_a, &format!("/v1/users/user-{user}/profile"));
                let partition = got.json["position"]["partition"].as_u64()? as usize;
                (got.status == 200 && shared(&at_a, 3)[partition] == "c").then_some((user, got.json["position"].clone()))
            })
        });
        places.set(2, None);
        c.kill();
        let path = format!("/v1/users/user-{user}/profile?timeout=1s");
        let refused = get(&at_a, &path);
        assert!(refused.status == 503 && refused.retry_after.is_some(), "{refused:?}");
        assert!(["owner-unreachable", "moving", "restoring"].contains(&refused.problem()), "{refused:?}");
        let (partition, offset) = (&before["partition"], before["input_offset"].as_u64().expect("an offset"));
        let path = format!("{path}&min_position={partition}:{offset}");
        let after = answered(&at_a, &path).json;
        assert!(after["position"]["input_offset"].as_u64() >= Some(offset), "{after}");
        feed.reach(PAYMENTS / 2);
        // It comes back, and takes some of them again.
        let mut c = start("c");
        places.set(2, Some(c.address()));
        feed.reach(PAYMENTS * 3 / 4);
        shared(&at_a, 3);
        feed.finish(PAYMENTS);
        drop(ending);
        let tallies = watchers.map(|watcher| watcher.join().expect("no watcher saw a step back"));
        for (user, profile) in ledger.profiles() {
            let user = String::from_utf8(user).expect("text");
            assert_eq!(answered(&at_a, &format!("/v1/users/{user}/profile")).json["count"], profile.0.seen(), "{user}");
        }
        c.stop();
        tallies
    });
    for name in ["local", "owner"] {
        let of = |watcher: &Watcher| watcher.answers.get(name).copied().unwrap_or(0);
        assert!(tallies.iter().map(of).sum::<u64>() > 300, "{name}: too few to say anything");
    }
    for tally in &tallies {
        println!("answers by source or problem: {:?}", tally.answers);
    }
    a.stop();
    b.stop();
}

/// While a dead owner's session runs on, its partitions are nobody's: who insists on the owner is refused, who takes a copy gets one.
#[test]
fn a_copy_answers_while_the_owner_is_dead() {
    let Some(scene) = scene("copy") else { return };
    // Long enough for the questions: nobody takes over meanwhile.
    let scene = scene.with("STANDBY_REPLICAS", "1").with("KAFKA_SESSION_TIMEOUT_MS", "120000");
    let ledger = Ledger::made(&scene.path("payments.csv"), 6_000);
    scene.create("transactions", PARTITIONS, &[]);
    let start = |name: &str| scene.start_with(name, &[("INSTANCE_ID", name)]);
    let (mut a, mut b) = (start("a"), start("b"));
    let at_a = a.address();
    b.address();
    let owners = shared(&at_a, 2);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.finish(ledger.payments.len());
    let users = ledger.profiles().into_iter().map(|(user, profile)| (String::from_utf8(user).expect("text"), profile.0.seen()));
    let users: Vec<(String, u64)> = users.collect();
    // The copies are whole: each of b's users is there with all payments.
    let ends = scene.ends(&scene.changelog());
    until("a follows b's partitions to their ends", || {
        let copies = super::members::announced(&scene).get("a")?.standbys.clone();
        let whole = copies.iter().all(|copy| copy.position >= ends[copy.task.1 as usize]);
        (copies.len() == PARTITIONS as usize / 2 && whole).then_some(())
    });
    // And so is what a has itself.
    let all = positions(&scene);
    for (user, _) in &users {
        assert_eq!(answered(&at_a, &format!("/v1/users/{user}/profile?min_position={all}&timeout=20s")).status, 200);
    }
    b.kill();
    let (mut of_copy, mut of_a) = (0, 0);
    for (user, seen) in &users {
        let got = get(&at_a, &format!("/v1/users/{user}/profile?consistency=any&timeout=5s"));
        assert_eq!((got.status, got.json["count"].as_u64()), (200, Some(*seen)), "{user}: {}", got.json);
        let partition = got.json["position"]["partition"].as_u64().expect("a partition") as usize;
        let expected = if owners[partition] == "a" { "local" } else { "standby" };
        assert_eq!(got.json["source"], expected, "{user}: {}", got.json);
        if expected == "local" {
            of_a += 1;
        } else {
            assert!(got.json["age_ms"].is_u64(), "a copy says how old it is: {}", got.json);
            of_copy += 1;
        }
    }
    assert!(of_copy > 0 && of_a > 0, "{of_copy} of copies, {of_a} of a's own");
    let of_b = users.iter().find(|(user, _)| {
        let got = get(&at_a, &format!("/v1/users/{user}/profile?consistency=any&timeout=5s"));
        got.json["source"] == "standby"
    });
    let (user, _) = of_b.expect("a user of b");
    let refused = get(&at_a, &format!("/v1/users/{user}/profile?consistency=owner&timeout=500ms"));
    assert!(refused.status == 503 && refused.retry_after.is_some(), "{refused:?}");
    a.stop();
}
