//! A worker's way to the store, which can be shut behind it: one that was given up must not write when it wakes up (I1).

use std::sync::{Arc, PoisonError, RwLock};

use state::backend::{Backend, BackendError, Result};

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

    fn read<T>(&self, read: impl FnOnce(&dyn Backend) -> Result<T>) -> Result<T> {
        read(&*self.inner)
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
    state::pass_on!(read: positions, get_from, peek, multi_get, scan, partitions, size);
    state::pass_on!(through: open, write, load, revive, drop_partition, compact, evict_staged);
}

#[cfg(test)]
mod tests {
    use state::conformance::{partition, set_of, suite};
    use state::memory::MemoryBackend;
    use state::rocks::{RocksBackend, RocksOptions};

    use super::*;

    fn gate(inner: impl Backend) -> Gate {
        Gate::new(&(Arc::new(inner) as Arc<dyn Backend>))
    }

    /// On RocksDB, where a call that is not passed on (compaction, say) shows.
    #[test]
    fn conforms_while_it_is_open() {
        let root = tempfile::tempdir().expect("a folder");
        let options = RocksOptions { memory_bytes: 16 << 20, partitions: 4, background_jobs: 2 };
        let mut lives = 0;
        suite(|| {
            lives += 1;
            gate(RocksBackend::open(&root.path().join(lives.to_string()), options).expect("opens"))
        });
    }

    #[test]
    fn shut_it_is_only_read() {
        let here = partition(0);
        let gate = gate(MemoryBackend::new());
        gate.open(&here).expect("open");
        gate.write(&set_of(&here, &[(b"a", Some(b"1"))], Some(1))).expect("open");
        assert!(gate.shut() && gate.is_shut());
        let set = set_of(&here, &[(b"a", Some(b"2"))], Some(2));
        let changes = [
            gate.write(&set),
            gate.load(&set),
            gate.revive(),
            gate.drop_partition(&here),
            gate.compact(&here),
            gate.evict_staged(&here).map(|_| ()),
            gate.open(&partition(1)).map(|_| ()),
        ];
        assert!(changes.iter().all(|change| matches!(change, Err(BackendError::Write(_)))), "{changes:?}");
        assert_eq!(gate.get(&here, b"a"), Ok(Some(b"1".to_vec())));
        assert_eq!(gate.partitions(), Ok(vec![here]));
    }
}
