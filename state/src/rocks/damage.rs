//! What a failed write leaves behind: poison for this process, a note for the next.

use std::io::Write as _;

use rocksdb::ErrorKind;

use super::{RocksBackend, parse};
use crate::backend::{Backend as _, BackendError, Result, StorePartition};

const NOTE: &str = "DAMAGED";

impl RocksBackend {
    pub(super) fn refuse_if_poisoned(&self) -> Result<()> {
        self.poison.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// What a failed write means, for this one and for all to come.
    pub(super) fn failed(&self, error: &rocksdb::Error) -> BackendError {
        let mut first = BackendError::Write(format!("{}: {error}", self.path.display()));
        if error.kind() == ErrorKind::Corruption
            && let Some(partition) = self.owner_of_file_in(error.as_ref())
        {
            self.note_damage(&partition);
            first = BackendError::Write(format!("{}: {partition} is damaged and will be restored: {error}", self.path.display()));
        }
        self.poison.get_or_init(|| first).clone()
    }

    /// RocksDB names the damaged file in its message, and knows whose each file is.
    fn owner_of_file_in(&self, message: &str) -> Option<StorePartition> {
        let files = self.db.live_files().ok()?;
        let named = files.iter().find(|file| message.contains(file.name.trim_start_matches('/')))?;
        parse(&named.column_family_name)
    }

    /// Without the note, each start would open the store, meet the same block in compaction and stop again.
    fn note_damage(&self, partition: &StorePartition) {
        let note = std::fs::OpenOptions::new().create(true).append(true).open(self.path.join(NOTE));
        // Where not even this can be written, the error itself is all that's left, and it is on its way to the caller.
        let _ = note.and_then(|mut note| writeln!(note, "{partition}").and_then(|()| note.sync_all()));
    }

    /// Drops what an earlier run found damaged, so that it is restored from its changelog.
    pub(super) fn drop_damaged(&self) -> Result<()> {
        let path = self.path.join(NOTE);
        let Ok(names) = std::fs::read_to_string(&path) else { return Ok(()) };
        names.lines().filter_map(parse).try_for_each(|partition| self.drop_partition(&partition))?;
        std::fs::remove_file(&path).map_err(|error| BackendError::Unusable(format!("{}: {error}", path.display())))
    }
}
