//! Topics, and writing outside of transactions.

use super::stage::{INPUT, OUTPUT, Seen, Stage, at, good, patiently, record, texts};
use super::{Capability, Case, Harness};
use crate::broker::{Broker, Cleanup, Publisher, TopicSpec};
use crate::partitioner::partition_of;
use crate::record::{Header, Outgoing};

pub(super) fn cases<H: Harness>() -> Vec<Case<H>> {
    vec![
        Case::new("topics_are_described_and_existing_ones_left", topics_are_described_and_existing_ones_left),
        Case::new("records_survive_as_they_were_sent", records_survive_as_they_were_sent),
        Case::new("flush_positions_tells_where_records_went", flush_positions_tells_where_records_went),
        Case::new("records_of_a_key_keep_their_order", records_of_a_key_keep_their_order),
        Case::needing("large_records_pass_where_the_topic_allows", &[Capability::LargeRecords], large_records_pass),
    ]
}

fn topics_are_described_and_existing_ones_left<H: Harness>(harness: &mut H) {
    let broker = harness.open(&["input", "output"]);
    let describe = |harness: &mut H| patiently(harness, "describe", || broker.describe(&[INPUT, OUTPUT]));
    assert_eq!(describe(harness), [None, None], "topics that nobody created");
    let name = broker.topics().name(INPUT).to_owned();
    let cleanup = Cleanup::Compact { tombstone_retention_ms: 1000 };
    let spec = TopicSpec { name, partitions: 3, cleanup, max_message_bytes: Some(2_000_000) };
    patiently(harness, "create", || broker.create(&spec));
    patiently(harness, "create what exists", || broker.create(&TopicSpec { partitions: 5, ..spec.clone() }));
    let described = super::stage::until(harness, "the new topic is known", |harness| {
        let described = describe(harness);
        described[0].is_some().then_some(described)
    });
    let info = described[0].as_ref().expect("invariant: waited for");
    assert_eq!(info.partitions, 3, "creating an existing topic leaves it as it is");
    assert!(info.max_message_bytes.is_none_or(|bytes| bytes == 2_000_000), "max.message.bytes is {:?}", info.max_message_bytes);
    assert_eq!(described[1], None, "a topic that nobody created");
}

fn records_survive_as_they_were_sent<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 1);
    let to = at(OUTPUT, 0);
    let headers = [
        Header { name: "a", value: Some(b"1") },
        Header { name: "a", value: Some(b"") },
        Header { name: "null", value: None },
        Header { name: "bytes", value: Some(&[0, 255, 10]) },
    ];
    let sent = [
        Outgoing { to, key: Some(b"k"), value: Some(b"v"), timestamp: 1_600_000_000_123, headers: &headers },
        Outgoing { to, key: None, value: Some(b"no key"), timestamp: 1_700_000_000_000, headers: &[] },
        Outgoing { to, key: Some(b"tombstone"), value: None, timestamp: 1_500_000_000_000, headers: &headers[..1] },
        Outgoing { to, key: Some(b""), value: Some(b""), timestamp: 1_700_000_000_001, headers: &[] },
        Outgoing { to, key: Some(&[0, 159, 146, 150]), value: Some(&[255, 0]), timestamp: 1, headers: &[] },
    ];
    let mut publisher = good("open a publisher", stage.broker.publisher());
    for record in &sent {
        good("publish", publisher.send(record));
    }
    patiently(harness, "flush", || publisher.flush());
    let seen = stage.read_all(harness, to);
    assert_eq!(seen.len(), sent.len(), "each record once: {seen:?}");
    for (offset, (seen, sent)) in seen.iter().zip(&sent).enumerate() {
        let header = |header: &Header<'_>| (header.name.to_owned(), header.value.map(<[u8]>::to_vec));
        let expected = Seen {
            from: to,
            offset: offset as u64,
            timestamp: sent.timestamp,
            key: sent.key.map(<[u8]>::to_vec),
            value: sent.value.map(<[u8]>::to_vec),
            headers: sent.headers.iter().map(header).collect(),
        };
        assert_eq!(*seen, expected);
    }
}

fn flush_positions_tells_where_records_went<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 2);
    let mut publisher = good("open a publisher", stage.broker.publisher());
    let mut told = Vec::new();
    for round in ["first", "second"] {
        for number in 0..6 {
            let value = format!("{round} {number}");
            good("publish", publisher.send(&record(at(OUTPUT, number % 2), "key", &value)));
        }
        let mut positions = Vec::new();
        patiently(harness, "flush with positions", || publisher.flush_positions(&mut positions));
        assert_eq!(positions.len(), 6, "a position for each record since the last flush");
        let values = (0..6).map(|number| format!("{round} {number}"));
        told.extend(positions.into_iter().zip(values));
    }
    for partition in [at(OUTPUT, 0), at(OUTPUT, 1)] {
        let seen = stage.read_all(harness, partition);
        let expected = told.iter().filter(|((to, _), _)| *to == partition);
        let expected: Vec<(u64, String)> = expected.map(|((_, offset), value)| (*offset, value.clone())).collect();
        let found: Vec<(u64, String)> = seen.iter().map(|seen| (seen.offset, seen.text())).collect();
        assert_eq!(found, expected, "records lie where the publisher said");
    }
}

fn records_of_a_key_keep_their_order<H: Harness>(harness: &mut H) {
    let stage = Stage::new(harness, 3);
    let mut publisher = good("open a publisher", stage.broker.publisher());
    for number in 0..200_u32 {
        let key = format!("user-{}", number % 7);
        let to = at(OUTPUT, partition_of(key.as_bytes(), 3));
        good("publish", publisher.send(&record(to, &key, &number.to_string())));
    }
    patiently(harness, "flush", || publisher.flush());
    let mut count = 0;
    for partition in 0..3 {
        let seen = stage.read_all(harness, at(OUTPUT, partition));
        let order: Vec<u32> = texts(&seen).iter().map(|text| text.parse().expect("invariant: sent as a number")).collect();
        assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "partition {partition} in the order of sending: {order:?}");
        assert!(seen.windows(2).all(|pair| pair[0].offset < pair[1].offset), "offsets grow");
        count += seen.len();
    }
    assert_eq!(count, 200, "each record once");
}

fn large_records_pass<H: Harness>(harness: &mut H) {
    let broker = harness.open(&["input", "output"]);
    for (topic, max_message_bytes) in [(INPUT, None), (OUTPUT, Some(4 << 20))] {
        let cleanup = Cleanup::Delete { retention_ms: None };
        let spec = TopicSpec { name: broker.topics().name(topic).to_owned(), partitions: 1, cleanup, max_message_bytes };
        patiently(harness, "create", || broker.create(&spec));
    }
    let stage = Stage::<H> { broker, group: harness.fresh("group") };
    let large: String = "0123456789abcdef".repeat((2 << 20) / 16);
    stage.publish(harness, at(OUTPUT, 0), &["before", &large, "after"]);
    let texts = texts(&stage.read_all(harness, at(OUTPUT, 0)));
    assert!(texts == ["before", &large, "after"], "the large record and its neighbours come through");
}
