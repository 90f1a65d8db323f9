//! Reads partitions by offset, committed records only: restore, standbys, audits.

use std::sync::Arc;
use std::time::Duration;

use topology::broker::{Bounds, BrokerError, Reaction, Reader, Result};
use topology::record::{Fetched, TopicPartition, Topics};

use super::admin::Desk;
use super::fetcher::Fetcher;
use super::member::named;

/// A consumer outside of any group.
pub struct KafkaReader {
    fetcher: Fetcher,
    topics: Topics,
    desk: Arc<Desk>,
}

impl KafkaReader {
    pub(super) fn new(desk: Arc<Desk>, topics: Topics) -> Result<Self> {
        let bytes = desk.config().buffers.restore;
        let fetcher = Fetcher::new(desk.clone(), topics.clone(), bytes, bytes)?;
        Ok(Self { fetcher, topics, desk })
    }
}

impl Reader for KafkaReader {
    fn assign(&mut self, partition: TopicPartition, from: u64) -> Result<()> {
        // Asked here and not left to the fetch, so that the caller learns it from the call that is wrong.
        let bounds = self.bounds(partition)?;
        if from < bounds.start || from > bounds.end {
            let what = format!(
                "topic {}, partition {}: offset {from} does not exist (log start {}, end {})",
                self.topics.name(partition.topic),
                partition.partition,
                bounds.start,
                bounds.end
            );
            return Err(BrokerError::new(Reaction::Stop, what));
        }
        self.fetcher.start(partition, from)
    }

    fn unassign(&mut self, partition: TopicPartition) -> Result<()> {
        self.fetcher.stop(partition)
    }

    fn bounds(&mut self, partition: TopicPartition) -> Result<Bounds> {
        self.desk.bounds(self.topics.name(partition.topic), partition.partition)
    }

    fn bounds_of(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Bounds>> {
        self.desk.bounds_of(&named(&self.topics, partitions))
    }

    fn poll(&mut self, into: &mut Fetched, max_records: usize, wait: Duration) -> Result<()> {
        self.fetcher.fill(into, max_records, wait)
    }

    fn position(&self, partition: TopicPartition) -> Option<u64> {
        self.fetcher.position(partition)
    }
}
