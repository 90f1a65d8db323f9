//! Looking into a store from outside, also while a process has it: read only, nothing is repaired, created or dropped.

use std::path::Path;

use rocksdb::{ColumnFamilyDescriptor, DB, IteratorMode, Options, ReadOptions, SliceTransform};

use super::{HASH_BYTES, POSITIONS_FAMILY, parse};
use crate::backend::{BackendError, Positions, Result, StorePartition};
use crate::codec;

fn unusable(path: &Path) -> impl Fn(&dyn std::fmt::Display) -> BackendError {
    let path = path.display().to_string();
    move |why| BackendError::Unusable(format!("{path}: {why}"))
}

/// The positions of every partition, as they were when this was called.
///
/// # Errors
/// [`BackendError::Unusable`] where there is no store, or it cannot be read.
pub fn positions(path: &Path) -> Result<Vec<(StorePartition, Positions)>> {
    let failed = unusable(path);
    let db = DB::open_for_read_only(&Options::default(), path, false).map_err(|why| failed(&why))?;
    let mut all = Vec::new();
    for item in db.iterator(IteratorMode::Start) {
        let (name, bytes) = item.map_err(|why| failed(&why))?;
        let Some(partition) = parse(&String::from_utf8_lossy(&name)) else { continue };
        all.push((partition, codec::decode(&bytes).map_err(|why| failed(&why))?));
    }
    Ok(all)
}

/// Up to `limit` keys, of any partitions.
///
/// # Errors
/// As [`positions`].
pub fn keys(path: &Path, limit: usize) -> Result<Vec<Vec<u8>>> {
    let failed = unusable(path);
    let names = DB::list_cf(&Options::default(), path).map_err(|why| failed(&why))?;
    let families = names.iter().map(|name| {
        let mut options = Options::default();
        if name != POSITIONS_FAMILY {
            options.set_prefix_extractor(SliceTransform::create_fixed_prefix(HASH_BYTES));
        }
        ColumnFamilyDescriptor::new(name, options)
    });
    let db = DB::open_cf_descriptors_read_only(&Options::default(), path, families, false).map_err(|why| failed(&why))?;
    let mut keys = Vec::new();
    for name in names.iter().filter(|name| *name != POSITIONS_FAMILY) {
        let Some(family) = db.cf_handle(name) else { continue };
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        for item in db.iterator_cf_opt(family, options, IteratorMode::Start).take(limit - keys.len()) {
            let (key, _) = item.map_err(|why| failed(&why))?;
            keys.push(key.get(HASH_BYTES..).unwrap_or_default().to_vec());
        }
    }
    Ok(keys)
}
