//! Opening the state store, at the start and again after a full disk.
//!
//! A store that refuses to open is dropped: the changelog has everything. One that the system keeps from us (permissions, another
//! process) is left alone, and a full disk is waited for: nothing is wrong with what is in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use state::backend::{Backend, BackendError};
use state::reopening::Reopening;
use state::rocks::{RocksBackend, RocksOptions};
use topology::metrics::Metrics;
use tracing::{error, warn};

use super::InstanceError;

/// Between two attempts to open a store on a full disk.
const WAIT: Duration = Duration::from_millis(500);

/// Opens the store in this folder, waiting while the disk is full; none where `stopped` came first.
pub(super) fn open(
    folder: &Path,
    options: RocksOptions,
    metrics: &Arc<Metrics>,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Arc<dyn Backend>>, InstanceError> {
    let mut said = false;
    while !stopped() {
        let (path, metrics) = (folder.join("rocksdb"), Arc::clone(metrics));
        match Reopening::new(move || open_or_drop(&path, options, &metrics)) {
            Ok(backend) => return Ok(Some(Arc::new(backend))),
            Err(BackendError::Paused(why)) => {
                if !said {
                    error!(why, "the state store cannot be opened for now: waiting");
                    said = true;
                }
                std::thread::park_timeout(WAIT);
            }
            Err(why) => return Err(InstanceError(format!("{why}. Check STATE_DIR and its permissions"))),
        }
    }
    Ok(None)
}

fn open_or_drop(path: &PathBuf, options: RocksOptions, metrics: &Metrics) -> Result<RocksBackend, BackendError> {
    let backend = match RocksBackend::open(path, options) {
        Err(BackendError::Unusable(why)) => {
            warn!(path = %path.display(), why, "the store cannot be opened: it is dropped and restored from its changelog");
            metrics.stores_rebuilt_total.fetch_add(1, Ordering::Relaxed);
            let failed = |why: std::io::Error| BackendError::Denied(format!("cannot remove {}: {why}", path.display()));
            std::fs::remove_dir_all(path).map_err(failed)?;
            RocksBackend::open(path, options)?
        }
        other => other?,
    };
    for partition in backend.dropped() {
        warn!(store = %partition, "a store was found damaged: it is dropped and restored from its changelog");
        metrics.stores_rebuilt_total.fetch_add(1, Ordering::Relaxed);
    }
    Ok(backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: &dyn Fn() -> bool = &|| false;

    #[test]
    fn a_store_that_rocksdb_refuses_is_dropped_and_counted_and_one_held_by_another_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (options, metrics) = (RocksOptions { memory_bytes: 16 << 20, ..RocksOptions::default() }, Arc::default());
        let first = open(folder.path(), options, &metrics, NEVER).expect("opens").expect("was not stopped");
        let partition = state::conformance::partition(0);
        first.open(&partition).expect("opens");
        let refused = open(folder.path(), options, &metrics, NEVER).expect_err("it is held").to_string();
        assert!(refused.contains("out of reach") && refused.contains("STATE_DIR"), "{refused}");
        drop(first);
        assert_eq!(metrics.stores_rebuilt_total.load(Ordering::Relaxed), 0);
        let again = open(folder.path(), options, &metrics, NEVER).expect("opens").expect("was not stopped");
        assert_eq!(again.partitions(), Ok(vec![partition]), "nothing was dropped");
        drop(again);
        std::fs::write(folder.path().join("rocksdb/CURRENT"), "rubbish").expect("written");
        let fresh = open(folder.path(), options, &metrics, NEVER).expect("opens").expect("was not stopped");
        assert_eq!(fresh.partitions(), Ok(Vec::new()));
        assert_eq!(metrics.stores_rebuilt_total.load(Ordering::Relaxed), 1);
    }
}
