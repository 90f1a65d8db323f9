//! Where records go that are made while records are processed.

use crate::broker::BrokerError;
use crate::record::Outgoing;

/// Where a context's records go: the worker's open transaction.
pub(crate) trait Sink {
    /// Hands a record to the producer.
    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), BrokerError>;
    /// Waits until what was sent is acknowledged, where no transaction keeps records together (at-least-once).
    fn settle_order(&mut self) -> Result<(), BrokerError>;
}
