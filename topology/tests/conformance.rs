//! The conformance suite on the simulated broker.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use topology::conformance::{Capability, Harness, cases};
use topology::record::{TopicId, Topics};
use topology::simulated::{Fault, Op, SimBroker};

/// Virtual milliseconds between two attempts of a case.
const TICK_MS: u64 = 100;
/// Attempts before a case gives up: far fewer than the transactions' long timeout takes.
const PATIENCE: u32 = 1200;
/// When a lost request arrives after all: longer than any case waits before.
const LATE_MS: u64 = 5_000;

#[derive(Default)]
struct Simulated {
    brokers: Vec<SimBroker>,
    names: u32,
    attempts: u32,
}

impl Simulated {
    fn advance(&self, ms: u64) {
        self.brokers.iter().for_each(|broker| broker.advance(ms));
    }
}

impl Harness for Simulated {
    type Broker = SimBroker;

    fn open(&mut self, topics: &[&str]) -> SimBroker {
        let broker = SimBroker::new(Topics::new(topics.iter().map(|&topic| topic.to_owned()).collect()));
        // A time of day from which an hour can be taken away.
        broker.advance(1_700_000_000_000);
        self.brokers = vec![broker.clone()];
        broker
    }

    fn fresh(&mut self, name: &str) -> String {
        self.names += 1;
        format!("{name}-{}", self.names)
    }

    fn can(&self, _: Capability) -> bool {
        true
    }

    fn poll_wait(&self) -> Duration {
        Duration::ZERO
    }

    fn begin_waiting(&mut self) {
        self.attempts = 0;
    }

    fn keep_waiting(&mut self) -> bool {
        self.advance(TICK_MS);
        self.attempts += 1;
        self.attempts < PATIENCE
    }

    fn polls_to_be_sure(&self) -> usize {
        5
    }

    fn now_ms(&self) -> i64 {
        self.brokers.iter().map(SimBroker::now).max().map_or(0, |now_ms| now_ms as i64)
    }

    fn short_transaction_timeout_ms(&self) -> u64 {
        1000
    }

    fn compact(&mut self, broker: &SimBroker, topic: TopicId) {
        broker.compact(topic);
    }

    fn retain(&mut self, broker: &SimBroker, topic: TopicId) {
        broker.retain(topic);
    }

    fn recreate(&mut self, broker: &SimBroker, topic: TopicId) {
        broker.recreate_topic(topic, 1);
    }

    fn lose_next_end(&mut self, broker: &SimBroker) {
        let mut left = 1;
        broker.set_faults(move |call| {
            if call.op == Op::EndTxnCommit && left > 0 {
                left -= 1;
                return Fault::Late(LATE_MS);
            }
            Fault::None
        });
    }

    fn deliver_lost_end(&mut self, _: &SimBroker) {
        self.advance(LATE_MS);
    }
}

fn run_all(harness: &mut Simulated) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for case in cases::<Simulated>() {
        assert!(case.applies(harness), "the simulated broker can do everything");
        if catch_unwind(AssertUnwindSafe(|| (case.run)(harness))).is_err() {
            failed.push(case.name);
        }
    }
    failed
}

#[test]
fn the_simulated_broker_keeps_every_promise() {
    assert_eq!(run_all(&mut Simulated::default()), [""; 0], "broken promises (see above for each)");
}

#[test]
fn every_case_has_its_own_name() {
    let mut names: Vec<&str> = cases::<Simulated>().iter().map(|case| case.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}
