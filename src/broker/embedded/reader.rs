//! Reading partitions by offset, outside of any group.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use topology::broker::{Bounds, Reader, Result};
use topology::record::{Fetched, TopicPartition};

use super::Shared;
use super::fetch::{Cursor, Cursors};

/// A reader of the embedded broker.
pub struct EmbeddedReader {
    shared: Arc<Shared>,
    cursors: Cursors,
}

impl EmbeddedReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, cursors: Cursors::default() }
    }
}

impl Reader for EmbeddedReader {
    fn assign(&mut self, partition: TopicPartition, from: u64) -> Result<()> {
        self.shared.lock().check_offset(partition, from)?;
        self.cursors.at.insert(partition, Cursor::at(from));
        Ok(())
    }

    fn unassign(&mut self, partition: TopicPartition) -> Result<()> {
        self.cursors.at.remove(&partition);
        Ok(())
    }

    fn bounds(&mut self, partition: TopicPartition) -> Result<Bounds> {
        self.shared.bounds(partition)
    }

    fn poll(&mut self, into: &mut Fetched, max_records: usize, wait: Duration) -> Result<()> {
        let cursors = &self.cursors;
        let idle = |core: &mut super::core::Core| !core.is_poisoned() && !cursors.is_ready(core, |_| true);
        let core = self.shared.lock();
        drop(self.shared.changed.wait_timeout_while(core, wait, idle).unwrap_or_else(PoisonError::into_inner));
        self.cursors.fetch(&self.shared, into, max_records, |_| true)
    }

    fn position(&self, partition: TopicPartition) -> Option<u64> {
        self.cursors.at.get(&partition).filter(|cursor| cursor.answered).map(|cursor| cursor.next)
    }
}
