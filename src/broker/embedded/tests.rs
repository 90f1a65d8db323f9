//! What the port's conformance suite can't see: restarts, kills, concurrent commits, the disk.

use std::fs;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use topology::broker::{Cleanup, Event, Member, Publisher, Reader};
use topology::record::{Fetched, Outgoing};

use super::*;

const INPUT: TopicId = TopicId(0);
const OUTPUT: TopicId = TopicId(1);
const CHANGELOG: TopicId = TopicId(2);
const PATIENT: Duration = Duration::from_secs(20);

fn at(topic: TopicId, partition: u32) -> TopicPartition {
    TopicPartition { topic, partition }
}

fn record<'a>(to: TopicPartition, key: &'a [u8], value: Option<&'a [u8]>, timestamp: i64) -> Outgoing<'a> {
    Outgoing { to, key: Some(key), value, timestamp, headers: &[] }
}

struct World {
    root: TempDir,
    now_ms: Arc<AtomicI64>,
    options: EmbeddedOptions,
}

impl World {
    fn new() -> Self {
        let options = EmbeddedOptions { durability: Durability::Os, memory_bytes: 32 << 20, ..EmbeddedOptions::default() };
        Self { root: TempDir::new().unwrap(), now_ms: Arc::new(AtomicI64::new(1_000_000)), options }
    }

    fn open_at(&self, folder: &str) -> Result<EmbeddedBroker> {
        let topics = Topics::new(["input", "output", "changelog"].map(str::to_owned).to_vec());
        let now_ms = Arc::clone(&self.now_ms);
        let now_ms: NowMs = Arc::new(move || now_ms.load(Ordering::SeqCst));
        EmbeddedBroker::open(&self.root.path().join(folder), topics, self.options, now_ms)
    }

    /// A broker with the three topics, four partitions each.
    fn open(&self) -> EmbeddedBroker {
        let broker = self.open_at("broker").unwrap();
        let specs = [
            ("input", Cleanup::Delete { retention_ms: None }),
            ("output", Cleanup::Delete { retention_ms: Some(1000) }),
            ("changelog", Cleanup::Compact { tombstone_retention_ms: 500 }),
        ];
        for (name, cleanup) in specs {
            let spec = TopicSpec { name: name.to_owned(), partitions: 4, cleanup, max_message_bytes: None };
            broker.create(&spec).unwrap();
        }
        broker
    }

    fn advance(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

fn config(instance: &str) -> MemberConfig {
    MemberConfig {
        group: "group".to_owned(),
        instance: instance.to_owned(),
        transactional_id: Some(instance.to_owned()),
        transaction_timeout_ms: 10_000,
        leads: vec![INPUT],
    }
}

/// Joins and takes all four partitions.
fn join_alone(broker: &EmbeddedBroker, instance: &str) -> EmbeddedMember {
    let mut member = broker.join(&config(instance)).unwrap();
    let event = member.poll(&mut Fetched::default(), 1, PATIENT).unwrap().unwrap();
    assert_eq!(event, Event::Assigned((0..4).map(|partition| at(INPUT, partition)).collect()));
    member.acknowledge(&event).unwrap();
    member
}

fn commit(member: &mut EmbeddedMember, value: &[u8], next: u64) -> Result<()> {
    member.begin()?;
    for partition in 0..4 {
        member.send(&record(at(OUTPUT, partition), b"key", Some(value), 5))?;
        member.send(&record(at(CHANGELOG, partition), b"key", Some(value), 5))?;
    }
    let token = member.token()?;
    member.commit(&[(at(INPUT, 0), next)], token)
}

/// Everything in a partition, as offset and value.
fn read_all(broker: &EmbeddedBroker, partition: TopicPartition) -> Vec<(u64, Option<Vec<u8>>)> {
    let mut reader = broker.reader().unwrap();
    let bounds = reader.bounds(partition).unwrap();
    reader.assign(partition, bounds.start).unwrap();
    let mut seen = Vec::new();
    while reader.position(partition).is_none_or(|position| position < bounds.end) {
        let mut fetched = Fetched::default();
        reader.poll(&mut fetched, 7, PATIENT).unwrap();
        seen.extend(fetched.iter().map(|record| (record.offset, record.value.map(<[u8]>::to_vec))));
    }
    seen
}

fn publish(broker: &EmbeddedBroker, to: TopicPartition, records: &[(&str, Option<&str>, i64)]) {
    let mut publisher = broker.publisher().unwrap();
    for (key, value, timestamp) in records {
        publisher.send(&record(to, key.as_bytes(), value.map(str::as_bytes), *timestamp)).unwrap();
    }
    publisher.flush().unwrap();
}

#[test]
fn a_restart_finds_records_offsets_and_epochs() {
    let world = World::new();
    let broker = world.open();
    let mut member = join_alone(&broker, "a");
    for round in 1..=3_u64 {
        commit(&mut member, &round.to_le_bytes(), round).unwrap();
    }
    let epoch = |broker: &EmbeddedBroker| broker.shared.lock().producers["a"].epoch;
    let before = epoch(&broker);
    drop((member, broker));

    let broker = world.open_at("broker").unwrap();
    let mut member = join_alone(&broker, "a");
    assert!(epoch(&broker) > before, "whoever still holds the old epoch is fenced");
    assert_eq!(member.committed(&[at(INPUT, 0), at(INPUT, 1)], PATIENT).unwrap(), [Some(3), None]);
    for partition in 0..4 {
        assert_eq!(member.bounds(at(OUTPUT, partition)).unwrap(), Bounds { start: 0, end: 3 });
        let values: Vec<_> = (1..=3_u64).map(|round| (round - 1, Some(round.to_le_bytes().to_vec()))).collect();
        assert_eq!(read_all(&broker, at(OUTPUT, partition)), values);
    }
    commit(&mut member, b"more", 4).unwrap();
    assert_eq!(read_all(&broker, at(OUTPUT, 0)).len(), 4);
}

/// A backup taken at any moment is a broker in which each transaction is there with all its records and offsets, or not at all.
#[test]
fn a_copy_at_any_moment_has_whole_transactions() {
    let world = World::new();
    let broker = world.open();
    let mut member = join_alone(&broker, "a");
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for round in 1..=400_u64 {
                commit(&mut member, &round.to_le_bytes(), round).unwrap();
            }
            member
        });
        for copy in 0..8 {
            let folder = format!("copy {copy}");
            broker.backup(&world.root.path().join(&folder)).unwrap();
            let copied = world.open_at(&folder).unwrap();
            let mut reader = join_alone(&copied, "reader");
            let round = reader.committed(&[at(INPUT, 0)], PATIENT).unwrap()[0].unwrap_or_default();
            for topic in [OUTPUT, CHANGELOG] {
                for partition in 0..4 {
                    let values = read_all(&copied, at(topic, partition));
                    assert_eq!(values.len() as u64, round, "topic {topic:?} partition {partition}");
                }
            }
        }
        drop(writer.join().unwrap());
    });
}

/// Many committers at once: their offsets are consecutive, nothing is seen before what comes before it, nothing comes twice.
#[test]
fn concurrent_commits_keep_the_order_of_offsets() {
    let world = World { options: EmbeddedOptions { durability: Durability::Commit, ..World::new().options }, ..World::new() };
    let broker = world.open();
    const WRITERS: u64 = 6;
    const ROUNDS: u64 = 60;
    let shared = at(OUTPUT, 0);
    let mut reader = broker.reader().unwrap();
    reader.assign(shared, 0).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let mut publisher = broker.publisher().unwrap();
            scope.spawn(move || {
                let mut positions = Vec::new();
                for round in 0..ROUNDS {
                    for at in 0..3 {
                        let value = (writer * 1_000_000 + round * 3 + at).to_le_bytes();
                        publisher.send(&record(shared, b"key", Some(&value), 0)).unwrap();
                    }
                    let before = positions.len();
                    publisher.flush_positions(&mut positions).unwrap();
                    assert!(positions[before..].windows(2).all(|two| two[1].1 == two[0].1 + 1), "one write, one run");
                }
                assert!(positions.windows(2).all(|two| two[0].1 < two[1].1));
            });
        }
        let mut last = [None; WRITERS as usize];
        let mut next = 0;
        while next < WRITERS * ROUNDS * 3 {
            let mut fetched = Fetched::default();
            reader.poll(&mut fetched, 1000, PATIENT).unwrap();
            for record in fetched.iter() {
                assert_eq!(record.offset, next, "no gap, nothing twice");
                next += 1;
                let value = u64::from_le_bytes(record.value.unwrap().try_into().unwrap());
                let (writer, number) = ((value / 1_000_000) as usize, value % 1_000_000);
                assert_eq!(number, last[writer].map_or(0, |last: u64| last + 1), "a writer's records keep their order");
                last[writer] = Some(number);
            }
        }
    });
}

#[test]
fn a_waiting_poll_is_woken_by_a_commit() {
    let world = World::new();
    let broker = world.open();
    let mut reader = broker.reader().unwrap();
    reader.assign(at(INPUT, 2), 0).unwrap();
    reader.poll(&mut Fetched::default(), 10, Duration::ZERO).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let mut fetched = Fetched::default();
            reader.poll(&mut fetched, 10, Duration::from_secs(600)).unwrap();
            fetched.len()
        });
        publish(&broker, at(INPUT, 2), &[("key", Some("value"), 0)]);
        assert_eq!(waiting.join().unwrap(), 1);
    });
}

#[test]
fn partitions_take_turns() {
    let world = World::new();
    let broker = world.open();
    for partition in 0..4 {
        let records: Vec<_> = (0..100).map(|_| ("key", Some("value"), 0)).collect();
        publish(&broker, at(INPUT, partition), &records);
    }
    let mut reader = broker.reader().unwrap();
    (0..4).for_each(|partition| reader.assign(at(INPUT, partition), 0).unwrap());
    let mut fetched = Fetched::default();
    reader.poll(&mut fetched, 40, PATIENT).unwrap();
    let of = |partition| fetched.iter().filter(|record| record.from.partition == partition).count();
    assert_eq!([of(0), of(1), of(2), of(3)], [10; 4]);
    // One that has little leaves its share to the others; one record at a time gets around too.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let mut one = Fetched::default();
        reader.poll(&mut one, 1, PATIENT).unwrap();
        seen.insert(one.get(0).from.partition);
    }
    assert_eq!(seen.len(), 4);
    let mut rest = Fetched::default();
    reader.poll(&mut rest, 1000, PATIENT).unwrap();
    assert_eq!(rest.len(), 400 - 44);
}

#[test]
fn retention_moves_the_start_and_never_the_end() {
    let world = World::new();
    let broker = world.open();
    let out = at(OUTPUT, 0);
    publish(&broker, out, &[("a", Some("1"), 100), ("b", Some("2"), 200)]);
    publish(&broker, out, &[("c", Some("3"), 5000)]);
    assert_eq!(broker.maintain(1150).unwrap(), Maintained::default(), "the first batch is as young as its newest record");
    assert_eq!(broker.maintain(1201).unwrap(), Maintained { expired: 2, compacted: 0 });
    assert_eq!(read_all(&broker, out), [(2, Some(b"3".to_vec()))]);
    let mut late = broker.reader().unwrap();
    assert_eq!(late.assign(out, 1).unwrap_err().reaction, Reaction::Stop);
    assert_eq!(broker.maintain(9000).unwrap().expired, 1, "the last one goes too");
    assert_eq!(late.bounds(out).unwrap(), Bounds { start: 3, end: 3 });
    drop((late, broker));
    let broker = world.open_at("broker").unwrap();
    assert_eq!(broker.reader().unwrap().bounds(out).unwrap(), Bounds { start: 3, end: 3 });
    publish(&broker, out, &[("d", Some("4"), 9000)]);
    assert_eq!(read_all(&broker, out), [(3, Some(b"4".to_vec()))]);
}

/// The first batch that stays may be the last one of a file whose others go.
#[test]
fn retention_keeps_the_batch_at_the_start_wherever_files_end() {
    let world = World::new();
    let broker = world.open();
    let out = at(OUTPUT, 0);
    for number in 0..10 {
        publish(&broker, out, &[("a", Some("value"), number * 100)]);
    }
    {
        let family = broker.shared.family("output/0").unwrap();
        broker.shared.store.db.flush_cf(&family).unwrap();
        // Out of level 0, whose files are never dropped.
        let mut force = rocksdb::CompactOptions::default();
        force.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
        broker.shared.store.db.compact_range_cf_opt(&family, None::<&[u8]>, None::<&[u8]>, &force);
    }
    assert_eq!(broker.maintain(1000 + 900).unwrap().expired, 9);
    assert_eq!(read_all(&broker, out), [(9, Some(b"value".to_vec()))]);
}

#[test]
fn a_reader_overtaken_by_retention_is_told() {
    let world = World::new();
    let broker = world.open();
    let out = at(OUTPUT, 0);
    publish(&broker, out, &[("a", Some("1"), 0)]);
    let mut reader = broker.reader().unwrap();
    reader.assign(out, 0).unwrap();
    broker.maintain(5000).unwrap();
    let error = reader.poll(&mut Fetched::default(), 10, PATIENT).unwrap_err();
    assert_eq!(error.reaction, Reaction::Stop);
    assert!(error.what.contains("output:0") && error.what.contains("offsets 1 to 1"), "{error}");
}

#[test]
fn compaction_keeps_the_last_value_of_each_key() {
    let world = World { options: EmbeddedOptions { compact_from_records: 1, ..World::new().options }, ..World::new() };
    let broker = world.open();
    let log = at(CHANGELOG, 1);
    for round in 0..50 {
        let value = format!("{round}");
        let keys: Vec<String> = (0..20).map(|key| format!("key {key}")).collect();
        let records: Vec<_> = keys.iter().map(|key| (key.as_str(), Some(value.as_str()), 0)).collect();
        publish(&broker, log, &records);
    }
    publish(&broker, log, &[("key 3", None, 0)]);
    assert_eq!(broker.maintain(world.now_ms.load(Ordering::SeqCst)).unwrap().compacted, 49 * 20 + 1);
    let mut rows = read_all(&broker, log);
    assert_eq!(rows.pop(), Some((1000, None)), "the tombstone stays for a while, and offsets are as they were");
    assert_eq!(rows.len(), 19);
    assert!(rows.iter().all(|(offset, value)| (980..1000).contains(offset) && value.as_deref() == Some(b"49")));
    assert_eq!(broker.maintain(i64::MAX).unwrap().compacted, 0, "nothing new, nothing to do");

    world.advance(1000);
    publish(&broker, log, &[("key 4", None, 0)]);
    for _ in 0..20 {
        publish(&broker, log, &[("key 5", Some("last"), 0)]);
    }
    let removed = broker.maintain(world.now_ms.load(Ordering::SeqCst) + 1).unwrap().compacted;
    assert_eq!(removed, 1 + 1 + 20, "key 3's tombstone; values of 4 and 5; the new tombstone stays");
    assert_eq!(read_all(&broker, log).len(), 17 + 2);
    drop(broker);
    let broker = world.open_at("broker").unwrap();
    assert_eq!(broker.reader().unwrap().bounds(log).unwrap(), Bounds { start: 0, end: 1022 });
}

#[test]
fn the_end_stays_when_compaction_takes_the_last_record() {
    let world = World { options: EmbeddedOptions { compact_from_records: 1, ..World::new().options }, ..World::new() };
    let broker = world.open();
    let log = at(CHANGELOG, 0);
    publish(&broker, log, &[("a", Some("1"), 0), ("a", None, 0)]);
    broker.maintain(world.now_ms.load(Ordering::SeqCst) + 501).unwrap();
    let mut reader = broker.reader().unwrap();
    reader.assign(log, 0).unwrap();
    reader.poll(&mut Fetched::default(), 10, Duration::ZERO).unwrap();
    assert_eq!(reader.position(log), Some(2), "the position passes the gap");
    drop((reader, broker));
    let broker = world.open_at("broker").unwrap();
    assert_eq!(broker.reader().unwrap().bounds(log).unwrap(), Bounds { start: 0, end: 2 });
    publish(&broker, log, &[("b", Some("2"), 0)]);
    assert_eq!(read_all(&broker, log), [(2, Some(b"2".to_vec()))]);
}

#[test]
fn a_record_of_a_hundred_megabytes_passes() {
    let world = World::new();
    let broker = world.open();
    let large = vec![7_u8; 100_000_000];
    let mut publisher = broker.publisher().unwrap();
    publisher.send(&record(at(INPUT, 0), b"large", Some(&large), 0)).unwrap();
    publisher.send(&record(at(INPUT, 0), b"small", Some(b"small"), 0)).unwrap();
    let refused = publisher.send(&record(at(INPUT, 0), b"larger", Some(&vec![0; 101 << 20]), 0)).unwrap_err();
    assert_eq!(refused.reaction, Reaction::TooLarge);
    publisher.flush().unwrap();
    let rows = read_all(&broker, at(INPUT, 0));
    assert!(rows.len() == 2 && rows[0].1.as_deref() == Some(&large[..]));
}

#[test]
fn a_second_holder_is_refused_with_advice() {
    let world = World::new();
    let _broker = world.open();
    let error = world.open_at("broker").unwrap_err();
    assert!(error.reaction == Reaction::Stop && error.what.contains("another process holds it"), "{error}");
}

#[test]
fn a_member_whose_thread_panics_frees_its_partitions() {
    let world = World::new();
    let broker = world.open();
    let mut survivor = broker.join(&config("survivor")).unwrap();
    let panicking = broker.clone();
    let panicked = std::thread::spawn(move || {
        let mut member = panicking.join(&config("panics")).unwrap();
        while member.poll(&mut Fetched::default(), 1, PATIENT).unwrap().is_none() {}
        panic!("as a bug would");
    });
    let mut owned = std::collections::BTreeSet::new();
    let mut listen = |survivor: &mut EmbeddedMember, wait| {
        let event = survivor.poll(&mut Fetched::default(), 1, wait).unwrap();
        match &event {
            Some(Event::Assigned(gained)) => owned.extend(gained.iter().copied()),
            Some(Event::Revoked(gone)) => owned.retain(|partition| !gone.contains(partition)),
            other => assert_eq!(*other, None),
        }
        event.iter().for_each(|event| survivor.acknowledge(event).unwrap());
        owned.len()
    };
    // The other one gets its share once the survivor gave it up, and goes with it.
    while !panicked.is_finished() {
        listen(&mut survivor, Duration::from_millis(10));
    }
    assert!(panicked.join().is_err());
    let kept = listen(&mut survivor, Duration::ZERO);
    assert!(kept < 4, "its place is kept for a while");
    world.advance(world.options.away_ms as i64);
    assert_eq!(listen(&mut survivor, Duration::ZERO), 4);
}

#[test]
fn damage_is_refused_and_never_believed() {
    let world = World::new();
    let broker = world.open();
    let values: Vec<String> = (0..20_000).map(|number| format!("value {number}")).collect();
    let records: Vec<_> = values.iter().map(|value| ("key", Some(value.as_str()), 0)).collect();
    publish(&broker, at(INPUT, 0), &records);
    broker.shared.store.db.flush_cf(&broker.shared.family("input/0").unwrap()).unwrap();
    drop(broker);
    let folder = world.root.path().join("broker");
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let file = files.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
    let file = file.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[5000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let Ok(broker) = world.open_at("broker") else { return };
    let mut reader = broker.reader().unwrap();
    reader.assign(at(INPUT, 0), 0).unwrap();
    let error = reader.poll(&mut Fetched::default(), 100_000, PATIENT).unwrap_err();
    assert_eq!(error.reaction, Reaction::Stop);
}
