//! What every [`Broker`] must do: one suite for Kafka, the embedded broker and the simulated one.
//!
//! The cases use the port alone; what it does not offer (compaction now, a topic made anew, a lost request, patience) they ask of a
//! [`Harness`]. A real broker does things in its own time, so a case never sleeps and hopes: it polls until what it expects is there,
//! and fails when the harness's patience is over. Everything is asserted; a failure panics and says which promise was broken.
//!
//! ```text
//! for case in conformance::cases::<MyHarness>() { if case.applies(&harness) { (case.run)(&mut harness) } }
//! ```

mod fencing;
mod fetching;
mod group;
mod isolation;
mod offsets;
mod publishing;
mod retention;
mod stage;

use std::time::Duration;

use crate::broker::Broker;
use crate::record::TopicId;

/// Something that not every broker can be made to do in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// [`Harness::compact`].
    Compact,
    /// [`Harness::retain`].
    Retain,
    /// [`Harness::recreate`].
    Recreate,
    /// [`Harness::lose_next_end`] and [`Harness::deliver_lost_end`].
    LoseEnd,
    /// Transactions left open time out within the harness's patience.
    TransactionTimeout,
    /// Members that don't poll are dropped within the harness's patience.
    SessionTimeout,
    /// Records of 2 MiB where the topic allows them.
    LargeRecords,
}

/// How the suite gets at a broker.
pub trait Harness {
    /// The broker under test.
    type Broker: Broker;

    /// A broker whose table has these topics in this order, under fresh names, none of them created yet.
    fn open(&mut self, topics: &[&str]) -> Self::Broker;

    /// A name that no earlier case had, for groups, identities and producers.
    fn fresh(&mut self, name: &str) -> String;

    /// Whether this broker can be made to do this.
    fn can(&self, capability: Capability) -> bool;

    /// How long a single poll may wait.
    fn poll_wait(&self) -> Duration;

    /// From here on patience is full again.
    fn begin_waiting(&mut self);

    /// Lets a little time pass (a simulated clock goes on, a real one does so by itself while polls wait); false once patience is over.
    fn keep_waiting(&mut self) -> bool;

    /// How many polls show well enough that something does not come.
    fn polls_to_be_sure(&self) -> usize;

    /// The time by the broker's clock, milliseconds since the epoch.
    fn now_ms(&self) -> i64;

    /// The shortest timeout of a transaction that the broker grants.
    fn short_transaction_timeout_ms(&self) -> u64;

    /// Has a compacted topic compacted, soon; called again until it shows. May write records with [`FILLER_KEY`] to help it on.
    fn compact(&mut self, broker: &Self::Broker, topic: TopicId);

    /// Has a topic's retention carried out, soon; called again until it shows. May write records with [`FILLER_KEY`] to help it on. A broker
    /// that forgets whole segments begins a new one here, with nothing young in the old one.
    fn retain(&mut self, broker: &Self::Broker, topic: TopicId);

    /// Deletes a topic and creates it anew with as many partitions, empty.
    fn recreate(&mut self, broker: &Self::Broker, topic: TopicId);

    /// Has the next request to commit a transaction lost on its way: its sender gets no answer, and it does not arrive.
    fn lose_next_end(&mut self, broker: &Self::Broker);

    /// Has the lost request arrive after all; returns when the broker has dealt with it.
    fn deliver_lost_end(&mut self, broker: &Self::Broker);
}

/// The key of records that a harness writes to make a broker tidy up; checks pass them over.
pub const FILLER_KEY: &[u8] = b"~filler";

/// One promise and its check.
pub struct Case<H: Harness> {
    /// What is promised.
    pub name: &'static str,
    /// What the broker must be able to do for the check to be made.
    pub needs: &'static [Capability],
    /// The check; panics where the promise is broken.
    pub run: fn(&mut H),
}

impl<H: Harness> Case<H> {
    const fn new(name: &'static str, run: fn(&mut H)) -> Self {
        Self { name, needs: &[], run }
    }

    const fn needing(name: &'static str, needs: &'static [Capability], run: fn(&mut H)) -> Self {
        Self { name, needs, run }
    }

    /// Whether the harness can do all that the case needs.
    pub fn applies(&self, harness: &H) -> bool {
        self.needs.iter().all(|capability| harness.can(*capability))
    }
}

/// All cases.
#[must_use]
pub fn cases<H: Harness>() -> Vec<Case<H>> {
    let mut cases = Vec::new();
    cases.extend(publishing::cases());
    cases.extend(isolation::cases());
    cases.extend(offsets::cases());
    cases.extend(fencing::cases());
    cases.extend(group::cases());
    cases.extend(fetching::cases());
    cases.extend(retention::cases());
    cases
}
