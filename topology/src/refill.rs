//! A store's partition anew from its changelog, away from the group: for a store that nobody uses meanwhile.
//!
//! It folds and applies as a restore does, and writes the position beside each part of the data, so an interruption leaves a store that the
//! next start (or the next refill) completes.

use std::time::Duration;

use state::backend::{Backend, StorePartition, WriteSet};

use crate::broker::Reader;
use crate::processor::ProcessError;
use crate::record::{Fetched, TopicPartition};
use crate::restore::{Facts, Progress};

/// Records read at once.
const BITE_RECORDS: usize = 100_000;
/// How long one poll waits.
const WAIT: Duration = Duration::from_millis(100);

/// Which store, from which changelog.
#[derive(Clone, Debug)]
pub struct Refill {
    /// The partition to drop and fill.
    pub store: StorePartition,
    /// Its changelog.
    pub changelog: TopicPartition,
    /// The task's lead topic, by name.
    pub lead: String,
    /// Exactly-once, or at-least-once: how repeats of a key are folded.
    pub exactly_once: bool,
    /// The time, in milliseconds since the epoch: what is read is as young as this.
    pub now_ms: i64,
}

impl Refill {
    /// Drops the partition and reads all of the changelog, to the high watermark seen at the start. `told` hears the position, where it ends, and
    /// says whether to go on. Returns the records applied.
    ///
    /// # Errors
    /// The broker's, the backend's; [`ProcessError::Stop`] for a value that is none, or where `told` said no.
    pub fn run<R: Reader>(
        &self,
        reader: &mut R,
        backend: &dyn Backend,
        told: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<u64, ProcessError> {
        backend.drop_partition(&self.store)?;
        backend.open(&self.store)?;
        let bounds = reader.bounds(self.changelog)?;
        // Just dropped: nothing is stored whose age could matter.
        let facts = Facts { stored: None, changelog: bounds, tombstone_retention_ms: 0, now_ms: self.now_ms };
        let mut progress = Progress::begin(backend, self.store.clone(), self.changelog, &facts, &self.lead, |_, _| ())?;
        if !progress.done() {
            reader.assign(self.changelog, bounds.start)?;
        }
        let (mut fetched, mut order, mut set) = (Fetched::default(), Vec::new(), WriteSet::default());
        while !progress.done() {
            if !told(progress.position, progress.until) {
                return Err(ProcessError::Stop(format!("{} is filled in part: the next start completes it", self.store)));
            }
            fetched.clear(0);
            reader.poll(&mut fetched, BITE_RECORDS, WAIT)?;
            fetched.order_by_partition(&mut order);
            let position = reader.position(self.changelog).unwrap_or(progress.position);
            progress.apply(backend, &fetched, &order, position, self.exactly_once, &mut set)?;
        }
        reader.unassign(self.changelog)?;
        told(progress.position, progress.until);
        Ok(progress.applied)
    }
}
