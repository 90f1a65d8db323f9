//! Redriving on the embedded broker, piece by piece.

use std::sync::Arc;
use std::time::Duration;

use mangrove::broker::embedded::{Durability, EmbeddedBroker, EmbeddedOptions};
use mangrove::redrive::{Filter, Options, Places, Report, Skip, Span, redrive};
use mangrove::scoring::{ModelSlot, ScoringParams, TopicNames, scoring_topology};
use tempfile::TempDir;
use topology::broker::{Broker as _, BrokerError, Cleanup, Publisher as _, Reader as _, TopicSpec};
use topology::partitioner::partition_of;
use topology::record::{Fetched, Header, Outgoing, TopicPartition};

const PARTITIONS: u32 = 3;
const T: i64 = 1_700_000_000_000;

struct World {
    _root: TempDir,
    broker: EmbeddedBroker,
    places: Places,
}

/// A dead letter to be written.
struct Letter<'a> {
    key: Option<&'a [u8]>,
    cause: &'a str,
    topic: &'a str,
    partition: u32,
    offset: u64,
    more: Vec<Header<'a>>,
}

fn letter<'a>(key: &'a str, cause: &'a str, offset: u64) -> Letter<'a> {
    Letter { key: Some(key.as_bytes()), cause, topic: "transactions", partition: 1, offset, more: Vec::new() }
}

impl World {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        let names = TopicNames::default();
        let topology = scoring_topology("app", &names, &ScoringParams::default(), &ModelSlot::default()).unwrap();
        let places = Places::of(&topology).unwrap();
        let options = EmbeddedOptions { durability: Durability::Os, memory_bytes: 32 << 20, ..EmbeddedOptions::default() };
        let broker = EmbeddedBroker::open(root.path(), places.topics(), options, Arc::new(|| T)).unwrap();
        for name in ["transactions", "commands", "dead-letters"] {
            let cleanup = Cleanup::Delete { retention_ms: None };
            let max_message_bytes = (name == "transactions").then_some(2_000);
            broker.create(&TopicSpec { name: name.into(), partitions: PARTITIONS, cleanup, max_message_bytes }).unwrap();
        }
        Self { _root: root, broker, places }
    }

    fn put(&self, letter: &Letter<'_>, value: &[u8]) {
        let (partition, offset) = (letter.partition.to_string(), letter.offset.to_string());
        let mut headers = letter.more.clone();
        for (name, value) in [
            ("__streams.errors.exception", letter.cause),
            ("__streams.errors.message", "why"),
            ("__streams.errors.stacktrace", ""),
            ("__streams.errors.topic", letter.topic),
            ("__streams.errors.partition", &partition),
            ("__streams.errors.offset", &offset),
        ] {
            headers.push(Header { name, value: Some(value.as_bytes()) });
        }
        let topic = self.broker.topics().find("dead-letters").unwrap();
        let to = TopicPartition { topic, partition: letter.partition };
        let mut publisher = self.broker.publisher().unwrap();
        publisher.send(&Outgoing { to, key: letter.key, value: Some(value), timestamp: T, headers: &headers }).unwrap();
        publisher.flush().unwrap();
    }

    fn run(&self, filter: Filter, execute: bool) -> Report {
        let options = Options { filter, max_redrives: 2, rate: 1_000_000, execute };
        redrive(&self.broker, &self.places, &options, &|_, _| {}).unwrap()
    }

    /// What is in a topic: partition, key, value, headers.
    fn read(&self, name: &str) -> Vec<(u32, String, String, Vec<String>)> {
        let topic = self.broker.topics().find(name).unwrap();
        let mut reader = self.broker.reader().unwrap();
        let mut fetched = Fetched::default();
        for partition in 0..PARTITIONS {
            reader.assign(TopicPartition { topic, partition }, 0).unwrap();
        }
        reader.poll(&mut fetched, 100_000, Duration::ZERO).unwrap();
        let text = |bytes: Option<&[u8]>| bytes.map_or("-".into(), |bytes| String::from_utf8_lossy(bytes).into_owned());
        let record = |record: topology::record::Record<'_>| {
            let headers = record.headers().map(|header| format!("{}={}", header.name, text(header.value))).collect();
            (record.from.partition, text(record.key), text(record.value), headers)
        };
        fetched.iter().map(record).collect()
    }
}

#[test]
fn a_letter_goes_back_as_it_came_and_once_whatever_the_filters() {
    let world = World::new();
    let trace = Header { name: "trace", value: Some(b"1") };
    world.put(&Letter { more: vec![trace], ..letter("u1", "misplaced", 5) }, b"one");
    world.put(&letter("u2", "not_json", 6), b"two");
    world.put(&Letter { key: None, ..letter("", "not_json", 7) }, b"three");
    let counted = world.run(Filter::default(), false);
    assert_eq!((counted.letters, counted.matching(), counted.redriven), (3, 3, 0));
    assert_eq!(world.read("transactions"), []);
    let cause = Filter { causes: vec!["not_json".into()], offsets: Span { from: None, to: Some(7) }, ..Filter::default() };
    assert_eq!(world.run(cause.clone(), true).redriven, 1);
    let again = world.run(cause, true);
    assert_eq!((again.redriven, again.skipped(Skip::Already), again.skipped(Skip::Filtered)), (0, 1, 2));
    let rest = world.run(Filter::default(), true);
    assert_eq!((rest.redriven, rest.skipped(Skip::Already)), (2, 1));
    assert_eq!(world.run(Filter::default(), true).redriven, 0);
    let mut back = world.read("transactions");
    back.sort_by(|a, b| a.2.cmp(&b.2));
    let home = |key: &str| partition_of(key.as_bytes(), PARTITIONS);
    let redrives = "mangrove.redrives=1".to_owned();
    assert_eq!(
        back,
        [
            (home("u1"), "u1".into(), "one".into(), vec!["trace=1".into(), redrives.clone()]),
            (1, "-".into(), "three".into(), vec![redrives.clone()]),
            (home("u2"), "u2".into(), "two".into(), vec![redrives]),
        ]
    );
}

#[test]
fn what_must_not_go_stays_and_is_counted() {
    let world = World::new();
    let header = |name, value: &'static str| vec![Header { name, value: Some(value.as_bytes()) }];
    world.put(&Letter { more: header("__mangrove.truncated", "9"), ..letter("u", "too_large", 1) }, b"cut");
    world.put(&Letter { more: header("mangrove.redrives", "2"), ..letter("u", "not_json", 2) }, b"loop");
    world.put(&Letter { more: header("mangrove.redrives", "1"), ..letter("u", "not_json", 3) }, b"once more");
    world.put(&Letter { topic: "payroll", ..letter("u", "not_json", 4) }, b"foreign");
    world.put(&letter("u", "not_json", 5), &[b'x'; 3_000]);
    let report = world.run(Filter::default(), true);
    let skipped = [Skip::Truncated, Skip::TooOften, Skip::Foreign].map(|why| report.skipped(why));
    assert_eq!((skipped, report.too_large(), report.redriven, report.again), ([1, 1, 1], 1, 1, 1));
    let back = world.read("transactions");
    assert_eq!(back.iter().map(|(_, _, value, headers)| (value.as_str(), headers.len())).collect::<Vec<_>>(), [("once more", 1)]);
    assert_eq!(back[0].3, ["mangrove.redrives=2"]);
}

#[test]
fn a_run_that_is_broken_off_is_gone_on_with() {
    let world = World::new();
    (0..5_000).for_each(|number| world.put(&letter(&format!("u{number}"), "not_json", number), number.to_string().as_bytes()));
    let options = Options { filter: Filter::default(), max_redrives: 1, rate: 1_000_000, execute: true };
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let stop = |done: u64, _| assert!(done < 1_500, "broken off by the test");
        redrive(&world.broker, &world.places, &options, &stop)
    }));
    assert!(broken.is_err());
    let before = world.read("transactions").len();
    assert!((1..5_000).contains(&before), "{before} went back before");
    let rest: Result<Report, BrokerError> = redrive(&world.broker, &world.places, &options, &|_, _| {});
    assert_eq!(rest.unwrap().redriven as usize, 5_000 - before);
    let mut values: Vec<u64> = world.read("transactions").iter().map(|record| record.2.parse().unwrap()).collect();
    values.sort_unstable();
    assert!(values.into_iter().eq(0..5_000));
}
