//! Records on their way out: built into batches as they are sent, kept in memory until they are written in one piece.
//!
//! Nothing uncommitted is ever in RocksDB, so there are no control records and nothing to filter when reading; an abort drops the
//! outbox. Limit: [`super::EmbeddedOptions::transaction_bytes`].

use std::collections::BTreeMap;
use std::sync::Arc;

use rocksdb::WriteBatch;
use topology::broker::{BrokerError, Cleanup, Reaction, Result};
use topology::record::{Outgoing, TopicId, TopicPartition};

use super::batch::Builder;
use super::core::{Ticket, Topic};
use super::{Shared, stop};

#[derive(Debug, Default)]
struct Part {
    count: u64,
    /// Each with its first record's place among the part's.
    batches: Vec<(u64, Builder)>,
}

/// Records sent and not written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    parts: BTreeMap<TopicPartition, Part>,
    bytes: usize,
    /// Topics seen, so that sending takes no lock.
    topics: BTreeMap<TopicId, Arc<Topic>>,
    /// Where each record went in its part, in the order sent; kept where someone asks for it.
    order: Option<Vec<(TopicPartition, u64)>>,
}

impl Outbox {
    /// One that remembers where each record goes.
    pub fn with_positions() -> Self {
        Self { order: Some(Vec::new()), ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of records held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.bytes = 0;
        self.order.iter_mut().for_each(Vec::clear);
    }

    /// Takes a copy of a record.
    pub fn push(&mut self, shared: &Shared, record: &Outgoing<'_>) -> Result<()> {
        let to = record.to;
        let topic = self.topic(shared, to)?;
        let headers: usize = record.headers.iter().map(|h| h.name.len() + h.value.map_or(0, <[u8]>::len)).sum();
        let size = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + headers;
        let limit = topic.meta.max_message_bytes.unwrap_or(shared.options.max_message_bytes);
        if size > limit as usize {
            let what = format!("a record of {size} bytes is larger than topic {} takes ({limit})", topic.name);
            return Err(BrokerError::new(Reaction::TooLarge, what));
        }
        if record.key.is_none() && matches!(topic.meta.cleanup(), Cleanup::Compact { .. }) {
            return Err(stop(format!(
                "topic {} keeps the last value of each key: a record without a key has no place in it",
                topic.name
            )));
        }
        if self.bytes + size > shared.options.transaction_bytes {
            let limit = shared.options.transaction_bytes;
            return Err(stop(format!("more than {limit} bytes in one transaction: commit more often, or raise the limit")));
        }
        let part = self.parts.entry(to).or_default();
        if part.batches.last().is_none_or(|(_, batch)| batch.is_full()) {
            part.batches.push((part.count, Builder::new()));
        }
        let (_, batch) = part.batches.last_mut().expect("invariant: pushed just above if there was none");
        let before = batch.bytes();
        batch.push(record);
        self.bytes += batch.bytes() - before;
        self.order.iter_mut().for_each(|order| order.push((to, part.count)));
        part.count += 1;
        Ok(())
    }

    fn topic(&mut self, shared: &Shared, to: TopicPartition) -> Result<&Topic> {
        if self.topics.get(&to.topic).is_none_or(|topic| to.partition >= topic.meta.partitions) {
            let core = shared.lock();
            core.log(to)?;
            self.topics.insert(to.topic, Arc::clone(&core.topics[&to.topic]));
        }
        Ok(&self.topics[&to.topic])
    }

    /// How many records go to each partition.
    pub fn counts(&self) -> impl Iterator<Item = (TopicPartition, u64)> {
        self.parts.iter().map(|(partition, part)| (*partition, part.count))
    }

    /// Adds everything to a write, at the offsets that the ticket gives.
    pub fn write(&mut self, shared: &Shared, ticket: &Ticket, appended_ms: i64, into: &mut WriteBatch) -> Result<()> {
        for ((to, part), (_, base)) in self.parts.iter_mut().zip(&ticket.bases) {
            let family = shared.family(&self.topics[&to.topic].families[to.partition as usize])?;
            for (first, batch) in &mut part.batches {
                let span = batch.span();
                into.put_cf(&family, (base + *first).to_be_bytes(), batch.finish(appended_ms, span));
            }
        }
        Ok(())
    }

    /// Where each record went, once written: appended to `positions`.
    pub fn positions(&self, ticket: &Ticket, positions: &mut Vec<(TopicPartition, u64)>) {
        let bases: BTreeMap<TopicPartition, u64> = ticket.bases.iter().copied().collect();
        let order = self.order.as_deref().unwrap_or_default();
        positions.extend(order.iter().map(|(partition, place)| (*partition, bases[partition] + place)));
    }
}
