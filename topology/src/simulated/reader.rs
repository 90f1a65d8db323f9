//! Reading partitions by offset, outside of any group.

use std::collections::BTreeMap;
use std::time::Duration;

use super::caller::Caller;
use super::cluster::Cluster;
use super::faults::Op;
use crate::broker::{Bounds, Reader, Result};
use crate::record::{Fetched, TopicPartition};

/// How far one partition was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pub next: u64,
    pub paused: bool,
    /// The broker has answered at least once.
    answered: bool,
}

impl Cursor {
    pub fn at(next: u64) -> Self {
        Self { next, paused: false, answered: false }
    }
}

/// Partitions being read, in turn: each poll begins with another one, so that none starves.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursors {
    pub at: BTreeMap<TopicPartition, Cursor>,
    turn: usize,
}

impl Cursors {
    /// Appends up to `max_records` committed records of the partitions that `wanted` lets through and that are not paused.
    pub fn fetch(
        &mut self,
        cluster: &Cluster,
        into: &mut Fetched,
        max_records: usize,
        wanted: impl Fn(&TopicPartition) -> bool,
    ) -> Result<()> {
        let count = self.at.len();
        if count == 0 {
            return Ok(());
        }
        self.turn = (self.turn + 1) % count;
        let full = into.len().saturating_add(max_records);
        let keys: Vec<TopicPartition> = self.at.keys().copied().collect();
        for partition in keys.iter().cycle().skip(self.turn).take(count) {
            let Some(cursor) = self.at.get_mut(partition).filter(|cursor| !cursor.paused && wanted(partition)) else { continue };
            if into.len() >= full {
                break;
            }
            cluster.check_offset(*partition, cursor.next)?;
            let room = full - into.len();
            cursor.next = cluster.log(*partition)?.read(cursor.next, room, |offset, payload| {
                let (key, value) = (payload.key.as_deref(), payload.value.as_deref());
                into.push(*partition, offset, payload.timestamp, key, value, payload.headers());
            });
            cursor.answered = true;
        }
        Ok(())
    }
}

/// A reader of the simulated broker.
pub struct SimReader {
    caller: Caller,
    cursors: Cursors,
}

impl SimReader {
    pub(super) fn new(caller: Caller) -> Self {
        Self { caller, cursors: Cursors::default() }
    }
}

impl Reader for SimReader {
    fn assign(&mut self, partition: TopicPartition, from: u64) -> Result<()> {
        self.caller.check_alive()?;
        self.caller.shared.cluster().check_offset(partition, from)?;
        self.cursors.at.insert(partition, Cursor::at(from));
        Ok(())
    }

    fn unassign(&mut self, partition: TopicPartition) -> Result<()> {
        self.caller.check_alive()?;
        self.cursors.at.remove(&partition);
        Ok(())
    }

    fn bounds(&mut self, partition: TopicPartition) -> Result<Bounds> {
        self.caller.call(Op::ReaderBounds, |cluster| cluster.bounds(partition))
    }

    fn poll(&mut self, into: &mut Fetched, max_records: usize, _wait: Duration) -> Result<()> {
        let cursors = &mut self.cursors;
        self.caller.fetch(Op::ReaderPoll, |cluster| cursors.fetch(cluster, into, max_records, |_| true))
    }

    fn position(&self, partition: TopicPartition) -> Option<u64> {
        self.cursors.at.get(&partition).filter(|cursor| cursor.answered).map(|cursor| cursor.next)
    }
}
