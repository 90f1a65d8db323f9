//! A [`Backend`] that can be opened anew while others hold it: how a full disk is waited out without ending the process.
//!
//! A store whose write failed refuses all later ones (I7): what it has in memory may no longer be what is on disk. Only closing it and
//! opening it again, which reads what is on disk, makes it usable. [`Backend::revive`] does that here; until it succeeds every call says
//! [`BackendError::Paused`]. Calls under way end first: they hold the lock that reopening waits for, so what they call back (`found`, `each`)
//! must not call the backend again.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::backend::{Backend, BackendError, Peeked, Result, StorePartition};

/// Opens the backend; called again at each revival.
type Open<B> = Box<dyn Fn() -> Result<B> + Send + Sync>;

/// See the module's header.
pub struct Reopening<B> {
    open: Open<B>,
    /// The backend, or why there is none at the moment.
    current: RwLock<std::result::Result<B, String>>,
    /// Set by a call that found it paused, under the lock's read side.
    paused: AtomicBool,
}

impl<B: fmt::Debug> fmt::Debug for Reopening<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reopening").field("current", &self.current).field("paused", &self.paused).finish_non_exhaustive()
    }
}

impl<B: Backend> Reopening<B> {
    /// Opens it for the first time.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn new(open: impl Fn() -> Result<B> + Send + Sync + 'static) -> Result<Self> {
        let first = open()?;
        Ok(Self { open: Box::new(open), current: RwLock::new(Ok(first)), paused: AtomicBool::new(false) })
    }

    fn with<R>(&self, call: impl FnOnce(&B) -> Result<R>) -> Result<R> {
        // A panic under the write lock leaves a whole value behind: each change is one assignment.
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let done = match &*current {
            Ok(backend) => call(backend),
            Err(why) => Err(BackendError::Paused(why.clone())),
        };
        if matches!(done, Err(BackendError::Paused(_))) {
            self.paused.store(true, Ordering::Relaxed);
        }
        done
    }
}

impl<B: Backend> Backend for Reopening<B> {
    fn revive(&self) -> Result<()> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if !self.paused.load(Ordering::Relaxed) {
            return Ok(());
        }
        // The old one goes first: two cannot hold one folder.
        *current = Err("it is being opened again".into());
        match (self.open)() {
            Ok(backend) => {
                *current = Ok(backend);
                self.paused.store(false, Ordering::Relaxed);
                Ok(())
            }
            Err(why) => {
                *current = Err(why.to_string());
                Err(why)
            }
        }
    }

    fn peek(&self, partition: &StorePartition, key: &[u8]) -> Result<Peeked> {
        // While it is opened again the lock is held for long.
        match self.current.try_read() {
            Ok(current) => match &*current {
                Ok(backend) => backend.peek(partition, key),
                Err(_) => Ok(Peeked::NotAtHand),
            },
            Err(_) => Ok(Peeked::NotAtHand),
        }
    }

    crate::pass_on!(
        with: open, positions, get_from, multi_get, write, load, drop_partition, scan, partitions, size, compact, evict_staged
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{all, partition, set_of};
    use crate::memory::MemoryBackend;

    #[test]
    fn conforms() {
        crate::conformance::suite(|| Reopening::new(|| Ok(MemoryBackend::new())).expect("opens"));
    }

    #[test]
    fn a_full_disk_pauses_until_there_is_room_and_loses_nothing() {
        let disk = MemoryBackend::new();
        let opened = disk.clone();
        // Opened again, it refuses nothing it had refused before: the pause belongs to one life.
        let backend = Reopening::new(move || opened.reopened()).expect("opens");
        let here = partition(0);
        backend.open(&here).expect("opened");
        backend.write(&set_of(&here, &[(b"a", Some(b"1"))], Some(1))).expect("written");
        disk.limit(Some(2));
        let refused = backend.write(&set_of(&here, &[(b"b", Some(b"2"))], Some(2)));
        assert!(matches!(refused, Err(BackendError::Paused(_))), "{refused:?}");
        assert_eq!(backend.get(&here, b"a"), Ok(Some(b"1".to_vec())), "reads go on");
        assert!(matches!(backend.revive(), Err(BackendError::Paused(_))), "still full");
        assert!(matches!(backend.get(&here, b"a"), Err(BackendError::Paused(_))), "nothing is open");
        disk.limit(None);
        backend.revive().expect("there is room");
        assert_eq!(all(&backend, &here), [(b"a".to_vec(), b"1".to_vec())]);
        backend.write(&set_of(&here, &[(b"b", Some(b"2"))], Some(2))).expect("written");
        assert_eq!(backend.get(&here, b"b"), Ok(Some(b"2".to_vec())));
    }

    #[test]
    fn one_that_is_not_paused_is_not_opened_again() {
        let lives = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = lives.clone();
        let open = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(MemoryBackend::new())
        };
        let backend = Reopening::new(open).expect("opens");
        backend.revive().expect("nothing to do");
        assert_eq!(lives.load(Ordering::Relaxed), 1);
    }
}
