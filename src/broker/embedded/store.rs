//! The broker's RocksDB: names, keys and options. Nothing here knows what a group or a transaction is.
//!
//! Layout: partition `p` of topic `t` is the column family `t/p`: big-endian first offset -> [`super::batch`]. The default one holds the
//! rest under keys of parts ended by NUL (names hold none), values by `state::codec`:
//!
//! ```text
//! format                     u32 = 1
//! topic NUL name             `TopicMeta`
//! log NUL topic/partition    `LogMeta`, once retention or compaction has been there
//! offset NUL group NUL topic NUL partition      u64, the next offset to read
//! epoch NUL transactional id                    u64
//! ```
//!
//! Why a batch as one value: appends cost half of what a key per record costs, reads a quarter. Why a column family per partition: its
//! files hold offsets in order, so compaction moves them instead of rewriting them, and retention drops whole files. Why lz4 at every
//! level and not at the last one only, as the state has it: a log is written once and moved down as it is, so bytes written fall from
//! 2.0 to 1.3 times the data, cold reads double, and the append itself costs the same (docs/performance.md).

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ChecksumType, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, DBWithThreadMode,
    LogLevel, MultiThreaded, Options, ReadOptions, WriteBatch, WriteBufferManager, WriteOptions,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use state::codec;
use topology::broker::{Cleanup, Result};

use super::{Durability, EmbeddedOptions, stop};

pub(super) type Db = DBWithThreadMode<MultiThreaded>;

const FORMAT: u32 = 1;

/// What is said of a folder that is in use.
pub const HELD: &str = "another process holds it";

/// A topic as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TopicMeta {
    pub partitions: u32,
    pub max_message_bytes: Option<u32>,
    compact: bool,
    /// Of records where `compact` is false, of tombstones where it is true.
    retention_ms: Option<u64>,
}

impl TopicMeta {
    pub fn new(partitions: u32, max_message_bytes: Option<u32>, cleanup: Cleanup) -> Self {
        let (compact, retention_ms) = match cleanup {
            Cleanup::Compact { tombstone_retention_ms } => (true, Some(tombstone_retention_ms)),
            Cleanup::Delete { retention_ms } => (false, retention_ms),
        };
        Self { partitions, max_message_bytes, compact, retention_ms }
    }

    pub fn cleanup(&self) -> Cleanup {
        if self.compact {
            Cleanup::Compact { tombstone_retention_ms: self.retention_ms.unwrap_or_default() }
        } else {
            Cleanup::Delete { retention_ms: self.retention_ms }
        }
    }
}

/// What a partition's batches don't tell about it any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogMeta {
    /// The first offset still retained.
    pub start: u64,
    /// The end is at least here, whatever has been removed.
    pub end_floor: u64,
    /// Up to here each key comes once.
    pub clean_until: u64,
    /// How many records were left below `clean_until`.
    pub clean_records: u64,
}

/// Keys of the default column family.
pub(super) mod key {
    /// Parts with a NUL behind each.
    fn of(parts: &[&str]) -> Vec<u8> {
        let mut key = Vec::new();
        for part in parts {
            debug_assert!(!part.contains('\0'), "checked where names come in");
            key.extend_from_slice(part.as_bytes());
            key.push(0);
        }
        key
    }

    pub fn format() -> Vec<u8> {
        of(&["format"])
    }

    pub fn topic(name: &str) -> Vec<u8> {
        of(&["topic", name])
    }

    pub fn log(family: &str) -> Vec<u8> {
        of(&["log", family])
    }

    pub fn offset(group: &str, topic: &str, partition: u32) -> Vec<u8> {
        of(&["offset", group, topic, &partition.to_string()])
    }

    pub fn epoch(transactional_id: &str) -> Vec<u8> {
        of(&["epoch", transactional_id])
    }

    /// The parts after the first, where that is `kind`.
    pub fn parts<'a>(kind: &str, key: &'a [u8]) -> Option<Vec<&'a str>> {
        let mut parts = std::str::from_utf8(key).ok()?.strip_suffix('\0')?.split('\0');
        (parts.next()? == kind).then(|| parts.collect())
    }
}

/// The column family of a partition.
pub(super) fn family_name(topic: &str, partition: u32) -> String {
    format!("{topic}/{partition}")
}

/// RocksDB with the broker's options.
pub(super) struct Store {
    pub db: Db,
    commit: WriteOptions,
    cache: Cache,
}

impl Store {
    /// Opens or makes it. RocksDB's own lock keeps other processes out.
    pub fn open(path: &Path, options: &EmbeddedOptions) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| stop(format!("the embedded broker at {}: {error}", path.display()));
        std::fs::create_dir_all(path).map_err(|error| failed(&error))?;
        let cache = Cache::new_lru_cache(options.memory_bytes.max(16 << 20));
        let database = database(options, &cache);
        let names = if path.join("CURRENT").exists() {
            DB::list_cf(&database, path).map_err(|error| failed(&error))?
        } else {
            vec![rocksdb::DEFAULT_COLUMN_FAMILY_NAME.to_owned()]
        };
        let families = names.iter().map(|name| ColumnFamilyDescriptor::new(name, log(&cache)));
        let db = Db::open_cf_descriptors(&database, path, families).map_err(|error| {
            if ["While lock file", "lock hold by current process"].iter().any(|words| error.as_ref().contains(words)) {
                let advice = "One process serves an embedded broker; others reach it over HTTP";
                return stop(format!("the embedded broker at {}: {HELD}. {advice} ({error})", path.display()));
            }
            failed(&error)
        })?;
        let mut commit = WriteOptions::default();
        commit.set_sync(options.durability == Durability::Commit);
        let store = Self { db, commit, cache };
        match store.get::<u32>(&key::format())? {
            Some(FORMAT) => {}
            Some(other) => {
                return Err(stop(format!(
                    "the embedded broker at {} has format {other}, this program knows {FORMAT}",
                    path.display()
                )));
            }
            None => store.put_synced(&key::format(), &FORMAT)?,
        }
        Ok(store)
    }

    /// One value of the default column family.
    pub fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>> {
        let bytes = self.db.get(key).map_err(|error| stop(format!("the embedded broker's disk: {error}")))?;
        bytes.map(|bytes| decode(key, &bytes)).transpose()
    }

    /// Puts a value that must be there after anything.
    pub fn put_synced<T: Serialize>(&self, key: &[u8], value: &T) -> Result<()> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        self.db
            .put_opt(key, encode(value), &synced)
            .map_err(|error| stop(format!("a write of the embedded broker failed: {error}")))
    }

    /// All of a kind of key, with the parts after the kind.
    pub fn all<T: DeserializeOwned>(&self, kind: &str, mut each: impl FnMut(&[&str], T)) -> Result<()> {
        let mut at = self.db.raw_iterator();
        at.seek(format!("{kind}\0"));
        while let Some((key, value)) = at.item() {
            let Some(parts) = key::parts(kind, key) else { break };
            each(&parts, decode(key, value)?);
            at.next();
        }
        at.status().map_err(|error| stop(format!("the embedded broker's disk: {error}")))
    }

    pub fn create_family(&self, name: &str) -> Result<()> {
        if self.db.cf_handle(name).is_some() {
            return Ok(());
        }
        self.db.create_cf(name, &log(&self.cache)).map_err(|error| stop(format!("creating {name}: {error}")))
    }

    /// Writes all of it or nothing, as durable as the options say. RocksDB lets writers that come at the same time share a sync.
    pub fn write(&self, batch: WriteBatch) -> std::result::Result<(), rocksdb::Error> {
        self.db.write_opt(batch, &self.commit)
    }

    /// A copy of everything committed, as hard links where the file system lets it.
    pub fn checkpoint(&self, to: &Path) -> Result<()> {
        rocksdb::checkpoint::Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(to))
            .map_err(|error| stop(format!("backup to {}: {error}", to.display())))
    }
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(value, &mut bytes);
    bytes
}

fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T> {
    codec::decode(bytes).map_err(|error| stop(format!("the embedded broker's {}: {error}", key.escape_ascii())))
}

/// Reads a log up to `end`.
pub(super) fn read_options(end: u64) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(end.to_be_bytes());
    options
}

fn database(options: &EmbeddedOptions, cache: &Cache) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    let memtables = options.memory_bytes.max(16 << 20) / 2;
    database.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager_with_cache(memtables, false, cache.clone()));
    database.set_max_background_jobs(2);
    database.set_max_total_wal_size(2 * memtables as u64);
    database.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    database.set_bytes_per_sync(1 << 20);
    database.set_keep_log_file_num(4);
    database.set_max_log_file_size(4 << 20);
    database.set_log_level(LogLevel::Warn);
    database
}

fn log(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_format_version(6);
    table.set_block_size(32 << 10);
    table.set_checksum_type(ChecksumType::XXH3);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    // All partitions fill at the same pace: small memtables would all flush at once and stall writers.
    options.set_write_buffer_size(64 << 20);
    options.set_max_write_buffer_number(4);
    // Hundreds of mostly idle partitions should not hold a megabyte each.
    options.set_arena_block_size(64 << 10);
    options
}
