//! What people keep beside the state, in a compacted topic of one partition: its last values go along as they are.
//!
//! Nobody writes to the old topic any more, since the old application is stopped, and nobody to the new one, since the new application
//! starts only once all is done: so a repetition writes the same again.

use std::collections::BTreeMap;

use topology::broker::Publisher as _;
use topology::record::{Outgoing, Record, TopicPartition};

use super::{Groups, Migration, Result};
use crate::broker::scan;

/// Copies it; how many values there are.
pub(super) fn copy<B: Groups>(migration: &Migration<'_, B>) -> Result<u64> {
    let Some((old, new)) = migration.places.carried else { return Ok(0) };
    let mut last: BTreeMap<Vec<u8>, (i64, Vec<u8>)> = BTreeMap::new();
    let tell = &mut |record: &Record<'_>| match (record.key, record.value) {
        (Some(key), Some(value)) => drop(last.insert(key.to_vec(), (record.timestamp, value.to_vec()))),
        (Some(key), None) => drop(last.remove(key)),
        (None, _) => {}
    };
    scan(migration.broker, old, 1, tell, &mut || Ok(()), &|| false)?;
    let mut publisher = migration.broker.publisher()?;
    let to = TopicPartition { topic: new, partition: 0 };
    for (key, (timestamp, value)) in &last {
        let (key, value, timestamp) = (Some(key.as_slice()), Some(value.as_slice()), *timestamp);
        publisher.send(&Outgoing { to, key, value, timestamp, headers: &[] })?;
    }
    publisher.flush()?;
    Ok(last.len() as u64)
}
