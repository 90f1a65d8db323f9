//! A store whose reads can be made to fail.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex};

use state::backend::{Backend, Peeked, Positions, Result, StorePartition};
use state::memory::MemoryBackend;

/// What the store does when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mood {
    Well,
    Failing,
    Panicking,
    Damaged,
    Emptied,
}

/// Begins the ids of users whose state is far away: it is not at hand, and whoever reads it waits as long as the test likes.
pub(super) const FAR: &str = "far-";

/// A store in memory that can be made to fail at reads.
#[derive(Debug, Default)]
pub(super) struct Moody {
    pub(super) inner: MemoryBackend,
    mood: AtomicU8,
    /// Whether what is far may come, and how many wait for it.
    far: Mutex<(bool, usize)>,
    comes: Condvar,
}

impl Moody {
    /// How many wait for what is far.
    pub(super) fn waiting(&self) -> usize {
        self.far.lock().expect("nobody panicked").1
    }

    /// What is far comes.
    pub(super) fn bring(&self) {
        self.far.lock().expect("nobody panicked").0 = true;
        self.comes.notify_all();
    }

    fn wait(&self) {
        let mut far = self.far.lock().expect("nobody panicked");
        far.1 += 1;
        let mut far = self.comes.wait_while(far, |(comes, _)| !*comes).expect("nobody panicked");
        far.1 -= 1;
    }

    pub(super) fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    fn inner<R>(&self, call: impl FnOnce(&MemoryBackend) -> Result<R>) -> Result<R> {
        call(&self.inner)
    }

    fn is(&self, mood: Mood) -> bool {
        self.mood.load(Ordering::SeqCst) == mood as u8
    }
}

impl Backend for Moody {
    state::pass_on!(
        inner: open, multi_get, write, load, revive, drop_partition, scan, partitions, size, compact, evict_staged
    );

    fn positions(&self, partition: &StorePartition) -> Result<Option<Positions>> {
        if self.is(Mood::Emptied) { Ok(None) } else { self.inner.positions(partition) }
    }

    fn get_from(&self, partition: &StorePartition, key: &[u8]) -> Result<Option<(Vec<u8>, Option<&'static str>)>> {
        assert!(!self.is(Mood::Panicking), "as the test asked");
        if key.starts_with(FAR.as_bytes()) {
            self.wait();
        }
        if self.is(Mood::Failing) {
            return Err(state::backend::BackendError::Unusable("secret path /var/x".into()));
        }
        if self.is(Mood::Damaged) {
            return Ok(Some((b"\x01nonsense".to_vec(), None)));
        }
        if self.is(Mood::Emptied) { Ok(None) } else { self.inner.get_from(partition, key) }
    }

    /// What is well is at hand.
    fn peek(&self, partition: &StorePartition, key: &[u8]) -> Result<Peeked> {
        let near = self.is(Mood::Well) && !key.starts_with(FAR.as_bytes());
        if near { self.inner.peek(partition, key) } else { Ok(Peeked::NotAtHand) }
    }
}
