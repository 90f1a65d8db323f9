//! Whatever is in a record, it is scored or put aside with its cause, and the stream goes on.

use std::collections::BTreeMap;

use mangrove::scoring::ScoringParams;
use topology::driver::DriverOptions;

use crate::scoring_world::{T, World, header, origin, outcomes};

/// Nothing of a record's values may be in what we say of it.
const SECRET: &str = "s3cr3t";
const END: i64 = 253_402_300_800_000;

struct Case {
    name: &'static str,
    value: Option<Vec<u8>>,
    timestamp: i64,
    outcome: &'static str,
}

fn case(outcome: &'static str, name: &'static str, value: impl Into<Vec<u8>>) -> Case {
    Case { name, value: Some(value.into()), timestamp: T, outcome }
}

/// A payment of `ann` in which one field is given, or left out.
fn with(field: &str, value: Option<&str>) -> String {
    let fields = [("user_id", "\"ann\""), ("amount", "5"), ("merchant", "\"s3cr3t\"")];
    let mut all: Vec<(&str, &str)> = fields.into_iter().filter(|(name, _)| *name != field).collect();
    all.extend(value.map(|value| (field, value)));
    let fields: Vec<String> = all.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn shapes() -> Vec<Case> {
    let huge = format!(r#"{{"user_id":"ann","amount":5,"merchant":"m","pad":"{}"}}"#, "x".repeat(10 << 20));
    let mut not_utf8 = with("merchant", None).into_bytes();
    not_utf8.insert(3, 0xff);
    vec![
        case("scored", "plain", with("", None)),
        case("empty", "no bytes", ""),
        case("not_json", "broken", r#"{"user_id":"s3cr3t""#),
        case("not_json", "two values", format!("{} {{}}", with("", None))),
        case("not_json", "NaN", with("amount", Some("NaN"))),
        case("not_json", "Infinity", with("amount", Some("Infinity"))),
        case("not_object", "a list", "[1]"),
        case("not_object", "null", "null"),
        case("not_object", "a string", "\"s3cr3t\""),
        case("schema_registry_framing", "framed", [&[0, 0, 0, 0, 1][..], with("", None).as_bytes()].concat()),
        case("not_utf8", "bad bytes", not_utf8),
        case("too_large", "10 MB", huge),
        case("scored", "unknown fields", with("more", Some(r#"{"deep":[{"er":null}]}"#))),
        case("duplicate", "a field twice", r#"{"user_id":"ann","user_id":"ann","amount":1,"merchant":"m"}"#),
        Case { name: "tombstone", value: None, timestamp: T, outcome: "tombstone" },
    ]
}

fn fields() -> Vec<Case> {
    let long = format!("\"{}\"", "u".repeat(257));
    let fits = format!("\"{}\"", "m".repeat(256));
    vec![
        case("missing", "no user", with("user_id", None)),
        case("missing", "no amount", with("amount", None)),
        case("missing", "no merchant", with("merchant", None)),
        case("wrong_type", "amount as text", with("amount", Some("\"5\""))),
        case("wrong_type", "amount null", with("amount", Some("null"))),
        case("wrong_type", "amount as a list", with("amount", Some("[5]"))),
        case("wrong_type", "user as a number", with("user_id", Some("5"))),
        case("wrong_type", "merchant as an object", with("merchant", Some("{}"))),
        case("wrong_type", "user null", with("user_id", Some("null"))),
        case("out_of_range", "negative", with("amount", Some("-0.01"))),
        case("out_of_range", "1e400", with("amount", Some("1e400"))),
        case("out_of_range", "above 1e12", with("amount", Some("1000000000000.1"))),
        case("scored", "1e12", with("amount", Some("1e12"))),
        case("scored", "zero", with("amount", Some("0"))),
        case("scored", "-0.0", with("amount", Some("-0.0"))),
        case("scored", "1e-400", with("amount", Some("1e-400"))),
        case("empty_string", "empty user", with("user_id", Some("\"\""))),
        case("empty_string", "empty merchant", with("merchant", Some("\"\""))),
        case("too_long", "long user", with("user_id", Some(&long))),
        case("too_long", "long merchant", with("merchant", Some(&long))),
        case("scored", "longest merchant", with("merchant", Some(&fits))),
        case("too_long", "long currency", with("currency", Some("\"seventeen letters\""))),
        case("scored", "currency null", with("currency", Some("null"))),
    ]
}

fn times() -> Vec<Case> {
    let at = |outcome, name, time: &str| case(outcome, name, with("timestamp", Some(time)));
    let hour = 3_600_000;
    let mut cases = vec![
        at("scored", "at the epoch", "0"),
        at("scored", "an hour ahead", &(T + hour).to_string()),
        at("far_future", "more than an hour ahead", &(T + hour + 1).to_string()),
        at("scored", "RFC 3339", "\"2023-11-14T22:13:20.5+01:00\""),
        at("bad_timestamp", "no time", "\"yesterday\""),
        at("bad_timestamp", "no such day", "\"2023-02-30T00:00:00Z\""),
        at("out_of_range", "before the epoch", "-1"),
        at("out_of_range", "the year 10000", &END.to_string()),
        at("out_of_range", "1e30", "1e30"),
        at("wrong_type", "a fraction", "1700000000000.5"),
        at("wrong_type", "a boolean", "true"),
        at("scored", "null", "null"),
    ];
    cases.push(Case { timestamp: 5, ..case("scored", "the record's own time", with("", None)) });
    cases.push(Case { timestamp: -1, ..case("bad_record_time", "no time at all", with("", None)) });
    cases.push(Case { timestamp: END, ..case("bad_record_time", "a record of the year 10000", with("", None)) });
    cases
}

fn run(exactly_once: bool, cases: &[Case]) -> (World, BTreeMap<String, &'static str>) {
    let options = DriverOptions {
        partitions: 2,
        exactly_once,
        max_poll_records: 7,
        input_max_bytes: Some(32 << 20),
        ..DriverOptions::default()
    };
    let mut world = World::new(&ScoringParams::default(), options);
    let here = world.partition_of("ann");
    let mut want = BTreeMap::new();
    for (offset, case) in cases.iter().enumerate() {
        world.driver.pipe_to("transactions", here, Some(b"key"), case.value.as_deref(), case.timestamp);
        want.insert(format!("transactions:{here}:{offset}"), case.outcome);
    }
    world.driver.pipe_to("transactions", 1 - here, Some(b"key"), Some(with("", None).as_bytes()), T);
    want.insert(format!("transactions:{}:0", 1 - here), "misplaced");
    world.driver.run().unwrap();
    (world, want)
}

#[test]
fn each_record_has_one_outcome_and_it_is_the_right_one() {
    let cases: Vec<Case> = shapes().into_iter().chain(fields()).chain(times()).collect();
    for exactly_once in [true, false] {
        let (mut world, want) = run(exactly_once, &cases);
        let got = outcomes(&mut world.driver, false);
        for ((id, got), (wanted, outcome)) in got.iter().zip(&want) {
            let name = id.rsplit(':').next().and_then(|n| cases.get(n.parse::<usize>().ok()?)).map_or("", |case| case.name);
            assert_eq!((id, got.as_str()), (wanted, *outcome), "case {name}, exactly_once {exactly_once}");
        }
        assert_eq!(got.len(), want.len());
        let scored = want.values().filter(|outcome| **outcome == "scored").count() as u64;
        assert_eq!(world.seen("ann"), Some(scored));
        // The stream goes on.
        world.pay("ann", 1.0, "m", T);
        assert_eq!(world.verdicts().len(), 1);
    }
}

#[test]
fn dead_letters_hold_the_record_and_say_nothing_of_its_values() {
    let cases: Vec<Case> = shapes().into_iter().chain(fields()).chain(times()).collect();
    let (mut world, _) = run(true, &cases);
    let here = world.partition_of("ann");
    let dead = world.driver.read("dead-letters");
    assert!(dead.len() > 30);
    for record in dead {
        let (id, _) = origin(&record);
        let message = header(&record, "__streams.errors.message").unwrap();
        assert!(!message.is_empty() && message.len() <= 500 && !message.contains(SECRET), "{message}");
        assert_eq!(record.key.as_deref(), Some(&b"key"[..]));
        let Some(offset) = id.strip_prefix(&format!("transactions:{here}:")) else { continue };
        let case = &cases[offset.parse::<usize>().unwrap()];
        assert_eq!(record.timestamp, case.timestamp, "{}", case.name);
        match case.value.as_deref() {
            Some(value) if value.len() > 1 << 20 => {
                let kept = record.value.as_deref().unwrap();
                assert!(value.starts_with(kept) && (1 << 19..1 << 20).contains(&kept.len()));
                assert_eq!(header(&record, "__mangrove.truncated"), Some(value.len().to_string().as_str()));
            }
            value => assert_eq!(record.value.as_deref(), value, "{}", case.name),
        }
    }
}
