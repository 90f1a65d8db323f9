//! The simulated broker: Kafka's behaviour in memory, deterministic, on a virtual clock, with faults on request.
//!
//! It is faithful where exactly-once depends on it: offsets and control records, open transactions and the last stable offset,
//! epochs and fencing, transaction timeouts, generations, cooperative rebalances, pending offsets, compaction, retention. It never waits:
//! a poll with nothing to give returns at once, and time passes only by [`SimBroker::advance`]. A run depends on the order of the calls, the
//! clock and the hook's answers alone, so one seed replays it.
//!
//! ```text
//! member, reader, publisher --caller--> (hook: fault?) --> cluster { logs, transactions, groups, late requests }
//! ```
//!
//! A crash of a process is dropping its member (or [`Fault::Crash`] within a call); a zombie is a member kept and not polled for a while.

mod assignor;
mod caller;
mod cluster;
mod coordinator;
mod faults;
mod group;
mod inspect;
mod log;
mod member;
mod producer;
mod publisher;
mod reader;
mod transactions;

use std::fmt;
use std::sync::Arc;

use caller::{Caller, Shared};

pub use faults::{Fault, FaultHook, FaultKind, Op, OpContext};
pub use inspect::{StoredEntry, StoredRecord};
pub use log::{Fate, StoredHeader};
pub use member::{SimMember, SimToken};
pub use publisher::SimPublisher;
pub use reader::SimReader;
pub use transactions::OpenTransaction;

use crate::broker::{Broker, Cleanup, MemberConfig, Result, TopicInfo, TopicSpec};
use crate::record::{TopicId, TopicPartition, Topics};

/// A handle on a simulated broker; clones share it.
#[derive(Clone)]
pub struct SimBroker {
    caller: Caller,
}

impl fmt::Debug for SimBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimBroker").field("instance", &self.caller.instance).finish_non_exhaustive()
    }
}

impl SimBroker {
    /// An empty broker at time 0. The table's topics exist once they are created.
    #[must_use]
    pub fn new(topics: Topics) -> Self {
        Self { caller: Caller::new(Arc::new(Shared::new(topics)), "") }
    }

    /// The same broker as a named process sees it: the name is what [`OpContext::instance`] says of its readers and publishers.
    #[must_use]
    pub fn named(&self, instance: &str) -> Self {
        Self { caller: Caller::new(Arc::clone(&self.caller.shared), instance) }
    }

    fn shared(&self) -> &Shared {
        &self.caller.shared
    }

    /// Creates a topic that keeps everything; one that exists is left as it is.
    ///
    /// # Panics
    /// Where the table of topics does not have the name.
    pub fn create_topic(&self, name: &str, partitions: u32) -> TopicId {
        let cleanup = Cleanup::Delete { retention_ms: None };
        let spec = TopicSpec { name: name.to_owned(), partitions, cleanup, max_message_bytes: None };
        self.shared().cluster().create(&spec).expect("invariant: the table names the topic, and it has partitions");
        self.shared().topics.find(name).expect("invariant: created under a number of the table")
    }

    /// The virtual clock, in milliseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.shared().cluster().now_ms
    }

    /// Lets time pass: late requests arrive, transactions time out, silent members are dropped, each at its moment.
    pub fn advance(&self, ms: u64) {
        self.shared().cluster().advance(ms);
    }

    /// How long a member may stay silent before the group drops it (10,000 ms unless set).
    pub fn set_session_timeout(&self, ms: u64) {
        self.shared().cluster().session_timeout_ms = ms;
    }

    /// Sets the hook that is asked before every call.
    pub fn set_faults(&self, hook: impl FnMut(&OpContext<'_>) -> Fault + Send + 'static) {
        self.shared().faults().hook = Some(Box::new(hook));
    }

    /// From here on nothing goes wrong. Late requests still arrive.
    pub fn clear_faults(&self) {
        self.shared().faults().hook = None;
    }

    /// Compacts a compacted topic up to its last stable offset: the last value of each key stays; tombstones go with the first run that comes
    /// `tombstone_retention_ms` or more after the run that met them first.
    pub fn compact(&self, topic: TopicId) {
        self.shared().cluster().compact(topic);
    }

    /// Removes what is older than the topic's retention, by the records' timestamps against the virtual clock.
    pub fn retain(&self, topic: TopicId) {
        self.shared().cluster().retain(topic);
    }

    /// Moves the log start forward, as `kafka-delete-records` does.
    pub fn truncate_before(&self, partition: TopicPartition, offset: u64) {
        if let Some(log) = self.shared().cluster().log_mut(partition) {
            log.truncate_before(offset);
        }
    }

    /// Deletes a topic and creates it anew, empty; the groups' offsets of it go too.
    pub fn recreate_topic(&self, topic: TopicId, partitions: u32) {
        self.shared().cluster().recreate(topic, partitions);
    }

    /// Adds partitions to a topic.
    pub fn grow_topic(&self, topic: TopicId, partitions: u32) {
        self.shared().cluster().grow(topic, partitions);
    }

    /// Forgets a group's committed offsets, as Kafka does with those of a group that was idle for a week.
    pub fn forget_offsets(&self, group: &str) {
        if let Some(group) = self.shared().cluster().groups.get_mut(group) {
            group.forget_offsets(|_| true);
        }
    }
}

impl Broker for SimBroker {
    type Member = SimMember;
    type Reader = SimReader;
    type Publisher = SimPublisher;

    fn topics(&self) -> &Topics {
        &self.caller.shared.topics
    }

    fn describe(&self, topics: &[TopicId]) -> Result<Vec<Option<TopicInfo>>> {
        let mut caller = self.caller.clone();
        caller.call(Op::Describe, |cluster| Ok(topics.iter().map(|topic| cluster.describe(*topic)).collect()))
    }

    fn create(&self, spec: &TopicSpec) -> Result<()> {
        self.caller.clone().call(Op::Create, |cluster| cluster.create(spec))
    }

    fn join(&self, config: &MemberConfig) -> Result<SimMember> {
        SimMember::join(Caller::new(Arc::clone(&self.caller.shared), &config.instance), config)
    }

    fn end_transactions_of(&self, transactional_id: &str) -> Result<()> {
        member::end_transactions_of(self.caller.clone(), transactional_id)
    }

    fn reader(&self) -> Result<SimReader> {
        self.caller.check_alive()?;
        Ok(SimReader::new(self.caller.clone()))
    }

    fn publisher(&self) -> Result<SimPublisher> {
        self.caller.check_alive()?;
        Ok(SimPublisher::new(self.caller.clone()))
    }
}
