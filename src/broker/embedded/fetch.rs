//! Reading partitions from where each stands: shared by members and readers.
//!
//! A fetch takes two looks at the lock with the disk between them: which partitions have something, then, once iterators hold a
//! snapshot, whether retention overtook us meanwhile. Partitions take turns: each gets an equal share of the room, a different one begins
//! each time, and what some leave over goes to the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use topology::broker::Result;
use topology::record::{Fetched, TopicPartition};

use super::batch::Batch;
use super::core::{Core, Topic};
use super::store::{Store, read_options};
use super::{Shared, stop};

/// How far one partition was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pub next: u64,
    pub paused: bool,
    /// It has been looked at since it was set.
    pub answered: bool,
}

impl Cursor {
    pub fn at(next: u64) -> Self {
        Self { next, paused: false, answered: false }
    }
}

/// The partitions being read.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    pub at: BTreeMap<TopicPartition, Cursor>,
    turn: usize,
}

/// A partition with something to read: up to where.
struct Ready {
    partition: TopicPartition,
    topic: Arc<Topic>,
    end: u64,
}

impl Cursors {
    fn active(&self, wanted: impl Fn(TopicPartition) -> bool) -> impl Iterator<Item = (TopicPartition, &Cursor)> {
        let active = self.at.iter().map(|(partition, cursor)| (*partition, cursor));
        active.filter(move |(partition, cursor)| !cursor.paused && wanted(*partition))
    }

    /// True where a fetch would find records, or an error.
    pub fn is_ready(&self, core: &Core, wanted: impl Fn(TopicPartition) -> bool) -> bool {
        let news = |(partition, cursor): (TopicPartition, &Cursor)| match core.log(partition) {
            Ok(log) => !cursor.answered || cursor.next < log.end || cursor.next < log.start,
            Err(_) => true,
        };
        self.active(wanted).any(news)
    }

    /// Appends up to `max_records` records to `into`.
    pub fn fetch(
        &mut self,
        shared: &Shared,
        into: &mut Fetched,
        max_records: usize,
        wanted: impl Fn(TopicPartition) -> bool,
    ) -> Result<()> {
        let mut ready = self.look(&shared.lock(), &wanted)?;
        let full = into.len().saturating_add(max_records);
        let full_bytes = into.bytes().saturating_add(shared.options.fetch_bytes);
        self.turn = self.turn.wrapping_add(1);
        let begin = self.turn.checked_rem(ready.len()).unwrap_or_default();
        ready.rotate_left(begin);
        while !ready.is_empty() && into.len() < full && into.bytes() < full_bytes {
            let share = (full - into.len()).div_ceil(ready.len());
            for Ready { partition, topic, end } in &ready {
                let room = Room { records: share.min(full - into.len()), bytes: full_bytes };
                if room.records == 0 {
                    break;
                }
                let from = self.at[partition].next;
                let next = read(shared, topic, *partition, from..*end, room, into)?;
                self.at.entry(*partition).and_modify(|cursor| cursor.next = next);
            }
            ready.retain(|ready| self.at[&ready.partition].next < ready.end);
        }
        Ok(())
    }

    fn look(&mut self, core: &Core, wanted: &impl Fn(TopicPartition) -> bool) -> Result<Vec<Ready>> {
        core.check()?;
        let mut ready = Vec::new();
        for (&partition, cursor) in self.at.iter_mut().filter(|(partition, cursor)| !cursor.paused && wanted(**partition)) {
            core.check_offset(partition, cursor.next)?;
            cursor.answered = true;
            let end = core.log(partition)?.end;
            if cursor.next < end {
                ready.push(Ready { partition, topic: Arc::clone(&core.topics[&partition.topic]), end });
            }
        }
        Ok(ready)
    }
}

#[derive(Clone, Copy)]
struct Room {
    records: usize,
    bytes: usize,
}

/// Appends records of a range of offsets and tells where to go on.
fn read(
    shared: &Shared,
    topic: &Topic,
    partition: TopicPartition,
    range: std::ops::Range<u64>,
    room: Room,
    into: &mut Fetched,
) -> Result<u64> {
    let family_name = &topic.families[partition.partition as usize];
    let family = shared.family(family_name)?;
    let full = into.len() + room.records;
    let mut at = shared.store.db.raw_iterator_cf_opt(&family, read_options(range.end));
    // Retention moves the start first and deletes then: a start that is still below says that this iterator sees everything.
    shared.lock().check_offset(partition, range.start)?;
    at.seek_for_prev(range.start.to_be_bytes());
    if !at.valid() {
        at.seek_to_first();
    }
    while let Some((key, value)) = at.item() {
        let batch = parse(family_name, key, value)?;
        for record in batch.records() {
            let record = record.ok_or_else(|| damaged(family_name, batch.base))?;
            if record.offset < range.start {
                continue;
            }
            if into.len() >= full || into.bytes() >= room.bytes {
                return Ok(record.offset);
            }
            into.push(partition, record.offset, record.timestamp, record.key, record.value, record.headers());
        }
        at.next();
    }
    at.status().map_err(|error| unreadable(family_name, &error))?;
    Ok(range.end)
}

/// One past the last offset that a log's batches cover.
pub(super) fn end_on_disk(store: &Store, family_name: &str) -> Result<u64> {
    let family = store.db.cf_handle(family_name).ok_or_else(|| stop(format!("the log {family_name} is missing")))?;
    let mut at = store.db.raw_iterator_cf(&family);
    at.seek_to_last();
    let end = at.item().map(|(key, value)| parse(family_name, key, value).map(|batch| batch.end())).transpose()?;
    at.status().map_err(|error| unreadable(family_name, &error))?;
    Ok(end.unwrap_or_default())
}

/// The batch of an entry of a log.
pub(super) fn parse<'a>(family_name: &str, key: &[u8], value: &'a [u8]) -> Result<Batch<'a>> {
    let base = key.try_into().map(u64::from_be_bytes).map_err(|_| damaged(family_name, 0))?;
    Batch::parse(base, value).ok_or_else(|| damaged(family_name, base))
}

pub(super) fn damaged(family_name: &str, base: u64) -> topology::broker::BrokerError {
    stop(format!("the log {family_name} of the embedded broker is damaged at offset {base}: restore a backup"))
}

pub(super) fn unreadable(family_name: &str, error: &rocksdb::Error) -> topology::broker::BrokerError {
    stop(format!("reading the log {family_name} of the embedded broker: {error}"))
}
