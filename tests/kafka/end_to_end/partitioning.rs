//! INPUT_PARTITIONING: payments under other keys, and under wrong ones.

use std::collections::{BTreeMap, HashMap};

use topology::partitioner::partition_of;

use super::ledger::{Ledger, Payment, faults, model};
use super::records::{Raw, read_all};
use super::scene::{PARTITIONS, Scene};
use super::{until, until_count};

const PAYMENTS: usize = 20_000;

/// Payments as a producer sends them that keys by something else: all of a user's in one partition, whichever that is.
fn elsewhere(payments: &[Payment]) -> Vec<Raw> {
    let raw = |payment: &Payment| {
        let key = format!("account of {}", payment.user).into_bytes();
        let (value, timestamp) = (Some(payment.json.clone()), Some(payment.at_ms));
        Raw {
            partition: partition_of(&key, PARTITIONS),
            key: Some(key),
            value,
            timestamp,
            headers: vec![("trace", b"1".to_vec())],
        }
    };
    payments.iter().map(raw).collect()
}

/// The backtest's verdicts under the ids of records that were written elsewhere.
fn renamed(verdicts: &HashMap<String, Vec<u8>>, payments: &[Payment], raws: &[Raw], topic: &str) -> HashMap<String, Vec<u8>> {
    let mut next: [BTreeMap<u32, u64>; 2] = Default::default();
    let mut id = |side: usize, partition: u32| {
        let offset = next[side].entry(partition).or_default();
        *offset += 1;
        format!("{topic}:{partition}:{}", *offset - 1)
    };
    let rename = |(payment, raw): (&Payment, &Raw)| {
        let old = id(0, partition_of(payment.user.as_bytes(), PARTITIONS));
        let new = id(1, raw.partition);
        let text = std::str::from_utf8(&verdicts[&old]).expect("text");
        let verdict = text.replacen(&format!("\"{old}\""), &format!("\"{new}\""), 2);
        (new, verdict.into_bytes())
    };
    payments.iter().zip(raws).map(rename).collect()
}

#[test]
fn payments_under_any_key_are_scored_by_their_users() {
    let Some(scene) = Scene::new("any") else { return };
    let scene = scene.with("INPUT_PARTITIONING", "any").with("MODEL_PATH", model().to_str().expect("a plain path"));
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let raws = elsewhere(&ledger.payments);
    let topic = scene.topic("transactions");
    let expected = renamed(&ledger.verdicts(&scene, model()), &ledger.payments, &raws, &topic);
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    service.restored(2 * PARTITIONS as usize);
    let writer = scene.writer();
    let (first, rest) = raws.split_at(PAYMENTS / 2);
    first.iter().for_each(|raw| writer.raw(&topic, raw));
    let verdicts = scene.topic("verdicts");
    until("some verdicts", || scene.ends(&verdicts).iter().any(|&end| end > 100).then_some(()));
    rest.iter().for_each(|raw| writer.raw(&topic, raw));
    service.kill();
    let service = scene.start("a");
    until_count("verdicts", PAYMENTS as u64, || scene.ends(&verdicts).iter().sum());
    let seen = until("all verdicts", || Some(read_all(&scene.address, &verdicts)).filter(|seen| seen.len() >= PAYMENTS));
    service.stop();
    assert_eq!(faults(&seen, &expected, true), "");
    assert_eq!(scene.profiles(), ledger.profiles());
}

#[test]
fn an_odd_record_goes_on_under_any_key_too() {
    let Some(scene) = Scene::new("anyodd") else { return };
    let scene = scene.with("INPUT_PARTITIONING", "any");
    scene.create("transactions", 2, &[("max.message.bytes", "4000000")]);
    let mut service = scene.start("a");
    service.restored(4);
    let (topic, writer) = (scene.topic("transactions"), scene.writer());
    let payment = |user: &str, pad: usize| {
        let value =
            format!(r#"{{"user_id":"{user}","amount":3,"merchant":"m","timestamp":1700000000000,"pad":"{}"}}"#, "p".repeat(pad));
        Raw { partition: 1, value: Some(value.into_bytes()), timestamp: Some(1_700_000_000_000), ..Raw::default() }
    };
    let forged = vec![("mangrove.origin", b"forged:0:0".to_vec())];
    let huge = vec![("huge", vec![b'h'; 1_500_000])];
    // Together larger than what topics take by default: the repartition topic must take what the input takes.
    let odd = [
        payment("keyless", 0),
        Raw { headers: forged, ..payment("forger", 0) },
        payment("large", 1_048_000),
        Raw { headers: huge, ..payment("header", 0) },
        Raw { value: Some(b"?".to_vec()), ..payment("bad", 0) },
        Raw { value: None, ..payment("tombstone", 0) },
        payment("last", 0),
    ];
    odd.iter().for_each(|raw| writer.raw(&topic, raw));
    writer.flush();
    let verdicts = until("five verdicts", || {
        assert!(service.lives(), "the stream stopped");
        Some(scene.read(&scene.topic("verdicts"))).filter(|seen| seen.len() >= 5)
    });
    let ids: BTreeMap<String, String> = verdicts
        .iter()
        .map(|seen| {
            let verdict = seen.json();
            let text = |field: &str| verdict[field].as_str().expect("text").to_owned();
            (text("user_id"), text("id"))
        })
        .collect();
    let id = |offset: u64| format!("{topic}:1:{offset}");
    let expected = [("keyless", 0), ("forger", 1), ("large", 2), ("header", 3), ("last", 6)];
    assert_eq!(ids, expected.map(|(user, offset)| (user.to_owned(), id(offset))).into());
    let dead = scene.read(&scene.topic("dead-letters"));
    let mut causes: Vec<String> = dead.iter().map(|seen| seen.header("__streams.errors.exception")).collect();
    causes.sort_unstable();
    assert_eq!(causes, ["not_json", "tombstone"]);
    service.stop();
}

#[test]
fn a_producer_with_another_partitioner_is_noticed() {
    let Some(scene) = Scene::new("partitioner") else { return };
    scene.create("transactions", PARTITIONS, &[]);
    let ledger = Ledger::made(&scene.path("payments.csv"), 2_000);
    let writer = scene.writer();
    // Every payment is in the partition of its key; the key is not the user.
    elsewhere(&ledger.payments).iter().for_each(|raw| writer.raw(&scene.topic("transactions"), raw));
    writer.flush();
    let mut service = scene.start("a");
    let (status, _) = service.end();
    let said = service.text();
    assert_eq!(status.code(), Some(1), "{said}");
    let error = said.lines().find(|line| line.starts_with("error: ")).expect("an error");
    for part in ["murmur2", "INPUT_PARTITIONING=any", "partitioner"] {
        assert!(error.contains(part), "{part} in: {error}");
    }
}
