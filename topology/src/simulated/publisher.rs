//! Writing outside of transactions.

use super::caller::Caller;
use super::faults::Op;
use super::producer::Producer;
use crate::broker::{Publisher, Result};
use crate::record::{Outgoing, TopicPartition};

/// An idempotent producer of the simulated broker.
pub struct SimPublisher {
    caller: Caller,
    producer: Producer,
}

impl SimPublisher {
    pub(super) fn new(caller: Caller) -> Self {
        Self { caller, producer: Producer::with_positions() }
    }
}

impl Publisher for SimPublisher {
    fn send(&mut self, record: &Outgoing<'_>) -> Result<()> {
        self.producer.send(&mut self.caller, Op::Publish, record)
    }

    fn flush(&mut self) -> Result<()> {
        self.deliver()?;
        self.producer.forget_positions();
        Ok(())
    }

    fn flush_positions(&mut self, positions: &mut Vec<(TopicPartition, u64)>) -> Result<()> {
        self.deliver()?;
        self.producer.take_positions(positions);
        Ok(())
    }
}

impl SimPublisher {
    fn deliver(&mut self) -> Result<()> {
        let producer = &mut self.producer;
        self.caller.call(Op::PublisherFlush, |cluster| producer.flush(cluster))
    }
}
