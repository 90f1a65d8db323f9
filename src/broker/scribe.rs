//! Records that people's orders make, one at a time: each is durable before its writer goes on.

use std::sync::Arc;

use topology::broker::{Broker, Publisher as _, Result};
use topology::record::{Outgoing, TopicPartition};

/// A publisher that is made at the first record, and anew after a failure.
pub struct Scribe<B: Broker> {
    broker: Arc<B>,
    publisher: Option<B::Publisher>,
}

impl<B: Broker> Scribe<B> {
    /// One that has written nothing yet.
    #[must_use]
    pub fn new(broker: &Arc<B>) -> Self {
        Self { broker: Arc::clone(broker), publisher: None }
    }

    /// Writes a record, as of `now_ms` (milliseconds since the epoch); its offset.
    ///
    /// # Errors
    /// The broker's; the record may be there all the same.
    pub fn write(&mut self, to: TopicPartition, key: &[u8], value: Option<&[u8]>, now_ms: i64) -> Result<u64> {
        let mut publisher = match self.publisher.take() {
            Some(publisher) => publisher,
            None => self.broker.publisher()?,
        };
        publisher.send(&Outgoing { to, key: Some(key), value, timestamp: now_ms, headers: &[] })?;
        let mut positions = Vec::new();
        publisher.flush_positions(&mut positions)?;
        self.publisher = Some(publisher);
        Ok(positions.last().map_or(0, |(_, offset)| *offset))
    }
}
