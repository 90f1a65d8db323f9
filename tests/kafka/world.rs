//! What the tests share: a broker with topics of their own, members, and waiting with a deadline.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mangrove::broker::kafka::{KafkaBroker, KafkaConfig, KafkaMember};
use topology::broker::{Broker, Cleanup, Event, Member, MemberConfig, Publisher, TopicSpec};
use topology::record::{Fetched, Outgoing, TopicId, TopicPartition, Topics};

pub use crate::common::{address, run};

/// The lead topic of the group.
pub const INPUT: TopicId = TopicId(0);
/// What is written.
pub const OUTPUT: TopicId = TopicId(1);
/// A co-partition of the input.
pub const SIDE: TopicId = TopicId(2);
/// A topic that takes small records only.
pub const NARROW: TopicId = TopicId(3);
/// A topic that is never created.
pub const MISSING: TopicId = TopicId(4);

pub const PARTITIONS: u32 = 4;
pub const NARROW_BYTES: u32 = 100_000;
/// Long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

static WORLDS: AtomicU32 = AtomicU32::new(0);

/// One test's topics and group.
pub struct World {
    pub address: String,
    pub broker: KafkaBroker,
    pub name: String,
}

pub fn at(topic: TopicId, partition: u32) -> TopicPartition {
    TopicPartition { topic, partition }
}

pub fn record<'a>(to: TopicPartition, value: &'a [u8]) -> Outgoing<'a> {
    Outgoing { to, key: Some(b"key"), value: Some(value), timestamp: 1_700_000_000_000, headers: &[] }
}

impl World {
    /// None, said loudly, where there is no broker to test with.
    pub fn new(test: &str) -> Option<Self> {
        Self::with(test, |_| ())
    }

    pub fn with(test: &str, change: impl FnOnce(&mut KafkaConfig)) -> Option<Self> {
        let address = address(test)?;
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").subsec_nanos();
        let name = format!("t{}-{}-{nanos}-{test}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
        let topics = ["input", "output", "side", "narrow", "missing"].map(|topic| format!("{name}-{topic}")).to_vec();
        let mut config = KafkaConfig { bootstrap_servers: address.clone(), ..KafkaConfig::default() };
        change(&mut config);
        let broker = KafkaBroker::new(config, Topics::new(topics)).expect("a broker");
        let world = Self { address, broker, name };
        for topic in [INPUT, OUTPUT, SIDE, NARROW] {
            world.broker.create(&world.spec(topic)).expect("created");
        }
        Some(world)
    }

    pub fn spec(&self, topic: TopicId) -> TopicSpec {
        TopicSpec {
            name: self.broker.topics().name(topic).to_owned(),
            partitions: PARTITIONS,
            cleanup: Cleanup::Delete { retention_ms: None },
            max_message_bytes: (topic == NARROW).then_some(NARROW_BYTES),
        }
    }

    pub fn identity(&self, worker: &str) -> MemberConfig {
        MemberConfig {
            group: self.name.clone(),
            instance: format!("{}-{worker}", self.name),
            transactional_id: Some(format!("{}-{worker}", self.name)),
            transaction_timeout_ms: 10_000,
            leads: vec![INPUT],
        }
    }

    /// A member that has just joined; it owns nothing before it is polled.
    pub fn join(&self, worker: &str) -> KafkaMember {
        self.broker.join(&self.identity(worker)).expect("joined")
    }

    /// A member that owns all partitions of the input.
    pub fn owner(&self, worker: &str) -> KafkaMember {
        let mut member = self.join(worker);
        own(&mut [&mut member], &mut [BTreeSet::new()], PARTITIONS as usize);
        member
    }

    /// Writes numbered values `0..count` to a partition, outside of transactions.
    pub fn publish(&self, to: TopicPartition, count: u32) {
        let mut publisher = self.broker.publisher().expect("a publisher");
        for number in 0..count {
            publisher.send(&record(to, number.to_string().as_bytes())).expect("sent");
        }
        publisher.flush().expect("durable");
    }

    /// What a read-committed reader finds in a partition, up to the end it has when asked.
    pub fn values(&self, partition: TopicPartition) -> Vec<String> {
        use topology::broker::Reader;
        let mut reader = self.broker.reader().expect("a reader");
        let end = reader.bounds(partition).expect("bounds").end;
        reader.assign(partition, 0).expect("assigned");
        let mut fetched = Fetched::default();
        until("the reader is at the end", || {
            reader.poll(&mut fetched, 1000, Duration::from_millis(20)).expect("polled");
            reader.position(partition).is_some_and(|position| position >= end).then_some(())
        });
        values(&fetched)
    }
}

/// The values of all records.
pub fn values(fetched: &Fetched) -> Vec<String> {
    fetched.iter().map(|r| String::from_utf8(r.value.expect("a value").to_vec()).expect("text")).collect()
}

/// Calls until there is an answer; panics, naming what did not come, when patience is over.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
    }
}

/// Polls until the member is told something.
pub fn event(member: &mut KafkaMember) -> Event {
    let mut fetched = Fetched::default();
    until("an event", || member.poll(&mut fetched, 100, Duration::from_millis(20)).expect("polled"))
}

/// Polls until a record or more came; an event is a failure.
pub fn records(member: &mut KafkaMember) -> Fetched {
    let mut fetched = Fetched::default();
    until("records", || {
        let event = member.poll(&mut fetched, 100_000, Duration::from_millis(20)).expect("polled");
        assert_eq!(event, None);
        (!fetched.is_empty()).then_some(())
    });
    fetched
}

/// Polls a member, acknowledges what it is told, and keeps `owned` up to date. True where something changed.
pub fn step(member: &mut KafkaMember, owned: &mut BTreeSet<TopicPartition>) -> bool {
    let mut fetched = Fetched::default();
    let Some(event) = member.poll(&mut fetched, 100, Duration::from_millis(10)).expect("polled") else { return false };
    member.acknowledge(&event).expect("acknowledged");
    match event {
        Event::Assigned(partitions) => owned.extend(partitions),
        Event::Revoked(partitions) | Event::Lost(partitions) => owned.retain(|p| !partitions.contains(p)),
    }
    true
}

/// Polls members until together they own all partitions, `share` each at the most.
pub fn own(members: &mut [&mut KafkaMember], owned: &mut [BTreeSet<TopicPartition>], share: usize) {
    until("all partitions are owned", || {
        for (member, owned) in members.iter_mut().zip(owned.iter_mut()) {
            step(member, owned);
        }
        let total: usize = owned.iter().map(BTreeSet::len).sum();
        (total == PARTITIONS as usize && owned.iter().all(|o| o.len() <= share)).then_some(())
    });
}
