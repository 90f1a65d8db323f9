//! The [`Backend`] on RocksDB: one database per instance, a column family per store partition.
//!
//! Format: partition `p` of store `s` is the column family `s-p`. A key on disk is the big-endian XXH3-64 of the caller's key
//! (eight bytes, the memtable's bucket), then the caller's key. The default column family holds the [`Positions`], encoded, under the name of
//! their partition. What `load` writes lies in `<path>/ingest/` until RocksDB takes the file over.
//!
//! Invariants:
//! - Positions are never ahead of data. A write puts both in one batch; a load puts positions after its file is in; creating a
//!   column family first erases, synced, whatever positions a partition of that name had before.
//! - The log is written and not synced: a crash of the process loses nothing, one of the machine a tail of whole batches.
//! - After a failed write every later one fails with the same words, until the store is opened again (I7). Reads go on. Where the disk
//!   was full or a damaged partition is to be dropped, opening it again mends it ([`BackendError::Paused`], [`crate::reopening`]).
//! - Damage met by a write or by compaction is remembered in `<path>/DAMAGED`: the next open drops that partition, which is then
//!   restored, and doesn't meet the same block again for ever. Damage to what belongs to all (positions, a file's footer) costs all of them.
//!
//! Limits: memory is one number for block cache, indexes, filters and memtables ([`RocksOptions::memory_bytes`]), whatever the number
//! of partitions. A partition is used by one writer at a time; readers are free.
//! Why this layout: shared measurements in `docs/performance.md` (a hash memtable alone halves the CPU of a commit).

mod apply;
mod damage;
mod flushing;
mod inspect;
mod options;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rocksdb::{
    BoundColumnFamily, ColumnFamilyDescriptor, DB, DBWithThreadMode, ErrorKind, MultiThreaded, ReadOptions, ReadTier, WriteBatch,
    WriteOptions,
};

use damage::{refused, refused_file};
use flushing::Flushing;
pub use inspect::{keys, positions};
pub use options::RocksOptions;
use options::Tuning;

use crate::backend::{Backend, BackendError, Peeked, Positions, Result, Size, StorePartition, WriteSet};
use crate::codec;

type Db = DBWithThreadMode<MultiThreaded>;
type Family<'a> = Arc<BoundColumnFamily<'a>>;

const HASH_BYTES: usize = 8;
const POSITIONS_FAMILY: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;

/// State in RocksDB.
pub struct RocksBackend {
    db: Db,
    tuning: Tuning,
    path: PathBuf,
    /// The first failed write, repeated by all that follow.
    poison: OnceLock<BackendError>,
    /// The partitions there are: RocksDB doesn't tell.
    partitions: Mutex<BTreeSet<StorePartition>>,
    /// Numbers the files of `load`.
    next_file: AtomicU64,
    flushing: Flushing,
    /// What opening it dropped.
    dropped: Vec<StorePartition>,
}

impl fmt::Debug for RocksBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksBackend").field("path", &self.path).field("poison", &self.poison).finish_non_exhaustive()
    }
}

impl RocksBackend {
    /// Opens the state in this folder, or makes it.
    ///
    /// # Errors
    /// [`BackendError::Unusable`]: RocksDB refuses what is there. [`BackendError::Denied`]: another process holds the folder, or it is
    /// not ours to write. [`BackendError::Paused`]: the disk is full.
    pub fn open(path: &Path, options: RocksOptions) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(|error| refused_file(path, &error))?;
        let tuning = Tuning::new(options);
        let names = if path.join("CURRENT").exists() {
            DB::list_cf(&tuning.database(), path).map_err(|error| refused(path, &error))?
        } else {
            vec![POSITIONS_FAMILY.to_owned()]
        };
        let families = names.iter().map(|name| {
            let options = if name == POSITIONS_FAMILY { tuning.positions() } else { tuning.partition() };
            ColumnFamilyDescriptor::new(name, options)
        });
        let db = Db::open_cf_descriptors(&tuning.database(), path, families).map_err(|error| refused(path, &error))?;
        let ingest = path.join("ingest");
        // What a crashed load left: its positions were never written.
        let _ = std::fs::remove_dir_all(&ingest);
        std::fs::create_dir_all(&ingest).map_err(|error| refused_file(&ingest, &error))?;
        let mut backend = Self {
            db,
            tuning,
            path: path.to_owned(),
            poison: OnceLock::new(),
            partitions: Mutex::new(names.iter().filter_map(|name| parse(name)).collect()),
            next_file: AtomicU64::new(0),
            flushing: Flushing::default(),
            dropped: Vec::new(),
        };
        backend.dropped = backend.drop_damaged()?;
        backend.forget_orphans()?;
        backend.plan_flush();
        Ok(backend)
    }

    /// The partitions that an earlier life found damaged and that opening it has dropped.
    #[must_use]
    pub fn dropped(&self) -> &[StorePartition] {
        &self.dropped
    }

    /// RocksDB's own account of itself, for a person.
    #[must_use]
    pub fn stats(&self) -> String {
        let property = |name: &str| self.db.property_value(name).ok().flatten().unwrap_or_default();
        format!(
            "{}block cache {} bytes, pinned {} bytes, memtables {} of {} bytes\n",
            property("rocksdb.stats"),
            self.tuning.cache.get_usage(),
            self.tuning.cache.get_pinned_usage(),
            self.tuning.memtables.get_usage(),
            self.tuning.memtables.get_buffer_size(),
        )
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<StorePartition>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn family(&self, partition: &StorePartition) -> Result<Family<'_>> {
        self.db.cf_handle(&partition.to_string()).ok_or_else(|| BackendError::Unusable(format!("{partition} was not opened")))
    }

    fn read(
        &self,
        partition: &StorePartition,
        key: &[u8],
        options: &ReadOptions,
    ) -> Result<std::result::Result<Option<Vec<u8>>, rocksdb::Error>> {
        let family = self.family(partition)?;
        let mut on_disk = Vec::with_capacity(HASH_BYTES + key.len());
        disk_key(hash(key), key, &mut on_disk);
        Ok(self.db.get_cf_opt(&family, on_disk, options))
    }

    /// Positions that cannot be read are damage to their partition: without them it cannot be caught up.
    fn positions_of(&self, partition: &StorePartition) -> Result<Option<Positions>> {
        let bytes = self.db.get(partition.to_string()).map_err(|error| self.misread(partition, &error))?;
        let refused = |why: codec::CodecError| {
            let what = format!("{}: positions of {partition}: {why}", self.path.display());
            match why {
                codec::CodecError::UnknownVersion(_) => BackendError::Unusable(what),
                _ => BackendError::Corrupt { partition: partition.clone(), what },
            }
        };
        bytes.map(|bytes| codec::decode(&bytes).map_err(refused)).transpose()
    }

    /// Erases positions before their partition can come into being again: synced, because creating a column family is.
    fn erase_positions(&self, name: &str) -> Result<()> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        self.db.delete_opt(name, &synced).map_err(|error| self.failed(&error))
    }

    /// A crash between the two steps of dropping a partition leaves positions without data.
    fn forget_orphans(&self) -> Result<()> {
        let mut orphans = Vec::new();
        let mut at = self.db.raw_iterator();
        at.seek_to_first();
        while let Some(name) = at.key() {
            let name = String::from_utf8_lossy(name).into_owned();
            if self.db.cf_handle(&name).is_none() {
                orphans.push(name);
            }
            at.next();
        }
        at.status().map_err(|error| self.unreadable(&error))?;
        orphans.iter().try_for_each(|name| self.erase_positions(name))
    }

    fn unreadable(&self, error: &rocksdb::Error) -> BackendError {
        BackendError::Unusable(format!("{}: {error}", self.path.display()))
    }

    /// What a failed read of a partition means.
    fn misread(&self, partition: &StorePartition, error: &rocksdb::Error) -> BackendError {
        match error.kind() {
            ErrorKind::Corruption => BackendError::Corrupt { partition: partition.clone(), what: error.to_string() },
            _ => self.unreadable(error),
        }
    }
}

/// The key as it lies on disk, in `into`.
fn disk_key(hash: u64, key: &[u8], into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&hash.to_be_bytes());
    into.extend_from_slice(key);
}

/// Spreads keys over the memtable's buckets. Part of the format.
fn hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

impl Backend for RocksBackend {
    fn open(&self, partition: &StorePartition) -> Result<Option<Positions>> {
        let name = partition.to_string();
        let mut known = self.known();
        if known.contains(partition) {
            return self.positions_of(partition);
        }
        self.refuse_if_poisoned()?;
        self.erase_positions(&name)?;
        self.db.create_cf(&name, &self.tuning.partition()).map_err(|error| self.failed(&error))?;
        known.insert(partition.clone());
        Ok(None)
    }

    fn positions(&self, partition: &StorePartition) -> Result<Option<Positions>> {
        self.positions_of(partition)
    }

    fn get_from(&self, partition: &StorePartition, key: &[u8]) -> Result<Option<(Vec<u8>, Option<&'static str>)>> {
        let value = self.read(partition, key, &ReadOptions::default())?.map_err(|error| self.misread(partition, &error))?;
        Ok(value.map(|value| (value, None)))
    }

    fn peek(&self, partition: &StorePartition, key: &[u8]) -> Result<Peeked> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::BlockCache);
        match self.read(partition, key, &options)? {
            Ok(value) => Ok(Peeked::Here(value)),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Peeked::NotAtHand),
            Err(error) => Err(self.misread(partition, &error)),
        }
    }

    fn multi_get(&self, partition: &StorePartition, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        let family = self.family(partition)?;
        let mut arena = Vec::with_capacity(keys.iter().map(|key| HASH_BYTES + key.len()).sum());
        for key in keys {
            arena.extend_from_slice(&hash(key).to_be_bytes());
            arena.extend_from_slice(key);
        }
        let mut rest = arena.as_slice();
        let on_disk: Vec<&[u8]> = keys
            .iter()
            .map(|key| {
                let (this, others) = rest.split_at(HASH_BYTES + key.len());
                rest = others;
                this
            })
            .collect();
        let values = self.db.batched_multi_get_cf(&family, on_disk, false);
        for (at, value) in values.into_iter().enumerate() {
            let value = value.map_err(|error| self.misread(partition, &error))?;
            found(at, value.as_deref());
        }
        Ok(())
    }

    fn write(&self, set: &WriteSet) -> Result<()> {
        self.refuse_if_poisoned()?;
        let mut batch = WriteBatch::with_capacity_bytes(set.bytes() + 1024);
        for part in set.parts() {
            self.put_changes(&part, &mut batch)?;
            self.put_positions(&part, &mut batch);
        }
        self.db.write(batch).map_err(|error| self.failed(&error))?;
        self.flush_when_due(set.bytes() as u64);
        Ok(())
    }

    fn load(&self, set: &WriteSet) -> Result<()> {
        self.refuse_if_poisoned()?;
        if set.bytes() < apply::INGEST_FROM_BYTES {
            return self.write(set);
        }
        for part in set.parts() {
            self.ingest(&part)?;
            let mut batch = WriteBatch::default();
            self.put_positions(&part, &mut batch);
            self.db.write(batch).map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    fn drop_partition(&self, partition: &StorePartition) -> Result<()> {
        self.refuse_if_poisoned()?;
        let mut known = self.known();
        if known.remove(partition) {
            // Data first: a crash in between leaves positions without data, which the next open forgets; never data without positions.
            self.db.drop_cf(&partition.to_string()).map_err(|error| self.failed(&error))?;
        }
        self.erase_positions(&partition.to_string())
    }

    fn scan(
        &self,
        partition: &StorePartition,
        after: Option<&[u8]>,
        limit: usize,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        let family = self.family(partition)?;
        let mut options = ReadOptions::default();
        // Without it, a hash memtable's entries come in no order, silently.
        options.set_total_order_seek(true);
        options.fill_cache(false);
        let mut at = self.db.raw_iterator_cf_opt(&family, options);
        match after {
            None => at.seek_to_first(),
            Some(after) => {
                let mut on_disk = Vec::new();
                disk_key(hash(after), after, &mut on_disk);
                at.seek(&on_disk);
                if at.key() == Some(on_disk.as_slice()) {
                    at.next();
                }
            }
        }
        for _ in 0..limit {
            let Some((key, value)) = at.item() else { break };
            if !each(&key[HASH_BYTES..], value) {
                break;
            }
            at.next();
        }
        at.status().map_err(|error| self.misread(partition, &error))
    }

    fn partitions(&self) -> Result<Vec<StorePartition>> {
        Ok(self.known().iter().cloned().collect())
    }

    fn size(&self, partition: &StorePartition) -> Result<Size> {
        let family = self.family(partition)?;
        let number = |name: &str| {
            let value = self.db.property_int_value_cf(&family, name);
            value.map(Option::unwrap_or_default).map_err(|error| self.misread(partition, &error))
        };
        let files = number("rocksdb.live-sst-files-size")?;
        Ok(Size { keys: number("rocksdb.estimate-num-keys")?, bytes: files + number("rocksdb.cur-size-active-mem-table")? })
    }

    fn compact(&self, partition: &StorePartition) -> Result<()> {
        let family = self.family(partition)?;
        self.db.flush_cf(&family).map_err(|error| self.failed(&error))?;
        self.db.compact_range_cf(&family, None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    /// Opening it anew takes another value: [`crate::reopening`].
    fn revive(&self) -> Result<()> {
        Ok(())
    }

    fn evict_staged(&self, _: &StorePartition) -> Result<u64> {
        Ok(0)
    }
}

/// The partition that a column family holds.
fn parse(name: &str) -> Option<StorePartition> {
    let (store, partition) = name.rsplit_once('-')?;
    Some(StorePartition { store: store.into(), partition: partition.parse().ok()? })
}

#[cfg(test)]
mod tests;
