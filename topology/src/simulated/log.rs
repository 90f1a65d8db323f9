//! One partition: entries with offsets, open transactions, the last stable offset, compaction and retention.
//!
//! As in Kafka: a marker that ends a transaction takes an offset of its own; offsets are never reused, so removed entries leave
//! gaps; a read-committed reader passes markers and aborted records silently and never goes beyond the first record of the oldest
//! open transaction (the last stable offset); compaction never touches what lies beyond it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::record::{Header, Outgoing};

/// A producer's number, given by the transaction coordinator.
pub(super) type ProducerId = u64;

/// What a record carries, kept by the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    pub timestamp: i64,
    pub key: Option<Arc<[u8]>>,
    pub value: Option<Arc<[u8]>>,
    pub headers: Vec<StoredHeader>,
}

/// A header as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredHeader {
    /// Its name.
    pub name: String,
    /// Its value; none where the producer gave a null.
    pub value: Option<Arc<[u8]>>,
}

impl Payload {
    pub fn of(record: &Outgoing<'_>) -> Self {
        let keep = |header: &Header<'_>| StoredHeader { name: header.name.to_owned(), value: header.value.map(Arc::from) };
        Self {
            timestamp: record.timestamp,
            key: record.key.map(Arc::from),
            value: record.value.map(Arc::from),
            headers: record.headers.iter().map(keep).collect(),
        }
    }

    pub fn headers(&self) -> impl Iterator<Item = Header<'_>> {
        self.headers.iter().map(|header| Header { name: &header.name, value: header.value.as_deref() })
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Written outside of a transaction, or its transaction committed.
    Committed,
    /// Its transaction is not decided.
    Open,
    /// Its transaction was aborted.
    Aborted,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Record(Payload, Fate),
    Marker { commit: bool },
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub offset: u64,
    /// Who wrote it within a transaction.
    pub producer: Option<ProducerId>,
    pub body: Body,
    /// When compaction may remove this tombstone or marker; set by the first compaction that meets it (KIP-534).
    horizon_ms: Option<u64>,
}

/// One partition's log.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// In offset order, with gaps where something was removed.
    entries: Vec<Entry>,
    start: u64,
    end: u64,
    /// The first offset of each open transaction.
    open: BTreeMap<ProducerId, u64>,
}

impl Log {
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn start(&self) -> u64 {
        self.start
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    /// The last stable offset: everything below it is decided.
    pub fn stable_end(&self) -> u64 {
        self.open.values().copied().min().unwrap_or(self.end).max(self.start)
    }

    pub fn append(&mut self, payload: Payload, producer: Option<ProducerId>) -> u64 {
        let fate = if producer.is_some() { Fate::Open } else { Fate::Committed };
        let offset = self.push(Body::Record(payload, fate), producer);
        if let Some(producer) = producer {
            self.open.entry(producer).or_insert(offset);
        }
        offset
    }

    /// Ends a producer's transaction in this partition.
    pub fn mark(&mut self, producer: ProducerId, commit: bool) {
        if let Some(first) = self.open.remove(&producer) {
            let decided = if commit { Fate::Committed } else { Fate::Aborted };
            let from = self.index(first);
            for entry in &mut self.entries[from..] {
                if entry.producer == Some(producer)
                    && let Body::Record(_, fate) = &mut entry.body
                {
                    *fate = decided;
                }
            }
        }
        self.push(Body::Marker { commit }, Some(producer));
    }

    fn push(&mut self, body: Body, producer: Option<ProducerId>) -> u64 {
        let offset = self.end;
        self.entries.push(Entry { offset, producer, body, horizon_ms: None });
        self.end += 1;
        offset
    }

    /// The place of the first entry at or after an offset.
    fn index(&self, offset: u64) -> usize {
        self.entries.partition_point(|entry| entry.offset < offset)
    }

    /// Shows the committed records from an offset on, at most `max`, and returns where to go on.
    pub fn read(&self, from: u64, max: usize, mut show: impl FnMut(u64, &Payload)) -> u64 {
        let stable_end = self.stable_end();
        let mut shown = 0;
        for entry in &self.entries[self.index(from)..] {
            if entry.offset >= stable_end {
                break;
            }
            if let Body::Record(payload, Fate::Committed) = &entry.body {
                if shown == max {
                    return entry.offset;
                }
                show(entry.offset, payload);
                shown += 1;
            }
        }
        stable_end.max(from)
    }

    /// Forgets everything below an offset.
    pub fn truncate_before(&mut self, offset: u64) {
        let offset = offset.min(self.end);
        if offset > self.start {
            self.start = offset;
            let keep_from = self.index(offset);
            self.entries.drain(..keep_from);
        }
    }

    /// Forgets the decided head of the log that is older than the retention: as Kafka, by the records' own timestamps, and nothing
    /// behind a record that is still young enough.
    pub fn retain(&mut self, now_ms: u64, retention_ms: u64) {
        let limit = i64::try_from(now_ms.saturating_sub(retention_ms)).unwrap_or(i64::MAX);
        let stable_end = self.stable_end();
        let young = |entry: &Entry| matches!(&entry.body, Body::Record(payload, _) if payload.timestamp >= limit);
        let first_kept = self.entries.iter().find(|entry| entry.offset >= stable_end || young(entry));
        let start = first_kept.map_or(stable_end, |entry| entry.offset.min(stable_end));
        self.truncate_before(start);
    }

    /// Keeps the last committed value of each key; tombstones and markers of emptied transactions go after their time.
    pub fn compact(&mut self, now_ms: u64, tombstone_retention_ms: u64) {
        let stable_end = self.stable_end();
        let mut last: BTreeMap<Arc<[u8]>, u64> = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| entry.offset < stable_end) {
            if let Body::Record(Payload { key: Some(key), .. }, Fate::Committed) = &entry.body {
                last.insert(Arc::clone(key), entry.offset);
            }
        }
        // Producers of whose transaction under way (before its marker) something stays: its marker must stay as well.
        let mut alive = BTreeSet::new();
        let past_horizon =
            |horizon: &mut Option<u64>| now_ms >= *horizon.get_or_insert(now_ms.saturating_add(tombstone_retention_ms.max(1)));
        self.entries.retain_mut(|entry| {
            if entry.offset >= stable_end {
                return true;
            }
            let keep = match &entry.body {
                Body::Record(_, Fate::Aborted) => false,
                Body::Record(Payload { key: None, .. }, _) => true,
                Body::Record(Payload { key: Some(key), value, .. }, _) => {
                    last.get(key) == Some(&entry.offset) && (value.is_some() || !past_horizon(&mut entry.horizon_ms))
                }
                Body::Marker { .. } => {
                    let emptied = entry.producer.is_none_or(|producer| !alive.remove(&producer));
                    return !(emptied && past_horizon(&mut entry.horizon_ms));
                }
            };
            if keep && let Some(producer) = entry.producer {
                alive.insert(producer);
            }
            keep
        });
    }
}
