//! Reads a partition between two offsets, committed records only, a batch at a time.

use std::time::Duration;

use topology::broker::Reader;
use topology::record::{Batch, Fetched, Record, TopicPartition};

use super::{AuditError, Result};
use crate::clock::{monotonic, since};

const BITE_RECORDS: usize = 20_000;
const WAIT: Duration = Duration::from_millis(200);
/// An open transaction in front of the end is waited for; its time-out is far below this.
const PATIENCE: Duration = Duration::from_secs(60);
/// Arena memory that stays between polls.
const KEEP_BYTES: usize = 64 << 20;

/// See the module's header.
pub(crate) struct Cursor<R> {
    reader: R,
    at: TopicPartition,
    position: u64,
    until: u64,
    fetched: Fetched,
    order: Vec<u32>,
    place: usize,
}

impl<R: Reader> Cursor<R> {
    /// Will read `from..until`.
    pub(crate) fn open(mut reader: R, at: TopicPartition, from: u64, until: u64) -> Result<Self> {
        if from < until {
            reader.assign(at, from)?;
        }
        let (fetched, order) = (Fetched::default(), Vec::new());
        Ok(Self { reader, at, position: from, until, fetched, order, place: 0 })
    }

    /// Gets the next records where none are left; false at the end.
    pub(crate) fn fill(&mut self) -> Result<bool> {
        let began = monotonic();
        while self.place == self.order.len() {
            if self.position >= self.until {
                return Ok(false);
            }
            if since(began) > PATIENCE {
                return Err(AuditError(format!(
                    "nothing came from partition {} beyond offset {} for {} s: an open transaction is in front of offset {}, or the \
                     broker does not answer",
                    self.at.partition,
                    self.position,
                    PATIENCE.as_secs(),
                    self.until
                )));
            }
            self.fetched.clear(KEEP_BYTES);
            self.reader.poll(&mut self.fetched, BITE_RECORDS, WAIT)?;
            self.fetched.order_by_partition(&mut self.order);
            let inside = self.order.partition_point(|&at| self.fetched.get(at as usize).offset < self.until);
            self.order.truncate(inside);
            self.place = 0;
            let read = self.order.last().map(|&at| self.fetched.get(at as usize).offset + 1);
            self.position = self.position.max(self.reader.position(self.at).or(read).unwrap_or(0));
        }
        Ok(true)
    }

    /// The records at hand and their order.
    pub(crate) fn batch(&self) -> (&Fetched, &[u32]) {
        (&self.fetched, &self.order[self.place..])
    }

    /// Passes over the records at hand.
    pub(crate) fn pass(&mut self) {
        self.place = self.order.len();
    }

    /// The next record, without passing over it.
    pub(crate) fn peek(&mut self) -> Result<Option<Record<'_>>> {
        Ok(if self.fill()? { Some(self.fetched.get(self.order[self.place] as usize)) } else { None })
    }

    /// Passes over the record peeked at.
    pub(crate) fn step(&mut self) {
        self.place = (self.place + 1).min(self.order.len());
    }

    /// Everything that is left, batch by batch.
    pub(crate) fn each(mut self, take: &mut dyn FnMut(&Batch<'_>) -> Result<()>) -> Result<()> {
        while self.fill()? {
            let (fetched, order) = self.batch();
            take(&Batch::new(fetched, order))?;
            self.pass();
        }
        Ok(())
    }

    /// The reader, for another cursor.
    pub(crate) fn close(mut self) -> Result<R> {
        self.reader.unassign(self.at)?;
        Ok(self.reader)
    }
}
