//! What a failed write or opening means, and what it leaves behind: poison for this life of the store, a note for the next.

use std::io::Write as _;
use std::path::Path;

use rocksdb::ErrorKind;

use super::{POSITIONS_FAMILY, RocksBackend, parse};
use crate::backend::{Backend as _, BackendError, Result, StorePartition};

const NOTE: &str = "DAMAGED";

impl RocksBackend {
    pub(super) fn refuse_if_poisoned(&self) -> Result<()> {
        self.poison.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// What a failed write means, for this one and for all to come.
    pub(super) fn failed(&self, error: &rocksdb::Error) -> BackendError {
        let what = format!("{}: {error}", self.path.display());
        let first = match error.kind() {
            _ if is_full(error.as_ref()) => BackendError::Paused(format!("the disk is full: {what}")),
            ErrorKind::Corruption => match self.owner_of_file_in(error.as_ref()) {
                Some(owner) => {
                    self.note_damage(&owner);
                    BackendError::Paused(format!("{owner} is damaged and will be restored: {what}"))
                }
                None => BackendError::Write(what),
            },
            _ => BackendError::Write(what),
        };
        self.poison.get_or_init(|| first).clone()
    }

    /// RocksDB names the damaged file in its message, and knows whose column family each file is.
    fn owner_of_file_in(&self, message: &str) -> Option<String> {
        let files = self.db.live_files().ok()?;
        let named = files.into_iter().find(|file| message.contains(file.name.trim_start_matches('/')))?;
        Some(named.column_family_name)
    }

    /// Without the note, each start would open the store, meet the same block in compaction and stop again.
    fn note_damage(&self, family: &str) {
        let note = std::fs::OpenOptions::new().create(true).append(true).open(self.path.join(NOTE));
        // Where not even this can be written, the error itself is all that's left, and it is on its way to the caller.
        let _ = note.and_then(|mut note| writeln!(note, "{family}").and_then(|()| note.sync_all()));
    }

    /// Drops what an earlier life found damaged, so that it is restored from its changelog, and tells what that was. Without its positions
    /// the whole store is of no use.
    pub(super) fn drop_damaged(&self) -> Result<Vec<StorePartition>> {
        let path = self.path.join(NOTE);
        let Ok(names) = std::fs::read_to_string(&path) else { return Ok(Vec::new()) };
        if names.lines().any(|name| name == POSITIONS_FAMILY) {
            return Err(BackendError::Unusable(format!("{}: the positions are damaged", self.path.display())));
        }
        let mut damaged: Vec<StorePartition> = names.lines().filter_map(parse).collect();
        damaged.sort();
        damaged.dedup();
        damaged.iter().try_for_each(|partition| self.drop_partition(partition))?;
        std::fs::remove_file(&path).map_err(|error| refused_file(&path, &error))?;
        Ok(damaged)
    }
}

/// RocksDB tells a full disk by its words only.
fn is_full(message: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"].iter().any(|words| message.contains(words))
}

/// What a failed opening means: whether the content is to blame, the system, or the disk's size.
pub(super) fn refused(path: &Path, error: &rocksdb::Error) -> BackendError {
    const SYSTEM: [&str; 5] =
        ["While lock file", "lock hold by current process", "Permission denied", "Too many open files", "Read-only file system"];
    let (what, message) = (format!("{}: {error}", path.display()), error.as_ref());
    if is_full(message) {
        BackendError::Paused(format!("the disk is full: {what}"))
    } else if SYSTEM.iter().any(|words| message.contains(words)) {
        BackendError::Denied(what)
    } else {
        BackendError::Unusable(what)
    }
}

/// What the failure of a file operation of our own means.
pub(super) fn refused_file(path: &Path, error: &std::io::Error) -> BackendError {
    let what = format!("{}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            BackendError::Paused(format!("the disk is full: {what}"))
        }
        _ => BackendError::Denied(what),
    }
}
