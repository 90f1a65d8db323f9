//! Input that no producer should send: each record has one outcome, a right verdict or a dead letter with its cause, and the stream
//! goes on.

use std::collections::BTreeMap;

use serde_json::Value;
use topology::partitioner::partition_of;

use super::records::{Raw, Seen, now_ms};
use super::scene::Scene;
use super::service::Service;
use super::{until, until_count};

const PARTITIONS: u32 = 3;
/// What the input takes: more than ten megabytes.
const INPUT_BYTES: &str = "11000000";

/// What must become of a record.
#[derive(Clone, Debug)]
enum Outcome {
    /// A verdict with these fields.
    Scored(Vec<(&'static str, Value)>),
    /// A dead letter with this cause.
    Dead(&'static str),
}

use Outcome::{Dead, Scored};

struct Case {
    name: &'static str,
    raw: Raw,
    outcome: Outcome,
}

/// A record of the user `u`, keyed and placed as it must be.
fn record(value: impl Into<Vec<u8>>) -> Raw {
    let key = b"u".to_vec();
    Raw { partition: home(&key), key: Some(key), value: Some(value.into()), timestamp: Some(now_ms()), ..Raw::default() }
}

fn home(user: &[u8]) -> u32 {
    partition_of(user, PARTITIONS)
}

fn dead(name: &'static str, value: impl Into<Vec<u8>>, cause: &'static str) -> Case {
    Case { name, raw: record(value), outcome: Dead(cause) }
}

fn scored(name: &'static str, value: impl Into<Vec<u8>>, fields: Vec<(&'static str, Value)>) -> Case {
    Case { name, raw: record(value), outcome: Scored(fields) }
}

/// A payment with more fields; `more` begins with a comma.
fn with(more: &str) -> String {
    format!(r#"{{"user_id":"u","amount":5.25,"merchant":"m"{more}}}"#)
}

fn not_json() -> Vec<Case> {
    let mut broken_utf8 = with(r#","note":"?""#).into_bytes();
    *broken_utf8.iter_mut().find(|byte| **byte == b'?').expect("a place") = 0xff;
    vec![
        dead("text", "hello", "not_json"),
        dead("broken off", r#"{"user_id":"u","amount":5"#, "not_json"),
        dead("two values", format!("{0}{0}", with("")), "not_json"),
        dead("a number that is none", r#"{"user_id":"u","merchant":"m","amount":NaN}"#, "not_json"),
        dead("an infinite number", r#"{"user_id":"u","merchant":"m","amount":-Infinity}"#, "not_json"),
        dead("a list", "[1,2]", "not_object"),
        dead("null", "null", "not_object"),
        dead("not UTF-8", broken_utf8, "not_utf8"),
        dead("a schema registry's framing", [&[0, 0, 0, 0, 7], with("").as_bytes()].concat(), "schema_registry_framing"),
        dead("nothing", "", "empty"),
        Case { name: "a tombstone", raw: Raw { value: None, ..record("") }, outcome: Dead("tombstone") },
    ]
}

fn wrong_fields() -> Vec<Case> {
    let long = "x".repeat(257);
    vec![
        dead("amount in quotes", r#"{"user_id":"u","merchant":"m","amount":"5"}"#, "wrong_type"),
        dead("amount null", r#"{"user_id":"u","merchant":"m","amount":null}"#, "wrong_type"),
        dead("user a number", r#"{"user_id":7,"merchant":"m","amount":5}"#, "wrong_type"),
        dead("merchant an object", r#"{"user_id":"u","merchant":{},"amount":5}"#, "wrong_type"),
        dead("time a fraction", with(r#","timestamp":1700000000000.5"#), "wrong_type"),
        dead("amount negative", r#"{"user_id":"u","merchant":"m","amount":-0.01}"#, "out_of_range"),
        dead("amount 1e400", r#"{"user_id":"u","merchant":"m","amount":1e400}"#, "out_of_range"),
        dead("amount 1e13", r#"{"user_id":"u","merchant":"m","amount":1e13}"#, "out_of_range"),
        dead("user empty", r#"{"user_id":"","merchant":"m","amount":5}"#, "empty_string"),
        dead("merchant empty", r#"{"user_id":"u","merchant":"","amount":5}"#, "empty_string"),
        dead("tx_id empty", with(r#","tx_id":"""#), "empty_string"),
        dead("merchant long", format!(r#"{{"user_id":"u","merchant":"{long}","amount":5}}"#), "too_long"),
        dead("no user", r#"{"merchant":"m","amount":5}"#, "missing"),
        dead("no amount", r#"{"user_id":"u","merchant":"m"}"#, "missing"),
        dead("amount twice", with(r#","amount":6"#), "duplicate"),
        dead("time before 1970", with(r#","timestamp":-1"#), "out_of_range"),
        dead("time no time", with(r#","timestamp":"yesterday""#), "bad_timestamp"),
        dead("time in two hours", with(&format!(r#","timestamp":{}"#, now_ms() + 7_200_000)), "far_future"),
        dead("time at the end of time", with(r#","timestamp":"9999-12-31T23:59:59Z""#), "far_future"),
        dead("time beyond numbers", with(r#","timestamp":1e300"#), "out_of_range"),
    ]
}

fn unusual() -> Vec<Case> {
    let now = now_ms();
    let deep = with(&format!(r#","x":{}{}"#, "[".repeat(100_000), "]".repeat(100_000)));
    let huge_header = |value: &str| Raw { headers: vec![("huge", vec![b'h'; 900_000])], ..record(value) };
    let case = |name, raw, outcome| Case { name, raw, outcome };
    let elsewhere = (home(b"u") + 1) % PARTITIONS;
    let errors_of_old = vec![("__streams.errors.message", b"of an earlier life".to_vec()), ("mine", b"kept".to_vec())];
    vec![
        scored("plain", with(""), vec![("amount", 5.25.into())]),
        scored("unknown fields", with(r#","x":{"y":[1,null]},"z":"é""#), vec![("merchant", "m".into())]),
        scored("an unknown field that is very deep", deep, vec![("amount", 5.25.into())]),
        scored("no time of its own", with(""), vec![]),
        scored("1970", with(r#","timestamp":0"#), vec![("event_time", 0.into())]),
        scored(
            "RFC 3339",
            with(r#","timestamp":"2024-02-29T12:00:00+02:00""#),
            vec![("event_time", 1_709_200_800_000_u64.into())],
        ),
        scored(
            "own id and currency",
            with(r#","tx_id":"t-1","currency":"EUR""#),
            vec![("tx_id", "t-1".into()), ("currency", "EUR".into())],
        ),
        scored("optional fields null", with(r#","tx_id":null,"timestamp":null"#), vec![("currency", Value::Null)]),
        scored("nothing paid", r#"{"user_id":"u","merchant":"m","amount":0}"#, vec![("amount", 0.0.into())]),
        scored(
            "names that need escapes",
            r#"{"user_id":"u","merchant":"\"\\\u0000\u2028é","amount":1}"#,
            vec![("merchant", "\"\\\0\u{2028}é".into())],
        ),
        scored("a million bytes", with(&format!(r#","pad":"{}""#, "p".repeat(1_000_000))), vec![("amount", 5.25.into())]),
        dead("ten million bytes", with(&format!(r#","pad":"{}""#, "p".repeat(10_000_000))), "too_large"),
        case("no key", Raw { key: None, ..record(with("")) }, Scored(vec![("user_id", "u".into())])),
        case("another key", Raw { key: Some(vec![0xff, 0]), ..record(with("")) }, Scored(vec![("user_id", "u".into())])),
        case("a huge header, scored", huge_header(&with("")), Scored(vec![])),
        case("a huge header, put aside", huge_header("{}"), Dead("missing")),
        case("the wrong partition", Raw { partition: elsewhere, ..record(with("")) }, Dead("misplaced")),
        case("errors of an earlier life", Raw { headers: errors_of_old, ..record("?") }, Dead("not_json")),
        case("a record of 1970", Raw { timestamp: Some(1), ..record(with("")) }, Scored(vec![("event_time", 1.into())])),
        case("a record of the next hour", Raw { timestamp: Some(now + 3_000_000), ..record(with("")) }, Scored(vec![])),
        case(
            "a forged origin",
            Raw { headers: vec![("mangrove.origin", b"forged:0:0".to_vec())], ..record(with("")) },
            Scored(vec![]),
        ),
    ]
}

/// Outcomes by the input record they are of.
#[derive(Default)]
struct Outcomes {
    verdicts: BTreeMap<String, Vec<Seen>>,
    dead: BTreeMap<String, Vec<Seen>>,
}

fn outcomes(scene: &Scene) -> Outcomes {
    let mut found = Outcomes::default();
    for seen in scene.read(&scene.topic("verdicts")) {
        let id = seen.json()["id"].as_str().expect("an id").to_owned();
        found.verdicts.entry(id).or_default().push(seen);
    }
    for seen in scene.read(&scene.topic("dead-letters")) {
        let part = |name: &str| seen.header(&format!("__streams.errors.{name}"));
        let id = format!("{}:{}:{}", part("topic"), part("partition"), part("offset"));
        found.dead.entry(id).or_default().push(seen);
    }
    found
}

fn check(case: &Case, id: &str, outcomes: &Outcomes) {
    let Case { name, raw, outcome } = case;
    let verdicts = outcomes.verdicts.get(id).map_or(&[][..], Vec::as_slice);
    let dead = outcomes.dead.get(id).map_or(&[][..], Vec::as_slice);
    assert_eq!(verdicts.len() + dead.len(), 1, "{name}: {} verdicts and {} dead letters", verdicts.len(), dead.len());
    match outcome {
        Scored(fields) => {
            let seen = verdicts.first().unwrap_or_else(|| panic!("{name}: {}", dead[0].header("__streams.errors.message")));
            let verdict = seen.json();
            for (field, expected) in fields {
                assert_eq!(&verdict[field], expected, "{name}: {verdict}");
            }
            assert_eq!((seen.key.as_deref(), Some(seen.timestamp)), (Some(&b"u"[..]), raw.timestamp), "{name}");
        }
        Dead(cause) => {
            let seen = dead.first().unwrap_or_else(|| panic!("{name}: scored as {}", verdicts[0].json()));
            assert_eq!(seen.header("__streams.errors.exception"), *cause, "{name}");
            assert!(!seen.header("__streams.errors.message").is_empty(), "{name}");
            assert!(seen.headers.iter().any(|(header, _)| header == "__streams.errors.stacktrace"), "{name}");
            assert!(seen.value == raw.value && seen.key == raw.key, "{name}: not the original bytes");
            assert_eq!(Some(seen.timestamp), raw.timestamp, "{name}");
            let theirs = |header: &&(String, _)| !header.0.starts_with("__streams.errors.");
            let kept: Vec<_> = seen.headers.iter().filter(theirs).cloned().collect();
            let original = raw.headers.iter().map(|(header, value)| ((*header).to_owned(), Some(value.clone())));
            assert_eq!(kept, original.filter(|header| theirs(&header)).collect::<Vec<_>>(), "{name}");
        }
    }
}

/// Writes all cases, and a good record behind them in each partition; waits for its verdict.
fn run(scene: &Scene, service: &mut Service, cases: &[Case]) {
    let (topic, writer) = (scene.topic("transactions"), scene.writer());
    let mut ends = vec![0_u64; PARTITIONS as usize];
    let mut ids = Vec::new();
    for Case { raw, .. } in cases {
        writer.raw(&topic, raw);
        let end = &mut ends[raw.partition as usize];
        ids.push(format!("{topic}:{}:{end}", raw.partition));
        *end += 1;
    }
    for (partition, end) in ends.iter().enumerate() {
        let users = (0..).map(|number| format!("good-{number}"));
        let user = users.into_iter().find(|user| home(user.as_bytes()) as usize == partition).expect("a user of the partition");
        let value = format!(r#"{{"user_id":"{user}","amount":1,"merchant":"m"}}"#);
        writer.raw(&topic, &Raw { partition: partition as u32, ..record(value) });
        ids.push(format!("{topic}:{partition}:{end}"));
    }
    writer.flush();
    assert_eq!(scene.ends(&topic).iter().sum::<u64>(), ids.len() as u64, "the broker took every record");
    let good = &ids[cases.len()..];
    let outcomes = until("the good records behind the bad ones have verdicts", || {
        assert!(service.lives(), "the stream stopped");
        Some(outcomes(scene)).filter(|found| good.iter().all(|id| found.verdicts.contains_key(id)))
    });
    cases.iter().zip(&ids).for_each(|(case, id)| check(case, id, &outcomes));
    assert_eq!(outcomes.verdicts.len() + outcomes.dead.len(), ids.len(), "no outcome but of these records");
}

#[test]
fn every_bad_record_has_one_outcome_and_the_stream_goes_on() {
    let Some(scene) = Scene::new("bad") else { return };
    scene.create("transactions", PARTITIONS, &[("max.message.bytes", INPUT_BYTES)]);
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    let cases: Vec<Case> = not_json().into_iter().chain(wrong_fields()).chain(unusual()).collect();
    run(&scene, &mut service, &cases);
    service.stop();
}

#[test]
fn a_dead_letter_that_is_too_large_is_cut_and_marked() {
    let Some(scene) = Scene::new("cut") else { return };
    scene.create("transactions", 1, &[("max.message.bytes", INPUT_BYTES)]);
    scene.create("dead-letters", 1, &[("max.message.bytes", "100000")]);
    let mut service = scene.start("a");
    service.restored(1);
    let (topic, writer) = (scene.topic("transactions"), scene.writer());
    writer.raw(&topic, &Raw { partition: 0, ..record(vec![b'x'; 5_000_000]) });
    writer.raw(&topic, &Raw { partition: 0, headers: vec![("huge", vec![b'h'; 500_000])], ..record("?") });
    writer.raw(&topic, &Raw { partition: 0, ..record(with("")) });
    writer.flush();
    until("the good record's verdict", || (scene.read(&scene.topic("verdicts")).len() == 1).then_some(()));
    let dead = scene.read(&scene.topic("dead-letters"));
    assert_eq!(dead.len(), 2);
    let value = dead[0].value.as_deref().expect("a value");
    assert!((50_000..100_000).contains(&value.len()) && value.iter().all(|&byte| byte == b'x'), "{} bytes", value.len());
    assert_eq!(dead[0].header("__mangrove.truncated"), "5000000");
    assert_eq!(dead[0].header("__streams.errors.exception"), "too_large");
    assert_eq!(dead[1].header("__mangrove.truncated"), "1");
    assert_eq!(dead[1].header("__streams.errors.exception"), "not_json");
    service.stop();
}

#[test]
fn records_of_far_times_pass_where_the_input_allows_them() {
    let Some(scene) = Scene::new("far") else { return };
    let any_time = [("message.timestamp.after.max.ms", "9223372036854775807")];
    scene.create("transactions", PARTITIONS, &any_time);
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    let year_2100 = 4_102_444_800_000;
    let at = |name, timestamp, outcome| Case { name, raw: Raw { timestamp: Some(timestamp), ..record(with("")) }, outcome };
    let cases = [
        at("2100", year_2100, Scored(vec![("event_time", year_2100.into())])),
        Case { name: "2100, put aside", raw: Raw { timestamp: Some(year_2100), ..record("?") }, outcome: Dead("not_json") },
    ];
    run(&scene, &mut service, &cases);
    service.stop();
}

/// What a producer that has gone mad writes fills many fetches, and was there first.
#[test]
fn a_partition_full_of_bad_records_holds_up_no_other() {
    const BAD: u64 = 100_000;
    const GOOD: usize = 300;
    let Some(scene) = Scene::new("fair") else { return };
    let scene = scene.with("WORKERS", "1");
    scene.create("transactions", PARTITIONS, &[]);
    for topic in ["verdicts", "dead-letters"] {
        scene.create(topic, PARTITIONS, &[("message.timestamp.type", "LogAppendTime")]);
    }
    let (writer, topic) = (scene.writer(), scene.topic("transactions"));
    for number in 0..BAD {
        let value = Some(format!("no payment, for the {number:0>120}th time").into_bytes());
        writer.raw(&topic, &Raw { partition: 0, key: Some(b"mad".to_vec()), value, ..Raw::default() });
    }
    let users = (0..).map(|number| format!("user-{number}")).filter(|user| home(user.as_bytes()) != 0);
    for user in users.take(GOOD) {
        let payment = format!(r#"{{"user_id":"{user}","amount":5.25,"merchant":"m"}}"#);
        writer.keyed(&topic, user.as_bytes(), payment.as_bytes(), now_ms());
    }
    writer.flush();
    let service = scene.start("a");
    let ends = scene.ends(&topic);
    until_count("records answered or set aside", ends.iter().sum(), || scene.committed(&topic).into_iter().flatten().sum());
    service.stop();
    let (verdicts, dead) = (scene.read(&scene.topic("verdicts")), scene.read(&scene.topic("dead-letters")));
    assert_eq!((verdicts.len(), dead.len() as u64), (GOOD, BAD));
    let last = verdicts.iter().map(|seen| seen.timestamp).max().expect("verdicts");
    let before = dead.iter().filter(|seen| seen.timestamp <= last).count() as u64;
    assert!(
        before < BAD / 2,
        "{before} of {BAD} bad records were set aside before the last payment of another partition was answered"
    );
}
