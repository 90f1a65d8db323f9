//! A worker's way to the store, which can be shut behind it: one that was given up must not write when it wakes up (I1).

use std::sync::{Arc, PoisonError, RwLock};

use state::backend::{Backend, BackendError, Positions, Result, Size, StorePartition, WriteSet};

/// The same backend until it is shut; then it is only read.
#[derive(Debug)]
pub(super) struct Gate {
    inner: Arc<dyn Backend>,
    shut: RwLock<bool>,
}

impl Gate {
    pub(super) fn new(inner: &Arc<dyn Backend>) -> Self {
        Self { inner: Arc::clone(inner), shut: RwLock::new(false) }
    }

    /// Shuts it; false where a write is under way that does not end.
    pub(super) fn shut(&self) -> bool {
        match self.shut.try_write() {
            Ok(mut shut) => *shut = true,
            Err(std::sync::TryLockError::Poisoned(shut)) => *shut.into_inner() = true,
            Err(std::sync::TryLockError::WouldBlock) => return false,
        }
        true
    }

    pub(super) fn is_shut(&self) -> bool {
        *self.shut.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn through<T>(&self, write: impl FnOnce(&dyn Backend) -> Result<T>) -> Result<T> {
        let shut = self.shut.read().unwrap_or_else(PoisonError::into_inner);
        if *shut {
            Err(BackendError::Write("this worker was given up, and others have its partitions".into()))
        } else {
            write(&*self.inner)
        }
    }
}

impl Backend for Gate {
    fn open(&self, partition: &StorePartition) -> Result<Option<Positions>> {
        self.through(|inner| inner.open(partition))
    }

    fn positions(&self, partition: &StorePartition) -> Result<Option<Positions>> {
        self.inner.positions(partition)
    }

    fn get(&self, partition: &StorePartition, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.get(partition, key)
    }

    fn get_from(&self, partition: &StorePartition, key: &[u8]) -> Result<Option<(Vec<u8>, Option<&'static str>)>> {
        self.inner.get_from(partition, key)
    }

    fn multi_get(&self, partition: &StorePartition, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        self.inner.multi_get(partition, keys, found)
    }

    fn write(&self, set: &WriteSet) -> Result<()> {
        self.through(|inner| inner.write(set))
    }

    fn load(&self, set: &WriteSet) -> Result<()> {
        self.through(|inner| inner.load(set))
    }

    fn revive(&self) -> Result<()> {
        self.through(Backend::revive)
    }

    fn drop_partition(&self, partition: &StorePartition) -> Result<()> {
        self.through(|inner| inner.drop_partition(partition))
    }

    fn scan(
        &self,
        partition: &StorePartition,
        after: Option<&[u8]>,
        limit: usize,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        self.inner.scan(partition, after, limit, each)
    }

    fn partitions(&self) -> Result<Vec<StorePartition>> {
        self.inner.partitions()
    }

    fn size(&self, partition: &StorePartition) -> Result<Size> {
        self.inner.size(partition)
    }

    fn evict_staged(&self, partition: &StorePartition) -> Result<u64> {
        self.through(|inner| inner.evict_staged(partition))
    }
}
