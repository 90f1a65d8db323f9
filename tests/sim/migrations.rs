//! Migration on the embedded broker: to another topic, broken off at every step, and what stands in its way.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mangrove::broker::Groups as _;
use mangrove::broker::embedded::{Durability, EmbeddedBroker, EmbeddedOptions};
use mangrove::exclusive::{Exclusive, identity, partitions};
use mangrove::migrate::{Migration, Places, Report};
use mangrove::scoring::{ModelSlot, ScoringParams, TopicNames, scoring_topology};
use state::store::{Marks, decode_kept, encode_kept};
use tempfile::TempDir;
use topology::broker::{Broker as _, Cleanup, Publisher as _, Reader as _, TopicSpec};
use topology::partitioner::partition_of;
use topology::record::{Fetched, Outgoing, Record, TopicId, TopicPartition};

const OLD: u32 = 3;
const NEW: u32 = 5;
const T: i64 = 1_700_000_000_000;
/// Processed input of each old partition.
const COMMITTED: u64 = 40;

struct World {
    _root: TempDir,
    broker: EmbeddedBroker,
    places: Places,
}

fn topology(id: &str, transactions: &str, commands: &str) -> topology::topology::Topology {
    let names = TopicNames { transactions: transactions.into(), commands: commands.into(), ..TopicNames::default() };
    scoring_topology(id, &names, &ScoringParams::default(), &ModelSlot::default()).unwrap()
}

fn owner(_: usize, record: &Record<'_>) -> Option<Vec<u8>> {
    record.key.map(<[u8]>::to_vec)
}

impl World {
    /// An old application with 200 keys, and input of which 40 records a partition are processed.
    fn new(ahead: u64) -> Self {
        let root = TempDir::new().unwrap();
        let places = Places::of(&topology("old", "pay", "cmd"), &topology("new", "pay5", "cmd5")).unwrap();
        let places = places.carrying("old-snoozes", "new-snoozes");
        let options = EmbeddedOptions { durability: Durability::Os, memory_bytes: 32 << 20, ..EmbeddedOptions::default() };
        let broker = EmbeddedBroker::open(root.path(), places.topics(), options, Arc::new(|| T)).unwrap();
        let world = Self { _root: root, broker, places };
        let keep = Cleanup::Delete { retention_ms: None };
        for name in ["pay", "cmd", "old-profiles-changelog"] {
            let spec = TopicSpec { name: name.into(), partitions: OLD, cleanup: keep, max_message_bytes: None };
            world.broker.create(&spec).unwrap();
        }
        let compacted = Cleanup::Compact { tombstone_retention_ms: 1_000 };
        let spec = TopicSpec { name: "old-snoozes".into(), partitions: 1, cleanup: compacted, max_message_bytes: None };
        world.broker.create(&spec).unwrap();
        let snoozes = [("user:u1", Some("first")), ("user:u2", Some("ended")), ("user:u1", Some("last")), ("user:u2", None)];
        for (key, value) in snoozes {
            world.put_at("old-snoozes", 0, key, value.map(str::as_bytes));
        }
        for round in 0..2 {
            for number in 0..200_u64 {
                let mut value = Vec::new();
                encode_kept(&Marks([COMMITTED + if round == 1 { ahead } else { 0 }, 0, 0, 0]), &(number + round), &mut value);
                world.put("old-profiles-changelog", &format!("u{number}"), Some(&value));
            }
        }
        world.put("old-profiles-changelog", "u7", None);
        let mut counts = [0; OLD as usize];
        for number in 0.. {
            let key = format!("u{}", number % 200);
            let count = &mut counts[partition_of(key.as_bytes(), OLD) as usize];
            if *count < COMMITTED + 30 {
                *count += 1;
                world.put("pay", &key, Some(number.to_string().as_bytes()));
            } else if counts.iter().all(|count| *count == COMMITTED + 30) {
                break;
            }
        }
        let all = partitions(&[(world.topic("pay"), OLD)]);
        let mut hand = Exclusive::join(&world.broker, &identity("old", "worker", vec![world.topic("pay")]), &all).unwrap();
        hand.transact(|_| Ok(all.iter().map(|&at| (at, COMMITTED)).collect())).unwrap();
        hand.leave().unwrap();
        world
    }

    fn topic(&self, name: &str) -> TopicId {
        self.broker.topics().find(name).unwrap()
    }

    fn put(&self, topic: &str, key: &str, value: Option<&[u8]>) {
        self.put_at(topic, partition_of(key.as_bytes(), OLD), key, value);
    }

    fn put_at(&self, topic: &str, partition: u32, key: &str, value: Option<&[u8]>) {
        let to = TopicPartition { topic: self.topic(topic), partition };
        let mut publisher = self.broker.publisher().unwrap();
        publisher.send(&Outgoing { to, key: Some(key.as_bytes()), value, timestamp: T, headers: &[] }).unwrap();
        publisher.flush().unwrap();
    }

    fn migration<'a>(&'a self, exactly_once: bool, progress: &'a dyn Fn(u64, u64)) -> Migration<'a, EmbeddedBroker> {
        Migration { broker: &self.broker, places: &self.places, partitions: NEW, exactly_once, owner: &owner, progress }
    }

    fn run(&self, exactly_once: bool) -> Result<Report, String> {
        self.migration(exactly_once, &|_, _| {}).run().map_err(|why| why.to_string())
    }

    fn read(&self, topic: &str, count: u32, from: u64) -> Vec<(u32, String, Vec<u8>)> {
        let mut reader = self.broker.reader().unwrap();
        for at in partitions(&[(self.topic(topic), count)]) {
            reader.assign(at, from).unwrap();
        }
        let mut fetched = Fetched::default();
        reader.poll(&mut fetched, 1_000_000, Duration::ZERO).unwrap();
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap()).into_owned();
        fetched.iter().map(|r| (r.from.partition, text(r.key), r.value.unwrap_or_default().to_vec())).collect()
    }

    /// State and tail are as they must be.
    fn check(&self, included: u64) {
        let mut state = BTreeMap::new();
        for (partition, key, value) in self.read("new-profiles-changelog", NEW, 0) {
            assert_eq!(partition_of(key.as_bytes(), NEW), partition);
            let (marks, value) = decode_kept::<u64>(&value).unwrap();
            assert_eq!(marks, Marks::default(), "the new input begins at 0");
            state.insert(key, value);
        }
        let expected = (0..200_u64).filter(|number| *number != 7).map(|number| (format!("u{number}"), number + 1));
        assert_eq!(state, expected.collect());
        // Written again by each run that was broken off behind it: the last one of each name counts.
        let snoozes: BTreeMap<_, _> = self.read("new-snoozes", 1, 0).into_iter().map(|(_, key, value)| (key, value)).collect();
        assert_eq!(snoozes, [("user:u1".to_owned(), b"last".to_vec())].into(), "as they are, without those that were ended");
        // Each user's waiting records, in order.
        let by_user = |records: Vec<(u32, String, Vec<u8>)>| {
            let mut users: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
            records.into_iter().for_each(|(_, key, value)| users.entry(key).or_default().push(value));
            users
        };
        let moved = self.read("pay5", NEW, 0);
        assert!(moved.iter().all(|(partition, key, _)| partition_of(key.as_bytes(), NEW) == *partition));
        // A key without a value includes nothing: what waits for it is moved.
        let waiting: Vec<_> = self.waiting(included);
        assert_eq!(by_user(moved), by_user(waiting));
        for (topic, count) in [("pay5", NEW), ("cmd5", NEW)] {
            let offsets = self.broker.committed("new", &partitions(&[(self.topic(topic), count)])).unwrap();
            assert!(offsets.iter().all(|offset| *offset == Some(0)), "{topic}: {offsets:?}");
        }
    }

    fn waiting(&self, included: u64) -> Vec<(u32, String, Vec<u8>)> {
        let mut seen = [COMMITTED; OLD as usize];
        let mut all = self.read("pay", OLD, COMMITTED);
        all.retain(|(partition, key, _)| {
            let offset = seen[*partition as usize];
            seen[*partition as usize] += 1;
            offset >= COMMITTED + included || key == "u7"
        });
        all
    }
}

#[test]
fn state_and_waiting_input_move_through_any_number_of_interruptions() {
    // How many steps there are, undisturbed.
    let steps = Cell::new(0);
    let world = World::new(0);
    let counting = |_: u64, _: u64| steps.set(steps.get() + 1);
    let report = world.migration(true, &counting).run().unwrap();
    assert_eq!((report.keys, report.moved.clone(), report.foreign.clone()), (199, vec![90, 0], vec![0, 0]));
    assert_eq!(report.committed[0], vec![COMMITTED; OLD as usize]);
    world.check(0);
    assert!(world.run(true).unwrap().before, "a second time nothing is done");
    world.check(0);
    assert!(steps.get() > 4, "{} steps", steps.get());
    // Broken off once at each of them, and in between, again and again on the same topics.
    let world = World::new(0);
    for at in 1..=steps.get() {
        let count = Cell::new(0);
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let progress = |_: u64, _: u64| {
                count.set(count.get() + 1);
                assert!(count.get() < at, "broken off by the test");
            };
            world.migration(true, &progress).run()
        }));
        if broken.is_ok() {
            break;
        }
    }
    world.run(true).unwrap();
    world.check(0);
}

#[test]
fn what_a_crash_left_included_in_the_state_is_not_moved() {
    let world = World::new(10);
    assert!(world.run(true).unwrap_err().contains("has not committed"), "under exactly-once that cannot be");
    let world = World::new(10);
    let report = world.run(false).unwrap();
    assert_eq!(report.included[0] + report.moved[0], 90);
    world.check(10);
}

#[test]
fn what_stands_in_the_way_is_named() {
    let says = |world: &World, words: &str| {
        let said = world.run(true).unwrap_err();
        assert!(said.contains(words), "{words} in: {said}");
    };
    let world = World::new(0);
    let spec = |name: &str| TopicSpec {
        name: name.into(),
        partitions: NEW,
        cleanup: Cleanup::Delete { retention_ms: None },
        max_message_bytes: None,
    };
    world.broker.create(&spec("pay5")).unwrap();
    world.put("pay5", "u1", Some(b"early"));
    says(&world, "pay5 is not empty");
    let world = World::new(0);
    world.broker.create(&spec("new-profiles-changelog")).unwrap();
    world.put("new-profiles-changelog", "u1", Some(b"state"));
    says(&world, "state of its own");
    let world = World::new(0);
    world.broker.create(&TopicSpec { partitions: NEW + 1, ..spec("pay5") }).unwrap();
    says(&world, "pay5 has 6 partitions, not 5");
    // Somebody goes on writing where the new application does not read.
    let world = World::new(0);
    let late = Cell::new(true);
    let write = |done: u64, total: u64| {
        if done == total && late.replace(false) {
            world.put("pay", "u1", Some(b"late"));
        }
    };
    let said = world.migration(true, &write).run().map_err(|why| why.to_string());
    assert!(said.as_ref().is_err_and(|said| said.contains("still grows")), "{said:?}");
    assert_eq!(world.run(true).unwrap().moved[0], 91, "the next run moves it");
    assert!(Places::of(&topology("a", "pay", "cmd"), &topology("a", "pay5", "cmd5")).is_err());
}
