//! Exactly-once: what is visible when, who is refused, and what each failure asks for.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use topology::broker::{Broker, Member, Reaction};

use crate::world::{INPUT, NARROW, OUTPUT, PARTITIONS, PATIENCE, World, at, record, until};

#[test]
fn an_abort_drops_what_is_in_flight_and_does_not_wait_for_it() {
    let Some(world) = World::new("abort") else { return };
    let mut member = world.owner("a");
    for _ in 0..5 {
        member.begin().expect("begun");
        for number in 0..5_000_u32 {
            member.send(&record(at(OUTPUT, number % PARTITIONS), &[7; 200])).expect("sent");
        }
        let begun = Instant::now();
        member.abort().expect("aborted");
        // What is in flight may take minutes.
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }
    member.begin().expect("begun");
    member.send(&record(at(OUTPUT, 0), b"kept")).expect("sent");
    let token = member.token().expect("a member");
    member.commit(&[], token).expect("committed");
    assert_eq!(world.values(at(OUTPUT, 0)), ["kept"]);
}

#[test]
fn no_offset_is_committed_without_a_membership() {
    let Some(world) = World::new("token") else { return };
    let mut member = world.join("a");
    member.begin().expect("begun");
    let token = member.token().expect("a token");
    // Not polled, so not assigned: whether the join was answered in the background or not, nothing of the input is committed unfenced.
    if let Err(error) = member.commit(&[(at(INPUT, 0), 1)], token) {
        assert_eq!(error.reaction, Reaction::Abort, "{error}");
    }
    member.leave(false).expect("left");
    assert_eq!(member.token().map(|_| ()).unwrap_err().reaction, Reaction::Fenced);
}

#[test]
fn committed_offsets_wait_for_an_open_transaction() {
    let Some(world) = World::new("undecided") else { return };
    let mut member = world.owner("a");
    let other: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &world.address)
        .set("transactional.id", format!("{}-other", world.name))
        .create()
        .expect("a producer");
    let outsider: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &world.address).set("group.id", &world.name).create().expect("a consumer");
    other.init_transactions(PATIENCE).expect("initialised");
    other.begin_transaction().expect("begun");
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(world.broker.topics().name(INPUT), 0, Offset::Offset(42)).expect("an offset");
    let metadata = outsider.group_metadata().expect("metadata");
    other.send_offsets_to_transaction(&offsets, &metadata, PATIENCE).expect("added");
    let error = member.committed(&[at(INPUT, 0)], Duration::from_millis(700)).unwrap_err();
    assert_eq!(error.reaction, Reaction::Retry, "{error}");
    other.commit_transaction(PATIENCE).expect("committed");
    assert_eq!(until("an answer", || member.committed(&[at(INPUT, 0)], PATIENCE).ok()), [Some(42)]);
}

#[test]
fn a_too_large_record_is_refused_alone() {
    let Some(world) = World::new("large") else { return };
    let mut member = world.owner("a");
    member.begin().expect("begun");
    member.send(&record(at(NARROW, 0), b"before")).expect("sent");
    let error = member.send(&record(at(NARROW, 0), &vec![b'x'; 100_000])).unwrap_err();
    assert_eq!(error.reaction, Reaction::TooLarge, "{error}");
    // The same fits a topic with the broker's own limit.
    member.send(&record(at(OUTPUT, 0), &vec![b'x'; 100_000])).expect("sent");
    member.send(&record(at(NARROW, 0), b"after")).expect("sent");
    let token = member.token().expect("a member");
    member.commit(&[(at(INPUT, 0), 1)], token).expect("committed");
    assert_eq!(world.values(at(NARROW, 0)), ["before", "after"]);
}

#[test]
fn batches_fit_the_narrowest_topic() {
    let Some(world) = World::with("batches", |config| config.compression = "none".to_owned()) else { return };
    let mut member = world.owner("a");
    member.begin().expect("begun");
    // Just below the limit, and several at once.
    for size in [99_000, 60_000, 60_000, 60_000, 30_000, 30_000, 30_000, 30_000, 99_800] {
        member.send(&record(at(NARROW, 1), &vec![b'x'; size])).expect("sent");
    }
    let token = member.token().expect("a member");
    member.commit(&[(at(INPUT, 0), 1)], token).expect("committed");
    assert_eq!(world.values(at(NARROW, 1)).len(), 9);
}
