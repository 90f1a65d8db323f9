//! What was planned and how far it is: the topic `<new>-migration`, one partition, one JSON record in each transaction.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use topology::broker::{Broker, BrokerError, Reader};
use topology::record::{Outgoing, TopicPartition};

use super::{Plan, Report, Result, stop};
use crate::exclusive::{self, Exclusive, Offsets, Sending};

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    Plan(Plan),
    Progress(Progress),
    Done(Report),
}

/// How far it is: everything below is in the new application's topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Keys copied, by changelog and old partition, in the order of keys.
    pub keys: Vec<Vec<u64>>,
    /// The next offset to look at, by input, pass and old partition.
    pub next: Vec<Vec<Vec<u64>>>,
    /// Records moved, by input.
    pub moved: Vec<u64>,
    /// Records left out because the state includes them, by input.
    pub included: Vec<u64>,
    /// A digest of what was moved, by input, whatever its order.
    pub digests: Vec<u64>,
}

impl Progress {
    pub fn new(plan: &Plan) -> Self {
        let passes = |input: &super::InputPlan| vec![input.committed.clone(); if input.in_place { 2 } else { 1 }];
        Self {
            keys: plan.changelog_ends.iter().map(|ends| vec![0; ends.len()]).collect(),
            next: plan.inputs.iter().map(passes).collect(),
            moved: vec![0; plan.inputs.len()],
            included: vec![0; plan.inputs.len()],
            digests: vec![0; plan.inputs.len()],
        }
    }
}

/// What the journal says.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub plan: Option<Plan>,
    pub progress: Option<Progress>,
    pub done: Option<Report>,
    /// It was read to its end.
    pub complete: bool,
}

impl Journal {
    /// Reads what is committed. What a killed run left open is decided only once its successor's producer is open: who looks before
    /// does not wait for it.
    pub fn read<R: Reader>(reader: &mut R, at: TopicPartition, patience: Duration) -> Result<Self> {
        let mut journal = Self::default();
        let bounds = reader.bounds(at)?;
        let complete = exclusive::read_within(reader, at, bounds.start, bounds.end, patience, |fetched, _| {
            for record in fetched.iter() {
                let entry = serde_json::from_slice(record.value.unwrap_or_default());
                match entry.map_err(|why| stop(format!("record {} of the journal cannot be read: {why}", record.offset)))? {
                    Entry::Plan(plan) => journal.plan = Some(plan),
                    Entry::Progress(progress) => journal.progress = Some(progress),
                    Entry::Done(report) => journal.done = Some(report),
                }
            }
            Ok::<(), BrokerError>(())
        })?;
        journal.complete = complete;
        Ok(journal)
    }
}

/// Writes an entry, and what `more` sends, in one transaction with the offsets that it gives.
pub(super) fn write<B: Broker>(
    hand: &mut Exclusive<B>,
    at: TopicPartition,
    entry: &Entry,
    more: impl FnOnce(&mut Sending<'_>) -> topology::broker::Result<Offsets>,
) -> Result<()> {
    let value = serde_json::to_vec(entry).expect("invariant: numbers and names are JSON");
    let timestamp = crate::clock::now_ms();
    hand.transact(|send| {
        let offsets = more(send)?;
        send(&Outgoing { to: at, key: None, value: Some(&value), timestamp, headers: &[] })?;
        Ok(offsets)
    })?;
    Ok(())
}
