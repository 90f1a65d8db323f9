//! Writes outside of transactions: commands, labels, ingestion, load.

use std::sync::Arc;
use std::time::Duration;

use topology::broker::{BrokerError, Publisher, Reaction, Result};
use topology::record::{Outgoing, TopicPartition, Topics};

use super::admin::Desk;
use super::context::Delivered;
use super::sender::{Limits, Sender, extremes};

/// How long a record may take to be acknowledged.
const TIMEOUT: Duration = Duration::from_secs(120);

/// An idempotent producer that learns each record's offset. It remembers 32 bytes for each record since the last flush, so flush
/// every few hundred thousand.
pub struct KafkaPublisher {
    sender: Sender,
    /// Where each record since the last flush was sent to, in order.
    sent: Vec<TopicPartition>,
    delivered: Vec<Delivered>,
}

impl KafkaPublisher {
    pub(super) fn new(desk: &Desk, topics: Topics, limits: Limits) -> Result<Self> {
        let config = desk.config().publishing(extremes(&limits));
        let sender = Sender::new(&config, topics, Arc::clone(&limits), TIMEOUT)?;
        Ok(Self { sender, sent: Vec::new(), delivered: Vec::new() })
    }

    /// Flushes; afterwards `delivered` holds what became durable since the last flush, and all of it is forgotten next time.
    fn finish(&mut self) -> Result<()> {
        let done = self.sender.flush();
        self.delivered.clear();
        self.sender.take_delivered(&mut self.delivered);
        done
    }
}

impl Publisher for KafkaPublisher {
    fn send(&mut self, record: &Outgoing<'_>) -> Result<()> {
        self.sender.send(record, self.sent.len())?;
        self.sent.push(record.to);
        if self.sent.len().is_multiple_of(1024) {
            self.sender.serve();
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let done = self.finish();
        self.sent.clear();
        done
    }

    fn flush_positions(&mut self, positions: &mut Vec<(TopicPartition, u64)>) -> Result<()> {
        let done = self.finish();
        let sent = std::mem::take(&mut self.sent);
        done?;
        self.delivered.sort_unstable();
        if self.delivered.len() != sent.len() {
            let what = format!("{} of {} records have no acknowledgement", sent.len() - self.delivered.len(), sent.len());
            return Err(BrokerError::new(Reaction::Abort, what));
        }
        positions.extend(self.delivered.iter().map(|&(number, offset)| (sent[number], offset)));
        Ok(())
    }
}
