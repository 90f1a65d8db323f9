//! Dead letters as KIP-1034 has them: what was, and why it is here; never larger than their topic takes.

use topology::broker::{Broker, Publisher};
use topology::driver::{DriverOptions, TestDriver};
use topology::processor::{Context, Processor, Result};
use topology::record::{Batch, Header, Outgoing, TopicPartition};
use topology::simulated::StoredRecord;
use topology::topology::Topology;

/// Puts every record aside, with a cause and a message of 600 two-byte characters.
struct Refuse;

impl Processor for Refuse {
    fn process(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result {
        batch.iter().try_for_each(|record| context.dead_letter(&record, &"cause-".repeat(100), &"é".repeat(600)))
    }
}

fn driver(dead_letter_max_bytes: usize, dead: bool) -> TestDriver {
    let builder = Topology::builder("refuse");
    let builder = if dead { builder.dead_letters("dead") } else { builder };
    let topology = builder.sub("refuse", |_| Refuse, |w| w.input("in").output("out")).build().expect("a valid topology");
    let options =
        DriverOptions { partitions: 1, dead_letter_max_bytes, input_max_bytes: Some(8 << 20), ..DriverOptions::default() };
    TestDriver::new(topology, options)
}

/// Sends one record and returns its dead letter.
fn refused(max_bytes: usize, key: &[u8], value: Option<&[u8]>, headers: &[Header<'_>]) -> StoredRecord {
    let mut driver = driver(max_bytes, true);
    let to = TopicPartition { topic: driver.sim.topics().find("in").expect("a topic"), partition: 0 };
    let mut publisher = driver.sim.publisher().expect("no fault is set");
    publisher.send(&Outgoing { to, key: Some(key), value, timestamp: 9, headers }).expect("is taken");
    publisher.flush().expect("is taken");
    driver.run().expect("goes on");
    let mut dead = driver.read("dead");
    assert_eq!(dead.len(), 1);
    dead.remove(0)
}

fn header<'r>(record: &'r StoredRecord, name: &str) -> Option<&'r [u8]> {
    let mut found = record.headers.iter().filter(|header| header.name == name);
    let value = found.next().and_then(|header| header.value.as_deref());
    assert!(found.next().is_none(), "{name} occurs twice");
    value
}

/// Bytes of a record as a broker counts them, framing left out.
fn weight(record: &StoredRecord) -> usize {
    let headers = record.headers.iter().map(|h| h.name.len() + h.value.as_ref().map_or(0, |value| value.len()));
    record.key.as_ref().map_or(0, |key| key.len()) + record.value.as_ref().map_or(0, |value| value.len()) + headers.sum::<usize>()
}

#[test]
fn headers_of_ours_are_capped_at_whole_characters() {
    let dead = refused(1 << 20, b"k", Some(b"v"), &[]);
    let error =
        |name: &str| std::str::from_utf8(header(&dead, &format!("__streams.errors.{name}")).expect("is there")).expect("text");
    assert_eq!((error("topic"), error("partition"), error("offset"), error("stacktrace")), ("in", "0", "0", ""));
    for name in ["exception", "message"] {
        let text = error(name);
        assert!((490..=500).contains(&text.len()), "{name} has {} bytes", text.len());
    }
    assert!(error("message").chars().all(|c| c == 'é'));
    assert_eq!((dead.key.as_deref(), dead.value.as_deref(), dead.timestamp), (Some(&b"k"[..]), Some(&b"v"[..]), 9));
    assert_eq!(header(&dead, "__mangrove.truncated"), None);
}

#[test]
fn original_headers_stay_and_those_of_an_earlier_death_go() {
    let headers = [
        Header { name: "trace", value: Some(b"abc") },
        Header { name: "nothing", value: None },
        Header { name: "__streams.errors.exception", value: Some(b"an older cause") },
        Header { name: "__streams.errors.other", value: Some(b"older") },
        Header { name: "__mangrove.truncated", value: Some(b"5") },
        Header { name: "trace2", value: Some(&[0xff]) },
    ];
    let dead = refused(1 << 20, b"k", None, &headers);
    assert_eq!(header(&dead, "trace"), Some(&b"abc"[..]));
    assert_eq!(header(&dead, "trace2"), Some(&[0xff][..]));
    assert!(dead.headers.iter().any(|h| h.name == "nothing" && h.value.is_none()));
    assert!(header(&dead, "__streams.errors.exception").expect("is there").starts_with(b"cause-"));
    assert_eq!(header(&dead, "__streams.errors.other"), None);
    assert_eq!(header(&dead, "__mangrove.truncated"), None);
    assert_eq!(dead.value, None, "a tombstone stays one");
}

#[test]
fn what_is_too_large_is_cut_to_fit_and_marked() {
    let value: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let trace = [Header { name: "trace", value: Some(b"abc") }];
    let dead = refused(100_000, b"k", Some(&value), &trace);
    let kept = dead.value.as_deref().expect("a part of it");
    assert!(value.starts_with(kept));
    assert!((98_000..=100_000).contains(&weight(&dead)), "{} bytes", weight(&dead));
    assert_eq!(header(&dead, "__mangrove.truncated"), Some(&b"3000000"[..]));
    assert_eq!((header(&dead, "trace"), dead.key.as_deref()), (Some(&b"abc"[..]), Some(&b"k"[..])));
}

#[test]
fn where_not_even_key_and_headers_fit_the_cause_is_what_stays() {
    let large = vec![b'h'; 200_000];
    let trace = [Header { name: "trace", value: Some(&large) }];
    for (key, headers) in [(&large[..], &[][..]), (&b"k"[..], &trace[..])] {
        let dead = refused(100_000, key, Some(b"value"), headers);
        assert!(weight(&dead) <= 100_000);
        assert!(header(&dead, "__streams.errors.exception").is_some());
        assert_eq!(header(&dead, "__mangrove.truncated"), Some(&b"5"[..]));
        assert_eq!((dead.key.as_deref(), header(&dead, "trace")), (None, None));
        assert_eq!(dead.value.as_deref(), Some(&b"value"[..]));
    }
}

#[test]
fn without_a_topic_for_them_the_worker_stops_and_names_the_record() {
    let mut driver = driver(1 << 20, false);
    driver.pipe("in", Some(b"k"), Some(b"s3cr3t"), 0);
    let halt = driver.run().expect_err("it stops").to_string();
    assert!(halt.contains("in:0:0") && halt.contains("cause-") && !halt.contains("s3cr3t"), "{halt}");
}
