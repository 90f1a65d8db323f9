//! A broker with an input and an output topic of two partitions each, and how tests speak to it.

use std::time::Duration;

use topology::broker::{Broker, Event, Member, MemberConfig, Publisher, Reaction, Result};
use topology::record::{Fetched, Outgoing, TopicId, TopicPartition, Topics};
use topology::simulated::{Fault, Op, SimBroker, SimMember};

pub const INPUT: TopicId = TopicId(0);
pub const OUTPUT: TopicId = TopicId(1);
pub const GROUP: &str = "group";
pub const TRANSACTION_TIMEOUT_MS: u64 = 5000;

pub fn at(topic: TopicId, partition: u32) -> TopicPartition {
    TopicPartition { topic, partition }
}

pub fn record<'a>(to: TopicPartition, value: &'a str) -> Outgoing<'a> {
    Outgoing { to, key: Some(b"key"), value: Some(value.as_bytes()), timestamp: 0, headers: &[] }
}

/// No topic exists yet.
pub fn empty() -> SimBroker {
    SimBroker::new(Topics::new(vec!["input".to_owned(), "output".to_owned()]))
}

pub fn scene() -> SimBroker {
    let sim = empty();
    assert_eq!((sim.create_topic("input", 2), sim.create_topic("output", 2)), (INPUT, OUTPUT));
    sim
}

pub fn config(instance: &str) -> MemberConfig {
    MemberConfig {
        group: GROUP.to_owned(),
        instance: instance.to_owned(),
        transactional_id: Some(instance.to_owned()),
        transaction_timeout_ms: TRANSACTION_TIMEOUT_MS,
        leads: vec![INPUT],
    }
}

/// One poll; what it brought is appended as text.
pub fn poll(member: &mut SimMember, seen: &mut Vec<String>) -> Result<Option<Event>> {
    let mut fetched = Fetched::default();
    let event = member.poll(&mut fetched, 100, Duration::ZERO);
    seen.extend(fetched.iter().map(|record| String::from_utf8_lossy(record.value.unwrap_or(b"-")).into_owned()));
    event
}

/// Polls once and acknowledges what comes.
pub fn follow(member: &mut SimMember) -> Option<Event> {
    let event = poll(member, &mut Vec::new()).unwrap();
    if let Some(event) = &event {
        member.acknowledge(event).unwrap();
    }
    event
}

/// A member that owns both partitions of the input.
pub fn alone(sim: &SimBroker, instance: &str) -> SimMember {
    let mut member = sim.join(&config(instance)).unwrap();
    assert_eq!(follow(&mut member), Some(Event::Assigned(vec![at(INPUT, 0), at(INPUT, 1)])));
    member
}

pub fn commit(member: &mut SimMember, offsets: &[(TopicPartition, u64)]) -> Result<()> {
    let token = member.token()?;
    member.commit(offsets, token)
}

/// Begins a transaction with these values in it.
pub fn begin(member: &mut SimMember, values: &[&str]) {
    member.begin().unwrap();
    for value in values {
        member.send(&record(at(OUTPUT, 0), value)).unwrap();
    }
}

pub fn publish(sim: &SimBroker, to: TopicPartition, values: &[&str]) {
    let mut publisher = sim.publisher().unwrap();
    values.iter().for_each(|value| publisher.send(&record(to, value)).unwrap());
    publisher.flush().unwrap();
}

/// The committed values of the output.
pub fn visible(sim: &SimBroker) -> Vec<String> {
    let text = |value: &Option<std::sync::Arc<[u8]>>| String::from_utf8(value.as_ref().unwrap().to_vec()).unwrap();
    sim.committed_records(OUTPUT).iter().map(|record| text(&record.value)).collect()
}

/// The next call of this kind goes wrong like this, and only that one.
pub fn next(sim: &SimBroker, op: Op, fault: Fault) {
    let mut left = Some(fault);
    sim.set_faults(move |call| if call.op == op { left.take().unwrap_or(Fault::None) } else { Fault::None });
}

pub fn reaction<T>(result: Result<T>) -> Reaction {
    result.err().expect("the call had to fail").reaction
}

/// Numbers from a seed.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
