//! Everything the simulated broker knows: topics, the clock, requests still under way, and the two coordinators.
//!
//! The clock moves only by [`Cluster::advance`], which stops at each moment at which something is due: a late request arrives, a
//! transaction times out, the group drops a silent member. Ties are broken in that order, so a run depends on its inputs alone.

use std::collections::{BTreeMap, BTreeSet};

use super::group::{Group, Seat};
use super::log::{Log, Payload};
use super::transactions::{Credentials, Transactions};
use crate::broker::{Bounds, BrokerError, Cleanup, Kept, Reaction, Result, TopicInfo, TopicSpec};
use crate::record::{TopicId, TopicPartition, Topics};

/// `message.max.bytes` of a Kafka broker that nobody configured.
const DEFAULT_MAX_MESSAGE_BYTES: u32 = 1_048_588;

/// What Kafka's batch and record framing adds to a lone record, about.
const FRAMING_BYTES: usize = 70;

/// How long a member may stay silent unless the simulation sets it otherwise.
const DEFAULT_SESSION_TIMEOUT_MS: u64 = 10_000;

/// A request that arrives after its sender gave up on it.
#[derive(Clone, Debug)]
pub(super) enum Request {
    InitProducer { id: String, timeout_ms: u64 },
    Produce { who: Option<Credentials>, to: TopicPartition, payload: Payload },
    AddOffsets { who: Credentials, seat: Seat, offsets: Vec<(TopicPartition, u64)> },
    EndTransaction { who: Credentials, commit: bool },
    CommitOffsets { seat: Seat, offsets: Vec<(TopicPartition, u64)> },
}

/// When a late request arrives; the second number keeps the order in which they were sent.
pub(super) type Due = (u64, u64);

#[derive(Debug)]
struct Topic {
    spec: TopicSpec,
    logs: Vec<Log>,
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub now_ms: u64,
    pub session_timeout_ms: u64,
    /// Holds back the markers of the transaction that the current call decides ([`super::Fault::SlowMarkers`]).
    pub marker_delay_ms: Option<u64>,
    pub transactions: Transactions,
    pub groups: BTreeMap<String, Group>,
    table: Topics,
    topics: Vec<Option<Topic>>,
    late: BTreeMap<Due, Request>,
    requests_held: u64,
}

impl Cluster {
    pub fn new(table: Topics) -> Self {
        let topics = table.iter().map(|_| None).collect();
        Self {
            now_ms: 0,
            session_timeout_ms: DEFAULT_SESSION_TIMEOUT_MS,
            marker_delay_ms: None,
            transactions: Transactions::default(),
            groups: BTreeMap::new(),
            table,
            topics,
            late: BTreeMap::new(),
            requests_held: 0,
        }
    }

    pub fn create(&mut self, spec: &TopicSpec) -> Result<()> {
        let Some(id) = self.table.find(&spec.name) else {
            return Err(stop(format!("topic {} is not in the table of topics", spec.name)));
        };
        if spec.partitions == 0 {
            return Err(stop(format!("topic {} needs at least one partition", spec.name)));
        }
        let slot = &mut self.topics[usize::from(id.0)];
        if slot.is_none() {
            let logs = (0..spec.partitions).map(|_| Log::default()).collect();
            *slot = Some(Topic { spec: spec.clone(), logs });
            self.partitions_changed(id);
        }
        Ok(())
    }

    /// Deletes a topic and creates it anew: empty, without the groups' offsets of it, open transactions in it forgotten.
    pub fn recreate(&mut self, id: TopicId, partitions: u32) {
        if let Some(topic) = &mut self.topics[usize::from(id.0)] {
            topic.spec.partitions = partitions;
            topic.logs = (0..partitions).map(|_| Log::default()).collect();
        }
        for group in self.groups.values_mut() {
            group.forget_offsets(|partition| partition.topic == id);
        }
        self.transactions.forget_topic(id);
        self.partitions_changed(id);
    }

    /// Adds empty partitions.
    pub fn grow(&mut self, id: TopicId, partitions: u32) {
        if let Some(topic) = &mut self.topics[usize::from(id.0)] {
            while topic.logs.len() < partitions as usize {
                topic.logs.push(Log::default());
            }
            topic.spec.partitions = topic.logs.len() as u32;
        }
        self.partitions_changed(id);
    }

    fn partitions_changed(&mut self, id: TopicId) {
        for group in self.groups.values_mut().filter(|group| group.takes(id)) {
            group.rebalance();
        }
    }

    pub fn describe(&self, id: TopicId) -> Option<TopicInfo> {
        let topic = self.topics[usize::from(id.0)].as_ref()?;
        Some(TopicInfo {
            partitions: topic.spec.partitions,
            max_message_bytes: Some(topic.spec.max_message_bytes.unwrap_or(DEFAULT_MAX_MESSAGE_BYTES)),
            kept: Some(Kept::of(topic.spec.cleanup)),
        })
    }

    /// Every partition of these topics, in order.
    pub fn partitions_of(&self, topics: &BTreeSet<TopicId>) -> Vec<TopicPartition> {
        let count = |topic: &TopicId| self.topics[usize::from(topic.0)].as_ref().map_or(0, |topic| topic.spec.partitions);
        topics.iter().flat_map(|topic| (0..count(topic)).map(|partition| TopicPartition { topic: *topic, partition })).collect()
    }

    pub fn log(&self, at: TopicPartition) -> Result<&Log> {
        let topic = self.topics[usize::from(at.topic.0)].as_ref();
        topic.and_then(|topic| topic.logs.get(at.partition as usize)).ok_or_else(|| self.missing(at))
    }

    pub fn log_mut(&mut self, at: TopicPartition) -> Option<&mut Log> {
        self.topics[usize::from(at.topic.0)].as_mut()?.logs.get_mut(at.partition as usize)
    }

    fn missing(&self, at: TopicPartition) -> BrokerError {
        stop(format!("partition {}:{} does not exist", self.table.name(at.topic), at.partition))
    }

    pub fn bounds(&self, at: TopicPartition) -> Result<Bounds> {
        self.log(at).map(|log| Bounds { start: log.start(), end: log.end() })
    }

    /// Refuses to read from where nothing is any more, or nothing ever was.
    pub fn check_offset(&self, at: TopicPartition, offset: u64) -> Result<()> {
        let Bounds { start, end } = self.bounds(at)?;
        let partition = format!("{}:{}", self.table.name(at.topic), at.partition);
        if offset < start {
            return Err(stop(format!("offset {offset} of {partition} is no longer retained: the log starts at {start}")));
        }
        if offset > end {
            let what = format!("offset {offset} of {partition} is beyond the log's end {end}: lost data or a re-created topic");
            return Err(stop(what));
        }
        Ok(())
    }

    /// Appends a record; one of a transaction only where that is still open and wrote to this partition before (brokers verify
    /// it since KIP-890's first part): a late record opens nothing.
    pub fn produce(&mut self, who: Option<&Credentials>, to: TopicPartition, payload: Payload) -> Result<u64> {
        self.log(to)?;
        if let Some(who) = who {
            self.verify(who, to)?;
        }
        if let Some(topic) = &self.topics[usize::from(to.topic.0)] {
            check_payload(&topic.spec, &payload)?;
        }
        let log = self.log_mut(to).expect("invariant: looked up above");
        Ok(log.append(payload, who.map(|who| who.producer)))
    }

    /// Keeps a request until its time.
    pub fn hold(&mut self, for_ms: u64, request: Request) -> Due {
        let due = (self.now_ms.saturating_add(for_ms), self.requests_held);
        self.requests_held += 1;
        self.late.insert(due, request);
        due
    }

    /// Takes back a request that has not arrived yet.
    pub fn take_back(&mut self, due: Due) -> Option<Request> {
        self.late.remove(&due)
    }

    /// Lets time pass, doing on the way what falls due.
    pub fn advance(&mut self, ms: u64) {
        let until = self.now_ms.saturating_add(ms);
        loop {
            let late = self.late.first_key_value().map(|(due, _)| due.0);
            let transaction = self.next_transaction_deadline();
            let session = self.groups.values().filter_map(|group| group.next_deadline(self.session_timeout_ms)).min();
            let Some(due) = [late, transaction, session].into_iter().flatten().min().filter(|due| *due <= until) else {
                break;
            };
            self.now_ms = self.now_ms.max(due);
            if late == Some(due) {
                self.deliver_next();
            } else if transaction == Some(due) {
                self.end_due_transactions();
            } else {
                self.drop_silent_members();
            }
        }
        self.now_ms = until;
    }

    fn deliver_next(&mut self) {
        let Some((_, request)) = self.late.pop_first() else { return };
        // Nobody waits for the answer any more.
        let _unheard = match request {
            Request::InitProducer { id, timeout_ms } => {
                self.init_producer(&id, timeout_ms);
                Ok(())
            }
            Request::Produce { who, to, payload } => self.produce(who.as_ref(), to, payload).map(drop),
            Request::AddOffsets { who, seat, offsets } => self.add_offsets(&who, &seat, &offsets, false),
            Request::EndTransaction { who, commit } => self.end_transaction(&who, commit),
            Request::CommitOffsets { seat, offsets } => self.commit_offsets(&seat, &offsets),
        };
    }

    fn drop_silent_members(&mut self) {
        let (now_ms, timeout_ms) = (self.now_ms, self.session_timeout_ms);
        let names: Vec<String> = self.groups.keys().cloned().collect();
        for name in names {
            let dropped = self.groups.get_mut(&name).is_some_and(|group| group.drop_silent(now_ms, timeout_ms));
            if dropped {
                self.settle_group(&name);
            }
        }
    }

    /// Completes a rebalance that has become complete.
    pub fn settle_group(&mut self, name: &str) {
        let Some(topics) = self.groups.get(name).filter(|group| group.is_complete()).map(Group::topics) else { return };
        let partitions = self.partitions_of(&topics);
        if let Some(group) = self.groups.get_mut(name) {
            group.complete(&partitions);
        }
    }

    /// Commits offsets outside of a transaction.
    pub fn commit_offsets(&mut self, seat: &Seat, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        let now_ms = self.now_ms;
        let group = self.groups.entry(seat.group.clone()).or_default();
        group.admit(seat, now_ms)?;
        group.commit(offsets);
        Ok(())
    }

    /// The topic's compaction, where it is a compacted one.
    pub fn compact(&mut self, id: TopicId) {
        let now_ms = self.now_ms;
        if let Some(Topic { spec, logs }) = &mut self.topics[usize::from(id.0)]
            && let Cleanup::Compact { tombstone_retention_ms } = spec.cleanup
        {
            for log in logs {
                log.compact(now_ms, tombstone_retention_ms);
            }
        }
    }

    /// The topic's retention, where it has one.
    pub fn retain(&mut self, id: TopicId) {
        let now_ms = self.now_ms;
        if let Some(Topic { spec, logs }) = &mut self.topics[usize::from(id.0)]
            && let Cleanup::Delete { retention_ms: Some(retention_ms) } = spec.cleanup
        {
            for log in logs {
                log.retain(now_ms, retention_ms);
            }
        }
    }
}

fn check_payload(spec: &TopicSpec, payload: &Payload) -> Result<()> {
    let length = |bytes: &Option<std::sync::Arc<[u8]>>| bytes.as_ref().map_or(0, |bytes| bytes.len());
    let headers: usize = payload.headers.iter().map(|header| header.name.len() + length(&header.value)).sum();
    let bytes = length(&payload.key) + length(&payload.value) + headers + FRAMING_BYTES;
    let max = spec.max_message_bytes.unwrap_or(DEFAULT_MAX_MESSAGE_BYTES) as usize;
    if bytes > max {
        return Err(stop(format!("a record of {bytes} bytes is larger than max.message.bytes of {}, {max}", spec.name)));
    }
    if payload.key.is_none() && matches!(spec.cleanup, Cleanup::Compact { .. }) {
        return Err(stop(format!("compacted topic {} takes no record without a key", spec.name)));
    }
    Ok(())
}

pub(super) fn stop(what: impl Into<String>) -> BrokerError {
    BrokerError::new(Reaction::Stop, what)
}
