//! Retention and compaction: what takes records out of logs. Offsets stay as they are; gaps are what readers expect.
//!
//! Retention drops whole batches from the start while their newest timestamp is too old. The start moves in memory first, then the batches
//! go, in one write with the note of the new start.
//!
//! Compaction reads a log twice: once for the newest offset of each key (about 40 bytes a key, by a 128-bit hash), once to rewrite batches without what a
//! newer record supersedes. A tombstone stays until `tombstone_retention_ms` after the broker took it, so that whoever reads at least that
//! often hears of it. It runs once there is as much new as was left the last time: each record is then rewritten a bounded number
//! of times. Batches are rewritten under their own key, in writes of about a megabyte, each whole in itself.

use std::collections::HashMap;
use std::sync::PoisonError;

use rocksdb::WriteBatch;
use topology::broker::{Cleanup, Result};
use topology::record::TopicPartition;

use super::Shared;
use super::batch::{Batch, Builder};
use super::fetch::{damaged, parse, unreadable};
use super::store::{LogMeta, encode, key, read_options};

/// What a round of maintenance took out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Offsets that retention dropped.
    pub expired: u64,
    /// Records that compaction removed.
    pub compacted: u64,
}

/// The newest offset of each key, by its hash. XXH3-128: a collision among a billion keys has odds of one to 10^20.
type Newest = HashMap<u128, u64>;

const WRITE_BYTES: usize = 1 << 20;

/// One log under maintenance.
struct Subject {
    partition: TopicPartition,
    family: String,
    start: u64,
    end: u64,
    meta: LogMeta,
}

impl Shared {
    pub(super) fn maintain(&self, now_ms: i64) -> Result<Maintained> {
        let _one_at_a_time = self.maintaining.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = Maintained::default();
        for (subject, cleanup) in self.subjects()? {
            match cleanup {
                Cleanup::Delete { retention_ms: None } => {}
                Cleanup::Delete { retention_ms: Some(ms) } => done.expired += self.expire(&subject, older_than(now_ms, ms))?,
                Cleanup::Compact { tombstone_retention_ms } => {
                    done.compacted += self.compact(&subject, older_than(now_ms, tombstone_retention_ms))?;
                }
            }
        }
        Ok(done)
    }

    fn subjects(&self) -> Result<Vec<(Subject, Cleanup)>> {
        let core = self.lock();
        core.check()?;
        let subject = |(partition, log): (&TopicPartition, &super::core::Log)| {
            let topic = &core.topics[&partition.topic];
            let family = topic.families[partition.partition as usize].clone();
            let subject = Subject { partition: *partition, family, start: log.start, end: log.end, meta: log.meta };
            (subject, topic.meta.cleanup())
        };
        Ok(core.logs.iter().map(subject).collect())
    }

    /// Drops batches from the start whose records are all older than `before_ms`.
    fn expire(&self, log: &Subject, before_ms: i64) -> Result<u64> {
        let mut start = log.start;
        self.each_batch(log, |batch, _| {
            let old = batch.newest_timestamp < before_ms;
            if old {
                start = batch.end();
            }
            Ok(old)
        })?;
        if start == log.start {
            return Ok(0);
        }
        let meta = LogMeta { start, end_floor: log.end, ..log.meta };
        {
            let mut core = self.lock();
            let live = core.logs.get_mut(&log.partition).expect("invariant: logs stay");
            live.start = start;
            live.meta = meta;
        }
        let family = self.family(&log.family)?;
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(&family, 0_u64.to_be_bytes(), start.to_be_bytes());
        batch.put(key::log(&log.family), encode(&meta));
        self.write_maintenance(batch)?;
        // Whole files go at once; the rest of the range waits for compaction. Unlike the range above, this one includes its end.
        let dropped = self.store.db.delete_file_in_range_cf(&family, 0_u64.to_be_bytes(), (start - 1).to_be_bytes());
        dropped.map_err(|error| unreadable(&log.family, &error))?;
        Ok(start - log.start)
    }

    /// Leaves the last value of each key, and no tombstone taken before `before_ms`.
    fn compact(&self, log: &Subject, before_ms: i64) -> Result<u64> {
        let fresh = log.end.saturating_sub(log.meta.clean_until.max(log.start));
        if fresh < self.options.compact_from_records.max(log.meta.clean_records).max(1) {
            return Ok(0);
        }
        let mut newest = Newest::new();
        self.each_batch(log, |batch, _| {
            for record in batch.records() {
                let record = record.ok_or_else(|| damaged(&log.family, batch.base))?;
                record.key.iter().for_each(|key| _ = newest.insert(hash(key), record.offset));
            }
            Ok(true)
        })?;
        let family = self.family(&log.family)?;
        let mut write = WriteBatch::default();
        let (mut kept, mut removed) = (0, 0);
        self.each_batch(log, |batch, _| {
            let mut left = Builder::new();
            let mut counts = (0, 0);
            for record in batch.records() {
                let record = record.ok_or_else(|| damaged(&log.family, batch.base))?;
                let superseded = record.key.is_some_and(|key| newest[&hash(key)] != record.offset);
                let expired = record.value.is_none() && batch.appended_ms < before_ms;
                if superseded || expired {
                    counts.1 += 1;
                } else {
                    left.keep((record.offset - batch.base) as u32, &record);
                    counts.0 += 1;
                }
            }
            let at = batch.base.to_be_bytes();
            match counts {
                (_, 0) => {}
                (0, _) => write.delete_cf(&family, at),
                _ => write.put_cf(&family, at, left.finish(batch.appended_ms, batch.span)),
            }
            kept += counts.0;
            removed += counts.1;
            if write.size_in_bytes() >= WRITE_BYTES {
                // The end must not be lost with the last batch.
                write.put(key::log(&log.family), encode(&LogMeta { end_floor: log.end, ..log.meta }));
                self.write_maintenance(std::mem::take(&mut write))?;
            }
            Ok(true)
        })?;
        let meta = LogMeta { end_floor: log.end, clean_until: log.end, clean_records: kept, ..log.meta };
        write.put(key::log(&log.family), encode(&meta));
        self.write_maintenance(write)?;
        self.lock().logs.get_mut(&log.partition).expect("invariant: logs stay").meta = meta;
        Ok(removed)
    }

    fn write_maintenance(&self, batch: WriteBatch) -> Result<()> {
        self.store.write(batch).map_err(|error| {
            let refused = self.lock().poison(&error);
            self.changed.notify_all();
            refused
        })
    }

    /// Calls `each` with the log's batches in order, up to the end that readers see, until it returns false.
    fn each_batch(&self, log: &Subject, mut each: impl FnMut(Batch<'_>, &[u8]) -> Result<bool>) -> Result<()> {
        let family = self.family(&log.family)?;
        let mut options = read_options(log.end);
        // What is read here once would push out of the cache what consumers read again.
        options.fill_cache(false);
        options.set_readahead_size(2 << 20);
        let mut at = self.store.db.raw_iterator_cf_opt(&family, options);
        at.seek(log.start.to_be_bytes());
        while let Some((key, value)) = at.item() {
            if !each(parse(&log.family, key, value)?, value)? {
                return Ok(());
            }
            at.next();
        }
        at.status().map_err(|error| unreadable(&log.family, &error))
    }
}

fn older_than(now_ms: i64, ms: u64) -> i64 {
    now_ms.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX))
}

fn hash(key: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(key)
}
