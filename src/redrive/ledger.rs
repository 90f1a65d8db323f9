//! Which dead letters were redriven: a topic with one record for each transaction of redriving.
//!
//! Format of a record: JSON, `{"partition": 3, "offsets": [[10, 12], [15, 16]]}`: half-open ranges of offsets in that partition of the
//! dead letters. Kept for ever: it is small, and what it forgets could be redriven twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use topology::broker::{BrokerError, Reaction, Reader, Result};
use topology::record::TopicPartition;

use crate::exclusive;

#[derive(Serialize, Deserialize)]
struct Entry {
    partition: u32,
    offsets: Vec<(u64, u64)>,
}

/// What was redriven.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By partition, ranges by their first offset; they do not overlap.
    done: BTreeMap<u32, BTreeMap<u64, u64>>,
}

impl Ledger {
    /// Reads the whole topic.
    pub fn read<R: Reader>(reader: &mut R, at: TopicPartition) -> Result<Self> {
        let mut ledger = Self::default();
        let bounds = reader.bounds(at)?;
        exclusive::read(reader, at, bounds.start, bounds.end, |fetched, _| {
            for record in fetched.iter() {
                let entry: Entry = serde_json::from_slice(record.value.unwrap_or_default()).map_err(|why| {
                    let what = format!("record {} of the ledger of redriven letters cannot be read: {why}", record.offset);
                    BrokerError::new(Reaction::Stop, what)
                })?;
                ledger.done.entry(entry.partition).or_default().extend(entry.offsets);
            }
            Ok(())
        })?;
        Ok(ledger)
    }

    /// True where this letter was redriven.
    pub fn has(&self, partition: u32, offset: u64) -> bool {
        let range = self.done.get(&partition).and_then(|ranges| ranges.range(..=offset).next_back());
        range.is_some_and(|(_, &end)| offset < end)
    }

    /// The record that says that these offsets, in rising order, were redriven.
    pub fn entry(partition: u32, offsets: &[u64]) -> Vec<u8> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for &offset in offsets {
            match ranges.last_mut() {
                Some((_, end)) if *end == offset => *end += 1,
                _ => ranges.push((offset, offset + 1)),
            }
        }
        serde_json::to_vec(&Entry { partition, offsets: ranges }).expect("invariant: numbers are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_what_was_redriven() {
        let bytes = Ledger::entry(3, &[1, 2, 3, 7, 9, 10]);
        assert_eq!(bytes, br#"{"partition":3,"offsets":[[1,4],[7,8],[9,11]]}"#);
        let entry: Entry = serde_json::from_slice(&bytes).expect("an entry");
        let ledger = Ledger { done: BTreeMap::from([(entry.partition, entry.offsets.into_iter().collect())]) };
        let has: Vec<u64> = (0..12).filter(|&offset| ledger.has(3, offset)).collect();
        assert_eq!(has, [1, 2, 3, 7, 9, 10]);
        assert!(!ledger.has(2, 1));
    }
}
