//! The state: the last value of each key, to the partition where its key lives from now on.

use std::collections::{BTreeMap, HashMap};

use state::store::{Marks, keep_encoded, split_kept};
use topology::broker::BrokerError;
use topology::partitioner::partition_of;
use topology::record::{Outgoing, TopicPartition};
use xxhash_rust::xxh3::xxh3_64;

use super::journal::{self, Entry};
use super::{Result, Work, refused, stop};
use crate::broker::Groups;
use crate::exclusive::{self, below};

/// Keys of one transaction.
const KEYS: usize = 2_000;

/// A fold of a state: the same for equal states, however they are cut into partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fold {
    pub keys: u64,
    pub digest: u64,
}

impl Fold {
    /// Adds a key with its value, marks left out.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.keys += 1;
        self.digest = self.digest.wrapping_add(digest(&[key, value]));
    }
}

/// A digest of parts, their lengths included.
pub(super) fn digest(parts: &[&[u8]]) -> u64 {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    xxh3_64(&bytes)
}

/// What copying found out.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// By changelog.
    pub folds: Vec<Fold>,
    /// Keys whose value includes input beyond what was committed (at-least-once, after a crash): what they include.
    pub ahead: HashMap<Vec<u8>, Marks>,
}

/// The last value of each key, with its time.
type Values = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

pub(super) fn copy<B: Groups>(work: &mut Work<'_, B>) -> Result<Copied> {
    let mut copied = Copied::default();
    for store in 0..work.plan.changelog_ends.len() {
        let mut fold = Fold::default();
        for partition in 0..work.plan.changelog_ends[store].len() as u32 {
            let values = read(work, store, partition)?;
            for (key, (value, _)) in &values {
                let (marks, rest) = split_kept(value).map_err(|why| unreadable(&why))?;
                fold.add(key, rest);
                let beyond =
                    work.plan.inputs.iter().enumerate().any(|(at, input)| marks.0[at] > input.committed[partition as usize]);
                if beyond && work.migration.exactly_once {
                    return refused(format!(
                        "the state of {} includes input that its group has not committed: its offsets were set back. Set them to what the \
                         state includes, or begin without state",
                        work.plan.old
                    ));
                }
                if beyond {
                    copied.ahead.insert(key.clone(), marks);
                }
            }
            write(work, store, partition, &values)?;
            work.passed +=
                work.plan.changelog_ends[store][partition as usize] - work.plan.changelog_starts[store][partition as usize];
        }
        copied.folds.push(fold);
    }
    Ok(copied)
}

fn read<B: Groups>(work: &mut Work<'_, B>, store: usize, partition: u32) -> Result<Values> {
    let at = TopicPartition { topic: work.migration.places.old_changelogs[store], partition };
    let (start, end) =
        (work.plan.changelog_starts[store][partition as usize], work.plan.changelog_ends[store][partition as usize]);
    let exactly_once = work.migration.exactly_once;
    let (migration, plan, passed) = (work.migration, work.plan, work.passed);
    // Compaction moves the start while this waits.
    let retained = topology::broker::Reader::bounds(&mut work.reader, at)?.start.max(start);
    let mut values = Values::new();
    let hand = &mut work.hand;
    exclusive::read(&mut work.reader, at, retained, end, |fetched, position| {
        for record in below(fetched, end) {
            let Some(key) = record.key else { continue };
            let Some(value) = record.value else {
                values.remove(key);
                continue;
            };
            // Without transactions a zombie's late value must not win over one that includes more: as in a restore.
            let older = !exactly_once
                && values.get(key).is_some_and(|(kept, _)| match (split_kept(value), split_kept(kept)) {
                    (Ok((new, _)), Ok((kept, _))) => new.0 < kept.0,
                    _ => false,
                });
            if !older {
                values.insert(key.to_vec(), (value.to_vec(), record.timestamp));
            }
        }
        (migration.progress)(passed + position.min(end) - start, plan.records());
        hand.follow(std::time::Duration::ZERO)
    })?;
    Ok(values)
}

fn unreadable(why: &dyn std::fmt::Display) -> BrokerError {
    stop(format!("a value of the old changelog cannot be read: {why}"))
}

fn write<B: Groups>(work: &mut Work<'_, B>, store: usize, partition: u32, values: &Values) -> Result<()> {
    let topic = work.migration.places.new_changelogs[store];
    let done = work.progress.keys[store][partition as usize];
    let left: Vec<_> = values.iter().skip(usize::try_from(done).unwrap_or(usize::MAX)).collect();
    for chunk in left.chunks(KEYS) {
        work.progress.keys[store][partition as usize] += chunk.len() as u64;
        let entry = Entry::Progress(work.progress.clone());
        let plan = work.plan;
        journal::write(&mut work.hand, work.migration.places.journal_at(), &entry, |send| {
            let mut encoded = Vec::new();
            for (key, (value, timestamp)) in chunk {
                let to = TopicPartition { topic, partition: partition_of(key, plan.partitions) };
                let (_, rest) = split_kept(value).map_err(|why| unreadable(&why))?;
                let mut marks = Marks::default();
                for (mark, input) in marks.0.iter_mut().zip(&plan.inputs) {
                    *mark = input.starts[to.partition as usize];
                }
                encoded.clear();
                keep_encoded(&marks, rest, &mut encoded);
                send(&Outgoing { to, key: Some(key), value: Some(&encoded), timestamp: *timestamp, headers: &[] })?;
            }
            Ok(Vec::new())
        })?;
    }
    Ok(())
}
