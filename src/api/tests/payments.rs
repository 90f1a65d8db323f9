//! `POST /v1/transactions`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use topology::broker::Reaction;
use topology::partitioner::partition_of;
use topology::simulated::{Fault, Op};

use super::anywhere::Board;
use super::client::{Client, Got};
use super::world::{NOW_MS, World};
use crate::scoring::{FxTable, ScoringParams};

const PATH: &str = "/v1/transactions";
const LINES: [&str; 1] = ["Content-Type: application/x-ndjson"];

fn world() -> World {
    let world = World::running(ScoringParams::default());
    ready(&world);
    world
}

/// Waits until the ids of every partition are known.
fn ready(world: &World) {
    for user in 0..40 {
        until(|| {
            let got = world.client().post(PATH, &payment(&format!("ready-{user}"), "ready"));
            (got.status != 503).then_some(())
        });
    }
}

/// Looks until there is an answer; each look is a request, so nothing spins.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..20_000 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    panic!("it does not come");
}

fn payment(user: &str, tx_id: &str) -> Vec<u8> {
    json!({"user_id": user, "tx_id": tx_id, "amount": 1.5, "merchant": "m", "timestamp": NOW_MS - 1_000}).to_string().into_bytes()
}

fn accepted(got: &Got) -> String {
    assert_eq!(got.status, 202, "{}", got.text());
    got.json()["id"].as_str().expect("an id").to_owned()
}

fn lines(client: &mut Client, body: &str) -> Vec<Value> {
    let got = client.send("POST", PATH, &LINES, body.as_bytes());
    assert_eq!((got.status, got.header("content-type")), (200, Some("application/x-ndjson")), "{}", got.text());
    got.text().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn an_accepted_payment_is_in_the_topic_as_it_was_sent_and_is_scored() {
    let mut world = world();
    let body = br#" {"user_id":"u","amount":7,"merchant":"m","other":{"kept":[1]}}"#;
    for path in [PATH, "/tx"] {
        let got = world.client().post(path, body);
        let id = accepted(&got);
        assert_eq!(got.header("location"), Some(format!("/v1/verdicts/{id}").as_str()));
        assert_eq!(got.json(), json!({"id": id, "tx_id": id, "duplicate": false}), "the verdict's id stands in for a tx_id");
        assert!(world.payments().contains(&(id.clone(), body.to_vec())));
        world.run();
        let verdict = world.verdicts().into_iter().find(|verdict| verdict.id == id).expect("a verdict");
        assert_eq!((verdict.tx_id, verdict.amount), (id, 7.0));
    }
}

#[test]
fn a_tx_id_is_written_once_and_answered_with_its_first_id() {
    let world = world();
    let first = accepted(&world.client().post(PATH, &payment("u", "t")));
    let again = world.client().post(PATH, &payment("u", "t"));
    assert_eq!(again.json(), json!({"id": first, "tx_id": "t", "duplicate": true}));
    assert_ne!(accepted(&world.client().post(PATH, &payment("v", "t"))), first, "another user's is another payment");
    let body = format!("[{0},{0}]", String::from_utf8(payment("u", "t2")).expect("text"));
    let both = world.client().post(PATH, body.as_bytes()).json();
    assert_eq!(both["results"][0]["id"], both["results"][1]["id"], "within one request too: {both}");
    assert_eq!((&both["results"][0]["duplicate"], &both["results"][1]["duplicate"]), (&json!(false), &json!(true)));
    world.clock.advance(3_600_000);
    let later = json!({"user_id": "u", "tx_id": "t", "amount": 1, "merchant": "m"}).to_string();
    assert_ne!(accepted(&world.client().post(PATH, later.as_bytes())), first, "after the window it is new");
    let of_u =
        world.payments().into_iter().filter(|(_, value)| value.starts_with(b"{\"amount\":1.5") && value.ends_with(b"\"u\"}"));
    assert_eq!(of_u.count(), 2, "t and t2");
}

#[test]
fn what_the_stream_would_refuse_is_refused_with_the_field() {
    let rates = FxTable::parse(br#"{"EUR":1.1,"KRW":0.0007}"#, "USD").expect("rates");
    let world = World::running(ScoringParams { fx: Some(rates.into()), ..ScoringParams::default() });
    let before = world.payments().len();
    for (body, pointer) in [
        (json!({"amount": 1, "merchant": "m"}), "/user_id"),
        (json!({"user_id": "", "amount": 1, "merchant": "m"}), "/user_id"),
        (json!({"user_id": "u", "amount": "1", "merchant": "m"}), "/amount"),
        (json!({"user_id": "u", "amount": -1, "merchant": "m"}), "/amount"),
        (json!({"user_id": "u", "amount": 1}), "/merchant"),
        (json!({"user_id": "u", "amount": 1, "merchant": "m", "timestamp": NOW_MS + 3_600_001}), "/timestamp"),
        (json!({"user_id": "u", "amount": 1, "merchant": "m", "currency": "XXX"}), "/currency"),
        (json!({"user_id": "u", "amount": 1e12, "merchant": "m", "currency": "EUR"}), "/amount"),
        (json!("x"), ""),
    ] {
        let problem = world.client().post(PATH, body.to_string().as_bytes()).problem(422, "invalid-request");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    world.client().post(PATH, b"{").problem(400, "not-json");
    world.client().post(PATH, b"[]").problem(422, "invalid-request");
    world.client().post(PATH, b"[{").problem(400, "not-json");
    world.client().send("POST", PATH, &["Content-Type: text/plain"], b"{}").problem(415, "unsupported-media-type");
    world.client().post("/tx?wait=for-it", b"{}").problem(400, "invalid-parameter");
    world.client().post("/tx?wait=verdict", b"[{}]").problem(400, "invalid-parameter");
    assert_eq!(world.payments().len(), before);
}

#[test]
fn an_array_has_a_result_for_each() {
    let world = world();
    let (good, other) =
        (String::from_utf8(payment("u", "a")).expect("text"), String::from_utf8(payment("w", "b")).expect("text"));
    let got = world.client().post(PATH, format!("[{good}, {{\"user_id\":1}}, {other}]").as_bytes());
    assert_eq!(got.status, 207);
    let all = got.json();
    assert_eq!((&all["accepted"], &all["refused"]), (&json!(2), &json!(1)));
    let statuses: Vec<u64> =
        all["results"].as_array().expect("results").iter().map(|of| of["status"].as_u64().expect("one")).collect();
    assert_eq!(statuses, [202, 422, 202]);
    assert_eq!(all["results"][1]["problem"]["errors"][0]["pointer"], "/user_id");
    let ids: BTreeSet<String> = world.payments().into_iter().map(|(id, _)| id).collect();
    assert!([0, 2].into_iter().all(|at| ids.contains(all["results"][at]["id"].as_str().expect("an id"))));
    assert_eq!(world.client().post(PATH, format!("[{good}]").as_bytes()).status, 202);
}

#[test]
fn lines_are_answered_by_number_and_a_bad_one_harms_no_other() {
    let world = world();
    let good = |tx: &str| String::from_utf8(payment("u", tx)).expect("text");
    let body = format!("{}\n\n not json\r\n{}\n{}", good("l1"), good("l2"), good("l1"));
    let told = lines(&mut world.client(), &body);
    let of = |field: &str| told.iter().map(|line| line[field].clone()).collect::<Vec<_>>();
    assert_eq!(of("line"), [1, 3, 4, 5]);
    assert_eq!(of("status"), [202, 400, 202, 202]);
    assert_eq!(told[1]["problem"]["type"], "/problems/not-json");
    assert_eq!((&told[3]["id"], &told[3]["duplicate"]), (&told[0]["id"], &json!(true)));
    assert!(lines(&mut world.client(), "\n").is_empty());
}

#[test]
fn lines_are_answered_while_others_are_still_to_come() {
    let world = world();
    let mut client = world.client();
    client.write(
        format!("POST {PATH} HTTP/1.1\r\nHost: localhost\r\n{}\r\nTransfer-Encoding: chunked\r\n\r\n", LINES[0]).as_bytes(),
    );
    for n in 0..3 {
        let mut line = payment("u", &format!("early-{n}"));
        line.push(b'\n');
        client.write(format!("{:x}\r\n", line.len()).as_bytes());
        client.write(&line);
        client.write(b"\r\n");
        if n == 0 {
            let head = client.head();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        let told: Value = serde_json::from_slice(&client.chunk().expect("an answer before the end")).expect("JSON");
        assert_eq!((&told["line"], &told["status"]), (&json!(n + 1), &json!(202)));
    }
    client.write(b"0\r\n\r\n");
    assert_eq!(client.chunk(), None);
}

#[test]
fn payments_of_one_request_keep_their_order() {
    let world = world();
    let body: String = (0..5_000).map(|n| format!("{{\"user_id\":\"order\",\"amount\":{n},\"merchant\":\"m\"}}\n")).collect();
    let told = lines(&mut world.client(), &body);
    assert_eq!(told.len(), 5_000);
    let amounts = world.payments().into_iter().filter_map(|(_, value)| {
        let payment: Value = serde_json::from_slice(&value).expect("JSON");
        (payment["user_id"] == "order").then(|| payment["amount"].as_u64().expect("a number"))
    });
    assert!(amounts.eq(0..5_000));
}

#[test]
fn who_waits_for_the_verdict_gets_it_as_it_is_in_the_topic() {
    let mut world = world();
    let address = world.address;
    let asking =
        std::thread::spawn(move || Client::connect(address).post("/tx?wait=verdict&timeout=20s", &payment("u", "waits")));
    while !asking.is_finished() {
        world.run();
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let got = asking.join().expect("an answer");
    assert_eq!(got.status, 200, "{}", got.text());
    let id = got.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(Some(&got.body), world.verdict_bytes(&id).as_ref());
    assert_eq!(got.json()["tx_id"], "waits");
}

#[test]
fn a_verdict_that_does_not_come_in_time_is_named() {
    let world = world();
    let got = world.client().post("/tx?wait=verdict&timeout=30ms", &payment("u", "late"));
    let id = accepted(&got);
    assert_eq!(got.header("location"), Some(format!("/v1/verdicts/{id}").as_str()));
    assert!(got.header("retry-after").is_some());
}

#[test]
fn a_lost_acknowledgement_is_not_taken_for_one_and_the_payment_is_not_written_twice() {
    // Written without an answer; not written at all.
    for (at, fault) in [(Op::PublisherFlush, Fault::LostAnswer), (Op::Publish, Fault::Error(Reaction::Retry))] {
        let world = world();
        let before = world.payments().len();
        let mut left = 1;
        world.broker().set_faults(move |of| {
            let hit = of.op == at && std::mem::take(&mut left) > 0;
            if hit { fault } else { Fault::None }
        });
        world.client().post(PATH, &payment("u", "unsure")).problem(503, "broker-unavailable");
        let written = world.payments().len() - before;
        assert_eq!(written, usize::from(fault == Fault::LostAnswer));
        let got = until(|| {
            let got = world.client().post(PATH, &payment("u", "unsure"));
            (got.status != 503).then_some(got)
        });
        assert_eq!(got.json()["duplicate"], written == 1, "{fault:?}: {}", got.text());
        assert_eq!(world.payments().len() - before, 1);
    }
}

/// Two instances of one broker would be more: here each has its own, and what matters is who is asked.
#[test]
fn a_tx_id_is_looked_up_at_its_home_whoever_is_asked() {
    let board = Board::default();
    let make = |name| World::knowing(board.seat(name), ScoringParams::default(), Vec::new());
    let (one, two) = (make("one"), make("two"));
    let refused = one.client().post(PATH, &payment("u", "t")).problem(503, "moving");
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("partition")));
    assert_eq!(
        one.client().post(PATH, br#"{"user_id":"u","amount":1,"merchant":"m"}"#).status,
        202,
        "without an id there is nothing to know"
    );
    board.put("one", one.address, &[], &[]);
    board.put("two", two.address, &[], &[]);
    let mut by_partition: BTreeMap<u32, String> = BTreeMap::new();
    for n in 0..200 {
        let user = format!("user-{n}");
        by_partition.entry(partition_of(user.as_bytes(), 4)).or_insert(user);
    }
    let mut homes = [0, 0];
    for user in by_partition.values() {
        let first = until(|| Some(one.client().post(PATH, &payment(user, "t"))).filter(|got| got.status == 202));
        let held = [&one, &two].map(|world| world.payments().iter().any(|(_, value)| *value == payment(user, "t")));
        assert_eq!(held.iter().filter(|held| **held).count(), 1, "{user}");
        homes[usize::from(held[1])] += 1;
        let second = until(|| Some(two.client().post(PATH, &payment(user, "t"))).filter(|got| got.status == 202));
        assert_eq!((second.json()["id"].clone(), &second.json()["duplicate"]), (first.json()["id"].clone(), &json!(true)));
        assert_eq!(second.header("location"), first.header("location"));
    }
    assert!(homes.iter().all(|count| *count > 0), "{homes:?}: both are homes");
    // In one request, each goes to its home.
    let body: Vec<String> = by_partition.values().map(|user| String::from_utf8(payment(user, "t")).expect("text")).collect();
    let told = lines(&mut one.client(), &body.join("\n"));
    assert!(told.iter().all(|line| line["duplicate"] == true), "{told:?}");
    let all = two.client().post(PATH, format!("[{}]", body.join(",")).as_bytes()).json();
    assert_eq!(all["accepted"], by_partition.len(), "{all}");
}

#[test]
fn any_body_is_taken_once_or_refused_for_what_it_is() {
    let world = world();
    let client = RefCell::new(world.client());
    let nearly = prop::collection::vec(
        prop_oneof![
            4 => (0..50u32, 0..400u32).prop_map(|(user, tx)| String::from_utf8(payment(&format!("p{user}"), &format!("p{tx}"))).expect("text")),
            2 => Just(r#"{"user_id":"p","amount":2,"merchant":"m"}"#.to_owned()),
            1 => Just(r#"{"user_id":"p","amount":null,"merchant":"m"}"#.to_owned()),
            1 => "\\PC{0,30}",
        ],
        0..8,
    );
    let bodies = prop_oneof![
        2 => (nearly.clone(), any::<bool>()).prop_map(|(all, lines)| if lines { (all.join("\n").into_bytes(), true) } else { (format!("[{}]", all.join(",")).into_bytes(), false) }),
        1 => (prop::collection::vec(any::<u8>(), 0..200), any::<bool>()),
        1 => (nearly, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(all, at, byte)| {
            let mut body = all.join("\n").into_bytes();
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
            (body, true)
        }),
    ];
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((body, in_lines) in bodies)| {
        let before: BTreeSet<String> = world.payments().into_iter().map(|(id, _)| id).collect();
        let told = if in_lines {
            let length = format!("Content-Length: {}", body.len());
            let headers: &[&str] = if body.is_empty() { &[LINES[0], &length] } else { &LINES };
            let got = client.borrow_mut().send("POST", PATH, headers, &body);
            prop_assert_eq!(got.status, 200);
            got.text().lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect()
        } else {
            let got = client.borrow_mut().post(PATH, &body);
            prop_assert!(got.status < 500, "{}", got.text());
            match got.json()["results"].as_array() {
                Some(results) => results.clone(),
                None => Vec::new(),
            }
        };
        let fresh: Vec<&str> = told.iter().filter(|of| of["duplicate"] == false).map(|of| of["id"].as_str().expect("an id")).collect();
        prop_assert!(told.iter().all(|of| of["status"].as_u64().is_some_and(|status| status < 500)), "{told:?}");
        let after: BTreeSet<String> = world.payments().into_iter().map(|(id, _)| id).collect();
        let written: BTreeSet<&str> = after.difference(&before).map(String::as_str).collect();
        prop_assert_eq!(fresh.len(), written.len());
        prop_assert_eq!(fresh.into_iter().collect::<BTreeSet<_>>(), written);
    });
}
