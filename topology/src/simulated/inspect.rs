//! What checkers see: every entry of a log with its fate, groups, transactions and the faults so far. Nothing here goes past the hook.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SimBroker;
use super::faults::{FaultKind, Op};
use super::log::{Body, Entry, Fate, Payload, StoredHeader};
use super::transactions::OpenTransaction;
use crate::broker::Bounds;
use crate::record::{TopicId, TopicPartition};

/// A record as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Where it lies.
    pub partition: TopicPartition,
    /// Its offset there.
    pub offset: u64,
    /// Milliseconds since the epoch, as its producer gave it.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Arc<[u8]>>,
    /// Its value; none is a tombstone.
    pub value: Option<Arc<[u8]>>,
    /// Its headers, in order.
    pub headers: Vec<StoredHeader>,
}

/// An entry of a log: a record, or a marker that ends a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredEntry {
    /// A record and what became of it.
    Record(StoredRecord, Fate),
    /// A control record.
    Marker {
        /// Its offset.
        offset: u64,
        /// Whether it committed.
        commit: bool,
    },
}

fn stored(partition: TopicPartition, offset: u64, payload: &Payload) -> StoredRecord {
    StoredRecord {
        partition,
        offset,
        timestamp: payload.timestamp,
        key: payload.key.clone(),
        value: payload.value.clone(),
        headers: payload.headers.clone(),
    }
}

impl SimBroker {
    /// Every record of a topic that a read-committed reader can see now, by partition and offset.
    #[must_use]
    pub fn committed_records(&self, topic: TopicId) -> Vec<StoredRecord> {
        let cluster = self.shared().cluster();
        let mut records = Vec::new();
        for partition in cluster.partitions_of(&[topic].into()) {
            if let Ok(log) = cluster.log(partition) {
                log.read(log.start(), usize::MAX, |offset, payload| records.push(stored(partition, offset, payload)));
            }
        }
        records
    }

    /// The committed records of a partition from an offset on, and where to go on: what a reader would get now.
    #[must_use]
    pub fn committed_from(&self, partition: TopicPartition, from: u64) -> (Vec<StoredRecord>, u64) {
        let mut records = Vec::new();
        let cluster = self.shared().cluster();
        let next = cluster
            .log(partition)
            .map(|log| log.read(from, usize::MAX, |offset, payload| records.push(stored(partition, offset, payload))));
        (records, next.unwrap_or(from))
    }

    /// The records of a partition from an offset on whose commit is decided, whether or not a reader gets them now: their markers may be
    /// slow, or another transaction may be open in front of them.
    #[must_use]
    pub fn decided_from(&self, partition: TopicPartition, from: u64) -> Vec<StoredRecord> {
        let cluster = self.shared().cluster();
        let producers = cluster.transactions.committing(partition);
        let record = |entry: &Entry| match &entry.body {
            Body::Record(payload, Fate::Committed) => Some(stored(partition, entry.offset, payload)),
            Body::Record(payload, Fate::Open) if entry.producer.is_some_and(|by| producers.contains(&by)) => {
                Some(stored(partition, entry.offset, payload))
            }
            _ => None,
        };
        let log = cluster.log(partition).ok();
        let entries = log.iter().flat_map(|log| log.entries()).skip_while(|entry| entry.offset < from);
        entries.filter_map(record).collect()
    }

    /// Every entry of a partition: open and aborted records and markers as well.
    #[must_use]
    pub fn entries(&self, partition: TopicPartition) -> Vec<StoredEntry> {
        let show = |entry: &Entry| match &entry.body {
            Body::Record(payload, fate) => StoredEntry::Record(stored(partition, entry.offset, payload), *fate),
            Body::Marker { commit } => StoredEntry::Marker { offset: entry.offset, commit: *commit },
        };
        self.shared().cluster().log(partition).map(|log| log.entries().iter().map(show).collect()).unwrap_or_default()
    }

    /// Log start and high watermark, where the partition exists.
    #[must_use]
    pub fn bounds_of(&self, partition: TopicPartition) -> Option<Bounds> {
        self.shared().cluster().bounds(partition).ok()
    }

    /// The last stable offset, where the partition exists.
    #[must_use]
    pub fn stable_end_of(&self, partition: TopicPartition) -> Option<u64> {
        self.shared().cluster().log(partition).ok().map(super::log::Log::stable_end)
    }

    /// A group's committed offsets; those of undecided transactions are not among them.
    #[must_use]
    pub fn group_offsets(&self, group: &str) -> BTreeMap<TopicPartition, u64> {
        self.shared().cluster().groups.get(group).map(|group| group.offsets().clone()).unwrap_or_default()
    }

    /// What the newest generation of a group gives each of its members, by static identity.
    #[must_use]
    pub fn group_assignments(&self, group: &str) -> BTreeMap<String, Vec<TopicPartition>> {
        self.shared().cluster().groups.get(group).map(|group| group.assignments()).unwrap_or_default()
    }

    /// A group's generation; 0 before its first.
    #[must_use]
    pub fn group_generation(&self, group: &str) -> u64 {
        self.shared().cluster().groups.get(group).map_or(0, |group| group.generation())
    }

    /// Every transaction that is neither committed nor aborted.
    #[must_use]
    pub fn open_transactions(&self) -> Vec<OpenTransaction> {
        self.shared().cluster().transactions.open()
    }

    /// The newest epoch of a transactional id.
    #[must_use]
    pub fn producer_epoch(&self, transactional_id: &str) -> Option<u32> {
        self.shared().cluster().transactions.epoch(transactional_id)
    }

    /// How many faults of each kind were injected at each call.
    #[must_use]
    pub fn faults_injected(&self) -> BTreeMap<(Op, FaultKind), u64> {
        self.shared().faults().injected()
    }

    /// How many calls of a kind were made.
    #[must_use]
    pub fn calls(&self, op: Op) -> u64 {
        self.shared().faults().calls(op)
    }
}
