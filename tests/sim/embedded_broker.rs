//! The embedded broker keeps every promise of the port.

use std::sync::Arc;
use std::time::Duration;

use mangrove::broker::embedded::{Durability, EmbeddedBroker, EmbeddedOptions, NowMs};
use tempfile::TempDir;
use topology::broker::{Broker, Publisher};
use topology::clock::{Clock, MockClock};
use topology::conformance::{self, Capability, FILLER_KEY, Harness};
use topology::record::{Outgoing, TopicId, TopicPartition, Topics};

const STEP_MS: i64 = 500;
const PATIENCE_STEPS: u32 = 200;

struct Embedded {
    root: TempDir,
    clock: MockClock,
    names: u32,
    waited: u32,
}

impl Embedded {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        Self { root, clock: MockClock::at(1_700_000_000_000), names: 0, waited: 0 }
    }
}

impl Harness for Embedded {
    type Broker = EmbeddedBroker;

    fn open(&mut self, topics: &[&str]) -> EmbeddedBroker {
        let names = topics.iter().map(|name| self.fresh(name)).collect();
        let path = self.root.path().join(self.names.to_string());
        let options = EmbeddedOptions {
            durability: Durability::Os,
            memory_bytes: 32 << 20,
            silent_ms: 10_000,
            away_ms: 5_000,
            compact_from_records: 1,
            ..EmbeddedOptions::default()
        };
        let clock = self.clock.clone();
        let now_ms: NowMs = Arc::new(move || clock.now_ms());
        EmbeddedBroker::open(&path, Topics::new(names), options, now_ms).unwrap()
    }

    fn fresh(&mut self, name: &str) -> String {
        self.names += 1;
        format!("{name}-{}", self.names)
    }

    fn can(&self, capability: Capability) -> bool {
        // It never deletes a topic, so none can be made anew; a commit is a call in one process, with nothing between it and its answer.
        !matches!(capability, Capability::Recreate | Capability::LoseEnd)
    }

    fn poll_wait(&self) -> Duration {
        Duration::ZERO
    }

    fn begin_waiting(&mut self) {
        self.waited = 0;
    }

    fn keep_waiting(&mut self) -> bool {
        self.waited += 1;
        self.clock.advance(STEP_MS);
        self.waited < PATIENCE_STEPS
    }

    fn polls_to_be_sure(&self) -> usize {
        3
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn short_transaction_timeout_ms(&self) -> u64 {
        1000
    }

    fn compact(&mut self, broker: &EmbeddedBroker, topic: TopicId) {
        // Compaction waits for as much news as it left the last time.
        let partitions = broker.describe(&[topic]).unwrap()[0].as_ref().map_or(0, |info| info.partitions);
        let mut publisher = broker.publisher().unwrap();
        for _ in 0..20 {
            for partition in 0..partitions {
                let to = TopicPartition { topic, partition };
                let timestamp = self.clock.now_ms();
                let filler = Outgoing { to, key: Some(FILLER_KEY), value: Some(b"filler"), timestamp, headers: &[] };
                publisher.send(&filler).unwrap();
            }
        }
        publisher.flush().unwrap();
        broker.maintain(self.clock.now_ms()).unwrap();
    }

    fn retain(&mut self, broker: &EmbeddedBroker, _topic: TopicId) {
        broker.maintain(self.clock.now_ms()).unwrap();
    }

    fn recreate(&mut self, _broker: &EmbeddedBroker, _topic: TopicId) {
        unreachable!("not a capability");
    }

    fn lose_next_end(&mut self, _broker: &EmbeddedBroker) {
        unreachable!("not a capability");
    }

    fn deliver_lost_end(&mut self, _broker: &EmbeddedBroker) {
        unreachable!("not a capability");
    }
}

#[test]
fn conforms() {
    let mut harness = Embedded::new();
    for case in conformance::cases::<Embedded>() {
        if case.applies(&harness) {
            println!("{}", case.name);
            (case.run)(&mut harness);
        }
    }
}
