//! A simulated disk: what `state`'s port asks, with RocksDB's ways to lose things.
//!
//! As with a write-ahead log that is not synced, what was written survives the process, and a power loss takes a tail of whole batches
//! (one that was half on its way is torn, and RocksDB drops it whole). A probe is asked at every operation and may let it fail.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use state::backend::{Backend, BackendError, Peeked, Positions, Result, Size, StorePartition, WriteSet};
use state::memory::MemoryBackend;

use super::steps::Step;

/// How an operation of the disk goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// The process dies before, or after, it is done.
    Crash { done: bool },
    /// No space is left.
    Full,
    /// What is read was damaged; it stays so until the partition is dropped.
    Damage,
    /// It cannot be opened.
    Refused,
}

/// What the simulation is asked before each operation, and told after each write.
pub trait Probe: Send + Sync {
    fn before(&self, step: Step, partition: &StorePartition) -> Option<Mishap>;
    fn writing(&self, set: &WriteSet);
}

/// What the halt of an instance that a mishap killed says.
pub const CRASHED: &str = "the simulation crashed this instance";
pub const FULL: &str = "no space left on the simulated disk";
pub const REFUSED: &str = "the simulated disk cannot be opened";

#[derive(Debug)]
enum Entry {
    Write(WriteSet),
    Open(StorePartition),
    Drop(StorePartition),
}

#[derive(Debug, Default)]
struct Platter {
    /// What reads see.
    live: MemoryBackend,
    /// What a power loss leaves for certain.
    synced: MemoryBackend,
    /// What lies between the two, in order.
    unsynced: Vec<Entry>,
    damaged: BTreeSet<StorePartition>,
}

impl Platter {
    fn apply(on: &MemoryBackend, entry: &Entry) -> Result<()> {
        match entry {
            Entry::Write(set) => on.write(set),
            Entry::Open(partition) => on.open(partition).map(drop),
            Entry::Drop(partition) => on.drop_partition(partition),
        }
    }

    fn append(&mut self, entry: Entry) -> Result<()> {
        Self::apply(&self.live, &entry)?;
        self.unsynced.push(entry);
        Ok(())
    }

    fn sync(&mut self) {
        for entry in self.unsynced.drain(..) {
            Self::apply(&self.synced, &entry).expect("invariant: it was applied to the live part in this order");
        }
    }
}

/// One machine's disk; it outlives the processes that use it. Clones share it.
#[derive(Clone, Default)]
pub struct Disk {
    platter: Arc<Mutex<Platter>>,
    probe: Option<Arc<dyn Probe>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

impl Disk {
    /// The same disk as a process sees it that the simulation watches.
    pub fn watched(&self, probe: Arc<dyn Probe>) -> Self {
        Self { platter: Arc::clone(&self.platter), probe: Some(probe) }
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was written is on the platter for good, as after a flush.
    pub fn sync(&self) {
        self.platter().sync();
    }

    /// How many batches a power loss can take.
    pub fn unsynced(&self) -> usize {
        self.platter().unsynced.len()
    }

    /// The power goes: all but the first `keep` batches not yet synced are lost.
    pub fn lose_power(&self, keep: usize) {
        let mut platter = self.platter();
        platter.unsynced.truncate(keep);
        platter.sync();
        platter.live = copy(&platter.synced);
    }

    /// Forgets damage that nobody has met.
    pub fn heal(&self) {
        self.platter().damaged.clear();
    }

    /// Everything is gone.
    pub fn wipe(&self) {
        *self.platter() = Platter::default();
    }

    fn ask(&self, step: Step, partition: &StorePartition) -> Result<bool> {
        match self.probe.as_ref().and_then(|probe| probe.before(step, partition)) {
            None => Ok(false),
            Some(Mishap::Crash { done: true }) => Ok(true),
            Some(Mishap::Crash { done: false }) => Err(crashed()),
            Some(Mishap::Full) => Err(BackendError::Write(FULL.into())),
            Some(Mishap::Refused) => Err(BackendError::Unusable(REFUSED.into())),
            Some(Mishap::Damage) => {
                self.platter().damaged.insert(partition.clone());
                Ok(false)
            }
        }
    }

    fn read(&self, partition: &StorePartition) -> Result<MemoryBackend> {
        let platter = self.platter();
        if platter.damaged.contains(partition) {
            let what = "checksum mismatch (simulated)".to_owned();
            return Err(BackendError::Corrupt { partition: partition.clone(), what });
        }
        Ok(platter.live.clone())
    }
}

fn crashed() -> BackendError {
    BackendError::Unusable(CRASHED.into())
}

fn died<T>(value: T, dies: bool) -> Result<T> {
    if dies { Err(crashed()) } else { Ok(value) }
}

/// A copy that shares nothing.
fn copy(from: &MemoryBackend) -> MemoryBackend {
    let (to, mut set) = (MemoryBackend::new(), WriteSet::default());
    for partition in from.partitions().expect("memory answers") {
        to.open(&partition).expect("memory answers");
        set.begin(partition.clone());
        let put = &mut |key: &[u8], value: &[u8]| {
            set.change(key, Some(value));
            true
        };
        from.scan(&partition, None, usize::MAX, put).expect("it is open");
        if let Some(positions) = from.positions(&partition).expect("memory answers") {
            set.positions(positions);
        }
    }
    to.write(&set).expect("all of it is open");
    to
}

impl Backend for Disk {
    fn open(&self, partition: &StorePartition) -> Result<Option<Positions>> {
        let dies = self.ask(Step::StoreOpen, partition)?;
        let mut platter = self.platter();
        if platter.live.positions(partition)?.is_none() {
            platter.append(Entry::Open(partition.clone()))?;
        }
        let positions = platter.live.positions(partition)?;
        died(positions, dies)
    }

    fn positions(&self, partition: &StorePartition) -> Result<Option<Positions>> {
        self.platter().live.positions(partition)
    }

    fn get_from(&self, partition: &StorePartition, key: &[u8]) -> Result<Option<(Vec<u8>, Option<&'static str>)>> {
        self.read(partition)?.get_from(partition, key)
    }

    fn peek(&self, partition: &StorePartition, key: &[u8]) -> Result<Peeked> {
        self.read(partition)?.peek(partition, key)
    }

    fn multi_get(&self, partition: &StorePartition, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        self.ask(Step::Prefetch, partition)?;
        self.read(partition)?.multi_get(partition, keys, found)
    }

    fn write(&self, set: &WriteSet) -> Result<()> {
        let changes = set.parts().any(|part| part.changes().next().is_some());
        self.put(if changes { Step::StoreWrite } else { Step::RestoreFinish }, set)
    }

    fn load(&self, set: &WriteSet) -> Result<()> {
        self.put(Step::RestoreWrite, set)
    }

    fn drop_partition(&self, partition: &StorePartition) -> Result<()> {
        let dies = self.ask(Step::StoreDrop, partition)?;
        let mut platter = self.platter();
        platter.damaged.remove(partition);
        platter.append(Entry::Drop(partition.clone()))?;
        died((), dies)
    }

    fn scan(
        &self,
        partition: &StorePartition,
        after: Option<&[u8]>,
        limit: usize,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        self.read(partition)?.scan(partition, after, limit, each)
    }

    fn partitions(&self) -> Result<Vec<StorePartition>> {
        self.platter().live.partitions()
    }

    fn size(&self, partition: &StorePartition) -> Result<Size> {
        self.platter().live.size(partition)
    }

    fn revive(&self) -> Result<()> {
        Ok(())
    }

    fn compact(&self, partition: &StorePartition) -> Result<()> {
        self.platter().live.compact(partition)
    }

    fn evict_staged(&self, _: &StorePartition) -> Result<u64> {
        Ok(0)
    }
}

impl Disk {
    fn put(&self, step: Step, set: &WriteSet) -> Result<()> {
        let Some(first) = set.parts().next() else { return Ok(()) };
        let dies = self.ask(step, first.partition())?;
        if let Some(probe) = &self.probe {
            probe.writing(set);
        }
        self.platter().append(Entry::Write(set.clone()))?;
        died((), dies)
    }
}

#[cfg(test)]
mod tests {
    use state::conformance::{partition, positions, reopening, set_of, suite};

    use super::*;

    #[test]
    fn conforms() {
        suite(Disk::default);
        let disk = Disk::default();
        reopening(|| disk.clone(), drop);
    }

    #[test]
    fn a_power_loss_takes_a_tail_of_whole_batches() {
        for keep in 0..4 {
            let disk = Disk::default();
            disk.open(&partition(0)).unwrap();
            disk.write(&set_of(&partition(0), &[(b"a", Some(b"0"))], Some(0))).unwrap();
            disk.sync();
            for n in 1..4_u64 {
                let value = n.to_string();
                disk.write(&set_of(&partition(0), &[(b"a", Some(value.as_bytes())), (b"b", None)], Some(n))).unwrap();
            }
            disk.lose_power(keep);
            assert_eq!(disk.get(&partition(0), b"a").unwrap(), Some(keep.to_string().into_bytes()));
            assert_eq!(disk.positions(&partition(0)).unwrap(), Some(positions(keep as u64)), "positions go with their data");
        }
    }
}
