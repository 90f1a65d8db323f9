//! The tail: input that the old application had not processed is written again, where its key lives from now on.

use topology::broker::Reader as _;
use topology::partitioner::partition_of;
use topology::record::{Fetched, Header, Outgoing, Record, TopicPartition};

use super::journal::{self, Entry};
use super::state_copy::{Copied, digest};
use super::{InputPlan, MigrateError, Result, Work};
use crate::broker::Groups;
use crate::exclusive::{self, below};

/// Where a record goes, and in which pass.
struct Route {
    partition: u32,
    pass: usize,
}

/// A record that came by the old rule belongs to the first pass, one that came by the new rule alone to the second. The key is taken as
/// producers take it, unless the record was placed by its owner.
fn route(record: &Record<'_>, owner: Option<&[u8]>, input: &InputPlan, partitions: u32) -> Route {
    let at = record.from.partition;
    let old_rule = |key: &[u8]| at < input.from_partitions && partition_of(key, input.from_partitions) == at;
    let new_rule = |key: &[u8]| input.in_place && partition_of(key, partitions) == at;
    let placed = |key: &&[u8]| old_rule(key) || new_rule(key);
    let by = owner.filter(placed).or(record.key).or(owner);
    let second = input.in_place && by.map_or(at >= input.from_partitions, |key| !old_rule(key) && new_rule(key));
    Route { partition: by.map_or(at % partitions, |key| partition_of(key, partitions)), pass: usize::from(second) }
}

/// Adds a record's content, wherever it lies.
pub(super) fn record_digest(record: &Record<'_>) -> u64 {
    digest(&[record.key.unwrap_or_default(), record.value.unwrap_or_default(), &record.timestamp.to_le_bytes()])
}

pub(super) fn tail<B: Groups>(work: &mut Work<'_, B>, copied: &Copied) -> Result<()> {
    for input in 0..work.plan.inputs.len() {
        for pass in 0..work.progress.next[input].len() {
            for partition in 0..work.plan.inputs[input].committed.len() as u32 {
                one(work, copied, input, pass, partition)?;
            }
        }
    }
    Ok(())
}

/// One partition in one pass.
fn one<B: Groups>(work: &mut Work<'_, B>, copied: &Copied, input: usize, pass: usize, partition: u32) -> Result<()> {
    let at = TopicPartition { topic: work.migration.places.old_inputs[input], partition };
    let plan = &work.plan.inputs[input];
    // In a topic of its own the old input may have grown since: what came is moved as well.
    let planned = plan.ends[partition as usize];
    let end = if plan.in_place { planned } else { work.reader.bounds(at)?.end };
    let from = work.progress.next[input][pass][partition as usize];
    // The reader is at work while transactions go on.
    let mut reader = work.migration.broker.reader()?;
    exclusive::read(&mut reader, at, from, end, |fetched, position| {
        let position = position.min(end);
        chunk(work, copied, input, pass, fetched, end, position)?;
        work.show(position.saturating_sub(plan.committed[partition as usize]));
        Ok::<(), MigrateError>(())
    })?;
    work.passed += planned - plan.committed[partition as usize];
    Ok(())
}

fn chunk<B: Groups>(
    work: &mut Work<'_, B>,
    copied: &Copied,
    input: usize,
    pass: usize,
    fetched: &Fetched,
    end: u64,
    position: u64,
) -> Result<()> {
    let plan = &work.plan.inputs[input];
    let topic = work.migration.places.new_inputs[input];
    let mut going: Vec<(TopicPartition, Record<'_>)> = Vec::new();
    let mut partition = None;
    for record in below(fetched, end) {
        partition = Some(record.from.partition);
        let owner = (work.migration.owner)(input, &record);
        let to = route(&record, owner.as_deref(), plan, work.plan.partitions);
        if to.pass != pass {
            continue;
        }
        // Marks are offsets of the partition where the owner lived.
        let lived_here = |owner: &&Vec<u8>| partition_of(owner, plan.from_partitions) == record.from.partition;
        let marks = owner.as_ref().filter(lived_here).and_then(|owner| copied.ahead.get(owner));
        if marks.is_some_and(|marks| record.offset < marks.0[input]) {
            work.progress.included[input] += 1;
            continue;
        }
        work.progress.moved[input] += 1;
        work.progress.digests[input] = work.progress.digests[input].wrapping_add(record_digest(&record));
        going.push((TopicPartition { topic, partition: to.partition }, record));
    }
    let Some(partition) = partition else { return Ok(()) };
    work.progress.next[input][pass][partition as usize] = position;
    let entry = Entry::Progress(work.progress.clone());
    journal::write(&mut work.hand, work.migration.places.journal_at(), &entry, |send| {
        for (to, record) in &going {
            let headers: Vec<Header<'_>> = record.headers().collect();
            let Record { key, value, timestamp, .. } = *record;
            send(&Outgoing { to: *to, key, value, timestamp, headers: &headers })?;
        }
        Ok(Vec::new())
    })
}

#[cfg(test)]
mod tests {
    use topology::record::TopicId;

    use super::*;

    fn key_at(old: u32, new: u32) -> Vec<u8> {
        let keys = (0..).map(|number| format!("key-{number}").into_bytes());
        keys.into_iter().find(|key| partition_of(key, 4) == old && partition_of(key, 7) == new).expect("there is one")
    }

    fn routed(partition: u32, key: Option<&[u8]>, owner: Option<&[u8]>, in_place: bool) -> (u32, usize) {
        let mut fetched = Fetched::default();
        fetched.push(TopicPartition { topic: TopicId(0), partition }, 0, 0, key, None, std::iter::empty());
        let zeros = vec![0; 7];
        let plan = InputPlan {
            from: "a".into(),
            to: "a".into(),
            in_place,
            from_partitions: 4,
            committed: zeros.clone(),
            ends: zeros.clone(),
            starts: zeros,
        };
        let Route { partition, pass } = route(&fetched.get(0), owner, &plan, 7);
        (partition, pass)
    }

    #[test]
    fn what_came_by_the_old_rule_goes_first() {
        let moved = key_at(1, 5);
        assert_eq!(routed(1, Some(&moved), Some(&moved), true), (5, 0), "written before the topic grew");
        assert_eq!(routed(5, Some(&moved), Some(&moved), true), (5, 1), "written after");
        let stays = key_at(2, 2);
        assert_eq!(routed(2, Some(&stays), Some(&stays), true), (2, 0), "both rules agree: its order is that of its partition");
        assert_eq!(routed(1, Some(&moved), None, false), (5, 0), "another topic: one pass");
    }

    #[test]
    fn the_owner_counts_where_the_record_was_placed_by_it_and_the_key_otherwise() {
        let (user, key) = (key_at(1, 5), key_at(3, 6));
        assert_eq!(routed(1, Some(&key), Some(&user), false), (5, 0), "placed by the owner, whatever the key");
        assert_eq!(routed(3, Some(&key), Some(&user), false), (6, 0), "placed by its key: misplaced it stays");
        assert_eq!(routed(0, None, None, false), (0, 0), "nothing to go by");
        assert_eq!(routed(6, None, None, true), (6, 1), "in a partition that is new");
        assert_eq!(routed(2, None, Some(&user), false), (5, 0), "no key: the owner");
    }
}
