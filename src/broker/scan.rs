//! A whole topic, as it is at the moment.

use std::time::Duration;

use topology::broker::{Broker, Reader as _, Result};
use topology::record::{Fetched, Record, TopicId, TopicPartition};

/// Records of one poll.
const CHUNK: usize = 20_000;
/// For one poll.
const WAIT: Duration = Duration::from_millis(500);
/// Polls without a record after which a partition's end is taken to be an open transaction's.
const QUIET_POLLS: u32 = 5;

/// How many partitions a topic has; none where it does not exist.
///
/// # Errors
/// The broker's.
pub fn partitions<B: Broker>(broker: &B, topic: TopicId) -> Result<Option<u32>> {
    Ok(broker.describe(&[topic])?.into_iter().flatten().next().map(|info| info.partitions))
}

/// Tells every committed record, each partition's in order; `polled` is called after each poll. An open transaction at a partition's end is
/// not waited for. A topic of fewer than `least` records, or none, is not read; `stopped` ends it early.
///
/// # Errors
/// The broker's, and those of `polled`.
pub fn scan<B: Broker>(
    broker: &B,
    topic: TopicId,
    least: u64,
    tell: &mut dyn FnMut(&Record<'_>),
    polled: &mut dyn FnMut() -> Result<()>,
    stopped: &dyn Fn() -> bool,
) -> Result<()> {
    let partitions = partitions(broker, topic)?.unwrap_or(0);
    let mut reader = broker.reader()?;
    let mut ends = Vec::new();
    let mut logged = 0;
    for partition in 0..partitions {
        let at = TopicPartition { topic, partition };
        let bounds = reader.bounds(at)?;
        logged += bounds.end - bounds.start;
        if bounds.start < bounds.end {
            reader.assign(at, bounds.start)?;
            ends.push((at, bounds.end));
        }
    }
    if logged < least {
        return Ok(());
    }
    let mut fetched = Fetched::default();
    let mut quiet = 0;
    while !stopped() && quiet < QUIET_POLLS && ends.iter().any(|&(at, end)| reader.position(at).unwrap_or(0) < end) {
        fetched.clear(0);
        reader.poll(&mut fetched, CHUNK, WAIT)?;
        quiet = if fetched.is_empty() { quiet + 1 } else { 0 };
        fetched.iter().for_each(|record| tell(&record));
        polled()?;
    }
    Ok(())
}
