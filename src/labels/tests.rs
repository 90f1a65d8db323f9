//! Labels on a simulated log: whose they are, which one counts, and what they say of verdicts.

use std::sync::Arc;

use models::Limits;
use serde_json::{Value, json};
use topology::broker::{Broker as _, Cleanup, Publisher as _, TopicSpec};
use topology::partitioner::partition_of;
use topology::record::{Outgoing, TopicId, TopicPartition, Topics};
use topology::simulated::SimBroker;

use super::*;

const TRANSACTIONS: TopicId = TopicId(0);
const VERDICTS: TopicId = TopicId(1);
const LABELS: TopicId = TopicId(2);
const PARTITIONS: u32 = 3;
/// 2024-01-01T00:00:00Z.
const DAY_ONE: i64 = 1_704_067_200_000;
const DAY_MS: i64 = 86_400_000;

struct Place {
    broker: Arc<SimBroker>,
    labels: Labels,
}

impl Place {
    fn new() -> Self {
        let names = ["transactions", "verdicts", "labels"].map(str::to_owned);
        let broker = SimBroker::new(Topics::new(names.to_vec()));
        for name in names {
            let cleanup = Cleanup::Delete { retention_ms: None };
            broker.create(&TopicSpec { name, partitions: PARTITIONS, cleanup, max_message_bytes: None }).unwrap();
        }
        let broker = Arc::new(broker);
        let topics = LabelTopics { transactions: TRANSACTIONS, verdicts: VERDICTS, labels: LABELS };
        let labels = Labels::new(&broker, topics, Limits::default());
        Self { broker, labels }
    }

    fn write(&self, topic: TopicId, user: &str, value: &[u8]) -> TopicPartition {
        let mut publisher = self.broker.publisher().unwrap();
        let to = TopicPartition { topic, partition: partition_of(user.as_bytes(), PARTITIONS) };
        publisher
            .send(&Outgoing { to, key: Some(user.as_bytes()), value: Some(value), timestamp: DAY_ONE, headers: &[] })
            .unwrap();
        publisher.flush().unwrap();
        to
    }

    fn verdict(&self, id: &str, user: &str, day: i64, score: f64, model: &str) {
        let value = json!({
            "tx_id": format!("tx-{id}"), "id": id, "user_id": user, "event_time": DAY_ONE + day * DAY_MS, "score": score,
            "is_anomaly": score >= 0.5, "model_id": model,
        });
        self.write(VERDICTS, user, value.to_string().as_bytes());
    }

    fn label(&self, user: &str, label: Value) {
        self.write(LABELS, user, label.to_string().as_bytes());
    }

    fn quality(&self, at_ms: i64) -> Quality {
        self.labels.quality(DAY_ONE, at_ms, 1).unwrap()
    }
}

#[test]
fn a_verdicts_id_names_its_payment() {
    let place = Place::new();
    place.write(TRANSACTIONS, "u1", br#"{"user_id":"u1","amount":1,"merchant":"m","tx_id":"t1"}"#);
    place.write(TRANSACTIONS, "u1", br#"{"user_id":"u1","amount":1,"merchant":"m"}"#);
    let TopicPartition { partition, .. } = place.write(TRANSACTIONS, "u1", b"no payment");
    let of = |offset: u64| place.labels.payment(&format!("transactions:{partition}:{offset}")).unwrap();
    let named = |tx: &str| Some(Named { user_id: "u1".into(), tx_id: tx.into() });
    assert_eq!(of(0), named("t1"));
    assert_eq!(of(1), named(&format!("transactions:{partition}:1")), "without an id of its own it has the verdict's");
    assert_eq!((of(2), of(3)), (None, None), "no payment, and none yet");
    for id in ["", "x", "transactions:0", "transactions:9:0", "elsewhere:0:0", "transactions:-1:0", "transactions:0:x"] {
        assert_eq!(place.labels.payment(id).unwrap(), None, "{id}");
    }
}

#[test]
fn a_label_lies_in_its_users_partition_and_is_what_was_written() {
    let place = Place::new();
    let label = Label {
        verdict_id: Some("transactions:0:7".into()),
        tx_id: Some("t".into()),
        user_id: Some("u7".into()),
        label: Finding::Fraud,
        by: Some("ann".into()),
        reason: Some("the card was stolen".into()),
        at: 5,
    };
    let id = place.labels.write("u7", &label, DAY_ONE).unwrap();
    assert_eq!(id, format!("labels:{}:0", partition_of(b"u7", PARTITIONS)));
    let known = Known::read(&*place.broker, LABELS, &|| false).unwrap();
    assert_eq!(known.of("transactions:0:7", "", ""), Some(true));
    assert_eq!(Label::decode(&serde_json::to_vec(&label).unwrap(), 9), Ok(label));
}

#[test]
fn a_record_may_leave_out_its_reason_and_its_time() {
    let decode = |label: Value| Label::decode(label.to_string().as_bytes(), 9).unwrap();
    let old = decode(json!({"verdict_id": "t:0:1", "tx_id": null, "label": "fraud", "by": "ann", "at": 5, "more": 1}));
    assert_eq!((old.reason, old.by.as_deref(), old.at), (None, Some("ann"), 5));
    assert_eq!(decode(json!({"tx_id": "t", "user_id": "u", "label": "fraud"})).at, 9, "then it is the record's");
    let text = decode(json!({"verdict_id": "t:0:1", "label": "legitimate", "at": "2026-11-23T00:00:00Z", "reason": "hers"}));
    assert_eq!((text.at, text.reason.as_deref()), (1_795_392_000_000, Some("hers")));
}

#[test]
fn what_is_no_label_is_refused_with_its_reason() {
    let long = "x".repeat(513);
    for (label, words) in [
        (json!({"verdict_id": "a:0:1", "label": "maybe", "at": 1}), "not a label"),
        (json!({"tx_id": "t", "label": "fraud", "at": 1}), "tx_id and user_id"),
        (json!({"user_id": "u", "label": "fraud", "at": 1}), "tx_id and user_id"),
        (json!({"verdict_id": long, "label": "fraud", "at": 1}), "512"),
        (json!({"verdict_id": "", "label": "fraud", "at": 1}), "512"),
        (json!({"verdict_id": "a:0:1", "label": "fraud", "at": -1}), "1970"),
        (json!({"verdict_id": "a:0:1", "label": "fraud", "at": "yesterday"}), "RFC 3339"),
        (json!({"verdict_id": "a:0:1", "label": "fraud", "at": [1]}), "not a label"),
        (json!({"verdict_id": "a:0:1", "label": "fraud", "at": 1, "reason": ""}), "2000"),
        (json!({"verdict_id": "a:0:1", "label": "fraud", "at": 1, "reason": "x".repeat(2_001)}), "2000"),
        (json!("fraud"), "not a label"),
    ] {
        let why = Label::decode(label.to_string().as_bytes(), 9).unwrap_err();
        assert!(why.contains(words), "{why} lacks {words}");
    }
}

#[test]
fn the_latest_label_counts_however_it_names_the_payment() {
    let mut known = Known::default();
    let label = |verdict: Option<&str>, fraud: bool, at: i64| Label {
        verdict_id: verdict.map(str::to_owned),
        tx_id: Some("t".into()),
        user_id: Some("u".into()),
        label: if fraud { Finding::Fraud } else { Finding::Legitimate },
        by: None,
        reason: None,
        at,
    };
    assert_eq!(known.of("v", "u", "t"), None);
    known.take(&label(Some("v"), true, 10), 0);
    assert_eq!((known.of("v", "u", "t"), known.of("w", "u", "t")), (Some(true), None));
    known.take(&label(None, false, 20), 1);
    assert_eq!(known.of("v", "u", "t"), Some(false), "the later one, by the payment");
    assert_eq!((known.of("w", "u", "t"), known.of("w", "x", "t")), (Some(false), None));
    known.take(&label(Some("v"), true, 5), 2);
    assert_eq!(known.of("v", "u", "t"), Some(false), "an earlier finding that comes late changes nothing");
    known.take(&label(Some("v"), true, 20), 3);
    assert_eq!(known.of("v", "u", "t"), Some(true), "of one time, the one that was written later");
}

#[test]
fn quality_is_judged_on_labelled_verdicts_by_day_and_by_model() {
    let place = Place::new();
    let none = place.quality(DAY_ONE + 1);
    assert_eq!((none.figures.labelled, none.figures.precision, none.by_day.len()), (0, None, 0));
    // Two days, two models: an alert that is a fraud, one that is not, a fraud that was missed; and plenty that nobody labelled.
    for (id, user, day, score, model, label) in [
        ("t:0:1", "u1", 0, 0.9, "a", Some("fraud")),
        ("t:0:2", "u2", 0, 0.8, "a", Some("legitimate")),
        ("t:0:3", "u3", 1, 0.2, "a", Some("fraud")),
        ("t:0:4", "u4", 1, 0.1, "b", Some("legitimate")),
        ("t:0:5", "u5", 1, 0.7, "b", Some("fraud")),
        ("t:0:6", "u6", 1, 0.9, "b", None),
        ("t:0:7", "u7", -1, 0.9, "b", Some("fraud")),
    ] {
        place.verdict(id, user, day, score, model);
        if let Some(label) = label {
            place.label(user, json!({"tx_id": format!("tx-{id}"), "user_id": user, "label": label, "at": 1}));
        }
    }
    place.label("u1", json!("no label"));
    let quality = place.quality(DAY_ONE + 1_000);
    assert_eq!(quality.verdicts, 6, "the one of the day before is out of the window");
    let Figures { labelled, frauds, alerts, precision, recall, average_precision, card_precision_100 } = quality.figures;
    assert_eq!((labelled, frauds, alerts), (5, 3, 3));
    assert_eq!((precision, recall), (Some(2.0 / 3.0), Some(2.0 / 3.0)));
    // Ranked: fraud .9, legitimate .8, fraud .7, fraud .2, legitimate .1.
    assert_eq!(average_precision, Some((1.0 + 2.0 / 3.0 + 3.0 / 4.0) / 3.0));
    // One card of 100 on the first day, two on the second.
    assert_eq!(card_precision_100, Some(0.015));
    let days: Vec<_> = quality.by_day.iter().map(|day| (day.day.as_str(), day.figures.labelled, day.figures.recall)).collect();
    assert_eq!(days, [("2024-01-01", 2, Some(1.0)), ("2024-01-02", 3, Some(0.5))]);
    let models: Vec<_> = quality.by_model.iter().map(|of| (of.model.as_str(), of.figures.precision)).collect();
    assert_eq!(models, [("a", Some(0.5)), ("b", Some(1.0))]);
    // One that comes three weeks late counts on the payment's day, for the model that scored it.
    place.label("u6", json!({"verdict_id": "t:0:6", "label": "fraud", "at": DAY_ONE + 21 * DAY_MS}));
    let late = place.quality(DAY_ONE + 21 * DAY_MS);
    let days: Vec<_> = late.by_day.iter().map(|day| (day.day.as_str(), day.figures.labelled)).collect();
    assert_eq!(days, [("2024-01-01", 2), ("2024-01-02", 4)]);
    assert_eq!((late.by_model[1].model.as_str(), late.by_model[1].figures.frauds), ("b", 2));
    place.label("u6", json!({"verdict_id": "t:0:6", "label": "legitimate", "at": DAY_ONE + 22 * DAY_MS}));
    let quality = place.quality(DAY_ONE + 22 * DAY_MS);
    assert_eq!((quality.figures.labelled, quality.figures.frauds), (6, 3));
    // A label that is taken back, some time later.
    place.label("u5", json!({"verdict_id": "t:0:5", "label": "legitimate", "by": "ann", "at": 2}));
    let now = DAY_ONE + 22 * DAY_MS;
    assert_eq!(place.labels.quality(DAY_ONE, now + 2_000, 5_000).unwrap(), quality, "for a while the figures stand");
    assert_eq!(place.quality(now + 9_000).figures.frauds, 2);
}

proptest::proptest! {
    #[test]
    fn no_bytes_whatever_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let _ = Label::decode(&bytes, 0);
    }
}
