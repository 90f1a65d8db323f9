//! Write sets on their way in: sorted by key on disk, as one batch or as one file.

use std::sync::atomic::Ordering;

use rocksdb::{IngestExternalFileOptions, SstFileWriter, WriteBatch};

use super::{RocksBackend, disk_key, hash};
use crate::backend::{PartView, Result};
use crate::codec;

/// From this size on, a load becomes a file. Below it, the file's own cost (creating, syncing, one more file to merge) is higher than
/// that of the log.
pub(super) const INGEST_FROM_BYTES: usize = 4 << 20;

/// A change with its place on disk.
type Placed<'a> = (u64, &'a [u8], Option<&'a [u8]>);

/// The part's changes in the order of disk, the last one of each key. The order is what saves RocksDB's time: neighbours share a
/// bucket's cache lines, and a file must have it.
fn in_order<'a>(part: &PartView<'a>) -> Vec<Placed<'a>> {
    let mut changes: Vec<Placed<'a>> = part.changes().map(|(key, value)| (hash(key), key, value)).collect();
    // Stable: changes of one key stay in the order made.
    changes.sort_by_key(|&(hash, key, _)| (hash, key));
    changes.dedup_by(|later, kept| {
        let same = (later.0, later.1) == (kept.0, kept.1);
        if same {
            kept.2 = later.2;
        }
        same
    });
    changes
}

impl RocksBackend {
    pub(super) fn put_changes(&self, part: &PartView<'_>, batch: &mut WriteBatch) -> Result<()> {
        let family = self.family(part.partition())?;
        let mut on_disk = Vec::new();
        for (hash, key, value) in in_order(part) {
            disk_key(hash, key, &mut on_disk);
            match value {
                Some(value) => batch.put_cf(&family, &on_disk, value),
                None => batch.delete_cf(&family, &on_disk),
            }
        }
        Ok(())
    }

    pub(super) fn put_positions(&self, part: &PartView<'_>, batch: &mut WriteBatch) {
        if let Some(positions) = part.positions() {
            let mut bytes = Vec::new();
            codec::encode(positions, &mut bytes);
            batch.put(part.partition().to_string(), bytes);
        }
    }

    /// Writes the part's changes as one file and hands it to RocksDB, which syncs it: after this they survive even the machine.
    pub(super) fn ingest(&self, part: &PartView<'_>) -> Result<()> {
        let family = self.family(part.partition())?;
        let changes = in_order(part);
        if changes.is_empty() {
            return Ok(());
        }
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join("ingest").join(format!("{number}.sst"));
        let write = || -> std::result::Result<(), rocksdb::Error> {
            let options = self.tuning.file();
            let mut file = SstFileWriter::create(&options);
            file.open(&path)?;
            let mut on_disk = Vec::new();
            for &(hash, key, value) in &changes {
                disk_key(hash, key, &mut on_disk);
                match value {
                    Some(value) => file.put(&on_disk, value)?,
                    None => file.delete(&on_disk)?,
                }
            }
            file.finish()
        };
        let hand_over = || {
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            // Nobody holds a snapshot across a restore.
            options.set_snapshot_consistency(false);
            self.db.ingest_external_file_cf_opts(&family, &options, vec![&path])
        };
        write().and_then(|()| hand_over()).map_err(|error| self.failed(&error))
    }
}
