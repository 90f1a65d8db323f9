//! The first stage under `INPUT_PARTITIONING=any`: each payment goes to its user's partition, as it is, with where it came from in
//! headers: they make the verdict's id, so that the id names the record that the producer wrote.

use models::{Cause, Limits, Transaction};
use topology::broker::{BrokerError, Reaction};
use topology::processor::{Context, ProcessError, Processor, Result};
use topology::record::{Batch, Header, Record};

/// `topic:partition:offset` of the record as the producer wrote it.
pub(super) const ORIGIN: &str = "mangrove.origin";

/// How a payment's record without a value is put aside.
pub(super) const TOMBSTONE: &str = "tombstone";
pub(super) const TOMBSTONE_MESSAGE: &str = "the record has no value: a payment cannot be taken back by a tombstone";

/// Sends each payment to its user's partition.
#[derive(Debug)]
pub(super) struct ByUser {
    limits: Limits,
}

impl ByUser {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits }
    }
}

impl Processor for ByUser {
    fn process(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result {
        for record in batch.iter() {
            let Some(value) = record.value else {
                context.dead_letter(&record, TOMBSTONE, TOMBSTONE_MESSAGE)?;
                continue;
            };
            match Transaction::from_json(value, record.timestamp, &self.limits) {
                Ok(payment) => {
                    let origin = origin(context, &record);
                    let mut headers: Vec<Header<'_>> = record.headers().filter(|header| header.name != ORIGIN).collect();
                    headers.push(Header { name: ORIGIN, value: Some(origin.as_bytes()) });
                    match context.emit_with(0, payment.user_id.as_bytes(), value, record.timestamp, &headers) {
                        // The topic was not created by us, or the input takes larger records by now.
                        Err(ProcessError::Broker(BrokerError { reaction: Reaction::TooLarge, what })) => {
                            context.dead_letter(&record, Cause::TooLarge.as_str(), &what)?;
                        }
                        sent => sent?,
                    }
                }
                Err(why) => context.dead_letter(&record, why.cause.as_str(), &why.to_string())?,
            }
        }
        Ok(())
    }
}

fn origin(context: &Context<'_>, record: &Record<'_>) -> String {
    format!("{}:{}:{}", context.topic_name(record.from.topic), record.from.partition, record.offset)
}
