//! A [`Backend`] in memory: what tests and the test driver run on.
//!
//! Invariants: everything is ordered (no hash map), so that equal histories give equal scans; a [`WriteSet`] is applied under one
//! lock, so readers see all of it or nothing. Nothing outlives the value: a crash is the drop of it. Clones share their content, as two
//! handles on one store do.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::backend::{Backend, BackendError, Peeked, Positions, Result, Size, StorePartition, WriteSet};

/// Partitions in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    partitions: Arc<RwLock<BTreeMap<StorePartition, Content>>>,
    disk: Arc<Disk>,
}

/// The disk that it pretends to have.
#[derive(Debug)]
struct Disk {
    /// Bytes of keys and values that it takes.
    room: AtomicUsize,
    /// A write found no room: none is taken until it is revived.
    paused: AtomicBool,
}

impl Default for Disk {
    fn default() -> Self {
        Self { room: AtomicUsize::new(usize::MAX), paused: AtomicBool::new(false) }
    }
}

#[derive(Debug, Default)]
struct Content {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    positions: Option<Positions>,
}

impl MemoryBackend {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives it a disk of that many bytes of keys and values; none is one without end. Writes beyond it find the disk full.
    pub fn limit(&self, bytes: Option<usize>) {
        self.disk.room.store(bytes.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// The same content opened again, where there is room.
    ///
    /// # Errors
    /// [`BackendError::Paused`] where the disk is still full.
    pub fn reopened(&self) -> Result<Self> {
        self.revive().map(|()| self.clone())
    }

    fn full(&self) -> BackendError {
        self.disk.paused.store(true, Ordering::Relaxed);
        BackendError::Paused("the disk is full".into())
    }

    // A panic elsewhere can't leave a half-applied set behind: `write` checks before it changes anything.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<StorePartition, Content>> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, BTreeMap<StorePartition, Content>> {
        self.partitions.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R>(&self, partition: &StorePartition, look: impl FnOnce(&Content) -> R) -> Result<R> {
        self.read().get(partition).map(look).ok_or_else(|| not_open(partition))
    }
}

impl Content {
    fn bytes(&self) -> usize {
        self.values.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

fn used(partitions: &BTreeMap<StorePartition, Content>) -> usize {
    partitions.values().map(Content::bytes).sum()
}

fn not_open(partition: &StorePartition) -> BackendError {
    BackendError::Unusable(format!("{partition} was not opened"))
}

impl Backend for MemoryBackend {
    fn open(&self, partition: &StorePartition) -> Result<Option<Positions>> {
        Ok(self.change().entry(partition.clone()).or_default().positions.clone())
    }

    fn positions(&self, partition: &StorePartition) -> Result<Option<Positions>> {
        Ok(self.read().get(partition).and_then(|content| content.positions.clone()))
    }

    fn get_from(&self, partition: &StorePartition, key: &[u8]) -> Result<Option<(Vec<u8>, Option<&'static str>)>> {
        self.with(partition, |content| content.values.get(key).map(|value| (value.clone(), None)))
    }

    fn peek(&self, partition: &StorePartition, key: &[u8]) -> Result<Peeked> {
        self.get(partition, key).map(Peeked::Here)
    }

    fn multi_get(&self, partition: &StorePartition, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        self.with(partition, |content| {
            for (at, &key) in keys.iter().enumerate() {
                found(at, content.values.get(key).map(Vec::as_slice));
            }
        })
    }

    fn write(&self, set: &WriteSet) -> Result<()> {
        let mut partitions = self.change();
        if let Some(part) = set.parts().find(|part| !partitions.contains_key(part.partition())) {
            return Err(not_open(part.partition()));
        }
        let room = self.disk.room.load(Ordering::Relaxed);
        if self.disk.paused.load(Ordering::Relaxed) || (room < usize::MAX && used(&partitions) + set.bytes() > room) {
            return Err(self.full());
        }
        for part in set.parts() {
            let content = partitions.get_mut(part.partition()).expect("invariant: checked just above");
            for (key, value) in part.changes() {
                match value {
                    Some(value) => content.values.insert(key.to_vec(), value.to_vec()),
                    None => content.values.remove(key),
                };
            }
            if let Some(positions) = part.positions() {
                content.positions = Some(positions.clone());
            }
        }
        Ok(())
    }

    fn load(&self, set: &WriteSet) -> Result<()> {
        self.write(set)
    }

    fn revive(&self) -> Result<()> {
        if self.disk.paused.load(Ordering::Relaxed) && used(&self.read()) >= self.disk.room.load(Ordering::Relaxed) {
            return Err(self.full());
        }
        self.disk.paused.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn drop_partition(&self, partition: &StorePartition) -> Result<()> {
        self.change().remove(partition);
        Ok(())
    }

    fn scan(
        &self,
        partition: &StorePartition,
        after: Option<&[u8]>,
        limit: usize,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        self.with(partition, |content| {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            for (key, value) in content.values.range::<[u8], _>((from, Bound::Unbounded)).take(limit) {
                if !each(key, value) {
                    break;
                }
            }
        })
    }

    fn partitions(&self) -> Result<Vec<StorePartition>> {
        Ok(self.read().keys().cloned().collect())
    }

    fn size(&self, partition: &StorePartition) -> Result<Size> {
        self.with(partition, |content| Size { keys: content.values.len() as u64, bytes: content.bytes() as u64 })
    }

    /// Nothing that was overwritten is kept.
    fn compact(&self, partition: &StorePartition) -> Result<()> {
        self.with(partition, |_| ())
    }

    fn evict_staged(&self, _: &StorePartition) -> Result<u64> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        crate::conformance::suite(MemoryBackend::new);
    }
}
