//! Before the new application may start: both sides are read and compared.

use std::collections::BTreeMap;

use state::store::split_kept;
use topology::broker::{BrokerError, Reader as _};
use topology::partitioner::partition_of;
use topology::record::TopicPartition;

use super::state_copy::{Copied, Fold};
use super::{Result, Work, plan, refused, stop, tail};
use crate::broker::Groups;
use crate::exclusive;

/// Compares; tells how many records of each new input are not ours.
pub(super) fn verify<B: Groups>(work: &mut Work<'_, B>, copied: &Copied) -> Result<Vec<u64>> {
    still(work)?;
    for store in 0..copied.folds.len() {
        let fold = fold(work, store)?;
        if fold != copied.folds[store] {
            let name = work.migration.places.name(work.migration.places.new_changelogs[store]);
            return refused(format!(
                "{name} does not hold the old state: {} keys there, {} in the old one, or their values differ. Nothing was started: delete \
                 the topics of {} and begin again",
                fold.keys, copied.folds[store].keys, work.plan.new
            ));
        }
    }
    (0..work.plan.inputs.len()).map(|input| written(work, input)).collect()
}

/// The old side must be where it was read.
fn still<B: Groups>(work: &mut Work<'_, B>) -> Result<()> {
    let places = work.migration.places;
    for (store, ends) in work.plan.changelog_ends.iter().enumerate() {
        let (_, now) = plan::bounds(&mut work.reader, places.old_changelogs[store], ends.len() as u32)?;
        // Fencing the old application may have ended its open transactions: control records, nothing else.
        for (partition, (&end, &now)) in (0..).zip(ends.iter().zip(&now)) {
            let mut more = 0;
            let at = TopicPartition { topic: places.old_changelogs[store], partition };
            exclusive::read(&mut work.reader, at, end, now, |fetched, _| {
                more += fetched.len();
                Ok::<(), BrokerError>(())
            })?;
            if more > 0 {
                return refused(format!(
                    "{} was written to while its state was copied: an instance of {} runs. Stop it, delete the topics of {} and begin again",
                    places.name(at.topic),
                    work.plan.old,
                    work.plan.new
                ));
            }
        }
    }
    for (at, input) in work.plan.inputs.iter().enumerate().filter(|(_, input)| !input.in_place) {
        let (_, now) = plan::bounds(&mut work.reader, places.old_inputs[at], input.ends.len() as u32)?;
        if now.iter().zip(&work.progress.next[at][0]).any(|(now, next)| now > next) {
            return refused(format!(
                "{} still grows: stop its producers (they write to {} from now on), then run this again: it goes on from here",
                input.from, input.to
            ));
        }
    }
    Ok(())
}

fn fold<B: Groups>(work: &mut Work<'_, B>, store: usize) -> Result<Fold> {
    let topic = work.migration.places.new_changelogs[store];
    let mut fold = Fold::default();
    for partition in 0..work.plan.partitions {
        let at = TopicPartition { topic, partition };
        let bounds = work.reader.bounds(at)?;
        let mut last: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let (plan, hand) = (work.plan, &mut work.hand);
        exclusive::read(&mut work.reader, at, bounds.start, bounds.end, |fetched, _| {
            for record in fetched.iter() {
                let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
                let (marks, rest) = split_kept(value).map_err(|why| stop(format!("a copied value cannot be read: {why}")))?;
                let begins = plan.inputs.iter().map(|input| input.starts[partition as usize]);
                if partition_of(key, plan.partitions) != partition || !marks.0.iter().copied().take(plan.inputs.len()).eq(begins)
                {
                    return Err(stop("a copied value is not where it belongs"));
                }
                last.insert(key.to_vec(), rest.to_vec());
            }
            hand.follow(std::time::Duration::ZERO)
        })?;
        last.iter().for_each(|(key, value)| fold.add(key, value));
    }
    Ok(fold)
}

/// What lies in a new input from where the new application begins must be what was moved; how much more there is.
fn written<B: Groups>(work: &mut Work<'_, B>, input: usize) -> Result<u64> {
    let topic = work.migration.places.new_inputs[input];
    let (mut count, mut digest) = (0_u64, 0_u64);
    for partition in 0..work.plan.partitions {
        let at = TopicPartition { topic, partition };
        let (from, end) = (work.plan.inputs[input].starts[partition as usize], work.reader.bounds(at)?.end);
        let hand = &mut work.hand;
        exclusive::read(&mut work.reader, at, from, end, |fetched, _| {
            for record in fetched.iter() {
                count += 1;
                digest = digest.wrapping_add(tail::record_digest(&record));
            }
            hand.follow(std::time::Duration::ZERO)
        })?;
    }
    let moved = work.progress.moved[input];
    if count < moved || (count == moved && digest != work.progress.digests[input]) {
        let name = work.migration.places.name(topic);
        return refused(format!("{name} holds {count} of {moved} records that were moved, or others: nothing was started"));
    }
    Ok(count - moved)
}
