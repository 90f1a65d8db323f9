//! The topics that orders are in, on any broker.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use topology::broker::{Bounds, Broker, BrokerError, Publisher as _, Reaction, Reader as _, TopicInfo};
use topology::record::{Fetched, Outgoing, Record, TopicId, TopicPartition};

/// Records of one poll.
const POLL: usize = 1_000;
/// The longest that one poll waits.
const WAIT: Duration = Duration::from_millis(200);
/// Polls without news after which the end is taken to lie behind an open transaction: what is committed is enough.
const QUIET_POLLS: u32 = 3;
/// Offsets that one question looks through at most: what it is about lies close to where it begins.
const OFFSETS_MAX: u64 = 5_000_000;

/// See the module's header.
pub(super) trait OrderLog: Send + Sync {
    /// Log start and high watermark.
    fn bounds(&self, at: TopicPartition) -> Result<Bounds, BrokerError>;

    /// Writes one record durably; its offset.
    fn write(&self, to: TopicPartition, key: &[u8], value: &[u8], now_ms: i64) -> Result<u64, BrokerError>;

    /// Shows committed records from an offset on, until `found` says so or the end is reached.
    fn scan(&self, at: TopicPartition, from: u64, found: &mut dyn FnMut(&Record<'_>) -> bool) -> Result<(), BrokerError>;

    /// What the broker says of topics.
    fn describe(&self, topics: &[TopicId]) -> Result<Vec<Option<TopicInfo>>, BrokerError>;
}

/// On a broker. Its reader and its producer are made when first needed, and anew after a failure.
pub(super) struct BrokerLog<B: Broker> {
    broker: Arc<B>,
    reader: Mutex<Option<B::Reader>>,
    publisher: Mutex<Option<B::Publisher>>,
}

impl<B: Broker> BrokerLog<B> {
    pub(super) fn new(broker: Arc<B>) -> Self {
        Self { broker, reader: Mutex::new(None), publisher: Mutex::new(None) }
    }

    fn reading<T>(&self, work: impl FnOnce(&mut B::Reader) -> Result<T, BrokerError>) -> Result<T, BrokerError> {
        let mut kept = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reader = match kept.take() {
            Some(reader) => reader,
            None => self.broker.reader()?,
        };
        let done = work(&mut reader)?;
        *kept = Some(reader);
        Ok(done)
    }
}

impl<B: Broker> OrderLog for BrokerLog<B> {
    fn bounds(&self, at: TopicPartition) -> Result<Bounds, BrokerError> {
        self.reading(|reader| reader.bounds(at))
    }

    fn write(&self, to: TopicPartition, key: &[u8], value: &[u8], now_ms: i64) -> Result<u64, BrokerError> {
        let mut kept = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        let mut publisher = match kept.take() {
            Some(publisher) => publisher,
            None => self.broker.publisher()?,
        };
        publisher.send(&Outgoing { to, key: Some(key), value: Some(value), timestamp: now_ms, headers: &[] })?;
        let mut positions = Vec::new();
        publisher.flush_positions(&mut positions)?;
        *kept = Some(publisher);
        let unheard = || BrokerError::new(Reaction::Unknown, "the broker did not say where the record went");
        positions.last().map(|(_, offset)| *offset).ok_or_else(unheard)
    }

    fn scan(&self, at: TopicPartition, from: u64, found: &mut dyn FnMut(&Record<'_>) -> bool) -> Result<(), BrokerError> {
        self.reading(|reader| {
            let Bounds { start, end } = reader.bounds(at)?;
            let from = from.max(start);
            let end = end.min(from.saturating_add(OFFSETS_MAX));
            if from >= end {
                return Ok(());
            }
            reader.assign(at, from)?;
            let scanned = scan_to(reader, at, end, found);
            reader.unassign(at)?;
            scanned
        })
    }

    fn describe(&self, topics: &[TopicId]) -> Result<Vec<Option<TopicInfo>>, BrokerError> {
        self.broker.describe(topics)
    }
}

fn scan_to<R: topology::broker::Reader>(
    reader: &mut R,
    at: TopicPartition,
    end: u64,
    found: &mut dyn FnMut(&Record<'_>) -> bool,
) -> Result<(), BrokerError> {
    let mut fetched = Fetched::default();
    let mut quiet = 0;
    while quiet < QUIET_POLLS && reader.position(at).unwrap_or(0) < end {
        fetched.clear(1 << 20);
        reader.poll(&mut fetched, POLL, WAIT)?;
        quiet = if fetched.is_empty() { quiet + 1 } else { 0 };
        if fetched.iter().any(|record| record.from == at && found(&record)) {
            break;
        }
    }
    Ok(())
}
