//! When memtables become files.
//!
//! RocksDB flushes a memtable that is full, and until all have flushed it keeps the log: every version of every value, uncompressed. With much
//! memory and few users that is most of what lies on disk, and all of it is replayed when the process starts again. So memtables
//! are flushed, together, as soon as the log has grown by a quarter of the data: log and files not yet merged then stay in
//! proportion to the data, and so does what merging costs for each change.

use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::FlushOptions;

use super::{POSITIONS_FAMILY, RocksBackend};

/// The log grows by this share of the data.
const SHARE: u64 = 4;
/// Less is not worth the files: one for each partition, each synced.
const LEAST: u64 = 4 << 20;
const LEAST_BY_PARTITION: u64 = 128 << 10;
/// More gains little and has to be replayed at the next start.
const MOST: u64 = 64 << 20;

/// When the next flush is due.
#[derive(Debug, Default)]
pub(super) struct Flushing {
    /// Bytes since the last flush.
    written: AtomicU64,
    /// From so many bytes on it is time for the next.
    due: AtomicU64,
}

impl RocksBackend {
    /// Counts what a write put into the log, and has the memtables flushed behind it where that is due.
    pub(super) fn flush_when_due(&self, bytes: u64) {
        let written = self.flushing.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Of writers that come at the same time, the one that takes the count away flushes.
        let due = written >= self.flushing.due.load(Ordering::Relaxed)
            && self.flushing.written.compare_exchange(written, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !due {
            return;
        }
        self.plan_flush();
        let names: Vec<String> = self.known().iter().map(ToString::to_string).collect();
        let names = names.iter().map(String::as_str).chain([POSITIONS_FAMILY]);
        let families: Vec<_> = names.filter_map(|name| self.db.cf_handle(name)).collect();
        let mut options = FlushOptions::default();
        options.set_wait(false);
        // What was written stands, whatever becomes of this: the next write meets what ails the disk, and RocksDB's own bounds hold.
        let _ = self.db.flush_cfs_opt(&families.iter().collect::<Vec<_>>(), &options);
    }

    /// Sets from where on the next flush is due, by the data that there is.
    pub(super) fn plan_flush(&self) {
        let known = self.known();
        let families = known.iter().filter_map(|partition| self.db.cf_handle(&partition.to_string()));
        let live = |family| self.db.property_int_value_cf(&family, "rocksdb.estimate-live-data-size").ok().flatten();
        let data: u64 = families.filter_map(live).sum();
        let least = LEAST.max(known.len() as u64 * LEAST_BY_PARTITION);
        let due = (data / SHARE).clamp(least, MOST.max(least));
        self.flushing.due.store(due, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use tempfile::TempDir;

    use super::super::{RocksBackend, RocksOptions};
    use super::{LEAST, SHARE};
    use crate::backend::Backend;
    use crate::conformance::{all, partition, positions, set_of};

    /// Bytes of disk blocks that files take, what is laid out ahead included; all, or the logs.
    fn on_disk(folder: &Path, logs_only: bool) -> u64 {
        let files = fs::read_dir(folder).unwrap().flatten();
        let counted = files.filter(|file| !logs_only || file.path().extension().is_some_and(|extension| extension == "log"));
        // One that goes while we look takes nothing.
        counted.map(|file| file.metadata().map_or(0, |of| of.blocks() * 512)).sum()
    }

    /// Values of no pattern, so that no file is small because it was compressed.
    fn value(round: u64, key: u64) -> Vec<u8> {
        (0..40).flat_map(|word| super::super::hash(&[round, key, word].map(u64::to_be_bytes).concat()).to_be_bytes()).collect()
    }

    #[test]
    fn the_log_stays_in_proportion_to_the_data_and_nothing_is_lost_by_it() {
        const KEYS: u64 = 1_000;
        let root = TempDir::new().unwrap();
        let here = partition(0);
        // Memory for far more than all that is written: no memtable is ever full.
        let open = || RocksBackend::open(root.path(), RocksOptions { memory_bytes: 1 << 30, ..RocksOptions::default() }).unwrap();
        let backend = open();
        backend.open(&here).unwrap();
        assert!(on_disk(root.path(), false) < 1 << 20, "space is laid out ahead of what is written");
        let keys: Vec<[u8; 8]> = (0..KEYS).map(u64::to_be_bytes).collect();
        let rounds = 24 * LEAST / (KEYS * 328) / 4;
        for round in 1..=rounds {
            let values: Vec<Vec<u8>> = (0..KEYS).map(|key| value(round, key)).collect();
            let changes: Vec<(&[u8], Option<&[u8]>)> =
                keys.iter().zip(&values).map(|(key, value)| (key.as_slice(), Some(value.as_slice()))).collect();
            backend.write(&set_of(&here, &changes, Some(round))).unwrap();
        }
        // Six times the least was written. The flush is done behind the writer's back.
        backend.db.wait_for_compact(&rocksdb::WaitForCompactOptions::default()).unwrap();
        let logs = on_disk(root.path(), true);
        assert!(logs < LEAST * 3 / 2, "the log takes {logs} bytes");
        let check = |backend: &RocksBackend| {
            let rows = all(backend, &here);
            assert_eq!(rows.len() as u64, KEYS);
            for (key, kept) in rows {
                assert_eq!(kept, value(rounds, u64::from_be_bytes(key.try_into().unwrap())));
            }
            assert_eq!(backend.positions(&here).unwrap(), Some(positions(rounds)));
        };
        check(&backend);
        drop(backend);
        check(&open());
    }

    #[test]
    fn the_more_data_the_longer_the_log() {
        let root = TempDir::new().unwrap();
        let backend = RocksBackend::open(root.path(), RocksOptions::default()).unwrap();
        let here = partition(0);
        backend.open(&here).unwrap();
        let due = || backend.flushing.due.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(due(), LEAST);
        let data = 6 * SHARE * LEAST / 4;
        let values: Vec<_> = (0..data / 328).map(|key| (key.to_be_bytes(), value(0, key))).collect();
        let changes: Vec<(&[u8], Option<&[u8]>)> =
            values.iter().map(|(key, value)| (key.as_slice(), Some(value.as_slice()))).collect();
        backend.load(&set_of(&here, &changes, Some(1))).unwrap();
        backend.plan_flush();
        assert!((data / SHARE..data * 2 / SHARE).contains(&due()), "{} bytes of log for {data} of data", due());
    }
}
