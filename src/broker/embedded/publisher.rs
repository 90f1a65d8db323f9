//! Writing outside of transactions: records are gathered and written together.

use std::sync::Arc;

use topology::broker::{Publisher, Result};
use topology::record::{Outgoing, TopicPartition};

use super::Shared;
use super::outbox::Outbox;

/// Gathered bytes that are written without being asked to.
pub(super) const LINGER_BYTES: usize = 4 << 20;

/// A producer of the embedded broker. It remembers sixteen bytes for each record since the last flush: flush now and then.
pub struct EmbeddedPublisher {
    shared: Arc<Shared>,
    outbox: Outbox,
    written: Vec<(TopicPartition, u64)>,
}

impl EmbeddedPublisher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, outbox: Outbox::with_positions(), written: Vec::new() }
    }

    fn deliver(&mut self) -> Result<()> {
        self.shared.append(&mut self.outbox, None, None, |_| Ok(()), Some(&mut self.written))
    }
}

impl Publisher for EmbeddedPublisher {
    fn send(&mut self, record: &Outgoing<'_>) -> Result<()> {
        self.outbox.push(&self.shared, record)?;
        if self.outbox.bytes() >= LINGER_BYTES { self.deliver() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let delivered = self.deliver();
        self.written.clear();
        delivered
    }

    fn flush_positions(&mut self, positions: &mut Vec<(TopicPartition, u64)>) -> Result<()> {
        self.deliver()?;
        positions.append(&mut self.written);
        Ok(())
    }
}
