//! What a verdict is: its shape on the wire, its model, its money.

use std::sync::Arc;

use mangrove::scoring::{FxTable, ScoringParams};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Value, json};
use topology::driver::DriverOptions;

use crate::scoring_world::{T, World, bytes, json, model, one_partition, origin};

const FIELDS: [&str; 15] = [
    "tx_id",
    "id",
    "user_id",
    "event_time",
    "amount",
    "currency",
    "merchant",
    "score",
    "raw_score",
    "is_anomaly",
    "severity",
    "explanation",
    "reasons",
    "features",
    "model_id",
];

/// An object's keys in the order of the text.
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Keys;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

fn features(verdict: &Value) -> Vec<f64> {
    verdict["features"].as_array().unwrap().iter().map(|feature| feature.as_f64().unwrap()).collect()
}

/// Twenty ordinary payments, then one that is not.
fn burst(world: &mut World) -> Vec<Value> {
    for n in 0..40 {
        world.pay("ann", 10.0 + f64::from(n % 3), "bakery", T + i64::from(n) * 86_400_000);
    }
    world.pay("ann", 90_000.0, "jeweller", T + 40 * 86_400_000 + 40_000_000);
    world.verdicts()
}

#[test]
fn a_first_verdict_without_a_model_is_exactly_this() {
    let mut world = World::plain();
    let payment = br#"{"user_id":"u1","amount":12.5,"merchant":"caf\u00e9 \"x\"","extra":{"a":[1]}}"#;
    world.driver.pipe("transactions", Some(b"another key"), Some(payment), T);
    world.driver.run().unwrap();
    let records = world.driver.read("verdicts");
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].timestamp, records[0].key.as_deref()), (T, Some(&b"u1"[..])));
    assert_eq!(serde_json::from_slice::<Keys>(bytes(&records[0])).unwrap().0, FIELDS);
    let features = [12.5f64.ln_1p() as f32, 0.0, 0.5, 1.0, 0.0, 0.0, 2_592_000f64.ln_1p() as f32, 0.0, 1.0, 0.0];
    let mut verdict = json(&records[0]);
    let got: Vec<f32> = serde_json::from_value(verdict["features"].take()).unwrap();
    assert_eq!(got, features);
    let want = json!({
        "tx_id": "transactions:0:0", "id": "transactions:0:0", "user_id": "u1", "event_time": T, "amount": 12.5, "currency": null,
        "merchant": "café \"x\"", "score": null, "raw_score": null, "is_anomaly": false, "severity": "NONE", "explanation": "",
        "reasons": [], "features": null, "model_id": null,
    });
    assert_eq!(verdict, want);
    assert!(world.driver.read("anomalies").is_empty());
}

#[test]
fn every_payment_gets_one_verdict_under_its_own_id_and_the_senders() {
    let mut world = World::new(&ScoringParams::default(), DriverOptions::default());
    for n in 0..50 {
        let user = format!("u{}", n % 7);
        let json =
            format!(r#"{{"user_id":"{user}","amount":{n},"merchant":"m","tx_id":"t-{n}","currency":"EUR","timestamp":{T}}}"#);
        world.driver.pipe("transactions", Some(user.as_bytes()), Some(json.as_bytes()), T + n);
    }
    world.driver.run().unwrap();
    let records = world.driver.read("verdicts");
    let mut ids: Vec<(String, String)> = Vec::new();
    for record in &records {
        let verdict = json(record);
        let user = verdict["user_id"].as_str().unwrap();
        assert_eq!(record.partition.partition, world.partition_of(user));
        assert_eq!(record.key.as_deref(), Some(user.as_bytes()));
        let n = verdict["amount"].as_f64().unwrap();
        assert_eq!(record.timestamp, T + n as i64, "the record's own time, not the event's");
        assert_eq!((&verdict["event_time"], &verdict["currency"]), (&json!(T), &json!("EUR")));
        ids.push((verdict["id"].as_str().unwrap().to_owned(), verdict["tx_id"].as_str().unwrap().to_owned()));
    }
    ids.sort();
    ids.dedup_by(|a, b| a.0 == b.0);
    assert_eq!((records.len(), ids.len()), (50, 50));
    let mut senders: Vec<String> = ids.into_iter().map(|(_, tx_id)| tx_id).collect();
    senders.sort();
    senders.dedup();
    assert_eq!(senders.len(), 50);
}

#[test]
fn a_model_scores_from_its_decision_on_and_its_successor_from_the_next() {
    let mut world = World::plain();
    world.pay("ann", 5.0, "bakery", T);
    assert_eq!(world.verdicts()[0]["model_id"], Value::Null);
    let (first, second) = (model(1), model(2));
    for model in [&first, &second] {
        world.slot.set(Some(Arc::clone(model)));
        world.pay("ann", 6.0, "bakery", T + 1000);
        let verdict = &world.verdicts()[0];
        assert_eq!(verdict["model_id"], json!(model.id));
        let row: Vec<f32> = features(verdict).into_iter().map(|feature| feature as f32).collect();
        let raw = model.raw_score(&row.try_into().unwrap());
        assert_eq!(verdict["raw_score"].as_f64(), Some(raw));
        assert_eq!(verdict["score"].as_f64(), Some(model.score(raw)));
    }
    let decisions: Vec<Value> = world.driver.read("test-decisions").iter().map(json).collect();
    let told = |model: &models::Model, after: u64| json!({"after": after, "kind": "model", "subject": model.id});
    // Offset 1 is behind the first payment; the publisher writes no control records.
    assert_eq!(decisions, [told(&first, 1), told(&second, 2)]);
}

#[test]
fn an_owner_without_a_model_says_so_where_the_one_before_had_one() {
    let mut world = World::plain();
    let first = model(1);
    world.slot.set(Some(Arc::clone(&first)));
    world.pay("ann", 5.0, "bakery", T);
    world.driver.run().unwrap();
    world.driver.crash(false);
    world.slot.set(None);
    world.pay("ann", 6.0, "bakery", T + 1000);
    assert_eq!(world.verdicts()[1]["model_id"], Value::Null);
    let decisions: Vec<Value> = world.driver.read("test-decisions").iter().map(json).collect();
    assert_eq!(decisions, [json!({"after": 0, "kind": "model", "subject": first.id}), json!({"after": 1, "kind": "model"})]);
}

#[test]
fn column_nine_follows_the_model_or_the_bound_that_is_fixed() {
    let model = model(1);
    let flags = |fixed: Option<f64>, with_model: bool| {
        let params = ScoringParams { global_amount_p99: fixed, ..ScoringParams::default() };
        let mut world = World::new(&params, one_partition());
        world.slot.set(with_model.then(|| Arc::clone(&model)));
        for amount in [10.0, 100.0, 100.5, model.global_amount_p99, model.global_amount_p99 + 1.0] {
            world.pay("ann", amount, "bakery", T);
        }
        world.verdicts().iter().map(|verdict| features(verdict)[9] as u8).collect::<Vec<_>>()
    };
    assert!(model.global_amount_p99 > 101.0, "the amounts of the test are chosen for it");
    assert_eq!(flags(None, false), [0, 0, 0, 0, 0]);
    assert_eq!(flags(None, true), [0, 0, 0, 0, 1]);
    assert_eq!(flags(Some(100.0), false), [0, 0, 1, 1, 1]);
    assert_eq!(flags(Some(100.0), true), [0, 0, 1, 1, 1]);
}

#[test]
fn anomalies_are_the_verdicts_from_the_threshold_up_with_their_reasons() {
    let mut world = World::plain();
    world.slot.set(Some(model(1)));
    let verdicts = burst(&mut world);
    let last = verdicts.last().unwrap();
    assert_eq!(last["is_anomaly"], json!(true), "{last}");
    assert_ne!(last["severity"], json!("NONE"));
    let anomalies: Vec<Value> = world.driver.read("anomalies").iter().map(json).collect();
    let flagged: Vec<&Value> = verdicts.iter().filter(|verdict| verdict["is_anomaly"] == json!(true)).collect();
    assert_eq!(anomalies.iter().collect::<Vec<_>>(), flagged);
    for verdict in &verdicts {
        let score = verdict["score"].as_f64().unwrap();
        let anomaly = verdict["is_anomaly"].as_bool().unwrap();
        assert_eq!(anomaly, score >= 0.5);
        assert_eq!(verdict["reasons"].as_array().unwrap().is_empty(), !anomaly, "{verdict}");
    }
    let reasons = last["reasons"].as_array().unwrap();
    assert!(reasons.len() <= 5);
    let mut texts = reasons.iter().map(|reason| reason["text"].as_str().unwrap());
    let phrases: Vec<&str> = last["explanation"].as_str().unwrap().split("; ").collect();
    assert!((1..=3).contains(&phrases.len()), "{phrases:?}");
    assert!(phrases.iter().all(|phrase| texts.any(|text| text == *phrase)), "the reasons' own words, strongest first: {last}");
    let shares: Vec<f64> = reasons.iter().map(|reason| reason["contribution"].as_f64().unwrap()).collect();
    assert!(shares.iter().all(|&share| share > 0.0) && shares.windows(2).all(|w| w[0] >= w[1]), "{shares:?}");
}

#[test]
fn reasons_all_explains_every_verdict_and_changes_nothing_else() {
    let run = |reasons_for_all| {
        let mut world = World::new(&ScoringParams { reasons_for_all, ..ScoringParams::default() }, one_partition());
        world.slot.set(Some(model(1)));
        burst(&mut world)
    };
    let (some, all) = (run(false), run(true));
    assert!(all.iter().filter(|verdict| !verdict["reasons"].as_array().unwrap().is_empty()).count() > all.len() / 2);
    let without = |verdict: &Value| {
        let mut verdict = verdict.clone();
        verdict["reasons"].take();
        verdict["explanation"].take();
        verdict
    };
    assert_eq!(some.iter().map(without).collect::<Vec<_>>(), all.iter().map(without).collect::<Vec<_>>());
}

#[test]
fn amounts_are_scored_in_the_base_currency() {
    let table = FxTable::parse(br#"{"EUR":1.25,"JPY":0.0066,"BIG":1e6}"#, "USD").unwrap();
    let params = ScoringParams { fx: Some(Arc::new(table)), ..ScoringParams::default() };
    let mut world = World::new(&params, one_partition());
    for (amount, currency) in [("100", "\"EUR\""), ("125", "null"), ("7", "\"GBP\""), ("1e12", "\"BIG\""), ("125", "\"USD\"")] {
        let json = format!(r#"{{"user_id":"ann","amount":{amount},"merchant":"m","currency":{currency}}}"#);
        world.driver.pipe("transactions", Some(b"ann"), Some(json.as_bytes()), T);
    }
    let verdicts = world.verdicts();
    assert_eq!(verdicts.len(), 3);
    assert_eq!(verdicts[0]["amount"], json!(100.0));
    assert_eq!(verdicts[0]["fx"], json!({"base": "USD", "rate": 1.25, "amount": 125.0}));
    assert_eq!(verdicts[1]["fx"], json!({"base": "USD", "rate": 1.0, "amount": 125.0}));
    // The same money each time: the profile sees no difference.
    assert_eq!(features(&verdicts[2])[0], features(&verdicts[0])[0]);
    assert_eq!(world.profile("ann").unwrap().0.mean(), 125.0);
    let dead: Vec<(String, String)> = world.driver.read("dead-letters").iter().map(origin).collect();
    let dead: Vec<(&str, &str)> = dead.iter().map(|(id, cause)| (id.as_str(), cause.as_str())).collect();
    assert_eq!(dead, [("transactions:0:2", "unknown_currency"), ("transactions:0:3", "out_of_range")]);
    let decision = json(&world.driver.read("test-decisions")[0]);
    assert_eq!(decision, json!({"after": 0, "kind": "fx", "subject": "USD BIG=1000000 EUR=1.25 JPY=0.0066 USD=1"}));
    // What was kept can be read again: a crash and a restore from the changelog change nothing.
    world.driver.crash(true);
    world.driver.run().unwrap();
    assert_eq!(world.seen("ann"), Some(3));
}

#[test]
fn a_decision_of_an_aborted_transaction_is_written_again() {
    use topology::broker::Reaction;
    use topology::simulated::{Fault, Op};
    let mut world = World::plain();
    world.slot.set(Some(model(1)));
    let mut left = 1;
    world.driver.sim.set_faults(move |call| {
        let abort = call.op == Op::EndTxnCommit && left > 0;
        left -= i32::from(abort);
        if abort { Fault::Error(Reaction::Abort) } else { Fault::None }
    });
    world.pay("ann", 5.0, "bakery", T);
    assert_eq!(world.verdicts().len(), 1);
    assert_eq!(world.driver.read("test-decisions").len(), 1);
}
