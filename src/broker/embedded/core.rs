//! What all handles on a broker share in memory: logs' bounds, groups, producers' epochs, and appends on their way to the disk.
//!
//! An append takes three steps, so that those that come together share one sync of the log:
//!  1 under the lock: it is admitted (generation, epoch), gets its offsets in each partition and a ticket
//!  2 without the lock: it is written, as one batch of RocksDB
//!  3 under the lock: it is marked as written. A partition's end moves over appends in the order of their offsets, so no reader
//!    sees a later one before an earlier one
//!
//! A failed write poisons the broker: every later call is refused with the same words (I7).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use topology::broker::{BrokerError, Reaction, Result};
use topology::record::{TopicId, TopicPartition};

use super::group::Group;
use super::stop;
use super::store::{LogMeta, TopicMeta, family_name};

/// A topic of the application's table that exists.
#[derive(Debug)]
pub(super) struct Topic {
    pub name: String,
    pub meta: TopicMeta,
    /// The column family of each partition.
    pub families: Vec<String>,
}

impl Topic {
    pub fn new(name: &str, meta: TopicMeta) -> Self {
        let families = (0..meta.partitions).map(|partition| family_name(name, partition)).collect();
        Self { name: name.to_owned(), meta, families }
    }
}

/// The bounds of a partition's log.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The first offset still retained.
    pub start: u64,
    /// One past the last record that readers may see.
    pub end: u64,
    /// One past the last offset given out.
    next: u64,
    /// Appends that got offsets and are not visible yet, in the order of their offsets.
    under_way: VecDeque<UnderWay>,
    /// What is on disk about it.
    pub meta: LogMeta,
}

#[derive(Debug)]
struct UnderWay {
    ticket: u64,
    end: u64,
    written: bool,
}

impl Log {
    pub fn new(meta: LogMeta, end: u64) -> Self {
        let end = end.max(meta.end_floor);
        Self { start: meta.start, end, next: end, under_way: VecDeque::new(), meta }
    }

    /// Gives out `count` offsets and tells the first.
    fn reserve(&mut self, ticket: u64, count: u64) -> u64 {
        let base = self.next;
        self.next += count;
        self.under_way.push_back(UnderWay { ticket, end: self.next, written: false });
        base
    }

    fn written(&mut self, ticket: u64) {
        if let Some(append) = self.under_way.iter_mut().find(|append| append.ticket == ticket) {
            append.written = true;
        }
        while let Some(first) = self.under_way.pop_front_if(|first| first.written) {
            self.end = first.end;
        }
    }

    fn is_under_way(&self, ticket: u64) -> bool {
        self.under_way.iter().any(|append| append.ticket == ticket)
    }
}

/// A producer's identity.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Producer {
    pub epoch: u64,
    /// A commit of it is being written.
    pub committing: bool,
}

/// Offsets that go with an append.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offsets<'a> {
    pub group: &'a str,
    pub next: &'a [(TopicPartition, u64)],
}

/// An append between its first step and its third.
#[derive(Debug)]
pub(super) struct Ticket {
    pub number: u64,
    /// The first offset in each partition, in the order asked.
    pub bases: Vec<(TopicPartition, u64)>,
}

/// Everything under the lock.
#[derive(Debug, Default)]
pub(super) struct Core {
    pub topics: BTreeMap<TopicId, Arc<Topic>>,
    pub logs: BTreeMap<TopicPartition, Log>,
    pub groups: BTreeMap<String, Group>,
    pub producers: BTreeMap<String, Producer>,
    tickets: u64,
    poison: Option<String>,
}

impl Core {
    /// Refuses everything after a failed write.
    pub fn check(&self) -> Result<()> {
        self.poison.as_ref().map_or(Ok(()), |what| Err(stop(what.clone())))
    }

    /// Nothing is to be written any more.
    pub fn poison(&mut self, what: impl std::fmt::Display) -> BrokerError {
        stop(self.poison.get_or_insert_with(|| format!("a write of the embedded broker failed: {what}")).clone())
    }

    pub fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }

    pub fn log(&self, partition: TopicPartition) -> Result<&Log> {
        self.logs.get(&partition).ok_or_else(|| {
            let what = format!("topic number {} has no partition {}", partition.topic.0, partition.partition);
            BrokerError::new(Reaction::Retry, what)
        })
    }

    /// Refuses an offset that the log does not have: reading from elsewhere would leave records out, silently.
    pub fn check_offset(&self, partition: TopicPartition, offset: u64) -> Result<()> {
        let log = self.log(partition)?;
        if (log.start..=log.end).contains(&offset) {
            return Ok(());
        }
        let name = self.topics.get(&partition.topic).map_or("?", |topic| &topic.name);
        let (start, end) = (log.start, log.end);
        Err(stop(format!("{name}:{} has offsets {start} to {end}; {offset} is not among them", partition.partition)))
    }

    /// All partitions of the topics that a group hands out.
    pub fn partitions_of(&self, leads: impl IntoIterator<Item = TopicId>) -> Vec<TopicPartition> {
        let count = |topic: TopicId| self.topics.get(&topic).map_or(0, |topic| topic.meta.partitions);
        let of = |topic: TopicId| (0..count(topic)).map(move |partition| TopicPartition { topic, partition });
        leads.into_iter().flat_map(of).collect()
    }

    /// The partitions that a group hands out, given that a member with these leads is about to be in it.
    pub fn partitions_for(&self, group: &str, leads: &[TopicId]) -> Vec<TopicPartition> {
        let mut all = self.groups.get(group).map(Group::leads).unwrap_or_default();
        all.extend(leads);
        self.partitions_of(all)
    }

    /// A topic came into being: groups that wait for its partitions hand them out.
    pub fn rebalance_groups_of(&mut self, topic: TopicId) {
        let waiting = self.groups.iter().filter(|(_, group)| group.leads().contains(&topic));
        for name in waiting.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            let partitions = self.partitions_for(&name, &[]);
            self.groups.entry(name).or_default().rebalance(&partitions);
        }
    }

    /// Step 1, once admitted.
    pub fn reserve(
        &mut self,
        counts: impl Iterator<Item = (TopicPartition, u64)>,
        offsets: Option<Offsets<'_>>,
        producer: Option<&str>,
    ) -> Ticket {
        self.tickets += 1;
        let number = self.tickets;
        let logs = &mut self.logs;
        let reserve = |(partition, count)| {
            let log: &mut Log = logs.get_mut(&partition).expect("invariant: send checked the partition, and none goes");
            (partition, log.reserve(number, count))
        };
        let bases = counts.map(reserve).collect();
        if let Some(offsets) = offsets {
            let group = self.groups.entry(offsets.group.to_owned()).or_default();
            group.undecided.insert(number, offsets.next.iter().map(|(partition, _)| *partition).collect());
        }
        self.set_committing(producer, true);
        Ticket { number, bases }
    }

    /// Step 3, after a write that succeeded.
    pub fn complete(&mut self, ticket: &Ticket, offsets: Option<Offsets<'_>>, producer: Option<&str>) {
        for (partition, _) in &ticket.bases {
            if let Some(log) = self.logs.get_mut(partition) {
                log.written(ticket.number);
            }
        }
        if let Some(offsets) = offsets
            && let Some(group) = self.groups.get_mut(offsets.group)
        {
            group.undecided.remove(&ticket.number);
            group.offsets.extend(offsets.next.iter().copied());
        }
        self.set_committing(producer, false);
    }

    /// True while an earlier append keeps this one from being seen.
    pub fn is_under_way(&self, ticket: &Ticket) -> bool {
        ticket.bases.iter().any(|(partition, _)| self.logs.get(partition).is_some_and(|log| log.is_under_way(ticket.number)))
    }

    fn set_committing(&mut self, producer: Option<&str>, committing: bool) {
        if let Some(producer) = producer.and_then(|id| self.producers.get_mut(id)) {
            producer.committing = committing;
        }
    }
}
