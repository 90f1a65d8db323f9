//! Reads back which transaction ids came last in a partition: at start, and when a partition's ids are to be remembered here from now on.
//!
//! Backwards in blocks, each twice the one before, until a whole block is older than the window, the log begins, or the window could
//! hold no more. Records that did not come by HTTP count as well.

use models::Transaction;
use topology::broker::Broker;
use topology::record::{Record, TopicPartition};

use super::payment::fingerprint;
use super::window::{Fingerprint, Place};
use crate::audit::{AuditError, Cursor};
use crate::scoring::ScoringParams;

/// Records of the first block: fewer than this many old ones in a row end no reading.
const BLOCK: u64 = 1_024;

/// What was read, in the order of offsets.
pub(super) type Read = Vec<(Fingerprint, Place, i64)>;

/// Reads a partition's last records, `max` at most, back to `since_ms`.
pub(super) fn read<B: Broker>(
    broker: &B,
    at: TopicPartition,
    since_ms: i64,
    max: u64,
    params: &ScoringParams,
) -> Result<Read, AuditError> {
    let mut reader = broker.reader()?;
    let bounds = topology::broker::Reader::bounds(&mut reader, at)?;
    let first = bounds.start.max(bounds.end.saturating_sub(max));
    let (mut until, mut size) = (bounds.end, BLOCK);
    let mut blocks: Vec<Read> = Vec::new();
    while until > first {
        let from = until.saturating_sub(size).max(first);
        let (mut block, mut young) = (Read::new(), false);
        let mut cursor = Cursor::open(reader, at, from, until)?;
        while let Some(record) = cursor.peek()? {
            young |= record.timestamp >= since_ms;
            block.extend(entry(&record, since_ms, params));
            cursor.step();
        }
        reader = cursor.close()?;
        blocks.push(block);
        if !young && until - from >= BLOCK {
            break;
        }
        (until, size) = (from, size * 2);
    }
    Ok(blocks.into_iter().rev().flatten().collect())
}

fn entry(record: &Record<'_>, since_ms: i64, params: &ScoringParams) -> Option<(Fingerprint, Place, i64)> {
    if record.timestamp < since_ms {
        return None;
    }
    let payment = Transaction::from_json(record.value?, record.timestamp, &params.limits()).ok()?;
    let place = Place { partition: record.from.partition, offset: record.offset };
    Some((fingerprint(&payment.user_id, payment.tx_id.as_deref()?), place, record.timestamp))
}
