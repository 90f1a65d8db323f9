//! A typed store of one task: decoded values in memory above a [`Backend`], with the changes not yet committed on top.
//!
//! Values live decoded in slots, bounded in bytes, so that the backend is off the hot path for active keys. A change makes
//! its slot dirty: dirty slots are the overlay. Committing encodes each dirty value once, whatever number of records touched it; a
//! rollback drops the dirty slots, and the next look-up finds the backend's committed value again. So no second copy of a
//! value is ever kept, and what the backend holds is always the committed view.
//!
//! Each kept value carries its [`Marks`]: under at-least-once they tell a replayed record from a new one; under exactly-once a replayed
//! record is a broken invariant.

use std::any::Any;
use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{Backend, BackendError, Result, StorePartition};
use crate::codec;
pub use crate::kept::{MAX_INPUTS, Mark, Marks, decode_kept, decode_marks, encode_kept, keep_encoded, split_kept};

/// A value that a store can keep.
pub trait Value: Serialize + DeserializeOwned + Default + Send + 'static {
    /// Bytes it owns on the heap, roughly: the cache is bounded by them.
    fn heap_bytes(&self) -> usize;
}

impl Value for u64 {
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Value for String {
    fn heap_bytes(&self) -> usize {
        self.capacity()
    }
}

#[derive(Debug)]
struct Slot<V> {
    key: Box<[u8]>,
    marks: Marks,
    value: Option<V>,
    /// What it was last counted as.
    bytes: u32,
    dirty: bool,
    used: bool,
}

/// What a slot costs beside its key and its value's heap: itself, its entry in the index, which is never less than 7/16 full, and what
/// the allocator adds to the key.
const fn slot_overhead<V>() -> usize {
    size_of::<Option<Slot<V>>>() + (size_of::<u32>() + 1) * 16 / 7 + 16
}

/// How a store is set up.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Bytes of decoded values to keep, beyond what is dirty.
    pub cache_bytes: usize,
    /// True under exactly-once: a record that a value includes already is then a broken invariant.
    pub exactly_once: bool,
    /// Seeds the index's hash, so that nobody can choose keys that collide.
    pub hash_seed: u64,
}

/// Counters of a store since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Keys asked for that were in memory.
    pub hits: u64,
    /// Keys asked for that had to be read from the backend.
    pub misses: u64,
    /// Slots given up to stay within the bound.
    pub evicted: u64,
    /// Records skipped because the value included them already (at-least-once).
    pub replayed: u64,
}

/// The typed store of one task's partition. See the module's header.
#[derive(Debug)]
pub struct Store<V> {
    partition: StorePartition,
    backend: Arc<dyn Backend>,
    options: StoreOptions,
    /// Numbers of slots by the hash of their key, which only the slot holds.
    index: HashTable<u32>,
    hasher: FixedState,
    slots: Vec<Option<Slot<V>>>,
    free: Vec<u32>,
    dirty: Vec<u32>,
    /// See [`AnyStore::cleared`].
    cleared: BTreeMap<Box<[u8]>, u64>,
    bytes: usize,
    hand: usize,
    counters: StoreCounters,
    scratch: Vec<u8>,
}

/// The key of a filled slot.
fn key_of<V>(slots: &[Option<Slot<V>>], at: u32) -> &[u8] {
    &slots[at as usize].as_ref().expect("invariant: indexed slots are filled").key
}

impl<V: Value> Store<V> {
    /// A store above a partition that the backend has open.
    #[must_use]
    pub fn new(partition: StorePartition, backend: Arc<dyn Backend>, options: StoreOptions) -> Self {
        Self {
            partition,
            backend,
            index: HashTable::new(),
            hasher: FixedState::with_seed(options.hash_seed),
            options,
            slots: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            cleared: BTreeMap::new(),
            bytes: 0,
            hand: 0,
            counters: StoreCounters::default(),
            scratch: Vec::new(),
        }
    }

    /// Brings the keys into memory with one read of the backend for all that are missing. Whoever processes a batch calls it first:
    /// nothing after it waits.
    ///
    /// # Errors
    /// The backend's; a value that does not decode is [`BackendError::Corrupt`], one of another format version
    /// [`BackendError::Unusable`].
    pub fn prefetch<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) -> Result<()> {
        let mut missing: Vec<&[u8]> = Vec::new();
        for key in keys {
            match self.place(key) {
                Some(at) => {
                    self.counters.hits += 1;
                    self.slot_mut(at).used = true;
                }
                None => missing.push(key),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        missing.dedup();
        self.counters.misses += missing.len() as u64;
        let mut found: Vec<std::result::Result<Option<(Marks, V)>, codec::CodecError>> = Vec::new();
        found.resize_with(missing.len(), || Ok(None));
        self.backend.multi_get(&self.partition, &missing, &mut |at, bytes| {
            found[at] = bytes.map(decode_kept).transpose();
        })?;
        for (key, kept) in missing.into_iter().zip(found) {
            let kept = kept.map_err(|why| match why {
                // Another program's data is not damage: it must not be dropped.
                codec::CodecError::UnknownVersion(_) => BackendError::Unusable(format!("{}: {why}", self.partition)),
                why => BackendError::Corrupt {
                    partition: self.partition.clone(),
                    what: format!("a kept value does not decode: {why}"),
                },
            })?;
            let (mut marks, value) = kept.map_or((Marks::default(), None), |(marks, value)| (marks, Some(value)));
            if let Some(&lead_next) = self.cleared.get(key) {
                marks.0[0] = marks.0[0].max(lead_next);
            }
            self.insert(key, marks, value);
        }
        Ok(())
    }

    fn insert(&mut self, key: &[u8], marks: Marks, value: Option<V>) {
        let mut slot = Slot { key: key.into(), marks, value, bytes: 0, dirty: false, used: true };
        slot.bytes = Self::cost(&slot);
        self.bytes += slot.bytes as usize;
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(slot);
                at
            }
            None => {
                self.slots.push(Some(slot));
                u32::try_from(self.slots.len() - 1).expect("invariant: fewer than 2^32 keys in memory")
            }
        };
        let Self { index, slots, hasher, .. } = self;
        index.insert_unique(hasher.hash_one(key), at, |&at| hasher.hash_one(key_of(slots, at)));
    }

    fn cost(slot: &Slot<V>) -> u32 {
        let bytes = slot.key.len() + slot.value.as_ref().map_or(0, Value::heap_bytes) + slot_overhead::<V>();
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// The slot of a key that is in memory.
    fn place(&self, key: &[u8]) -> Option<u32> {
        self.index.find(self.hasher.hash_one(key), |&at| key_of(&self.slots, at) == key).copied()
    }

    fn slot(&self, at: u32) -> &Slot<V> {
        self.slots[at as usize].as_ref().expect("invariant: indexed slots are filled")
    }

    fn slot_mut(&mut self, at: u32) -> &mut Slot<V> {
        self.slots[at as usize].as_mut().expect("invariant: indexed slots are filled")
    }

    fn find(&self, key: &[u8]) -> u32 {
        self.place(key).expect("a key must be prefetched before it is read")
    }

    /// The value of a prefetched key, uncommitted changes included.
    ///
    /// # Panics
    /// Where the key was not prefetched: a fault of the processor.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        self.slot(self.find(key)).value.as_ref()
    }

    /// The value of a prefetched key, to be changed by one record: none where the value includes that record already, so that the record is
    /// to be skipped whole (only after a crash under at-least-once). An absent value begins as the default.
    ///
    /// # Panics
    /// Where the key was not prefetched, or where a value is ahead of its input under exactly-once (I2 would be broken).
    pub fn update(&mut self, key: &[u8], by: Mark) -> Option<&mut V> {
        self.change(key, by).map(|value| value.get_or_insert_default())
    }

    /// Forgets a prefetched key's value: the changelog gets a tombstone. False where the value includes that record already.
    ///
    /// # Panics
    /// As [`Self::update`].
    pub fn remove(&mut self, key: &[u8], by: Mark) -> bool {
        if self.change(key, by).map(|value| *value = None).is_none() {
            return false;
        }
        // The backend has no marks for an absent key either, and what a key holds next must depend neither on what is cached nor on whether a
        // commit came in between (I6).
        let at = self.find(key);
        self.slot_mut(at).marks = Marks::default();
        true
    }

    fn change(&mut self, key: &[u8], by: Mark) -> Option<&mut Option<V>> {
        let at = self.find(key);
        let exactly_once = self.options.exactly_once;
        let slot = self.slots[at as usize].as_mut().expect("invariant: indexed slots are filled");
        if slot.marks.include(by) {
            assert!(!exactly_once, "a value of {} is ahead of its input: I2 is broken", self.partition);
            self.counters.replayed += 1;
            return None;
        }
        slot.marks.advance(by);
        slot.used = true;
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(at);
        }
        Some(&mut slot.value)
    }

    /// True where the value of a prefetched key includes this record already.
    #[must_use]
    pub fn includes(&self, key: &[u8], record: Mark) -> bool {
        self.slot(self.find(key)).marks.include(record)
    }
}

/// Takes a changed key and its encoded value, none for a tombstone.
pub type EachChange<'a> = dyn FnMut(&[u8], Option<&[u8]>) + 'a;

/// What the engine asks of a store, whatever its values are.
pub trait AnyStore: Send {
    /// Which partition of which store.
    fn partition(&self) -> &StorePartition;

    /// Calls `each` with every changed key and its encoded value, none for a tombstone, in the order of first change. Each value is
    /// encoded here, once.
    fn encode_changes(&mut self, each: &mut EachChange<'_>);

    /// How many keys are changed and not committed.
    fn changed(&self) -> usize;

    /// The changes are committed and the backend has them: they are the committed view now. Also evicts down to the bound.
    fn settle(&mut self);

    /// The changes are void.
    fn rollback(&mut self);

    /// Forgets everything in memory: the backend was changed underneath.
    fn reset(&mut self);

    /// A replay (at-least-once): a change that is still to come clears this key once the lead input stands at `lead_next`, and may have
    /// done so already in an earlier life, so that its value does not tell what was processed before. Everything below counts as included.
    fn cleared(&mut self, key: &[u8], lead_next: u64);

    /// Bytes in memory.
    fn bytes(&self) -> usize;

    /// Counters since they were last taken.
    fn take_counters(&mut self) -> StoreCounters;

    /// For the typed view.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<V: Value> AnyStore for Store<V> {
    fn partition(&self) -> &StorePartition {
        &self.partition
    }

    fn encode_changes(&mut self, each: &mut EachChange<'_>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for &at in &self.dirty {
            let slot = self.slots[at as usize].as_mut().expect("invariant: dirty slots are filled");
            match &slot.value {
                Some(value) => {
                    scratch.clear();
                    encode_kept(&slot.marks, value, &mut scratch);
                    each(&slot.key, Some(&scratch));
                }
                None => each(&slot.key, None),
            }
            let bytes = Self::cost(slot);
            self.bytes = self.bytes + bytes as usize - slot.bytes as usize;
            slot.bytes = bytes;
        }
        self.scratch = scratch;
    }

    fn changed(&self) -> usize {
        self.dirty.len()
    }

    fn settle(&mut self) {
        for at in std::mem::take(&mut self.dirty) {
            self.slot_mut(at).dirty = false;
        }
        self.evict();
    }

    fn rollback(&mut self) {
        for at in std::mem::take(&mut self.dirty) {
            self.release(at);
        }
    }

    fn reset(&mut self) {
        self.index.clear();
        self.slots.clear();
        self.free.clear();
        self.dirty.clear();
        self.cleared.clear();
        self.bytes = 0;
        self.hand = 0;
    }

    fn cleared(&mut self, key: &[u8], lead_next: u64) {
        let next = self.cleared.entry(key.into()).or_default();
        *next = (*next).max(lead_next);
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn take_counters(&mut self) -> StoreCounters {
        std::mem::take(&mut self.counters)
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl<V: Value> Store<V> {
    fn release(&mut self, at: u32) {
        let slot = self.slots[at as usize].take().expect("invariant: only filled slots are released");
        self.bytes -= slot.bytes as usize;
        let entry = self.index.find_entry(self.hasher.hash_one(&*slot.key), |&other| other == at);
        entry.expect("invariant: filled slots are indexed").remove();
        self.free.push(at);
    }

    /// Second chance (CLOCK): a slot used since the hand last passed stays for another round.
    fn evict(&mut self) {
        let mut passed = 0;
        while self.bytes > self.options.cache_bytes && passed < 2 * self.slots.len() {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            passed += 1;
            match &mut self.slots[at] {
                Some(slot) if slot.dirty => {}
                Some(slot) if slot.used => slot.used = false,
                Some(_) => {
                    self.release(at as u32);
                    self.counters.evicted += 1;
                }
                None => {}
            }
        }
    }
}
