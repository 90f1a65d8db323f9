//! How RocksDB is set up: one budget of memory, a hash memtable, compression only where data rests.

use rocksdb::{
    BlockBasedOptions, Cache, ChecksumType, DBCompressionType, DBRecoveryMode, LogLevel, MemtableFactory, Options,
    SliceTransform, WriteBufferManager,
};

use super::HASH_BYTES;

/// What a user may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RocksOptions {
    /// Memory for blocks, indexes, filters and memtables together. Memtables get half of it at most, and 128 MiB.
    pub memory_bytes: usize,
    /// How many partitions (active ones and standbys) are expected: each memtable's bucket table is sized by it.
    pub partitions: usize,
    /// Threads for flushes and compactions.
    pub background_jobs: u16,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, partitions: 16, background_jobs: 2 }
    }
}

/// Memtables fill up whatever the machine has; beyond this they only hold what a file would hold as well.
const MEMTABLES_MAX: usize = 128 << 20;

/// The caches that all column families share, and the options made of them.
pub(super) struct Tuning {
    pub(super) cache: Cache,
    pub(super) memtables: WriteBufferManager,
    memtable_bytes: usize,
    buckets: usize,
    jobs: u16,
}

impl Tuning {
    pub(super) fn new(options: RocksOptions) -> Self {
        let memory = options.memory_bytes.max(8 << 20);
        let memtable_bytes = (memory / 2).min(MEMTABLES_MAX);
        let cache = Cache::new_lru_cache(memory);
        // Charged to the cache, so that the sum is bounded; not stalling, because a flush is always on its way.
        let memtables = WriteBufferManager::new_write_buffer_manager_with_cache(memtable_bytes, false, cache.clone());
        // Eight bytes a bucket: the tables of all memtables together take an eighth of their budget at most.
        let buckets = (memtable_bytes / 64 / options.partitions.max(1)).clamp(1 << 9, 50_000);
        Self { cache, memtables, memtable_bytes, buckets, jobs: options.background_jobs }
    }

    /// Of the whole database.
    pub(super) fn database(&self) -> Options {
        // Space laid out ahead of the log, a memtable's worth, would be most of what a small state takes.
        let plain = Options::default().get_options_from_string("allow_fallocate=false");
        let mut options = plain.expect("invariant: a setting that RocksDB has");
        options.create_if_missing(true);
        options.set_max_background_jobs(i32::from(self.jobs.max(1)));
        options.set_write_buffer_manager(&self.memtables);
        // The hash memtable can't be written concurrently, and this is a setting of the database.
        options.set_allow_concurrent_memtable_write(false);
        // A partition without traffic must not hold the log for ever; reopening needs this much free disk again. `flushing` is sooner.
        options.set_max_total_wal_size(2 * self.memtable_bytes as u64);
        // Stop at the first damaged record, and refuse to open if files are newer than what the log still has.
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_bytes_per_sync(1 << 20);
        // A thread for each of 16 files of each partition takes longer to start than the files take to open.
        options.set_max_file_opening_threads(4);
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(4 << 20);
        options.set_log_level(LogLevel::Warn);
        options
    }

    /// Of the column family of positions: small, ordered, rarely read.
    pub(super) fn positions(&self) -> Options {
        let mut options = Options::default();
        options.set_block_based_table_factory(&self.table());
        options.set_write_buffer_size(4 << 20);
        options
    }

    /// Of a partition's column family.
    pub(super) fn partition(&self) -> Options {
        let mut options = self.file();
        options.set_bottommost_compression_type(DBCompressionType::Lz4);
        // One less than its default: what is not merged yet is a share of the data (see `flushing`).
        options.set_level_zero_file_num_compaction_trigger(3);
        options.set_write_buffer_size((self.memtable_bytes / 2).clamp(1 << 20, 64 << 20));
        options.set_max_write_buffer_number(4);
        options.set_prefix_extractor(SliceTransform::create_fixed_prefix(HASH_BYTES));
        options.set_memtable_factory(MemtableFactory::HashLinkList { bucket_count: self.buckets });
        options
    }

    /// Of a file that `load` writes: not compressed, because it is merged soon, and writing it is what restore waits for.
    pub(super) fn file(&self) -> Options {
        let mut options = Options::default();
        options.set_block_based_table_factory(&self.table());
        options.set_compression_type(DBCompressionType::None);
        options
    }

    fn table(&self) -> BlockBasedOptions {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_format_version(6);
        table.set_checksum_type(ChecksumType::XXH3);
        table.set_bloom_filter(10.0, false);
        table.set_optimize_filters_for_memory(true);
        table
    }
}
